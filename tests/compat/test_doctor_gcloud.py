"""The fixes that the doctor prints for the cloud are words that gcloud takes, by gcloud's own check, which runs nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from tests.compat.test_seed_commands import bare_environment

from careflow.doctor import agents
from careflow.doctor.findings import Level
from examined import CLOUD, Jobs, cloud_report, google, job, set_up


async def printed(tmp_path: Path) -> set[str]:
    """Every gcloud line of a deployment where much is wrong, once with the tokens to see it and once without."""
    gone = httpx.Response(404, json={"error": {"status": "NOT_FOUND"}})
    denied = httpx.Response(403, json={"error": {"status": "PERMISSION_DENIED"}})
    off = httpx.Response(200, json={"disabled": True})
    opened = {"bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]}
    answers = google(
        **{
            "queues/careflow-calls": denied,
            "caller-agent:getIamPolicy": gone,
            "careflow-agent:getIamPolicy": httpx.Response(200, json=opened),
            CLOUD["queue_account"]: off,
        }
    )
    scheduler = Jobs(
        job(8, state="DISABLED", status={"code": 7}, lastAttemptTime="2026-11-22T13:15:00Z"), job(20)
    )
    reports = [
        await cloud_report(tmp_path, answers, scheduler=scheduler),
        await cloud_report(tmp_path, answers, scheduler=Jobs(refusal="no"), tokens=False),
    ]
    lines = {
        line
        for report in reports
        for one in report.examined
        for finding in one.findings
        if finding.level is not Level.OK
        for line in finding.fix
    }
    lines |= set(agents.identity_command(set_up(tmp_path)))
    return {line for line in lines if "gcloud " in line and not line.startswith("#")}


async def test_gcloud_takes_every_line_that_is_printed(tmp_path: Path) -> None:
    if shutil.which("gcloud") is None:
        assert not os.environ.get("CI")
        pytest.skip("gcloud is not installed")
    lines = sorted(await printed(tmp_path))
    assert len(lines) >= 10
    wrong = "gcloud tasks queues resume careflow-calls --nosuch=1"
    assert refused([*lines, wrong], tmp_path) == [wrong]


def refused(lines: Sequence[str], folder: Path) -> list[str]:
    """Which of the lines gcloud does not take; what stands in a `$(...)` is gcloud's alone."""
    commands = {line[line.index("gcloud ") :].rstrip(")"): line for line in lines}
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": command} for command in commands]))
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        env=bare_environment()
        | {"CLOUDSDK_CONFIG": str(folder / "config"), "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    verdicts = json.loads(done.stdout)
    told = zip(commands.values(), verdicts, strict=True)
    return [line for line, verdict in told if not verdict["success"]]
