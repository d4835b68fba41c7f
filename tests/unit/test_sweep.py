"""The sweep: what is put right and what is said of rounds and alerts that are overdue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from careflow.core.checkins import Alert, AlertKind
from careflow.pulse.overdue import Limits, expected_rounds, overdue_alerts
from careflow.pulse.recovery import EVERY
from pulse_world import EIGHT_FIFTEEN, HOSPITAL, ROUND_ID, WINDOW_END, World, patient, world

GRACE = timedelta(hours=1)
LIMITS = Limits(round_grace=GRACE, closing=GRACE, red_flag=timedelta(minutes=15), alert=timedelta(hours=4))
SWEPT = "Sweep done"


def at(hour: int, minute: int = 0, *, day: int = 16) -> datetime:
    """That time in New York, where October is four hours behind UTC."""
    return datetime(2026, 10, day, hour, minute, tzinfo=UTC) + timedelta(hours=4)


def alert(minutes: float, kind: AlertKind = AlertKind.WARNING, **changes: Any) -> Alert:
    """One that was raised so long before 12:00."""
    usual = Alert(
        id=f"a{minutes}-{kind.value}",
        hospital_id=HOSPITAL,
        round_id=ROUND_ID,
        call_id=f"c{minutes}",
        attempt_id="",
        patient_id="p00001",
        kind=kind,
        code="x",
        raised_at=at(12) - timedelta(minutes=minutes),
    )
    return replace(usual, **changes)


async def swept(it: World) -> list[str]:
    """What a sweep says, but for that it is done."""
    before = len(it.logs)
    answer = await it.post("/tasks/sweep", {})
    assert answer.status_code == 200
    said = [line["event"] for line in it.logs[before:]]
    assert said[-1] == SWEPT
    assert answer.json() == {"status": "swept", "overdue": it.logs[-1]["count"]}
    return said[:-1]


class TestExpectedRounds:
    @pytest.mark.parametrize(
        ("now", "hours"),
        [
            (at(7, 59), [20]),  # of the day before
            (at(8, 59), []),  # the grace is not over
            (at(9, 0), [8]),
            (at(11, 59), [8]),
            (at(12, 0), []),  # over: nobody can be phoned for it
            (at(13, 0), [12]),
            (at(21, 0), [20]),
            (at(3, 0, day=17), [20]),  # of the day before
        ],
    )
    def test_a_round_is_expected_from_its_grace_to_its_end(self, now: datetime, hours: Sequence[int]) -> None:
        found = expected_rounds(
            "h",
            environment="test",
            time_zone="America/New_York",
            round_hours=(8, 12, 20),
            now=now,
            grace=GRACE,
        )
        assert [one.schedule_hour for one in found] == list(hours)

    def test_it_has_the_id_that_its_trigger_would_give_it(self) -> None:
        (found,) = expected_rounds(
            HOSPITAL,
            environment="test",
            time_zone="America/New_York",
            round_hours=(8, 12, 20),
            now=at(9, 30),
            grace=GRACE,
        )
        assert found.id == ROUND_ID


class TestOverdueAlerts:
    def test_a_red_flag_is_overdue_after_minutes_and_any_other_after_hours(self) -> None:
        red, warning = AlertKind.RED_FLAG, AlertKind.WARNING
        alerts = [alert(14, red), alert(15, red), alert(239), alert(240)]
        found = overdue_alerts(alerts, at(12), LIMITS)
        assert [[one.id for one in of_kind] for of_kind in found] == [["a15-red-flag"], ["a240-warning"]]
        assert [of_kind[0].kind for of_kind in found] == [red, warning]

    def test_the_oldest_of_a_kind_comes_first(self) -> None:
        (found,) = overdue_alerts([alert(250), alert(500), alert(300)], at(12), LIMITS)
        assert [one.call_id for one in found] == ["c500", "c300", "c250"]

    def test_one_that_is_acknowledged_is_not_overdue(self) -> None:
        seen = alert(500, acknowledged_at=at(11), acknowledged_by="nurse")
        assert overdue_alerts([seen], at(12), LIMITS) == []


async def all_tasks_lost(it: World) -> None:
    """The round is planned, its calls have been due for as long as a sweep waits, and the queue knows of none."""
    await it.trigger()
    it.queue.waiting.clear()
    it.clock.advance(EVERY.total_seconds())


def call_tasks(it: World) -> int:
    return sum(task.queue == "calls" for task in it.queue.waiting.values())


class TestLeftCalls:
    @pytest.mark.parametrize("planning_batch", [1, 2, 3, 1000])
    async def test_each_has_its_turn_as_many_at_a_time_as_the_queue_may_begin(
        self, planning_batch: int
    ) -> None:
        crowd = [patient(number) for number in range(7)]
        three = 2.5 / EVERY.total_seconds()
        async with world(crowd, calls_per_second=three, planning_batch=planning_batch) as it:
            await all_tasks_lost(it)
            for found in (3, 6, 7):
                await swept(it)
                assert call_tasks(it) == found
            it.queue.waiting.clear()
            await swept(it)
            assert call_tasks(it) == 3, "from the first again"

    async def test_a_new_process_begins_with_those_that_were_left_for_longest(self) -> None:
        async with world([patient(1), patient(2)], calls_per_second=1 / EVERY.total_seconds()) as it:
            await all_tasks_lost(it)
            await swept(it)
            first = set(it.queue.waiting)
            it.queue.waiting.clear()
            it.restart()
            await swept(it)
            assert set(it.queue.waiting) == first

    async def test_every_open_call_is_looked_at_at_the_start(self) -> None:
        async with world([patient(1), patient(2)], calls_per_second=1 / EVERY.total_seconds()) as it:
            await it.trigger()
            it.queue.waiting.clear()
            await it.app.state.recovery.recover()
            assert call_tasks(it) == 2

    async def test_a_sweep_reads_what_is_left_and_nothing_of_the_others(self) -> None:
        reads = {}
        for size in (1, 9):
            crowd = [patient(number) for number in range(size)]
            ten = 10 / EVERY.total_seconds()
            async with world(crowd, kind="firestore", calls_per_second=ten) as it:
                usage = it.store.usage
                await it.trigger()
                for seconds in (EVERY.total_seconds() - 1, 1):
                    it.clock.advance(seconds)
                    before = usage.reads
                    await swept(it)
                    reads[size, seconds == 1] = usage.reads - before
        assert reads[1, False] == reads[9, False], "none is left: how many are open does not matter"
        assert reads[9, True] - reads[1, True] == 9 - 1


class TestMissingRounds:
    async def test_a_round_that_nobody_triggered_is_missed_while_it_can_still_be_made_good(self) -> None:
        async with world([patient(1)], start=at(8, 29)) as it:
            assert await swept(it) == []
            it.clock.advance(timedelta(hours=1).total_seconds())
            assert await swept(it) == ["Round missing"]
            assert it.logs[-2]["roundId"] == ROUND_ID
            assert (await it.trigger()).json()["callsInitiated"] == 1
            assert await swept(it) == []

    async def test_no_round_is_missed_that_would_phone_nobody(self) -> None:
        nobody = [
            patient(1, hours=frozenset({12})),
            patient(2, consent=False),
            patient(3, time_zone="Mars/X"),
        ]
        async with world(nobody, start=at(9, 30)) as it:
            assert await swept(it) == []

    async def test_a_patient_s_own_time_makes_a_round_expected(self) -> None:
        own = patient(1, hours=frozenset(), times=(time(9, 45),))
        async with world([own], start=at(9, 30)) as it:
            assert await swept(it) == ["Round missing"]

    async def test_every_patient_is_looked_at_before_a_round_counts_as_nobody_s(self) -> None:
        crowd = [patient(number, consent=False) for number in range(1, 6)] + [patient(6)]
        async with world(crowd, start=at(9, 30), planning_batch=2) as it:
            assert await swept(it) == ["Round missing"]

    async def test_the_hospital_s_own_grace_counts(self) -> None:
        async with world([patient(1)], start=at(9, 30), round_grace=timedelta(hours=2)) as it:
            assert await swept(it) == []


class TestLateRounds:
    async def test_a_late_round_is_said_once_by_the_trigger_that_opened_it(self) -> None:
        async with world([patient(1)], start=at(9, 30)) as it:
            await it.trigger()
            it.clock.advance(60)
            await it.trigger()
            late = [line for line in it.logs if line["event"] == "Round late"]
            assert [(line["roundId"], line["seconds"]) for line in late] == [(ROUND_ID, 5400.0)]

    async def test_a_round_in_time_is_not_late_and_a_second_trigger_does_not_make_it_so(self) -> None:
        async with world([patient(1)]) as it:
            await it.trigger()
            it.clock.advance(timedelta(hours=3).total_seconds())
            await it.trigger()
            assert "Round late" not in [line["event"] for line in it.logs]


class TestUnclosedRounds:
    async def test_a_round_that_does_not_end_is_said_after_its_grace(self) -> None:
        async with world([patient(1)]) as it:
            await it.trigger()
            it.clock.advance((WINDOW_END - EIGHT_FIFTEEN + timedelta(minutes=59)).total_seconds())
            assert "Round not closed" not in await swept(it)
            it.clock.advance(60)
            assert "Round not closed" in await swept(it)
            await it.drain(it.clock.now())
            assert "Round not closed" not in await swept(it)


class TestAlerts:
    async def test_alerts_that_wait_are_said_by_kind_with_their_number_until_somebody_acknowledges_them(
        self,
    ) -> None:
        async with world([patient(1, hours=frozenset())], start=at(12)) as it:
            for one in (alert(300), alert(400), alert(20, AlertKind.RED_FLAG)):
                await it.store.add_alert(one)
            assert await swept(it) == ["Alert not acknowledged"] * 2
            said = {line["kind"]: line for line in it.logs if line["event"] == "Alert not acknowledged"}
            assert (said["warning"]["count"], said["red-flag"]["count"]) == (2, 1)
            assert (said["warning"]["callId"], said["warning"]["seconds"]) == ("c400", 24000.0)
            for one in await it.store.alerts(HOSPITAL, open_only=True):
                await it.store.acknowledge_alert(HOSPITAL, one.id, by="nurse", at=at(12))
            assert await swept(it) == []

    async def test_an_alert_s_id_which_can_name_a_symptom_is_in_no_line(self) -> None:
        async with world([patient(1, hours=frozenset())], start=at(12)) as it:
            await it.store.add_alert(alert(300, id="c1-1-red-flag-chest-pain", code="chest-pain"))
            await swept(it)
            assert "chest" not in repr(it.logs)


class TestSweep:
    async def test_it_puts_right_what_the_queue_has_lost(self) -> None:
        async with world([patient(1)]) as it:
            await it.trigger()
            it.queue.waiting.clear()
            it.clock.advance(EVERY.total_seconds() + 1)
            assert await swept(it) == ["Tasks recovered"]
            await it.drain(it.clock.now())
            assert (await it.only_call()).outcome == "completed"

    async def test_it_changes_nothing_when_it_is_repeated(self) -> None:
        async with world([patient(1)]) as it:
            await it.trigger()
            await swept(it)
            before = (dict(it.queue.waiting), await it.calls(), await it.store.rounds(HOSPITAL))
            await swept(it)
            assert (dict(it.queue.waiting), await it.calls(), await it.store.rounds(HOSPITAL)) == before

    async def test_one_machine_sweeps_by_itself_again_and_again(self) -> None:
        async with world([patient(1)], start=at(9, 30)) as it:
            running = asyncio.create_task(it.app.state.recovery.run())
            try:
                for sweeps in (1, 2):
                    async with asyncio.timeout(5):
                        while [line["event"] for line in it.logs].count(SWEPT) < sweeps:
                            await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    it.clock.advance(EVERY.total_seconds())
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            assert [line["event"] for line in it.logs].count("Round missing") >= 2
