"""Invariants 2, 3, 4 over whole rounds: Pulse dies at any operation, telephones do anything, nobody is lost or called twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, time, timedelta

from hypothesis import strategies as st

from careflow.core.attempts import Attempt, Disposition, Ending
from careflow.core.calls import CallState, Outcome
from careflow.core.patients import Patient, bar
from careflow.core.retry import NEVER_CREATED
from careflow.core.slots import due_moment, within_calling_hours
from emulated import on_both_stores
from pulse_world import HOSPITAL, ROUND_ID, WINDOW_END, End, Fuse, World, patient, world

PATIENT = st.fixed_dictionaries(
    {
        "time_zone": st.sampled_from(("America/New_York", "America/Los_Angeles", "Europe/London")),
        "hours": st.sampled_from([frozenset({8}), frozenset({8, 20}), frozenset({20})]),
        "times": st.sampled_from([(), (), (time(11),), (time(9, 30), time(15))]),
        "phone": st.sampled_from(["+12125550123", "+12125550124", "+12125550125", None]),
        "consent": st.sampled_from([True, True, True, False]),
        "opted_out": st.sampled_from([False, False, False, True]),
        "paused_until": st.sampled_from([None, None, datetime(2026, 10, 16, 14, tzinfo=UTC)]),
        "calling_from": st.sampled_from([time(8), time(10, 30)]),
        "calling_until": st.sampled_from([time(21), time(8, 40), time(11)]),
    }
)
ENDS: st.SearchStrategy[End | None] = st.sampled_from(
    [
        (Disposition.ANSWERED, Ending.COMPLETE, ""),
        (Disposition.ANSWERED, Ending.ESCALATED, ""),
        (Disposition.ANSWERED, Ending.INTERRUPTED, ""),
        (Disposition.ANSWERED, Ending.HUNG_UP, ""),
        (Disposition.ANSWERED, Ending.CALL_LATER, ""),
        (Disposition.ANSWERED, Ending.DECLINED, ""),
        (Disposition.NO_ANSWER, None, ""),
        (Disposition.VOICEMAIL, None, ""),
        (Disposition.FAILED, None, NEVER_CREATED),
        (Disposition.FAILED, None, "invalid-number"),
        None,  # the stream breaks, the attempt goes on
    ]
)
FINAL = {Ending.COMPLETE, Ending.ESCALATED, Ending.INTERRUPTED, Ending.DECLINED}


class Story:
    """What was drawn: how each attempt ends, when Pulse dies, what happens to the roster meanwhile."""

    def __init__(self, ends: list[End | None], fuses: list[tuple[int, bool]]) -> None:
        self._ends = ends
        self._turn = 0
        self.fuses = fuses

    def end_of(self, _attempt: Attempt) -> End | None:
        self._turn += 1
        return self._ends[self._turn % len(self._ends)]


async def live_through(it: World, story: Story) -> None:
    """A morning in which Pulse dies now and then, until long after the window."""
    it.caller.script = story.end_of
    for at, after in story.fuses:
        it.restart(Fuse(at, after=after))
        await it.trigger()
        await it.drain(it.clock.now() + timedelta(minutes=11))
    it.restart()
    await it.app.state.recovery.recover()
    assert (await it.trigger()).status_code == 200
    await it.drain(WINDOW_END + timedelta(hours=2))


async def check(it: World, roster: list[Patient]) -> None:
    round_ = await it.store.round(HOSPITAL, ROUND_ID)
    assert round_ is not None
    assert round_.closed_at is not None
    calls = await it.calls()
    expected = {one.id for one in roster if due_moment(one, 8, round_.local_date, round_.window)}
    assert sorted(call.patient_id for call in calls) == sorted(expected)
    assert {call.state for call in calls} <= {CallState.ENDED}
    assert dict(round_.outcomes) == dict(Counter(call.outcome.value for call in calls))

    by_id = {one.id: one for one in roster}
    seen: set[str] = set()
    for at, order in it.caller.orders:
        who = by_id[order.patient_id]
        if order.attempt_id not in seen and at < order.not_after:
            assert bar(who, do_not_call=False, now=at) is None
            assert within_calling_hours(who, at)
        seen.add(order.attempt_id)
    for call in calls:
        attempts = await it.store.attempts(HOSPITAL, call.id)
        assert [one.number for one in attempts] == sorted({one.number for one in attempts})
        assert all(at < call.not_after for at, one in it.caller.dialled if one.call_id == call.id)
        for earlier in attempts[:-1]:
            assert earlier.ending not in FINAL
        counted = [one for one in attempts if one.failure != NEVER_CREATED]
        assert len(counted) <= it.settings.max_attempts
        completed = any(one.ending in (Ending.COMPLETE, Ending.ESCALATED) for one in attempts)
        assert completed == (call.outcome is Outcome.COMPLETED)
    assert len({alert.id for alert in await it.store.alerts(HOSPITAL)}) <= len(calls)


@on_both_stores(
    sqlite=80,
    firestore=20,
    roster=st.lists(PATIENT, min_size=1, max_size=4).map(
        lambda many: [patient(number, **one) for number, one in enumerate(many)]
    ),
    ends=st.lists(ENDS, min_size=1, max_size=8),
    fuses=st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=5),
)
def test_a_round_cut_anywhere_gives_every_patient_one_outcome_and_nobody_a_second_call(
    kind: str, roster: list[Patient], ends: list[End | None], fuses: list[tuple[int, bool]]
) -> None:
    async def play() -> None:
        async with world(roster, kind=kind) as it:
            await live_through(it, Story(ends, fuses))
            await check(it, roster)

    asyncio.run(play())
