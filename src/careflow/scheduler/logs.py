"""Log entries in the shape of Cloud Logging's, as Cloud Scheduler writes them (reference/cloud-scheduler section 11).

Ids, times, codes and the job's own URL; never a body, a header or an answer.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from careflow.instants import rfc3339
from careflow.scheduler.engine import Missed
from careflow.scheduler.model import AttemptRecord, Job

Entry = dict[str, Any]
"""A LogEntry, ready for JSON."""

_GOOGLE = "type.googleapis.com/google.cloud.scheduler.logging"
_OURS = "type.googleapis.com/careflow.scheduler.logging"


def attempt_started(job: Job, attempt: AttemptRecord) -> Entry:
    """AttemptStarted. A forced run has no slot: its scheduledTime is its start."""
    payload = {
        "@type": f"{_GOOGLE}.AttemptStarted",
        "jobName": job.name,
        "scheduledTime": rfc3339(attempt.slot or attempt.started_at),
        "targetType": "HTTP",
        "url": job.http_target.uri,
    }
    return _entry(job.name, attempt.started_at, "INFO", payload)


def attempt_finished(job: str, url: str, attempt: AttemptRecord) -> Entry:
    """AttemptFinished; `status` is there after a failure only."""
    assert attempt.finished_at is not None
    succeeded = attempt.code == "OK"
    payload = {
        "@type": f"{_GOOGLE}.AttemptFinished",
        "jobName": job,
        "targetType": "HTTP",
        "url": url,
        "debugInfo": attempt.debug_info,
    }
    if not succeeded:
        payload["status"] = attempt.code
    entry = _entry(job, attempt.finished_at, "INFO" if succeeded else "ERROR", payload)
    if attempt.http_status is not None:
        entry["httpRequest"] = {"status": attempt.http_status}
    return entry


def slots_missed(job: str, missed: Missed, now: datetime) -> Entry:
    """Slots that caused no execution. Cloud Scheduler has no such entry; ours says what a machine that was off left out."""
    payload = {
        "@type": f"{_OURS}.SlotsMissed",
        "jobName": job,
        "firstScheduledTime": rfc3339(missed.first),
        "lastScheduledTime": rfc3339(missed.last),
        "count": missed.count,
        "reason": missed.reason.value,
    }
    if missed.more:
        payload["countIsMinimum"] = True
    return _entry(job, now, "WARNING", payload)


def _entry(job: str, moment: datetime, severity: str, payload: dict[str, Any]) -> Entry:
    _, project, _, location, _, job_id = job.split("/", 5)
    return {
        "logName": f"projects/{project}/logs/cloudscheduler.googleapis.com%2Fexecutions",
        "resource": {
            "type": "cloud_scheduler_job",
            "labels": {"project_id": project, "location": location, "job_id": job_id},
        },
        "timestamp": rfc3339(moment),
        "severity": severity,
        "jsonPayload": payload,
    }
