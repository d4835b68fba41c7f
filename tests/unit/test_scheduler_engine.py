"""The engine's rules: one job, events and times in, attempts and records out (reference/cloud-scheduler sections 4 and 5)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from careflow.google_api.http_target import HttpTarget
from careflow.scheduler.engine import MOST_COUNTED, Engine, Missed, MissReason, Progress
from careflow.scheduler.model import Job, JobState, RetryConfig
from careflow.scheduler.outcomes import INTERRUPTED, answered
from careflow.scheduler.schedule import parse_schedule

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
GRACE = timedelta(seconds=60)
T0 = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
GOOD, BAD = answered(200), answered(500)
JOB = Job(
    name="projects/p/locations/l/jobs/morning",
    schedule="*/10 * * * *",
    http_target=HttpTarget(uri="http://127.0.0.1/"),
    retry=RetryConfig(retry_count=2, min_backoff=timedelta(seconds=30)),
)


class Bench:
    """A job under the engine, and everything that came of it."""

    def __init__(self, job=JOB):
        ids = count(1)
        self.new_id = lambda: f"e{next(ids)}"
        self.set(job)
        self.progress = self.engine.planned(Progress(), T0)
        self.begun, self.ended, self.missed = [], [], []

    def set(self, job):
        self.engine = Engine(job, parse_schedule(job.schedule, job.time_zone), GRACE, self.new_id)

    def keep(self, step):
        self.progress = step.progress
        self.begun += step.begun
        self.ended += step.ended
        self.missed += step.missed
        return step.begun

    def at(self, now):
        return self.keep(self.engine.advance(self.progress, now))

    def end(self, attempt, outcome, now):
        self.keep(self.engine.ended(self.progress, attempt.execution_id, attempt.number, outcome, now))
        return self.at(now)

    def force(self, now):
        self.progress = self.engine.forced(self.progress, now)
        return self.at(now)

    def pause(self):
        self.keep(self.engine.paused(self.progress))
        self.set(replace(self.engine.job, state=JobState.PAUSED))

    def resume(self, now):
        self.set(replace(self.engine.job, state=JobState.ENABLED))
        self.progress = self.engine.planned(self.progress, now)


@pytest.fixture
def bench():
    return Bench()


def test_a_slot_becomes_an_attempt_when_it_is_due_and_not_before(bench):
    slot = T0 + 10 * MINUTE
    assert bench.progress.schedule_time == bench.progress.wake_at == slot
    assert bench.at(slot - timedelta(microseconds=1)) == ()
    (attempt,) = bench.at(slot)
    assert (attempt.slot, attempt.number, attempt.started_at, attempt.code) == (slot, 1, slot, "")
    assert bench.at(slot) == ()
    assert bench.progress.next_slot == slot + 10 * MINUTE
    assert bench.progress.last_attempt_time == slot


def test_success_ends_the_execution(bench):
    (attempt,) = bench.at(T0 + 10 * MINUTE)
    assert bench.end(attempt, GOOD, T0 + 11 * MINUTE) == ()
    (record,) = bench.ended
    assert (record.code, record.http_status, record.finished_at) == ("OK", 200, T0 + 11 * MINUTE)
    assert (bench.progress.scheduled, bench.progress.status_code) == (None, 0)


def test_retries_keep_the_slot_and_count_up_until_the_budget_is_used(bench):
    at = slot = T0 + 10 * MINUTE
    (attempt,) = bench.at(at)
    for delay in (30, 60):
        at += SECOND
        assert bench.end(attempt, BAD, at) == ()
        at += timedelta(seconds=delay)
        assert bench.progress.schedule_time == bench.progress.wake_at == at
        (attempt,) = bench.at(at)
        assert attempt.slot == slot
    assert attempt.number == 3
    assert bench.end(attempt, BAD, at) == ()
    assert bench.progress.scheduled is None
    assert bench.progress.status_code == 13
    assert bench.progress.wake_at == slot + 10 * MINUTE


def test_executions_do_not_overlap_and_a_late_slot_starts_right_after(bench):
    first_slot = T0 + 10 * MINUTE
    (attempt,) = bench.at(first_slot)
    assert bench.at(first_slot + 10 * MINUTE) == ()
    (late,) = bench.end(attempt, GOOD, first_slot + 13 * MINUTE)
    assert (late.slot, late.started_at) == (first_slot + 10 * MINUTE, first_slot + 13 * MINUTE)
    assert late.execution_id != attempt.execution_id
    assert bench.missed == []


def test_retries_run_on_over_the_next_slot():
    bench = Bench(replace(JOB, retry=RetryConfig(retry_count=1, min_backoff=15 * MINUTE)))
    slot = T0 + 10 * MINUTE
    (attempt,) = bench.at(slot)
    bench.end(attempt, BAD, slot)
    assert bench.at(slot + 10 * MINUTE) == ()
    (retry,) = bench.at(slot + 15 * MINUTE)
    assert (retry.slot, retry.number) == (slot, 2)


def test_one_slot_waits_and_further_ones_are_skipped_and_recorded(bench):
    slot = T0 + 10 * MINUTE
    (attempt,) = bench.at(slot)
    for number in (1, 2, 3):
        bench.at(slot + number * 10 * MINUTE)
    skipped = [(one.first, one.count, one.reason) for one in bench.missed]
    assert skipped == [(slot + number * 10 * MINUTE, 1, MissReason.OVERLAP) for number in (2, 3)]
    (late,) = bench.end(attempt, GOOD, slot + 35 * MINUTE)
    assert late.slot == slot + 10 * MINUTE
    assert bench.end(late, GOOD, slot + 36 * MINUTE) == ()


def test_an_interval_is_counted_from_the_end():
    bench = Bench(replace(JOB, schedule="every 5 minutes"))
    (attempt,) = bench.at(T0 + 5 * MINUTE)
    assert bench.progress.wake_at is None
    bench.end(attempt, GOOD, T0 + 7 * MINUTE)
    assert bench.progress.next_slot == T0 + 12 * MINUTE


def test_an_interval_waits_for_the_retries():
    bench = Bench(replace(JOB, schedule="every 5 minutes"))
    (attempt,) = bench.at(T0 + 5 * MINUTE)
    bench.end(attempt, BAD, T0 + 5 * MINUTE)
    assert bench.progress.next_slot is None


def test_a_slot_within_the_grace_starts_late(bench):
    slot = T0 + 10 * MINUTE
    (attempt,) = bench.at(slot + GRACE)
    assert (attempt.slot, attempt.started_at) == (slot, slot + GRACE)
    assert bench.missed == []


def test_slots_of_a_downtime_are_recorded_and_not_replayed(bench):
    slot = T0 + 10 * MINUTE
    now = slot + 25 * MINUTE
    assert bench.at(now) == ()
    assert bench.missed == [Missed(slot, slot + 20 * MINUTE, 3, MissReason.DOWN)]
    assert bench.progress.next_slot == slot + 30 * MINUTE


def test_of_a_downtime_the_slot_within_the_grace_still_runs(bench):
    slot = T0 + 10 * MINUTE
    (attempt,) = bench.at(slot + 20 * MINUTE + 5 * SECOND)
    assert attempt.slot == slot + 20 * MINUTE
    assert bench.missed == [Missed(slot, slot + 10 * MINUTE, 2, MissReason.DOWN)]


def test_a_very_long_downtime_is_not_counted_to_the_end():
    bench = Bench(replace(JOB, schedule="* * * * *"))
    now = T0 + timedelta(days=365) + 30 * SECOND
    (attempt,) = bench.at(now)
    (missed,) = bench.missed
    assert (missed.count, missed.more, missed.first) == (MOST_COUNTED, True, T0 + MINUTE)
    assert attempt.slot == now - 30 * SECOND


def test_a_missed_interval_starts_again_from_now():
    bench = Bench(replace(JOB, schedule="every 5 minutes"))
    now = T0 + timedelta(hours=3)
    assert bench.at(now) == ()
    assert bench.missed == [Missed(T0 + 5 * MINUTE, T0 + 5 * MINUTE, 1, MissReason.DOWN)]
    assert bench.progress.next_slot == now + 5 * MINUTE


def test_a_forced_run_starts_at_once_beside_the_scheduled_one_and_leaves_the_plan(bench):
    slot = T0 + 10 * MINUTE
    (scheduled,) = bench.at(slot)
    (forced,) = bench.force(slot + SECOND)
    (again,) = bench.force(slot + SECOND)
    assert (forced.slot, forced.number) == (None, 1)
    assert len({scheduled.execution_id, forced.execution_id, again.execution_id}) == 3
    assert bench.progress.next_slot == slot + 10 * MINUTE


def test_a_forced_run_is_retried_too(bench):
    (forced,) = bench.force(T0)
    bench.end(forced, BAD, T0)
    (retry,) = bench.at(T0 + 30 * SECOND)
    assert (retry.execution_id, retry.number, retry.slot) == (forced.execution_id, 2, None)


def test_a_forced_run_does_not_delay_a_slot(bench):
    bench.force(T0 + 9 * MINUTE)
    assert len(bench.at(T0 + 10 * MINUTE)) == 1


def test_nothing_scheduled_begins_while_paused_but_forced_runs_do(bench):
    bench.pause()
    assert (bench.progress.schedule_time, bench.progress.wake_at) == (None, None)
    assert bench.at(T0 + 10 * MINUTE) == ()
    assert len(bench.force(T0 + 11 * MINUTE)) == 1


def test_pausing_lets_the_attempt_under_way_end_but_stops_its_retries(bench):
    (attempt,) = bench.at(T0 + 10 * MINUTE)
    bench.pause()
    bench.end(attempt, BAD, T0 + 11 * MINUTE)
    assert (bench.progress.scheduled, bench.progress.wake_at) == (None, None)
    assert bench.ended[0].code == "INTERNAL"


def test_pausing_drops_a_waiting_retry(bench):
    (attempt,) = bench.at(T0 + 10 * MINUTE)
    bench.end(attempt, BAD, T0 + 10 * MINUTE)
    bench.pause()
    bench.resume(T0 + 10 * MINUTE)
    assert bench.progress.scheduled is None
    assert bench.missed == []  # it had its attempt


def test_pausing_records_the_slots_that_had_come_and_will_not_run(bench):
    slot = T0 + 10 * MINUTE
    bench.at(slot)
    bench.at(slot + 10 * MINUTE)
    bench.pause()
    assert bench.missed == [Missed(slot + 10 * MINUTE, slot + 10 * MINUTE, 1, MissReason.PAUSED)]
    at_once = Bench()
    at_once.keep(at_once.engine.arrived(at_once.progress, slot))
    at_once.pause()
    assert at_once.missed == [Missed(slot, slot, 1, MissReason.PAUSED)]


def test_resuming_plans_from_now(bench):
    bench.pause()
    bench.resume(T0 + 33 * MINUTE)
    assert bench.progress.next_slot == T0 + 40 * MINUTE
    assert bench.missed == []


def test_no_slot_is_planned_twice_when_the_clock_was_set_back(bench):
    bench.at(T0 + 10 * MINUTE)
    bench.progress = bench.engine.planned(bench.progress, T0)
    assert bench.progress.next_slot == T0 + 20 * MINUTE


def test_an_interrupted_attempt_is_recorded_and_made_again_at_once_free_of_charge(bench):
    slot = T0 + 10 * MINUTE
    bench.at(slot)
    bench.keep(bench.engine.interrupted(bench.progress, slot + 20 * SECOND))
    (record,) = bench.ended
    assert (record.number, record.code, record.debug_info) == (1, "UNAVAILABLE", INTERRUPTED.debug_info)
    (again,) = bench.at(slot + 20 * SECOND)
    assert (again.slot, again.number) == (slot, 2)
    assert bench.progress.scheduled.failures == 0


def test_an_old_interruption_is_a_failure_like_any_other(bench):
    slot = T0 + 10 * MINUTE
    bench.at(slot)
    now = slot + JOB.attempt_deadline + GRACE + SECOND
    bench.keep(bench.engine.interrupted(bench.progress, now))
    assert bench.progress.scheduled.failures == 1
    assert bench.progress.scheduled.due_at == now + 30 * SECOND


def test_an_interrupted_attempt_of_a_paused_job_is_not_made_again(bench):
    (attempt,) = bench.at(T0 + 10 * MINUTE)
    (forced,) = bench.force(T0 + 10 * MINUTE)
    bench.pause()
    bench.keep(bench.engine.interrupted(bench.progress, T0 + 10 * MINUTE))
    assert {one.execution_id for one in bench.ended} == {attempt.execution_id, forced.execution_id}
    (again,) = bench.at(T0 + 10 * MINUTE)
    assert again.execution_id == forced.execution_id


def test_an_end_that_is_told_twice_or_too_late_changes_nothing(bench):
    (attempt,) = bench.at(T0 + 10 * MINUTE)
    bench.end(attempt, BAD, T0 + 11 * MINUTE)
    before = bench.progress
    assert bench.end(attempt, GOOD, T0 + 11 * MINUTE) == ()
    assert bench.progress == before
    assert len(bench.ended) == 1
