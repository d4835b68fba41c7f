"""Deployments for the doctor to examine in a unit test: their settings and jobs, and what Google answers of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from careflow.clock import VirtualClock
from careflow.doctor import agents
from careflow.doctor.examination import examine
from careflow.doctor.findings import Report
from careflow.doctor.registry import CHECKS
from careflow.doctor.remedies import Remedies
from careflow.doctor.set_up import SetUp
from careflow.errors import CareflowError
from careflow.settings import load_settings
from careflow.store.sqlite import SqliteStore
from careflow.tasks.limits import cloud_tasks_settings, queue_limits
from surface import resident

NOW = datetime(2026, 11, 23, 13, 5, tzinfo=UTC)  # 08:05 in New York
PROJECT = "careflow-staging-000000"
PULSE = "https://careflow-agent-000000000000.us-central1.run.app"
CALLER = "https://caller-agent-000000000000.us-central1.run.app"
PUBLIC = "https://caller-agent-twilio-000000000000.us-central1.run.app"

CLOUD: Mapping[str, Any] = {
    "environment": "staging",
    "oidc_issuer": "https://accounts.google.com",
    "project": PROJECT,
    "queue": "cloud-tasks",
    "pulse_url": PULSE,
    "caller_url": CALLER,
    "caller_public_url": PUBLIC,
} | {
    f"{name}_account": f"careflow-{name}@{PROJECT}.iam.gserviceaccount.com"
    for name in ("scheduler", "queue", "pulse")
}


class Jobs:
    """A scheduler that has these jobs, or refuses."""

    def __init__(self, *listed: dict[str, Any], refusal: str = "") -> None:
        self._listed = list(listed)
        self._refusal = refusal

    async def jobs(self) -> list[dict[str, Any]]:
        if self._refusal:
            raise CareflowError(self._refusal)
        return self._listed

    async def log_entries(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        return []


def job(hour: int = 8, **changed: Any) -> dict[str, Any]:
    """A round's job as Google's API shows it."""
    word = {8: "morning", 12: "noon", 20: "evening"}[hour]
    payload = {
        "scheduleHour": hour,
        "timezone": "America/New_York",
        "triggerType": "scheduled",
        "source": "cloud-scheduler",
        "environment": "staging",
    }
    return {
        "name": f"projects/{PROJECT}/locations/us-central1/jobs/careflow-{word}-rounds",
        "schedule": f"15 {hour} * * *",
        "timeZone": "America/New_York",
        "state": "ENABLED",
        "attemptDeadline": "600s",
        "retryConfig": {"retryCount": 3},
        "httpTarget": {
            "uri": PULSE,
            "headers": {"Content-Type": "application/json"},
            "body": base64.b64encode(json.dumps(payload).encode()).decode(),
            "oidcToken": {"serviceAccountEmail": CLOUD["scheduler_account"], "audience": PULSE},
        },
    } | changed


SWEEP = job(
    name=f"projects/{PROJECT}/locations/us-central1/jobs/careflow-sweep",
    httpTarget={
        "uri": f"{PULSE}/tasks/sweep",
        "headers": {"Content-Type": "application/json"},
        "body": base64.b64encode(b"{}").decode(),
        "oidcToken": {"serviceAccountEmail": CLOUD["queue_account"], "audience": PULSE},
    },
)
WELL = Jobs(job(8), job(12), job(20), SWEEP)

Answers = Callable[[httpx.Request], httpx.Response]


def set_up(
    tmp_path: Path,
    answers: Answers | None = None,
    *,
    cloud: bool = True,
    scheduler: Any = WELL,
    **changed: Any,
) -> SetUp:
    given = load_settings(data_dir=tmp_path, **(dict(CLOUD) if cloud else {}) | changed.pop("settings", {}))
    refuse: Answers = answers or (lambda _request: httpx.Response(404))
    return SetUp(
        settings=given,
        clock=VirtualClock(NOW),
        http=httpx.AsyncClient(transport=httpx.MockTransport(refuse)),
        jobs=scheduler,
        cloud=cloud,
        remedies=Remedies(
            cloud=cloud, project=given.project, location=given.location, environment=given.environment
        ),
        **changed,
    )


def google(**changed: httpx.Response) -> Answers:
    """A deployment as it should be, by what is asked for; `changed` answers go by the end of the path."""
    accounts = {name: CLOUD[f"{name}_account"] for name in ("scheduler", "queue", "pulse")}
    members = {
        "careflow-agent": [f"serviceAccount:{accounts['scheduler']}", f"serviceAccount:{accounts['queue']}"],
        "caller-agent": [f"serviceAccount:{accounts['pulse']}"],
        "caller-agent-twilio": ["allUsers"],
    }

    def answer(request: httpx.Request) -> httpx.Response:
        url, path = str(request.url), request.url.path
        for end, response in changed.items():
            if path.endswith(end) or url.startswith(end):
                return response
        if request.url.host.endswith("googleapis.com"):
            assert request.headers["authorization"] == "Bearer access"
            if "getIamPolicy" in path:
                service = path.rpartition("/")[2].partition(":")[0]
                binding = {"role": "roles/run.invoker", "members": members[service]}
                return httpx.Response(200, json={"bindings": [binding]})
            if "/queues/" in path:
                name = path.removeprefix("/v2/")
                limits = queue_limits(calls_per_second=1.0, calls_in_flight=10)[
                    "calls" if "calls" in path else "rounds"
                ]
                return httpx.Response(
                    200,
                    json={} if path.endswith("/tasks") else {"name": name, **cloud_tasks_settings(limits)},
                )
            return httpx.Response(200, json={"email": "x"})
        assert request.headers.get("authorization") in (None, "Bearer identity")
        if url.startswith(PUBLIC):
            return httpx.Response(403, json={"error": {"code": "http-403"}})
        if request.headers.get("authorization") != "Bearer identity":
            return httpx.Response(403, text="<html>Forbidden</html>")
        if path == "/" and json.loads(request.content):
            assert json.loads(request.content)["environment"] == agents.NOWHERE
            message = "environment: this is 'staging' and the trigger is meant for 'nosuchenvironment'"
            error = {"code": "wrong-environment", "message": message, "field": "environment"}
            return httpx.Response(400, json={"error": error})
        if path.endswith(".json"):
            return httpx.Response(200, json={"name": "CareFlow Pulse", "version": "1"})
        return httpx.Response(200, json={"status": "ready"}, headers={"date": http_date()})

    return answer


def http_date() -> str:
    from email.utils import format_datetime

    return format_datetime(datetime.now(UTC), usegmt=True)


async def cloud_report(
    tmp_path: Path, answers: Answers, *, tokens: bool = True, scheduler: Any = WELL
) -> Report:
    given = {"access_token": "access", "identity_token": "identity"} if tokens else {}
    one = set_up(tmp_path, answers, scheduler=scheduler, **given)
    store = await SqliteStore.open(tmp_path)
    await store.put_patients([resident(number, hours=frozenset({8, 12, 20})) for number in (1, 2)])
    one._store = store
    try:
        return await examine(one, CHECKS)
    finally:
        await one.close()
