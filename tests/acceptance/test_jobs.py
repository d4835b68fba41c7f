"""`careflow jobs` against a served scheduler, and the jobs that a deployment starts with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from careflow.cli import build
from careflow.cli.context import NotFound
from careflow.cli.scheduler_api import JobsRefused
from careflow.errors import SettingsError
from careflow.scheduler.defaults import default_jobs
from careflow.scheduler.seeding import ensure_jobs
from careflow.settings import Settings, load_settings
from scheduler_api_kit import Threaded, serving, serving_in_a_thread


class Jobs:
    """The command, in this process, as its JSON."""

    def __init__(self, running: Threaded, capsys: pytest.CaptureFixture[str]) -> None:
        self._where = ("--endpoint", running.served.url)
        self._capsys = capsys

    def __call__(self, *words: str) -> Any:
        build()(["jobs", *words, *self._where, "--json"], result_action="return_value")
        return json.loads(self._capsys.readouterr().out)

    def shown(self, *words: str) -> str:
        build()(["jobs", *words, *self._where], result_action="return_value")
        return self._capsys.readouterr().out


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Threaded]:
    with serving_in_a_thread(tmp_path_factory.mktemp("scheduler")) as threaded:
        yield threaded


@pytest.fixture
def jobs(running: Threaded, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> Jobs:
    monkeypatch.setenv("CAREFLOW_DATA_DIR", str(tmp_path))
    return Jobs(running, capsys)


def create(jobs: Jobs, running: Threaded, job_id: str) -> Any:
    return jobs(
        "create", job_id, "--schedule", "15 8 * * *", "--uri", running.served.target.url, "--body", '{"scheduleHour": 8}'
    )  # fmt: skip


async def finished(running: Threaded, job_id: str) -> None:
    """Return when the job's attempt has ended."""
    async with asyncio.timeout(20):
        while not any(
            attempt.finished_at
            for attempt in await running.served.scheduler.attempts(running.served.name(job_id))
        ):
            await asyncio.sleep(0.01)


def test_a_created_job_posts_json_with_a_token_and_an_audience(jobs: Jobs, running: Threaded) -> None:
    job = create(jobs, running, "made")
    assert job["httpTarget"]["headers"]["Content-Type"] == "application/json"
    assert job["httpTarget"]["oidcToken"]["audience"] == running.served.target.url
    assert (job["timeZone"], job["state"]) == ("America/New_York", "ENABLED")
    assert any(listed["name"] == job["name"] for listed in jobs("list")["jobs"])
    assert '{\\"scheduleHour\\": 8}' in jobs.shown("describe", "made")


def test_an_update_changes_what_is_named_and_nothing_else(jobs: Jobs, running: Threaded) -> None:
    before = create(jobs, running, "changed")
    after = jobs("update", "changed", "--schedule", "0 9 * * 1-5", "--retries", "2", "--deadline", "60")
    assert (after["schedule"], after["retryConfig"]["retryCount"]) == ("0 9 * * 1-5", 2)
    assert after["attemptDeadline"] == "60s"
    assert after["httpTarget"] == before["httpTarget"]


def test_a_paused_job_fires_nothing_until_it_is_resumed(jobs: Jobs, running: Threaded) -> None:
    create(jobs, running, "held")
    assert jobs("pause", "held")["state"] == "PAUSED"
    assert "held" not in {firing["job"] for firing in jobs("next", "--days", "2")["firings"]}
    assert jobs("resume", "held")["state"] == "ENABLED"
    assert [firing["job"] for firing in jobs("next", "--days", "2")["firings"]].count("held") == 2


def test_a_run_is_in_the_history_with_its_duration_and_result(jobs: Jobs, running: Threaded) -> None:
    create(jobs, running, "forced")
    jobs("run", "forced")
    running.ask(finished(running, "forced"))
    attempt = jobs("history", "forced")["attempts"][0]
    assert (attempt["result"], attempt["httpStatus"]) == ("OK", 200)
    assert attempt["seconds"] >= 0
    assert "OK" in jobs.shown("history", "forced")


def test_a_deleted_job_is_gone(jobs: Jobs, running: Threaded) -> None:
    create(jobs, running, "gone")
    jobs("delete", "gone")
    with pytest.raises(NotFound, match="NOT_FOUND"):
        jobs("describe", "gone")


def test_what_the_scheduler_refuses_is_said_in_its_words(jobs: Jobs, running: Threaded) -> None:
    with pytest.raises(JobsRefused, match="INVALID_ARGUMENT: schedule"):
        jobs("create", "bad", "--schedule", "61 * * * *", "--uri", running.served.target.url)


def test_a_remote_endpoint_needs_a_token_and_a_change_needs_something_to_change(jobs: Jobs) -> None:
    with pytest.raises(SettingsError, match="--token"):
        build()(
            ["jobs", "list", "--endpoint", "https://cloudscheduler.googleapis.com"],
            result_action="return_value",
        )
    with pytest.raises(SettingsError, match="nothing to change"):
        jobs("update", "whatever")


def settings(**changes: object) -> Settings:
    return load_settings(**({"pulse_url": "http://127.0.0.1:1"} | changes))


async def test_a_first_start_makes_the_three_jobs_and_a_later_one_only_aims_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        scheduler = served.scheduler
        await ensure_jobs(scheduler, default_jobs(settings(), "http://127.0.0.1:1"))
        parent = "projects/careflow-local/locations/us-central1"
        assert [job.id for job in await scheduler.list(parent)] == [
            "careflow-evening-rounds",
            "careflow-morning-rounds",
            "careflow-noon-rounds",
        ]
        await scheduler.delete(f"{parent}/jobs/careflow-noon-rounds")
        await scheduler.pause(f"{parent}/jobs/careflow-evening-rounds")
        moved = settings(pulse_url="http://127.0.0.1:2")
        await ensure_jobs(scheduler, default_jobs(moved, "http://127.0.0.1:2"))
        left = await scheduler.list(parent)
        assert [job.id for job in left] == ["careflow-evening-rounds", "careflow-morning-rounds"]
        assert [job.state.value for job in left] == ["PAUSED", "ENABLED"]
        for job in left:
            assert job.http_target.uri == "http://127.0.0.1:2"
            assert job.http_target.oidc_token is not None
            assert job.http_target.oidc_token.audience == "http://127.0.0.1:2"
