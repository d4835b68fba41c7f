"""The call's and the attempt's tables of moves, under any sequence of events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from careflow.core import attempts, calls
from careflow.core.attempts import Attempt, AttemptState, Disposition
from careflow.core.calls import Call, CallState, Outcome
from careflow.errors import IllegalMove

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
ATTEMPT = Attempt(
    id="a",
    hospital_id="h",
    round_id="r",
    call_id="c",
    patient_id="p",
    number=1,
    phone="+12125550101",
    script="noon",
    stream_token="t",
    intended_at=NOW,
    not_after=NOW,
)
CALL = Call(id="c", hospital_id="h", round_id="r", patient_id="p", due_at=NOW, not_after=NOW, created_at=NOW)


@given(st.lists(st.sampled_from(AttemptState), max_size=12))
def test_an_attempt_only_moves_forward_and_its_end_stands(events: list[AttemptState]) -> None:
    order = list(AttemptState)
    attempt, disposition = ATTEMPT, None
    for step, to in enumerate(events):
        before = attempt
        try:
            if to is AttemptState.ENDED:
                attempt = attempts.end(attempt, NOW, list(Disposition)[step % len(Disposition)])
            else:
                attempt = attempts.move(attempt, to, NOW + timedelta(seconds=step))
        except IllegalMove:
            assert attempt == before
            continue
        assert order.index(attempt.state) > order.index(before.state)
        if disposition is None:
            disposition = attempt.disposition
        assert attempt.disposition == disposition


@given(st.lists(st.tuples(st.sampled_from(CallState), st.sampled_from(Outcome)), max_size=12))
def test_a_call_has_an_outcome_exactly_when_it_has_ended_and_keeps_it(
    events: list[tuple[CallState, Outcome]],
) -> None:
    call, first = CALL, None
    for to, outcome in events:
        try:
            match to:
                case CallState.ENDED:
                    call = calls.end(call, NOW, outcome)
                case CallState.WAITING:
                    call = calls.wait_again(call, NOW)
                case CallState.CALLING:
                    call = calls.move(call, to)
        except IllegalMove:
            continue
        if first is None:
            first = call.outcome
        assert call.outcome == first
        assert (call.outcome is not None) == (call.state is CallState.ENDED)


@pytest.mark.parametrize(("start", "to"), list(product(AttemptState, AttemptState)))
def test_every_move_outside_the_attempt_s_table_is_refused_by_name(
    start: AttemptState, to: AttemptState
) -> None:
    attempt = Attempt(**{field: getattr(ATTEMPT, field) for field in ATTEMPT.__slots__} | {"state": start})
    if to in attempts.MOVES[start]:
        assert attempts.move(attempt, to, NOW).state is to
    else:
        with pytest.raises(IllegalMove, match=f"{start} -> {to}"):
            attempts.move(attempt, to, NOW)
