"""The Job resource of Cloud Scheduler v1: JSON to Job and back, and its rules (reference/cloud-scheduler sections 1 to 3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from careflow.google_api import http_target, masks, names, wire
from careflow.google_api.refusals import invalid
from careflow.google_api.wire import Leaf, Message, NotImitated, OutputOnly, Tree
from careflow.scheduler.model import Job, JobState, RetryConfig

USER_AGENT = "Google-Cloud-Scheduler"
OCTETS = "application/octet-stream"

JOB_BYTES = 1 << 20
OVERHEAD_BYTES = 1024  # counted by the service for every job
DESCRIPTION_CHARACTERS = 500
RETRIES = 5
DEFAULT_ZONE = "UTC"
DEFAULT_DEADLINE = timedelta(minutes=3)
DEADLINES = (timedelta(seconds=15), timedelta(minutes=30))
# Not documented; without a limit the moments that the retries lead to would leave the calendar.
LONGEST_DURATION = timedelta(days=3650)

STATES = {"STATE_UNSPECIFIED": 0, "ENABLED": 1, "PAUSED": 2, "DISABLED": 3, "UPDATE_FAILED": 4}
_TARGETS = frozenset({"httpTarget", "pubsubTarget", "appEngineHttpTarget"})
_NO_OTHER_TARGET = "this target is not imitated by the embedded scheduler; accepted is httpTarget"

SCHEMA = Message(
    {
        "name": Leaf(wire.text),
        "description": Leaf(wire.text),
        "pubsubTarget": NotImitated(_NO_OTHER_TARGET),
        "appEngineHttpTarget": NotImitated(_NO_OTHER_TARGET),
        "httpTarget": http_target.schema("uri"),
        "schedule": Leaf(wire.text),
        "timeZone": Leaf(wire.text),
        "userUpdateTime": OutputOnly(),
        "state": OutputOnly(),
        "status": OutputOnly(),
        "scheduleTime": OutputOnly(),
        "lastAttemptTime": OutputOnly(),
        "satisfiesPzs": OutputOnly(),
        "retryConfig": Message(
            {
                "retryCount": Leaf(wire.whole_number),
                "maxRetryDuration": Leaf(wire.duration),
                "minBackoffDuration": Leaf(wire.duration),
                "maxBackoffDuration": Leaf(wire.duration),
                "maxDoublings": Leaf(wire.whole_number),
            }
        ),
        "attemptDeadline": Leaf(wire.duration),
    },
    one_of=(_TARGETS,),
)

_NAME = re.compile(rf"{names.LOCATION_NAME}/jobs/[A-Za-z0-9_-]{{1,500}}")


# --- names -----------------------------------------------------------------------------------------------------


def checked_name(name: str) -> str:
    """A job's full name. Raises Refused."""
    if not _NAME.fullmatch(name):
        raise invalid(
            "name",
            'Job name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/jobs/<JOB_ID>", and the job id'
            " of 1 to 500 letters, digits, hyphens and underscores.",
            name,
        )
    return name


# --- from JSON -------------------------------------------------------------------------------------------------


def new_job(body: Any, parent: str, invented_id: str) -> Job:
    """The job that a create asks for; without a name it is called `invented_id`. Raises Refused."""
    tree = wire.read(SCHEMA, body)
    name = checked_name(tree.get("name") or f"{parent}/jobs/{invented_id}")
    if not name.startswith(f"{parent}/jobs/"):
        raise invalid("name", f"must be under the parent of the request, {parent}", name)
    return _job(tree, name)


def updated_job(stored: Job, body: Tree, chosen: Sequence[masks.Path] | None) -> Job:
    """`stored` after an update: what it has of the service's part stays. Raises Refused.

    `body` is a tree read by `read_body`; `chosen` what `masks.paths` made of the mask. Without a mask everything is
    replaced, save a schedule that the body leaves out (it is required on create only).
    """
    everything = {"schedule": stored.schedule, **body}
    fresh = _job(
        everything if chosen is None else masks.merge(SCHEMA, _tree(stored), body, chosen), stored.name
    )
    return replace(
        stored,
        description=fresh.description,
        schedule=fresh.schedule,
        time_zone=fresh.time_zone,
        http_target=fresh.http_target,
        retry=fresh.retry,
        attempt_deadline=fresh.attempt_deadline,
    )


def read_body(body: Any) -> Tree:
    """The tree of an update's body; a name in it means nothing, the request names the job. Raises Refused."""
    return wire.read(SCHEMA, body)


