"""Invariants 3 and 6: whatever the roster, and wherever planning dies, each patient due has exactly one call and one task."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.core.calls import CallState
from careflow.core.patients import Patient
from careflow.core.slots import due_moment, within_calling_hours
from careflow.ports import Task
from careflow.pulse.outbox import call_task
from emulated import on_both_stores
from pulse_world import EIGHT_FIFTEEN, HOSPITAL, Fuse, World, patient, world

ZONES = ("America/New_York", "America/Los_Angeles", "Pacific/Honolulu", "Europe/London", "Asia/Tokyo")

PATIENT = st.fixed_dictionaries(
    {
        "time_zone": st.sampled_from(ZONES),
        "hours": st.frozensets(st.sampled_from((8, 12, 20)), max_size=3),
        "times": st.lists(st.sampled_from([time(7), time(9, 30), time(11), time(15)]), max_size=2).map(tuple),
        "consent": st.sampled_from([True, True, True, False]),
        "opted_out": st.sampled_from([False, False, False, True]),
        "deceased": st.sampled_from([False, False, False, False, True]),
        "active": st.sampled_from([True, True, True, False]),
        "paused_until": st.sampled_from([None, None, None, datetime.max.replace(tzinfo=UTC)]),
        "calling_from": st.sampled_from([time(8), time(10, 30)]),
        "calling_until": st.sampled_from([time(21), time(11)]),
    }
)
ROSTER = st.lists(PATIENT, max_size=7).map(
    lambda many: [patient(number, **one) for number, one in enumerate(many)]
)
FUSES = st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=4)


async def due(it: World, roster: list[Patient], round_id: str) -> set[str]:
    round_ = await it.store.round(HOSPITAL, round_id)
    assert round_ is not None
    return {one.id for one in roster if due_moment(one, 8, round_.local_date, round_.window) is not None}


async def check_ledger(it: World, roster: list[Patient], body: dict[str, Any]) -> None:
    calls = await it.calls(body["roundId"])
    ids = [call.patient_id for call in calls]
    assert sorted(ids) == sorted(await due(it, roster, body["roundId"]))
    waiting = [call for call in calls if call.state is CallState.WAITING]
    assert (body["patientsQueried"], body["callsInitiated"]) == (len(calls), len(waiting))
    assert sum(body["skipped"].values()) == len(calls) - len(waiting)
    assert {task.name for task in call_tasks(it.queue.enqueued)} == {call_task(one).name for one in waiting}
    by_id = {one.id: one for one in roster}
    for call in waiting:
        assert within_calling_hours(by_id[call.patient_id], call.due_at)
        assert call.due_at < call.not_after


def call_tasks(tasks: list[Task]) -> list[Task]:
    return [task for task in tasks if task.queue == "calls"]


@on_both_stores(
    sqlite=60, firestore=20, roster=ROSTER, fuses=FUSES, batch=st.integers(1, 4), pause=st.integers(0, 5000)
)
def test_planning_that_dies_anywhere_is_finished_by_the_next_delivery(
    kind: str, roster: list[Patient], fuses: list[tuple[int, bool]], batch: int, pause: int
) -> None:
    async def play() -> None:
        async with world(roster, start=EIGHT_FIFTEEN, kind=kind, planning_batch=batch) as it:
            for at, after in fuses:
                it.restart(Fuse(at, after=after))
                await it.trigger()
                it.clock.advance(pause / len(fuses))
            it.restart()
            first = await it.trigger()
            assert first.status_code == 200
            await check_ledger(it, roster, first.json())
            it.clock.advance(pause)
            assert (await it.trigger()).content == first.content

    asyncio.run(play())


@on_both_stores(sqlite=20, firestore=8, roster=ROSTER, batch=st.integers(1, 4), copies=st.integers(2, 4))
def test_triggers_delivered_at_once_get_one_answer_and_one_call_for_each_patient(
    kind: str, roster: list[Patient], batch: int, copies: int
) -> None:
    async def play() -> None:
        async with world(roster, kind=kind, planning_batch=batch) as it:
            answers = await asyncio.gather(*(it.trigger() for _ in range(copies)))
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.content for answer in answers}) == 1
            await check_ledger(it, roster, answers[0].json())

    asyncio.run(play())


@settings(max_examples=12, deadline=None)
@given(minutes=st.integers(-119, 239))
def test_early_late_and_retried_triggers_find_the_same_round(minutes: int) -> None:
    async def play() -> None:
        eight = EIGHT_FIFTEEN - timedelta(minutes=15)
        async with world([patient(1)], start=eight + timedelta(minutes=minutes)) as it:
            body = (await it.trigger()).json()
            assert body["roundId"] == f"test-{HOSPITAL}-20261016-08"
            assert (body["patientsQueried"], body["callsInitiated"]) == (1, 1)
            (call,) = await it.calls()
            assert call.due_at == max(eight, it.clock.now())

    asyncio.run(play())
