"""The pure decision: every position a crash can leave a call in, and the step it leads to."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any

import pytest

from careflow.core import attempts
from careflow.core.attempts import Attempt, Disposition, Ending
from careflow.core.calls import Call, CallState, Outcome
from careflow.core.next_step import (
    LINE_BUSY_WAIT,
    Follow,
    Later,
    Order,
    after_refusal,
    next_step,
    taken,
)
from careflow.core.retry import NEVER_CREATED, Finish, RetryPolicy, TryAgain
from pulse_world import EIGHT_FIFTEEN, WINDOW_END, patient

CALL = Call(
    id="c",
    hospital_id="default",
    round_id="r",
    patient_id="p00001",
    due_at=EIGHT_FIFTEEN,
    not_after=WINDOW_END,
    state=CallState.CALLING,
    created_at=EIGHT_FIFTEEN,
)
DIALLING = replace(CALL, attempts=1, attempt_id="c-1")
ATTEMPT = Attempt(
    id="c-1",
    hospital_id="default",
    round_id="r",
    call_id="c",
    patient_id="p00001",
    number=1,
    phone="+12125550101",
    script="morning",
    stream_token="t",
    intended_at=EIGHT_FIFTEEN,
    not_after=WINDOW_END,
)
UNANSWERED = attempts.end(ATTEMPT, EIGHT_FIFTEEN, Disposition.NO_ANSWER)


def step(
    call: Call,
    attempt: Attempt | None = None,
    now: datetime = EIGHT_FIFTEEN,
    barred: bool = False,
    **who: Any,
) -> Any:
    return next_step(call, attempt, patient(1, **who), do_not_call=barred, now=now, policy=RetryPolicy())


def test_a_call_without_an_attempt_is_ordered_under_a_new_id() -> None:
    assert step(CALL) == Order(call=DIALLING, attempt_id="c-1", number=1)


def test_an_attempt_that_may_never_have_arrived_is_ordered_under_the_same_id() -> None:
    assert step(DIALLING) == Order(call=DIALLING, attempt_id="c-1", number=1)


@pytest.mark.parametrize("now", [EIGHT_FIFTEEN, WINDOW_END + timedelta(hours=9)])
def test_an_attempt_in_flight_is_followed_whatever_the_hour_and_the_bar(now: datetime) -> None:
    assert step(DIALLING, ATTEMPT, now, barred=True) == Follow(attempt_id="c-1", number=1)


def test_an_ended_attempt_is_applied_and_given_up() -> None:
    again = step(DIALLING, UNANSWERED)
    assert isinstance(again, TryAgain)
    after = taken(DIALLING, again, UNANSWERED, EIGHT_FIFTEEN)
    assert (after.state, after.counted, after.attempt_id) == (CallState.WAITING, 1, None)
    assert after.due_at == EIGHT_FIFTEEN + timedelta(minutes=15)


def test_an_attempt_the_provider_never_created_is_not_counted() -> None:
    lost = attempts.end(ATTEMPT, EIGHT_FIFTEEN, Disposition.FAILED, failure=NEVER_CREATED)
    assert taken(DIALLING, step(DIALLING, lost), lost, EIGHT_FIFTEEN).counted == 0


def test_the_last_attempt_counts_in_the_ended_call_too() -> None:
    done = attempts.end(ATTEMPT, EIGHT_FIFTEEN, Disposition.ANSWERED, ending=Ending.COMPLETE)
    after = taken(DIALLING, step(DIALLING, done), done, EIGHT_FIFTEEN)
    assert (after.outcome, after.counted, after.attempt_id) == (Outcome.COMPLETED, 1, "c-1")


def test_waiting_without_an_attempt_spent_keeps_the_ordered_id() -> None:
    later = Later(at=EIGHT_FIFTEEN + LINE_BUSY_WAIT, reason="line-busy")
    after = taken(DIALLING, later, None, EIGHT_FIFTEEN)
    assert (after.attempt_id, after.counted, after.lease_owner) == ("c-1", 0, None)


@pytest.mark.parametrize("call", [CALL, DIALLING])
def test_after_the_window_nothing_is_ordered(call: Call) -> None:
    end = step(call, now=WINDOW_END)
    assert (end.outcome, end.reason) == (Outcome.UNREACHABLE, "window-over")


@pytest.mark.parametrize(
    ("who", "barred", "reason"),
    [
        ({"deceased": True}, False, "deceased"),
        ({"consent": False}, False, "no-consent"),
        ({}, True, "opted-out"),
        ({"calling_until": time(8, 15)}, False, "outside-calling-hours"),
    ],
)
def test_who_may_not_be_phoned_now_is_skipped_even_when_planned(
    who: dict[str, Any], barred: bool, reason: str
) -> None:
    end = step(CALL, barred=barred, **who)
    assert (end.outcome, end.reason) == (Outcome.SKIPPED, reason)


def test_before_the_calling_hours_the_call_waits_for_their_opening() -> None:
    opening = EIGHT_FIFTEEN + timedelta(minutes=45)
    assert step(CALL, calling_from=time(9)) == Later(at=opening, reason="outside-calling-hours")


def test_calling_hours_that_ended_after_a_try_leave_the_patient_unreachable() -> None:
    end = step(replace(CALL, attempts=1, counted=1), calling_until=time(8, 15))
    assert (end.outcome, end.alert) == (Outcome.UNREACHABLE, "unreachable")


@pytest.mark.parametrize(
    ("refused", "now", "expected"),
    [
        ("line-busy", EIGHT_FIFTEEN, Later(at=EIGHT_FIFTEEN + LINE_BUSY_WAIT, reason="line-busy")),
        ("line-busy", WINDOW_END - LINE_BUSY_WAIT, Outcome.UNREACHABLE),  # no minute is left
        # the Caller's clock is behind ours: no loop without a pause
        (
            "outside-calling-hours",
            EIGHT_FIFTEEN,
            Later(at=EIGHT_FIFTEEN + LINE_BUSY_WAIT, reason="outside-calling-hours"),
        ),
        ("outside-calling-hours", WINDOW_END, Outcome.UNREACHABLE),
        ("deceased", EIGHT_FIFTEEN, Outcome.SKIPPED),
    ],
)
def test_a_refusal_waits_or_ends_the_call(refused: str, now: datetime, expected: Any) -> None:
    after = after_refusal(DIALLING, refused, patient(1), now)
    assert (after.outcome if isinstance(after, Finish) else after) == expected
