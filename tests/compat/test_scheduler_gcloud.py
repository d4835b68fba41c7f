"""The real `gcloud` against our port: every scheduler command of the seed's runbook, with nothing but the endpoint changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scheduler_api_kit import Threaded, serving_in_a_thread

GCLOUD = shutil.which("gcloud")
PROJECT = "careflow-local"
WHERE = (f"--project={PROJECT}", "--location=us-central1")
ACCOUNT = f"careflow-scheduler@{PROJECT}.iam.gserviceaccount.com"


@dataclass(frozen=True, slots=True)
class Gcloud:
    """The command, told where our port is and nothing else of this machine's configuration."""

    running: Threaded
    config: Path

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        assert GCLOUD
        url = f"{self.running.served.url}/"
        environment = {name: text for name, text in os.environ.items() if not name.startswith("CLOUDSDK_")}
        return subprocess.run(
            [GCLOUD, *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment
            | {
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDSCHEDULER": url,
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": url,
                "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
                "CLOUDSDK_CONFIG": str(self.config),
                "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
                "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
                "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
                "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            },
        )

    def scheduler(self, *words: str) -> str:
        """What `gcloud scheduler WORDS` prints. It must succeed."""
        done = self("scheduler", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.scheduler(*words, "--format=json"))

    def create(self, job_id: str, *words: str) -> Any:
        return self.json(
            *("jobs", "create", "http", job_id, *WHERE, "--schedule=15 8 * * *"),
            *("--time-zone=America/New_York", f"--uri={self.running.served.target.url}/", *words),
        )

    def update(self, job_id: str, *words: str) -> Any:
        return self.json("jobs", "update", "http", job_id, *WHERE, *words)


@pytest.fixture(scope="module")
def gcloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcloud]:
    if GCLOUD is None:
        reason = "the gcloud command is not installed (it is in CI, where this may not be left out)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with serving_in_a_thread(tmp_path_factory.mktemp("scheduler")) as running:
        yield Gcloud(running, tmp_path_factory.mktemp("gcloud"))


def test_create_and_describe_show_the_job_as_the_runbook_does(gcloud: Gcloud) -> None:
    gcloud.create(
        "careflow-morning-rounds",
        '--message-body={"scheduleHour":8}',
        "--headers=Content-Type=application/json",
        f"--oidc-service-account-email={ACCOUNT}",
        *("--attempt-deadline=10m", "--max-retry-attempts=3", "--min-backoff=60s", "--max-backoff=5m"),
    )

    found = gcloud.json("jobs", "describe", "careflow-morning-rounds", *WHERE)

    uri = f"{gcloud.running.served.target.url}/"
    assert found["name"] == f"projects/{PROJECT}/locations/us-central1/jobs/careflow-morning-rounds"
    assert (found["schedule"], found["state"], found["timeZone"]) == (
        "15 8 * * *",
        "ENABLED",
        "America/New_York",
    )
    assert found["httpTarget"]["oidcToken"] == {"serviceAccountEmail": ACCOUNT, "audience": uri}
    assert found["httpTarget"]["httpMethod"] == "POST"
    assert found["attemptDeadline"] == "600s"
    assert found["retryConfig"] == {
        "retryCount": 3,
        "maxRetryDuration": "0s",
        "minBackoffDuration": "60s",
        "maxBackoffDuration": "300s",
        "maxDoublings": 5,
    }


def test_list_shows_the_table_of_jobs(gcloud: Gcloud) -> None:
    gcloud.create("listed")

    rows = gcloud.scheduler("jobs", "list", *WHERE).splitlines()

    assert rows[0].split()[:2] == ["ID", "LOCATION"]
    row = next(row for row in rows if row.startswith("listed "))
    assert row.split() == [
        *("listed", "us-central1", "15", "8", "*", "*", "*", "(America/New_York)", "HTTP", "ENABLED")
    ]


def test_update_changes_what_its_flags_name(gcloud: Gcloud) -> None:
    before = gcloud.create("changed", f"--oidc-service-account-email={ACCOUNT}", "--message-body=x")

    moved = gcloud.update("changed", "--schedule=0 9 * * *", "--max-retry-attempts=2")
    bare = gcloud.update(
        "changed", "--clear-auth-token", "--clear-max-retry-attempts", "--update-headers=X-Round=8"
    )
    other = gcloud.update("changed", f"--oauth-service-account-email={ACCOUNT}", "--http-method=put")
    back = gcloud.update("changed", f"--oidc-service-account-email={ACCOUNT}", "--clear-headers")

    assert (moved["schedule"], moved["retryConfig"]["retryCount"]) == ("0 9 * * *", 2)
    assert moved["httpTarget"] == before["httpTarget"]
    assert "oidcToken" not in bare["httpTarget"]
    assert "retryCount" not in bare["retryConfig"]
    assert bare["httpTarget"]["headers"]["X-Round"] == "8"
    assert (other["httpTarget"]["httpMethod"], other["httpTarget"]["body"]) == ("PUT", "eA==")
    assert set(back["httpTarget"]) == {"uri", "httpMethod", "headers", "body", "oidcToken"}
    assert "X-Round" not in back["httpTarget"]["headers"]


def test_pause_and_resume(gcloud: Gcloud) -> None:
    gcloud.create("paused")

    gcloud.scheduler("jobs", "pause", "paused", *WHERE)
    state = gcloud.json("jobs", "describe", "paused", *WHERE)["state"]
    gcloud.scheduler("jobs", "resume", "paused", *WHERE)

    assert state == "PAUSED"
    assert gcloud.json("jobs", "describe", "paused", *WHERE)["state"] == "ENABLED"


def test_run_triggers_the_target_and_the_log_tells_it(gcloud: Gcloud) -> None:
    gcloud.create("forced", "--message-body=now")

    gcloud.scheduler("jobs", "run", "forced", *WHERE)
    gcloud.running.ask(gcloud.running.served.target.came.wait())
    log = "resource.type=cloud_scheduler_job \\\n  AND resource.labels.job_id=forced".replace("\\\n", "")
    entries = _until_finished(gcloud, log)

    assert gcloud.running.served.target.received[-1][2] == b"now"
    kinds = [entry["jsonPayload"]["@type"].rpartition(".")[2] for entry in entries]
    assert kinds == ["AttemptFinished", "AttemptStarted"]
    assert entries[0]["httpRequest"] == {"status": 200}
    table = gcloud.scheduler(
        *("jobs", "describe", "forced", *WHERE, "--format=table(state, lastAttemptTime, scheduleTime)")
    )
    assert table.split()[3:4] == ["ENABLED"]


def _until_finished(gcloud: Gcloud, log_filter: str) -> list[Any]:
    """The entries once the attempt has ended; each try takes gcloud's second."""
    for _ in range(10):
        done = gcloud("logging", "read", log_filter, f"--project={PROJECT}", "--limit=10", "--format=json")
        assert done.returncode == 0, done.stderr
        entries: list[Any] = json.loads(done.stdout)
        if len(entries) > 1:
            return entries
    raise AssertionError("the attempt did not end")


def test_locations(gcloud: Gcloud) -> None:
    listed = gcloud.json("locations", "list", f"--project={PROJECT}")
    found = gcloud.json("locations", "describe", "us-central1", f"--project={PROJECT}")

    assert [location["locationId"] for location in listed] == ["us-central1"]
    assert found == listed[0]


def test_delete_forgets_the_job_and_says_so(gcloud: Gcloud) -> None:
    gcloud.create("deleted")

    gcloud.scheduler("jobs", "delete", "deleted", *WHERE)
    again = gcloud("scheduler", "jobs", "describe", "deleted", *WHERE)

    assert again.returncode == 1
    assert "NOT_FOUND" in again.stderr


def test_a_refusal_reaches_the_operator_with_the_fields_name(gcloud: Gcloud) -> None:
    refused = gcloud(
        *("scheduler", "jobs", "create", "http", "bad", *WHERE),
        *("--schedule=0 15 8 * * *", "--uri=http://127.0.0.1:9/"),
    )

    assert refused.returncode == 1
    assert "INVALID_ARGUMENT: schedule: Schedule or time zone is invalid." in refused.stderr
