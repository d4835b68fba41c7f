"""The real `gcloud tasks` against the lab's Cloud Tasks, with nothing but the endpoint changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloud_tasks_kit import Served, serving_in_a_thread

GCLOUD = shutil.which("gcloud")
WHERE = ("--project=careflow-local", "--location=us-central1")
ACCOUNT = "careflow-queue@careflow-local.iam.gserviceaccount.com"

Gcloud = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if GCLOUD is None:
        reason = "the gcloud command is not installed (it is in CI, where this may not be left out)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with serving_in_a_thread(tmp_path_factory.mktemp("tasks")) as running:
        yield running


@pytest.fixture(scope="module")
def gcloud(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Gcloud:
    """`gcloud tasks WORDS`, told where our port is and nothing else of this machine's configuration."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("CLOUDSDK_")} | {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDTASKS": f"{served.url}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(tmp_path_factory.mktemp("gcloud")),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        assert GCLOUD
        return subprocess.run(
            [GCLOUD, "tasks", *words, *WHERE],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )

    return run


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _create_task(gcloud: Gcloud, served: Served, name: str, queue: str, *words: str) -> Any:
    return gcloud(
        *("create-http-task", name, f"--queue={queue}", f"--url={served.receiver.url}/tasks/call"),
        *("--method=post", '--body-content={"callId":"c1"}', "--header=Content-Type:application/json"),
        *(f"--oidc-service-account-email={ACCOUNT}", "--oidc-token-audience=https://pulse.test"),
        *words,
    )


def test_a_queue_is_made_changed_paused_and_shown(gcloud: Gcloud) -> None:
    made = gcloud(
        *("queues", "create", "careflow-calls", "--max-dispatches-per-second=1"),
        *("--max-concurrent-dispatches=10", "--max-attempts=30", "--min-backoff=2s", "--max-backoff=60s"),
    )
    changed = gcloud("queues", "update", "careflow-calls", "--max-dispatches-per-second=2.5")
    paused = gcloud("queues", "pause", "careflow-calls")
    shown = _json(gcloud("queues", "describe", "careflow-calls", "--format=json"))

    for done in (made, changed, paused):
        assert done.returncode == 0, done.stderr
    assert shown == {
        "name": "projects/careflow-local/locations/us-central1/queues/careflow-calls",
        "rateLimits": {"maxBurstSize": 1, "maxConcurrentDispatches": 10, "maxDispatchesPerSecond": 2.5},
        "retryConfig": {"maxAttempts": 30, "maxBackoff": "60s", "maxDoublings": 16, "minBackoff": "2s"},
        "state": "PAUSED",
    }


def test_a_task_is_delivered_with_its_token_and_its_name_is_used_up(gcloud: Gcloud, served: Served) -> None:
    assert gcloud("queues", "create", "delivered").returncode == 0

    created = _create_task(gcloud, served, "t1", "delivered")
    assert created.returncode == 0, created.stderr
    for _ in range(500):
        if served.receiver.received:
            break
        time.sleep(0.01)
    again = _create_task(gcloud, served, "t1", "delivered")

    (request,) = served.receiver.received
    assert (request.method, request.path, request.body) == ("POST", "/tasks/call", b'{"callId":"c1"}')
    assert request.headers["authorization"] == f"Bearer {ACCOUNT}|https://pulse.test"
    assert request.headers["content-type"] == "application/json"
    assert again.returncode == 1
    assert "ALREADY_EXISTS" in again.stderr


def test_waiting_tasks_are_listed_described_and_deleted(gcloud: Gcloud, served: Served) -> None:
    assert gcloud("queues", "create", "waiting").returncode == 0
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    assert _create_task(gcloud, served, "t2", "waiting", f"--schedule-time={later}").returncode == 0

    (listed,) = _json(gcloud("list", "--queue=waiting", "--format=json"))
    described = _json(gcloud("describe", "t2", "--queue=waiting", "--response-view=full", "--format=json"))
    deleted = gcloud("delete", "t2", "--queue=waiting")
    missing = gcloud("describe", "t2", "--queue=waiting")

    assert listed["scheduleTime"] == later
    assert "body" not in listed["httpRequest"]
    assert described["httpRequest"]["body"] == "eyJjYWxsSWQiOiJjMSJ9"
    assert described["view"] == "FULL"
    assert deleted.returncode == 0, deleted.stderr
    assert missing.returncode == 1
    assert "NOT_FOUND" in missing.stderr


def test_a_queue_is_purged_and_deleted(gcloud: Gcloud, served: Served) -> None:
    assert gcloud("queues", "create", "short-lived").returncode == 0

    assert gcloud("queues", "purge", "short-lived").returncode == 0
    assert gcloud("queues", "delete", "short-lived").returncode == 0

    names = [queue["name"].rpartition("/")[2] for queue in _json(gcloud("queues", "list", "--format=json"))]
    assert "short-lived" not in names
    refused = gcloud("queues", "create", "short-lived")
    assert "existed too recently" in refused.stderr
