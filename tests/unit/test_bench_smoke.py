"""The benchmark runs and checks what it measured. How long anything takes is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench import scheduler

ROOT = Path(__file__).parents[2]


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_planning_is_measured_behind_the_real_door(tmp_path):
    said = json.loads(
        run("bench", "planning", "--sizes", "30", "--repeat", "1", "--folder", str(tmp_path), "--json")
    )
    assert said["machine"]["cores"] >= 1
    assert [(figure["what"], figure["unit"]) for figure in said["figures"]] == [
        ("30 patients due: answered in", "s"),
        ("30 patients due: rate", "calls/s"),
        ("30 patients due: more memory", "MB"),
        ("30 patients due: duplicate answered in", "s"),
    ]
    assert all(len(figure["values"]) == 1 for figure in said["figures"])
    assert list(tmp_path.iterdir()) == []


def test_a_measured_lifecycle_is_a_whole_one(tmp_path):
    """The module itself counts the outcomes in the ledger before it says how long they took."""
    assert float(run("bench.lifecycle_ours", str(tmp_path), "30", "5")) > 0


@pytest.mark.parametrize(
    "side", [("scheduler_ours",), ("scheduler_apscheduler", "memory"), ("scheduler_bare",)]
)
def test_every_job_of_a_measured_scheduler_arrives_once(tmp_path, side, monkeypatch):
    if "apscheduler" in side[0]:
        pytest.importorskip("apscheduler")
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(scheduler.SIDES, "this", (f"bench.{side[0]}", *side[1:]))
    late = scheduler._fire(tmp_path, "this", 5)
    assert len(late) == 5
    assert late[0] >= 0
