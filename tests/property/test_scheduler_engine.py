"""Any sequence of slots, failures, forced runs, pauses, outages and crashes leaves the engine's promises true."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.google_api.http_target import HttpTarget
from careflow.scheduler import store
from careflow.scheduler.engine import Engine, MissReason, Progress
from careflow.scheduler.model import Job, JobState, RetryConfig
from careflow.scheduler.outcomes import INTERRUPTED, answered
from careflow.scheduler.schedule import parse_schedule

T0 = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)  # New York falls back two hours later
GRACE = timedelta(seconds=60)
JOB = Job(name="projects/p/locations/l/jobs/x", schedule="", http_target=HttpTarget(uri="http://127.0.0.1/"))

retries = st.builds(
    RetryConfig,
    retry_count=st.integers(0, 4),
    max_retry_duration=st.sampled_from([0, 30, 600]).map(lambda s: timedelta(seconds=s)),
    min_backoff=st.sampled_from([1, 5, 60]).map(lambda s: timedelta(seconds=s)),
    max_backoff=st.sampled_from([10, 300, 3600]).map(lambda s: timedelta(seconds=s)),
    max_doublings=st.integers(0, 6),
)
events = st.lists(
    st.one_of(
        st.tuples(
            st.just("pass"), st.sampled_from([1, 7, 59, 60, 61, 200, 900])
        ),  # the loop looks every so often
        st.tuples(st.just("outage"), st.sampled_from([5, 120, 4000])),  # time passes and nobody looks
        st.tuples(st.sampled_from(["good", "bad"]), st.integers(0, 5)),
        st.tuples(st.sampled_from(["force", "crash", "pause", "resume"]), st.just(0)),
    ),
    max_size=60,
)


class Machine:
    """The engine, its durable state, and what a target and a log would have seen."""

    def __init__(self, schedule, retry):
        ids = count(1)
        self.new_id = lambda: f"e{next(ids)}"
        self.now = T0
        self.set(replace(JOB, schedule=schedule, time_zone="America/New_York", retry=retry))
        self.progress = self.engine.planned(Progress(), T0)
        self.under_way = {}
        self.begun, self.ended, self.missed = [], [], []
        self.enabled = [(T0, True)]

    def set(self, job):
        self.engine = Engine(job, parse_schedule(job.schedule, job.time_zone), GRACE, self.new_id)

    def keep(self, step):
        for record in step.ended:
            assert self.under_way.pop((record.execution_id, record.number))
            self.ended.append(record)
        for attempt in step.begun:
            self.under_way[attempt.execution_id, attempt.number] = attempt
            self.begun.append(attempt)
        self.missed += step.missed
        # What is stored is what is read back.
        self.progress = store.PROGRESS.loads(store.PROGRESS.dumps(step.progress))
        scheduled = [one for one in self.under_way.values() if one.slot is not None]
        assert len(scheduled) <= 1, "two scheduled attempts at once"

    def look(self):
        self.keep(self.engine.advance(self.progress, self.now))

    def do(self, event, value):
        match event:
            case "pass":
                end = self.now + timedelta(seconds=value)
                while self.progress.wake_at is not None and self.progress.wake_at <= end:
                    self.now = max(self.now, self.progress.wake_at)
                    self.look()
                self.now = end
            case "outage":
                self.now += timedelta(seconds=value)
                self.look()
            case "good" | "bad" if self.under_way:
                attempt = list(self.under_way.values())[value % len(self.under_way)]
                outcome = answered(200 if event == "good" else 500)
                self.keep(
                    self.engine.ended(self.progress, attempt.execution_id, attempt.number, outcome, self.now)
                )
                self.look()
            case "force":
                self.progress = self.engine.forced(self.progress, self.now)
                self.look()
            case "crash":
                self.keep(self.engine.interrupted(self.progress, self.now))
                assert not self.under_way
                self.look()
            case "pause" if self.engine.job.state is JobState.ENABLED:
                self.keep(self.engine.arrived(self.progress, self.now))
                self.keep(self.engine.paused(self.progress))
                self.set(replace(self.engine.job, state=JobState.PAUSED))
                self.enabled.append((self.now, False))
            case "resume" if self.engine.job.state is JobState.PAUSED:
                self.set(replace(self.engine.job, state=JobState.ENABLED))
                self.progress = self.engine.planned(self.progress, self.now)
                self.enabled.append((self.now, True))


@settings(max_examples=200, deadline=None)
@given(schedule=st.sampled_from(["* * * * *", "*/7 1-2 * * *", "0 * * * *"]), retry=retries, events=events)
def test_every_slot_is_attempted_or_recorded_once_and_nothing_overlaps(schedule, retry, events):
    machine = Machine(schedule, retry)
    for event in events:
        machine.do(*event)
    executed = [attempt.slot for attempt in machine.begun if attempt.number == 1 and attempt.slot is not None]
    waiting = [machine.progress.waiting_slot] if machine.progress.waiting_slot else []
    scheduled = machine.progress.scheduled
    if scheduled is not None and scheduled.attempts == 0:
        waiting.append(scheduled.slot)
    expected = expected_slots(machine)
    gone = [slot for one in machine.missed for slot in expected if one.first <= slot <= one.last]
    assert sorted(executed + waiting + gone) == expected
    assert sum(one.count for one in machine.missed if not one.more) == len(gone)
    for attempt in machine.begun:
        assert attempt.slot is None or attempt.started_at >= attempt.slot


def expected_slots(machine):
    """Every instant that the schedule named while the job was enabled, up to when it was last looked at."""
    slots, schedule = [], machine.engine.schedule
    for (start, enabled), (end, _) in pairwise([*machine.enabled, (machine.now, False)]):
        if enabled:
            slot = schedule.next_after(max([start, *slots[-1:]]))
            while slot <= end:
                slots.append(slot)
                slot = schedule.next_after(slot)
    return slots


@settings(max_examples=200, deadline=None)
@given(retry=retries, events=events)
def test_attempts_are_numbered_and_spaced_by_the_formula(retry, events):
    machine = Machine("* * * * *", retry)
    for event in events:
        machine.do(*event)
    ends = {(record.execution_id, record.number): record for record in machine.ended}
    assert len({(one.execution_id, one.number) for one in machine.begun}) == len(machine.begun)
    for attempt in machine.begun:
        if attempt.number == 1:
            continue
        before = ends[attempt.execution_id, attempt.number - 1]
        assert before.code != "OK"
        assert before.slot == attempt.slot
        if before.debug_info == INTERRUPTED.debug_info and attempt.started_at == before.finished_at:
            continue
        chain = [ends[attempt.execution_id, number] for number in range(1, attempt.number)]
        free = sum(
            one.debug_info == INTERRUPTED.debug_info
            and one.finished_at <= chain[0].started_at + JOB.attempt_deadline + GRACE
            for one in chain
        )
        failures = len(chain) - free
        assert attempt.started_at >= before.finished_at + formula(retry, failures)
        elapsed = before.finished_at + formula(retry, failures) - chain[0].started_at
        allowed = failures <= retry.retry_count or (
            retry.max_retry_duration and elapsed <= retry.max_retry_duration
        )
        assert allowed


def formula(retry, number):
    """Section 5 of the reference, in seconds and in its own words."""
    low, high, doublings = (
        retry.min_backoff.total_seconds(),
        retry.max_backoff.total_seconds(),
        retry.max_doublings,
    )
    growth = math.pow(2, number - 1)
    if number > doublings + 1:
        growth = math.pow(2, doublings) * (number - doublings)
    return timedelta(seconds=min(low * growth, high))


@settings(max_examples=100, deadline=None)
@given(retry=retries, events=events)
def test_a_job_that_is_looked_at_misses_nothing_to_downtime(retry, events):
    machine = Machine("* * * * *", retry)
    for event in events:
        if event[0] != "outage":
            machine.do(*event)
    assert not [one for one in machine.missed if one.reason is MissReason.DOWN]