def _job(tree: Tree, name: str) -> Job:
    if len(tree.get("description", "")) > DESCRIPTION_CHARACTERS:
        raise invalid("description", f"is longer than {DESCRIPTION_CHARACTERS} characters")
    if not tree.get("schedule"):
        raise invalid(
            "schedule", "Schedule or time zone is invalid. A schedule is required, like '15 8 * * *'"
        )
    if "httpTarget" not in tree:
        raise invalid("httpTarget", "is missing: a job has exactly one target")
    deadline: timedelta = tree.get("attemptDeadline", DEFAULT_DEADLINE)
    if not DEADLINES[0] <= deadline <= DEADLINES[1]:
        raise invalid(
            "attemptDeadline", "must be 15s to 1800s for an HTTP target", wire.duration_text(deadline)
        )
    job = Job(
        name=name,
        description=tree.get("description", ""),
        schedule=tree["schedule"],
        time_zone=tree.get("timeZone", DEFAULT_ZONE),
        http_target=http_target.read(tree["httpTarget"], "httpTarget", "uri"),
        retry=_retry(tree.get("retryConfig", {})),
        attempt_deadline=deadline,
    )
    size = job_bytes(job)
    if size > JOB_BYTES:
        raise invalid("job", f"a job has at most {JOB_BYTES} bytes, its body the most of them, not {size}")
    return job


def _retry(tree: Tree) -> RetryConfig:
    defaults = RetryConfig()
    count, doublings = tree.get("retryCount", 0), tree.get("maxDoublings", defaults.max_doublings)
    if not 0 <= count <= RETRIES:
        raise invalid("retryConfig.retryCount", f"must be 0 to {RETRIES}", count)
    if doublings < 0:
        raise invalid("retryConfig.maxDoublings", "must not be negative", doublings)
    return RetryConfig(
        retry_count=count,
        max_retry_duration=_span(tree, "maxRetryDuration", defaults.max_retry_duration),
        min_backoff=_span(tree, "minBackoffDuration", defaults.min_backoff) or defaults.min_backoff,
        max_backoff=_span(tree, "maxBackoffDuration", defaults.max_backoff) or defaults.max_backoff,
        max_doublings=doublings,
    )


def _span(tree: Tree, name: str, default: timedelta) -> timedelta:
    span: timedelta = tree.get(name, default)
    if not timedelta(0) <= span <= LONGEST_DURATION:
        longest = wire.duration_text(LONGEST_DURATION)
        raise invalid(f"retryConfig.{name}", f"must be 0s to {longest}", wire.duration_text(span))
    return span


def job_bytes(job: Job) -> int:
    """The size of a job as its limit counts it."""
    texts = (job.name, job.description, job.schedule, job.time_zone)
    return OVERHEAD_BYTES + sum(len(text.encode()) for text in texts) + http_target.size(job.http_target)


# --- to JSON ---------------------------------------------------------------------------------------------------


def _tree(job: Job) -> Tree:
    """The user's part as a create would have set it, without what is added on reading."""
    return wire.present(
        description=job.description,
        httpTarget=http_target.tree(job.http_target, "uri"),
        schedule=job.schedule,
        timeZone=job.time_zone,
        retryConfig={
            "retryCount": job.retry.retry_count,
            "maxRetryDuration": job.retry.max_retry_duration,
            "minBackoffDuration": job.retry.min_backoff,
            "maxBackoffDuration": job.retry.max_backoff,
            "maxDoublings": job.retry.max_doublings,
        },
        attemptDeadline=job.attempt_deadline,
    )


def render(job: Job, *, enum_numbers: bool = False) -> dict[str, Any]:
    """The job as the service answers it, with what it adds on reading (section 3); enums as numbers when asked for."""
    moments = {
        "scheduleTime": job.schedule_time,
        "lastAttemptTime": job.last_attempt_time,
    }
    shown: dict[str, Any] = wire.present(name=job.name, description=job.description)
    shown["httpTarget"] = http_target.render(
        job.http_target, "uri", user_agent=USER_AGENT, default_type=OCTETS, enum_numbers=enum_numbers
    )
    shown |= {"schedule": job.schedule, "timeZone": job.time_zone}
    if job.user_update_time:
        shown["userUpdateTime"] = wire.timestamp_text(job.user_update_time)
    shown["state"] = STATES[JobState(job.state).value] if enum_numbers else JobState(job.state).value
    if job.status_code is not None:
        shown["status"] = wire.present(code=job.status_code)
    shown |= {name: wire.timestamp_text(moment) for name, moment in moments.items() if moment}
    shown["retryConfig"] = wire.present(
        retryCount=job.retry.retry_count,
        maxRetryDuration=wire.duration_text(job.retry.max_retry_duration),
        minBackoffDuration=wire.duration_text(job.retry.min_backoff),
        maxBackoffDuration=wire.duration_text(job.retry.max_backoff),
        maxDoublings=job.retry.max_doublings,
    )
    shown["attemptDeadline"] = wire.duration_text(job.attempt_deadline)
    return shown
