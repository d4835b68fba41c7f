"""The demo on Google's Firestore emulator and, through Google's client, a Cloud Tasks: the morning is the same one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emulated import require_emulator

FEW = "9"  # of the 45, by id: somebody is completed, somebody unreachable, somebody raises an alert
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("CAREFLOW_", "FIRESTORE_"))
} | {name: os.environ[name] for name in ("CAREFLOW_FIRESTORE_EMULATOR_JAR",) if name in os.environ}


def begin(directory: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-c", "from careflow.cli import main; main()"),
            *("demo", "--json", "--data-dir", str(directory), "--patients", FEW, *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | variables,
    )


def morning(demo: subprocess.Popen[str]) -> dict[str, Any]:
    """What the demo found on record at its end, without how long it took."""
    try:
        out, err = demo.communicate(timeout=170)
    finally:
        demo.kill()
    assert demo.returncode == 0, err
    document: dict[str, Any] = json.loads(out)
    document.pop("seconds")
    return document


@pytest.mark.timeout(200)
def test_every_patient_has_the_same_outcome_on_firestore_and_cloud_tasks_as_on_one_disk(
    tmp_path: Path,
) -> None:
    require_emulator()
    (tmp_path / "hospitals.toml").write_text(
        '[[hospitals]]\nid = "lakeside"\nname = "Lakeside"\nphone = "+1 312 555 0101"\nroundHours = [20]\n'
    )
    whose = ("--hospital", "lakeside")  # which has no round in the morning
    file = str(tmp_path / "hospitals.toml")
    disk = begin(tmp_path / "disk", *whose, CAREFLOW_HOSPITALS=file)
    # The environment names a production that the demo must leave alone.
    cloud = begin(
        tmp_path / "cloud",
        *("--store", "firestore", "--queue", "cloud-tasks", *whose),
        CAREFLOW_HOSPITALS=file,
        CAREFLOW_PROJECT="hospital-prod",
        CAREFLOW_ENVIRONMENT="prod",
        CAREFLOW_TWILIO_ACCOUNT_SID="AC1",
        CAREFLOW_PULSE_URL="https://careflow-agent.example",
        CAREFLOW_CALLER_URL="https://caller-agent.example",
        CAREFLOW_PULSE_AUDIENCE="https://careflow-agent.example",
        CAREFLOW_STORE="firestore",  # without FIRESTORE_EMULATOR_HOST: the hospital's own database
        CAREFLOW_ROUND_HOURS="20",
    )
    here, there = morning(disk), morning(cloud)
    assert there == here
    assert {one["outcome"] for one in here["patients"]} >= {"completed", "unreachable"}
    assert sum(len(one["alerts"]) for one in here["patients"]) == here["alerts"] > 0
    assert sum(one["interactions"] for one in here["patients"]) == here["attempts"] > 8
    log = (tmp_path / "cloud" / "log.jsonl").read_text()
    assert "hospital-prod" not in log
    assert not [*(tmp_path / "cloud").glob("careflow.sqlite3*")]  # nothing was kept on the disk in secret


def test_it_asks_which_hospital_of_the_file_and_makes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "hospitals.toml"
    file.write_text('[[hospitals]]\nid = "lakeside"\nname = "Lakeside"\nphone = "+1 312 555 0101"\n')
    demo = begin(tmp_path / "data", CAREFLOW_HOSPITALS=str(file))
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert json.loads(out)["error"]["message"].endswith("name one with --hospital: lakeside")
    assert not (tmp_path / "data").exists()


def test_without_java_it_says_what_is_missing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = begin(tmp_path / "data", "--store", "firestore", PATH=str(tmp_path), JAVA_HOME="")
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "Java" in json.loads(out)["error"]["message"]
    assert not (tmp_path / "data").exists()


def test_an_emulator_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from careflow.cli import main; main()", "rounds", "list", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        env=ENVIRONMENT | {"CAREFLOW_STORE": "firestore", "FIRESTORE_EMULATOR_HOST": "127.0.0.1:9"},
    )
    assert done.returncode == 1
    assert "127.0.0.1:9 (FIRESTORE_EMULATOR_HOST)" in json.loads(done.stdout)["error"]["message"]
    assert not [*tmp_path.iterdir()]  # a command that looks makes no data directory
