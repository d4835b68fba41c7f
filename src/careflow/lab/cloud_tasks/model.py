"""Queues and tasks as Cloud Tasks v2 knows them (reference/google-cloud section 1), and what an attempt makes of a task. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from careflow.google_api import backoff
from careflow.google_api.http_target import HttpTarget
from careflow.tasks.pacing import Answer

KEPT = timedelta(days=31)  # how long a task may live at all


class QueueState(StrEnum):
    """What a queue does with its tasks."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"  # takes tasks, and dispatches only those that are forced


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """When a failed task is tried again. `max_attempts` counts the first one too, and -1 is no limit; nor is a zero duration.

    The defaults are those that were observed for a queue which says nothing.
    """

    max_attempts: int = 100
    max_retry_duration: timedelta = timedelta(0)
    min_backoff: timedelta = timedelta(milliseconds=100)
    max_backoff: timedelta = timedelta(seconds=3600)
    max_doublings: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue. `name` is `projects/P/locations/L/queues/ID`."""

    name: str
    per_second: float = 500.0
    in_flight: int = 1000
    retry: RetryConfig = RetryConfig()
    sampling_ratio: float = 0.0
    state: QueueState = QueueState.RUNNING
    purge_time: datetime | None = None

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def burst(self) -> int:
        """How many tokens the bucket holds: the service chooses, 100 was observed for 500 a second."""
        return max(1, math.ceil(self.per_second / 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One dispatch. `response_time` is None while it is under way, or when the lab died in it; `status` when none came."""

    schedule_time: datetime
    dispatch_time: datetime
    response_time: datetime | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task. `name` is its queue's, with `/tasks/ID`; `schedule_time` is when its next attempt is due.

    `responses` counts attempts that were answered, `answers_counted` those of them that were not 5xx.
    """

    name: str
    target: HttpTarget
    schedule_time: datetime
    create_time: datetime
    dispatch_deadline: timedelta = timedelta(minutes=10)
    dispatches: int = 0
    responses: int = 0
    answers_counted: int = 0
    first_dispatch: datetime | None = None
    last_attempt: Attempt | None = None

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def queue(self) -> str:
        return self.name.partition("/tasks/")[0]


def begun(task: Task, now: datetime) -> Task:
    """The task with an attempt under way. Counted first, so that one which kills its receiver and us is given up in the end."""
    return replace(
        task,
        dispatches=task.dispatches + 1,
        first_dispatch=task.first_dispatch or now,
        last_attempt=Attempt(schedule_time=task.schedule_time, dispatch_time=now),
    )


def ended(task: Task, retry: RetryConfig, answer: Answer, now: datetime) -> Task | None:
    """The task after its attempt, due again; None when it is done, or is given up."""
    if answer.accepted:
        return None
    again = now + retry_delay(retry, task.dispatches)
    if answer.retry_after is not None:
        again = max(again, now + answer.retry_after)
    if not _is_tried_again(task, retry, again):
        return None
    responded = answer.status is not None
    assert task.last_attempt is not None
    return replace(
        task,
        schedule_time=again,
        responses=task.responses + responded,
        answers_counted=task.answers_counted + (answer.status is not None and answer.status < 500),
        last_attempt=replace(task.last_attempt, response_time=now, status=answer.status),
    )


def retry_delay(retry: RetryConfig, failures: int) -> timedelta:
    """How long after the `failures`th failure the next attempt starts."""
    return backoff.retry_delay(
        failures,
        min_backoff=retry.min_backoff,
        max_backoff=retry.max_backoff,
        max_doublings=retry.max_doublings,
    )


def _is_tried_again(task: Task, retry: RetryConfig, at: datetime) -> bool:
    """A limit that is set ends the retries once it is reached; of two, only both together do."""
    if at > task.create_time + KEPT:
        return False
    by_count, by_time = retry.max_attempts > 0, retry.max_retry_duration > timedelta(0)
    if not by_count and not by_time:
        return True
    first = task.first_dispatch or at
    return (by_count and task.dispatches < retry.max_attempts) or (
        by_time and at <= first + retry.max_retry_duration
    )
