"""A scheduler job as Cloud Scheduler v1 knows it (reference/cloud-scheduler section 3), free of any wire format."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from careflow.google_api.http_target import HttpTarget


class JobState(StrEnum):
    """What the service does with a job; the numbers of the wire are the API's matter."""

    ENABLED = "ENABLED"  # runs on schedule
    PAUSED = "PAUSED"  # paused by a user; runs only when forced
    DISABLED = "DISABLED"  # switched off by the system after an error; users cannot set it
    UPDATE_FAILED = "UPDATE_FAILED"  # an update broke off; a successful update clears it


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """Retries of one execution. `retry_count` counts retries after the first attempt; a zero `max_retry_duration` is no limit."""

    retry_count: int = 0
    max_retry_duration: timedelta = timedelta(0)
    min_backoff: timedelta = timedelta(seconds=5)
    max_backoff: timedelta = timedelta(seconds=3600)
    max_doublings: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job. `name` is `projects/P/locations/L/jobs/ID`.

    The user's part is everything down to `attempt_deadline`. `schedule_time` is the next planned start, a retry's included;
    `last_attempt_time` the start of the last attempt; `status_code` the google.rpc code of the last finished attempt (0 is OK),
    None before the first. Instants are aware and in UTC.
    """

    name: str
    description: str = ""
    schedule: str
    time_zone: str = "UTC"
    http_target: HttpTarget
    retry: RetryConfig = RetryConfig()
    attempt_deadline: timedelta = timedelta(seconds=180)
    state: JobState = JobState.ENABLED
    user_update_time: datetime | None = None
    schedule_time: datetime | None = None
    last_attempt_time: datetime | None = None
    status_code: int | None = None

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def parent(self) -> str:
        return self.name.partition("/jobs/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One try of one execution, for the history.

    `slot` is the instant the schedule named, None for a forced run; `number` counts the execution's attempts from 1.
    `http_status` is None when there was no answer; `code` is a google.rpc code name, "OK" included; empty while under way.
    """

    job: str
    execution_id: str
    slot: datetime | None
    number: int
    started_at: datetime
    finished_at: datetime | None = None
    http_status: int | None = None
    code: str = ""
    debug_info: str = ""
