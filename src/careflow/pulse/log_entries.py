"""Executions as the log entries that Cloud Run would show of them: the seed's `gcloud logging read` works on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from careflow.core.rounds import Execution
from careflow.instants import rfc3339
from careflow.ports import Store

SERVICE = "careflow-agent"  # the seed's name of Pulse's Cloud Run service


def log_entry(execution: Execution, project: str, location: str) -> dict[str, Any]:
    """A Cloud Logging v2 LogEntry with the fields of the line "Scheduled rounds triggered"."""
    return {
        "logName": f"projects/{project}/logs/run.googleapis.com%2Fstderr",
        "insertId": execution.id,
        "timestamp": rfc3339(execution.finished_at),
        "severity": "INFO",
        "resource": {
            "type": "cloud_run_revision",
            "labels": {"project_id": project, "location": location, "service_name": SERVICE},
        },
        "jsonPayload": {
            "message": "Scheduled rounds triggered",
            "source": execution.source,
            "scheduleHour": execution.schedule_hour,
            "triggerType": execution.trigger_type,
            "patientsQueried": execution.patients_queried,
            "callsInitiated": execution.calls_initiated,
            "skipped": execution.skipped,
            "roundId": execution.round_id,
            "executionId": execution.id,
            "hospitalId": execution.hospital_id,
        },
    }


async def latest_entries(store: Store, project: str, location: str, limit: int) -> Sequence[dict[str, Any]]:
    """The entries of the latest executions of every hospital, at most `limit` of each."""
    return [
        log_entry(execution, project, location)
        for hospital_id in await store.hospitals()
        for execution in await store.executions(hospital_id, limit=limit)
    ]
