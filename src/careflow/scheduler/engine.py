"""What happens to a job next: its progress, an event and the time in, the new progress and what to do about it out. Pure.

Policies, where the reference leaves a choice (reference/cloud-scheduler sections 4 and 5):

- Two scheduled executions of a job never overlap. The first slot that arrives meanwhile waits and starts right after;
  the others are skipped and recorded.
- A slot that nobody looked at for longer than the grace is missed: recorded, never run late.
- Delivery is at least once. An attempt that was under way when the scheduler died is recorded as interrupted and made
  again at once, free of charge, while the execution is younger than the attempt deadline and the grace together; after that
  the interruption is a failure like any other. Retries that came due meanwhile are made at once.
- Forced executions run beside the scheduled one, are retried like it, and leave the plan alone.
- Pausing drops a waiting slot and the scheduled execution's retries; the attempt under way ends by itself. Forced executions
  go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from careflow.scheduler.model import AttemptRecord, Job, JobState
from careflow.scheduler.outcomes import INTERRUPTED, Outcome
from careflow.scheduler.retries import next_retry
from careflow.scheduler.schedule import Schedule

MOST_COUNTED = 1000  # missed slots of one job that are counted one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What a slot, or a forced run (`slot` None), causes: attempts one after the other until one succeeds or none is left.

    Either an attempt is under way since `attempt_started_at`, or the next one is due at `due_at`. `attempts` counts those
    begun, `failures` those that used up a part of the retry budget. `started_at` is the start of the first.
    """

    id: str
    slot: datetime | None
    attempts: int = 0
    failures: int = 0
    started_at: datetime | None = None
    attempt_started_at: datetime | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a job stands. `last_slot` is the latest that was dealt with; `waiting_slot` starts when `scheduled` ends."""

    next_slot: datetime | None = None
    last_slot: datetime | None = None
    waiting_slot: datetime | None = None
    scheduled: Execution | None = None
    forced: tuple[Execution, ...] = ()
    last_attempt_time: datetime | None = None
    status_code: int | None = None

    @property
    def executions(self) -> tuple[Execution, ...]:
        return self.forced if self.scheduled is None else (self.scheduled, *self.forced)

    @property
    def wake_at(self) -> datetime | None:
        """When `advance` has something to do next."""
        return _earliest(self.next_slot, *(execution.due_at for execution in self.executions))

    @property
    def schedule_time(self) -> datetime | None:
        """The next planned start of the schedule's, a retry included."""
        return _earliest(self.next_slot, self.scheduled.due_at if self.scheduled else None)


class MissReason(StrEnum):
    """Why slots caused no execution."""

    DOWN = "DOWN"  # nobody looked at the time until the grace was over
    OVERLAP = "OVERLAP"  # an execution was under way and another slot waited for it already
    PAUSED = "PAUSED"  # it had come, but no attempt had begun when the job was paused


