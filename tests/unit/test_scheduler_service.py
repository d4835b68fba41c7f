"""The scheduler as a whole, on a real database and a clock that the tests advance."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from careflow.clock import VirtualClock
from careflow.errors import StoreUnavailable
from careflow.google_api.http_target import HttpTarget, OidcToken
from careflow.scheduler.errors import InvalidSchedule, JobExists, JobNotFound, JobWrongState
from careflow.scheduler.model import Job, JobState, RetryConfig
from careflow.scheduler.service import Scheduler
from careflow.store.database import Database

NOW = datetime(2026, 11, 23, 13, 14, tzinfo=UTC)
SLOT = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
STEPS = timedelta(seconds=5)
PARENT = "projects/p/locations/l"


def job(name="morning", parent=PARENT, **changes):
    values = {
        "schedule": "15 8 * * *",
        "time_zone": "America/New_York",
        "http_target": HttpTarget(uri="http://pulse.test/", body=b"\x00\xff", headers={"A": "b"}),
    }
    return Job(name=f"{parent}/jobs/{name}", **{**values, **changes})


class Target:
    """Answers as told; by default 200 at once."""

    def __init__(self):
        self.statuses, self.seen, self.hold = [], [], asyncio.Event()
        self.hold.set()

    async def __call__(self, request):
        self.seen.append(request)
        await self.hold.wait()
        return httpx.Response(self.statuses.pop(0) if self.statuses else 200)

    @property
    def slots(self):
        return [request.headers.get("X-CloudScheduler-ScheduleTime") for request in self.seen]


class Tokens:
    async def token(self, audience):
        return "t"


@pytest.fixture
def clock():
    return VirtualClock(NOW)


@pytest.fixture
def target():
    return Target()


@pytest.fixture
def database(tmp_path):
    database = Database.open(tmp_path)
    yield database
    database.close()


@pytest.fixture
def scheduler(database, clock, target):
    return new_scheduler(database, clock, target)


def new_scheduler(database, clock, target):
    return Scheduler(database, clock, httpx.MockTransport(target), lambda _account: Tokens())


@asynccontextmanager
async def serving(scheduler):
    runner = asyncio.create_task(scheduler.serve())
    try:
        yield
    finally:
        runner.cancel()
        await asyncio.wait([runner])
    assert runner.cancelled()


async def until(clock, done, step=1.0, turns=3000):
    for _ in range(turns):
        if done():
            return
        await asyncio.sleep(0.001)
        clock.advance(step)
    raise AssertionError("it never came to pass")


async def settle(clock, seconds=1.0, turns=50):
    for _ in range(turns):
        await asyncio.sleep(0.002)
        clock.advance(seconds / turns)


async def test_a_job_is_kept_as_it_was_given_and_planned(scheduler, database, clock, target):
    given = job(
        description="d",
        retry=RetryConfig(retry_count=3, min_backoff=timedelta(milliseconds=1500)),
        http_target=HttpTarget(
            uri="http://x/", body=b"\x00", oidc_token=OidcToken(service_account_email="a@p")
        ),
        state=JobState.PAUSED,
        status_code=5,
    )
    created = await scheduler.create(given)
    expected = replace(
        given, state=JobState.ENABLED, status_code=None, user_update_time=NOW, schedule_time=SLOT
    )
    assert created == expected
    assert await new_scheduler(database, clock, target).get(given.name) == expected


async def test_names_are_unique_and_unknown_ones_refused(scheduler):
    await scheduler.create(job())
    with pytest.raises(JobExists):
        await scheduler.create(job(schedule="* * * * *"))
    assert (await scheduler.get(job().name)).schedule == "15 8 * * *"
    missing = job("none").name
    for refused in (
        scheduler.get(missing),
        scheduler.delete(missing),
        scheduler.pause(missing),
        scheduler.resume(missing),
        scheduler.run(missing),
        scheduler.attempts(missing),
        scheduler.update(missing, lambda one: one),
    ):
        with pytest.raises(JobNotFound):
            await refused


async def test_jobs_are_listed_by_name_in_pages_and_by_parent(scheduler):
    for name in ("c", "a", "b"):
        await scheduler.create(job(name))
    await scheduler.create(job("z", parent="projects/p/locations/elsewhere"))
    first = await scheduler.list(PARENT, limit=2)
    assert [one.id for one in first] == ["a", "b"]
    assert [one.id for one in await scheduler.list(PARENT, after=first[-1].name)] == ["c"]


async def test_a_bad_schedule_changes_nothing(scheduler):
    with pytest.raises(InvalidSchedule):
        await scheduler.create(job(schedule="0 0 30 2 *"))
    kept = await scheduler.create(job())
    for changes in ({"schedule": "* * * * * *"}, {"time_zone": "Mars/Olympus"}):
        with pytest.raises(InvalidSchedule):
            await scheduler.update(kept.name, lambda one, changes=changes: replace(one, **changes))
    assert await scheduler.get(kept.name) == kept


async def test_an_update_replans_only_when_the_schedule_changes_and_cannot_touch_the_services_part(
    scheduler, clock
):
    await scheduler.create(job(schedule="every 5 minutes"))
    clock.advance(60)
    described = await scheduler.update(
        job().name,
        lambda one: replace(one, description="d", state=JobState.PAUSED, status_code=9, name="other"),
    )
    assert (described.schedule_time, described.state, described.status_code) == (
        NOW + 5 * MINUTE,
        JobState.ENABLED,
        None,
    )
    assert (described.name, described.user_update_time) == (job().name, NOW + MINUTE)
    moved = await scheduler.update(job().name, lambda one: replace(one, schedule="0 * * * *"))
    assert moved.schedule_time == datetime(2026, 11, 23, 14, 0, tzinfo=UTC)


async def test_pause_and_resume_may_be_repeated(scheduler, clock):
    await scheduler.create(job())
    paused = await scheduler.pause(job().name)
    assert (paused.state, paused.schedule_time) == (JobState.PAUSED, None)
    assert await scheduler.pause(job().name) == paused
    clock.advance(3600)
    resumed = await scheduler.resume(job().name)
    assert (resumed.state, resumed.schedule_time) == (JobState.ENABLED, SLOT + timedelta(days=1))
    assert await scheduler.resume(job().name) == resumed


async def test_a_slot_is_delivered_on_time_and_recorded(scheduler, clock, target):
    await scheduler.create(job())
    async with serving(scheduler):
        await until(clock, lambda: target.seen)
        await settle(clock)
    assert target.slots == ["2026-11-23T13:15:00Z"]
    (record,) = await scheduler.attempts(job().name)
    assert (record.slot, record.code, record.http_status) == (SLOT, "OK", 200)
    assert SLOT <= record.started_at <= SLOT + timedelta(seconds=5)  # the tests' clock runs on by itself
    done = await scheduler.get(job().name)
    assert (done.last_attempt_time, done.status_code) == (record.started_at, 0)
    assert done.schedule_time == SLOT + timedelta(days=1)


async def test_log_entries_are_googles(scheduler, clock, target):
    target.statuses = [503]
    await scheduler.create(job(retry=RetryConfig(retry_count=1)))
    async with serving(scheduler):
        await until(clock, lambda: len(target.seen) == 2)
        await settle(clock)
    entries = await scheduler.log_entries(job().name)
    kinds = [entry["jsonPayload"]["@type"].rpartition(".")[2] for entry in reversed(entries)]
    assert kinds == ["AttemptStarted", "AttemptFinished"] * 2
    good, _, bad, started = entries
    assert started["jsonPayload"] == {
        "@type": "type.googleapis.com/google.cloud.scheduler.logging.AttemptStarted",
        "jobName": job().name,
        "scheduledTime": "2026-11-23T13:15:00Z",
        "targetType": "HTTP",
        "url": "http://pulse.test/",
    }
    assert started["logName"] == "projects/p/logs/cloudscheduler.googleapis.com%2Fexecutions"
    assert started["resource"] == {
        "type": "cloud_scheduler_job",
        "labels": {"project_id": "p", "location": "l", "job_id": "morning"},
    }
    assert (bad["severity"], bad["httpRequest"], bad["jsonPayload"]["status"]) == (
        "ERROR",
        {"status": 503},
        "UNAVAILABLE",
    )
    assert (good["severity"], good["httpRequest"]) == ("INFO", {"status": 200})
    assert "status" not in good["jsonPayload"]
    assert await scheduler.log_entries(PARENT) == entries
    assert await scheduler.log_entries("projects/p/locations/elsewhere") == []
    assert len(await scheduler.log_entries(PARENT, limit=1)) == 1


async def test_a_failed_attempt_is_tried_again_with_the_same_slot(scheduler, clock, target):
    target.statuses = [500, 429]
    await scheduler.create(job(retry=RetryConfig(retry_count=3, min_backoff=MINUTE)))
    async with serving(scheduler):
        await until(clock, lambda: len(target.seen) == 3)
        await settle(clock)
    assert set(target.slots) == {"2026-11-23T13:15:00Z"}
    last, second, first = await scheduler.attempts(job().name)
    assert [one.code for one in (first, second, last)] == ["INTERNAL", "RESOURCE_EXHAUSTED", "OK"]
    # The exact delays are the engine's tests' matter; here the clock steps by seconds while the machine takes its time.
    assert MINUTE <= second.started_at - first.finished_at <= MINUTE + STEPS
    assert 2 * MINUTE <= last.started_at - second.finished_at <= 2 * MINUTE + STEPS


async def test_a_forced_run_goes_out_at_once_also_when_paused_and_while_one_is_under_way(
    scheduler, clock, target
):
    await scheduler.create(job())
    await scheduler.pause(job().name)
    target.hold.clear()
    async with serving(scheduler):
        await settle(clock)  # the loop has gone to sleep
        returned = await scheduler.run(job().name)
        assert returned.state is JobState.PAUSED
        await scheduler.run(job().name)
        await until(clock, lambda: len(target.seen) == 2, step=0)
        target.hold.set()
        await settle(clock)
    assert target.slots == [None, None]
    assert [one.slot for one in await scheduler.attempts(job().name)] == [None, None]


async def test_a_retry_that_is_due_sooner_than_anything_else_is_not_waited_past(scheduler, clock, target):
    target.statuses = [500]
    await scheduler.create(job(retry=RetryConfig(retry_count=1, min_backoff=timedelta(seconds=1))))
    async with serving(scheduler):
        target.hold.clear()
        await until(clock, lambda: target.seen)
        await settle(clock)  # the loop has gone to sleep
        target.hold.set()
        await until(clock, lambda: len(target.seen) == 2, step=0.2)
    second, first = await scheduler.attempts(job().name)
    assert second.started_at - first.finished_at < timedelta(seconds=15)  # it looks by itself every 30


async def test_a_run_asked_for_while_nobody_serves_goes_out_later(scheduler, clock, target):
    await scheduler.create(job())
    await scheduler.run(job().name)
    async with serving(scheduler):
        await until(clock, lambda: len(target.seen) == 1, step=0)


async def test_a_slot_that_is_due_is_not_lost_to_an_update_at_the_same_moment(scheduler, clock, target):
    await scheduler.create(job())
    clock.advance(60)  # due, and the loop has not looked yet
    await scheduler.update(job().name, lambda one: replace(one, schedule="0 12 * * *"))
    async with serving(scheduler):
        await until(clock, lambda: target.seen, step=0)
    assert target.slots == ["2026-11-23T13:15:00Z"]


async def test_a_job_that_is_deleted_fires_no_more_and_its_attempt_under_way_is_still_recorded(
    scheduler, clock, target
):
    await scheduler.create(job(schedule="* * * * *"))
    target.hold.clear()
    async with serving(scheduler):
        await until(clock, lambda: target.seen)
        await scheduler.delete(job().name)
        target.hold.set()
        await settle(clock, seconds=300)
    assert len(target.seen) == 1
    finished, _ = await scheduler.log_entries(job().name)
    assert finished["jsonPayload"]["@type"].endswith("AttemptFinished")


async def test_a_job_of_the_same_name_does_not_inherit_the_attempt_under_way(scheduler, clock, target):
    await scheduler.create(job())
    target.hold.clear()
    async with serving(scheduler):
        await until(clock, lambda: target.seen)
        await scheduler.delete(job().name)
        await scheduler.create(job())
        target.hold.set()
        await settle(clock)
        assert (await scheduler.get(job().name)).status_code is None


async def test_slots_missed_while_nobody_served_are_recorded_and_not_replayed(scheduler, clock, target):
    await scheduler.create(job(schedule="0 * * * *"))
    clock.advance(5 * 3600)
    async with serving(scheduler):
        await settle(clock)
    assert target.seen == []
    (entry,) = await scheduler.log_entries(job().name)
    assert entry["severity"] == "WARNING"
    payload = entry["jsonPayload"]
    assert (payload["count"], payload["reason"]) == (5, "DOWN")
    assert payload["firstScheduledTime"] == "2026-11-23T14:00:00Z"


async def test_what_was_under_way_at_the_end_is_made_again_by_the_next_to_serve(
    scheduler, database, clock, target
):
    await scheduler.create(job())
    target.hold.clear()
    async with serving(scheduler):
        await until(clock, lambda: target.seen)
    target.hold.set()
    clock.advance(5)
    async with serving(new_scheduler(database, clock, target)):
        await until(clock, lambda: len(target.seen) == 2, step=0)
        await settle(clock)
    assert target.slots == ["2026-11-23T13:15:00Z"] * 2
    again, interrupted = await scheduler.attempts(job().name)
    assert (interrupted.number, interrupted.code) == (1, "UNAVAILABLE")
    assert (again.number, again.code, again.execution_id) == (2, "OK", interrupted.execution_id)


async def test_one_at_a_time_serves_and_another_takes_over(scheduler, database, clock, target):
    await scheduler.create(job(schedule="* * * * *"))
    second = new_scheduler(database, clock, target)
    async with serving(second):
        async with serving(scheduler):
            await until(clock, lambda: len(target.seen) == 2)
            await settle(clock)
        before = len(target.seen)
        assert len(set(target.slots)) == before
        await until(clock, lambda: len(target.seen) > before)


async def test_a_target_that_hangs_keeps_no_other_job_waiting(scheduler, clock, target):
    await scheduler.create(job("a", schedule="* * * * *", http_target=HttpTarget(uri="http://stuck.test/")))
    await scheduler.create(job("b", schedule="* * * * *", http_target=HttpTarget(uri="http://fine.test/")))
    stuck = asyncio.Event()
    seen = []

    async def answer(request):
        seen.append((request.url.host, clock.now()))
        if request.url.host == "stuck.test":
            await stuck.wait()
        return httpx.Response(200)

    scheduler = new_scheduler(scheduler._database, clock, answer)
    async with serving(scheduler):
        await until(clock, lambda: len([1 for host, _ in seen if host == "fine.test"]) == 3, step=0.25)
    assert [host for host, _ in seen].count("stuck.test") == 1
    assert all(moment.second <= 20 for _, moment in seen)  # the tests' clock runs fast


async def test_a_store_that_cannot_be_written_for_a_while_loses_nothing(
    scheduler, database, clock, target, monkeypatch
):
    await scheduler.create(job(retry=RetryConfig()))
    write, broken = database.write, [True]

    async def flaky(work):
        if broken[0] and target.seen:
            raise StoreUnavailable("the disk is full")
        return await write(work)

    monkeypatch.setattr(database, "write", flaky)
    async with serving(scheduler):
        await until(clock, lambda: target.seen)
        await settle(clock, seconds=20)
        broken[0] = False
        await settle(clock, seconds=20)
    assert len(target.seen) == 1
    (record,) = await scheduler.attempts(job().name)
    assert record.code == "OK"


async def test_a_stored_job_whose_zone_is_no_more_is_switched_off_and_can_be_repaired(
    scheduler, database, clock, target
):
    await scheduler.create(job())
    await database.write(
        lambda connection: connection.execute(
            "UPDATE scheduler_jobs SET document = replace(document, 'America/New_York', 'Gone/Zone')"
        )
    )
    await scheduler.create(job("other"))
    async with serving(scheduler):
        await until(clock, lambda: target.seen)
        await settle(clock)
        off = await scheduler.get(job().name)
        assert (off.state, off.schedule_time) == (JobState.DISABLED, None)
        for refused in (scheduler.pause, scheduler.resume, scheduler.run):
            with pytest.raises(JobWrongState):
                await refused(job().name)
    assert [request.headers["X-CloudScheduler-JobName"] for request in target.seen] == ["other"]
    repaired = await scheduler.update(job().name, lambda one: replace(one, time_zone="America/New_York"))
    assert (repaired.state, repaired.schedule_time) == (JobState.ENABLED, SLOT + timedelta(days=1))


async def test_idling_costs_nothing(scheduler, database, clock, monkeypatch):
    await scheduler.create(job(schedule="0 0 1 1 *"))
    asked = []
    read = database.read

    async def counted(work):
        asked.append(work)
        return await read(work)

    monkeypatch.setattr(database, "read", counted)
    async with serving(scheduler):
        await settle(clock, seconds=600, turns=100)
    assert len(asked) <= 25  # one look every half a minute


async def test_old_history_is_forgotten(scheduler, clock, target):
    await scheduler.create(job())
    async with serving(scheduler):
        await until(clock, lambda: target.seen)
        await settle(clock)
    clock.advance(timedelta(days=31, hours=2).total_seconds())
    async with serving(scheduler):
        await settle(clock)
    kinds = [
        entry["jsonPayload"]["@type"].rpartition(".")[2] for entry in await scheduler.log_entries(job().name)
    ]
    assert "AttemptStarted" not in kinds
    assert await scheduler.attempts(job().name) == []