@dataclass(frozen=True, slots=True)
class Missed:
    """Slots from `first` to `last` that caused no execution; `count` of them, or more when `more`."""

    first: datetime
    last: datetime
    count: int
    reason: MissReason
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The new progress, and what goes with it: attempts to record and deliver, ended ones to record, slots to report missed."""

    progress: Progress
    begun: tuple[AttemptRecord, ...] = ()
    ended: tuple[AttemptRecord, ...] = ()
    missed: tuple[Missed, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """One job's rules. `new_id` names executions."""

    job: Job
    schedule: Schedule
    grace: timedelta
    new_id: Callable[[], str]

    def planned(self, progress: Progress, now: datetime) -> Progress:
        """Plan from now on: after creation, `resume`, or a change of the schedule. No slot is planned twice."""
        if self.job.state is not JobState.ENABLED:
            return replace(progress, next_slot=None)
        after = max(now, progress.last_slot) if progress.last_slot and not self.schedule.from_end else now
        return replace(progress, next_slot=self.schedule.next_after(after))

    def arrived(self, progress: Progress, now: datetime) -> Step:
        """Let the slots arrive that are due at `now`, before something else happens to the job."""
        progress, missed = self._arrive(progress, now)
        return Step(progress=progress, missed=missed)

    def advance(self, progress: Progress, now: datetime) -> Step:
        """Let everything happen that is due at `now`: slots arrive, attempts begin."""
        progress, missed = self._arrive(progress, now)
        progress, begun = self._begin(progress, now)
        return Step(progress=progress, begun=begun, missed=missed)

    def forced(self, progress: Progress, now: datetime) -> Progress:
        """A forced execution, its first attempt due at once."""
        execution = Execution(id=self.new_id(), slot=None, due_at=now)
        return replace(progress, forced=(*progress.forced, execution))

    def paused(self, progress: Progress) -> Step:
        """Nothing scheduled begins any more."""
        scheduled, dropped = progress.scheduled, [progress.waiting_slot]
        if scheduled is not None and scheduled.attempt_started_at is None:
            dropped.append(scheduled.slot if scheduled.attempts == 0 else None)
            scheduled = None
        return Step(
            progress=replace(progress, next_slot=None, waiting_slot=None, scheduled=scheduled),
            missed=tuple(Missed(slot, slot, 1, MissReason.PAUSED) for slot in dropped if slot),
        )

    def ended(
        self, progress: Progress, execution_id: str, number: int, outcome: Outcome, now: datetime
    ) -> Step:
        """The attempt ended. Its outcome decides whether the execution goes on; nothing when it is not under way here."""
        execution = next((one for one in progress.executions if one.id == execution_id), None)
        if execution is None or execution.attempt_started_at is None or execution.attempts != number:
            return Step(progress=progress)
        record = _record(self.job.name, execution, now, outcome)
        after = self._after(execution, outcome, now)
        progress = replace(progress, status_code=int(outcome.code))
        return Step(progress=self._settled(progress, execution, after, now), ended=(record,))

    def interrupted(self, progress: Progress, now: datetime) -> Step:
        """The scheduler died with these attempts under way; nobody knows what the target made of them."""
        ended = []
        for execution in progress.executions:
            if execution.attempt_started_at is None:
                continue
            ended.append(_record(self.job.name, execution, now, INTERRUPTED))
            after = self._after(execution, INTERRUPTED, now)
            assert execution.started_at is not None
            young = now <= execution.started_at + self.job.attempt_deadline + self.grace
            if young and self._goes_on(execution):
                after = replace(execution, attempt_started_at=None, due_at=now)
            progress = replace(progress, status_code=int(INTERRUPTED.code))
            progress = self._settled(progress, execution, after, now)
        return Step(progress=progress, ended=tuple(ended))

    def _arrive(self, progress: Progress, now: datetime) -> tuple[Progress, tuple[Missed, ...]]:
        missed: list[Missed] = []
        while (slot := progress.next_slot) is not None and slot <= now:
            if now - slot > self.grace:
                gone = self._gone(slot, now)
                missed.append(gone)
                after = gone.last
                if self.schedule.from_end:
                    after = now
                elif gone.more:
                    after = max(after, now - self.grace - timedelta(microseconds=1))
                following = self.schedule.next_after(after)
                progress = replace(progress, next_slot=following, last_slot=gone.last)
                continue
            if progress.scheduled is None:
                progress = replace(progress, scheduled=Execution(id=self.new_id(), slot=slot, due_at=now))
            elif progress.waiting_slot is None:
                progress = replace(progress, waiting_slot=slot)
            else:
                missed.append(Missed(slot, slot, 1, MissReason.OVERLAP))
            following = None if self.schedule.from_end else self.schedule.next_after(slot)
            progress = replace(progress, next_slot=following, last_slot=slot)
        return progress, tuple(missed)

    def _gone(self, slot: datetime, now: datetime) -> Missed:
        """The slots from this one on that are past the grace."""
        last, count = slot, 1
        while not self.schedule.from_end and count < MOST_COUNTED:
            following = self.schedule.next_after(last)
            if following is None or now - following <= self.grace:
                break
            last, count = following, count + 1
        return Missed(slot, last, count, MissReason.DOWN, more=count == MOST_COUNTED)

    def _begin(self, progress: Progress, now: datetime) -> tuple[Progress, tuple[AttemptRecord, ...]]:
        begun = []
        for execution in progress.executions:
            if execution.due_at is None or execution.due_at > now:
                continue
            started = replace(
                execution,
                attempts=execution.attempts + 1,
                started_at=execution.started_at or now,
                attempt_started_at=now,
                due_at=None,
            )
            progress = replace(_with(progress, execution, started), last_attempt_time=now)
            begun.append(_record(self.job.name, started))
        return progress, tuple(begun)

    def _after(self, execution: Execution, outcome: Outcome, now: datetime) -> Execution | None:
        """The execution after an attempt with this outcome; None when it is over."""
        if outcome.succeeded or not self._goes_on(execution):
            return None
        failures = execution.failures + 1
        retry_at = next_retry(
            self.job.retry, failures=failures, first_started_at=execution.started_at or now, failed_at=now
        )
        if retry_at is None:
            return None
        return replace(execution, failures=failures, attempt_started_at=None, due_at=retry_at)

    def _goes_on(self, execution: Execution) -> bool:
        """Whether the job's state allows another attempt."""
        return execution.slot is None or self.job.state is JobState.ENABLED

    def _settled(
        self, progress: Progress, execution: Execution, after: Execution | None, now: datetime
    ) -> Progress:
        progress = _with(progress, execution, after)
        if after is not None or execution.slot is None or self.job.state is not JobState.ENABLED:
            return progress
        if progress.waiting_slot is not None:
            late = Execution(id=self.new_id(), slot=progress.waiting_slot, due_at=now)
            return replace(progress, scheduled=late, waiting_slot=None)
        if self.schedule.from_end:
            return replace(progress, next_slot=self.schedule.next_after(now))
        return progress


def _with(progress: Progress, execution: Execution, after: Execution | None) -> Progress:
    """The progress with the execution replaced, or gone."""
    if progress.scheduled is not None and progress.scheduled.id == execution.id:
        return replace(progress, scheduled=after)
    others = tuple(after if one.id == execution.id else one for one in progress.forced)
    return replace(progress, forced=tuple(one for one in others if one is not None))


def _record(
    job: str, execution: Execution, finished_at: datetime | None = None, outcome: Outcome | None = None
) -> AttemptRecord:
    assert execution.attempt_started_at is not None
    return AttemptRecord(
        job=job,
        execution_id=execution.id,
        slot=execution.slot,
        number=execution.attempts,
        started_at=execution.attempt_started_at,
        finished_at=finished_at,
        http_status=outcome.http_status if outcome else None,
        code=outcome.code.name if outcome else "",
        debug_info=outcome.debug_info if outcome else "",
    )


def _earliest(*instants: datetime | None) -> datetime | None:
    return min((instant for instant in instants if instant is not None), default=None)
