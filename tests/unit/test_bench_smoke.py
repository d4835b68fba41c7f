"""The benchmark runs and checks what it measured. How long anything takes is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench import costs, documents, scheduler
from bench.cloud_world import cloud_world, people
from bench.costs import PRICES, Counted, Hospital
from bench.meter import OWN_LOOP, route_of

from careflow.lab.personas import Persona
from support.emulated import emulator_address

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


async def test_what_firestore_bills_is_told_apart_by_service_and_by_what_asked(tmp_path):
    """Each number can be added up by hand: docs/firestore.md says what is asked for, and firestore_usage how it is billed."""
    async with cloud_world(tmp_path, emulator_address()) as world:
        await world.enrol(people(3, time_zone=documents.NOT_DUE), Persona.NOT_ANSWERING)
        started = world.meter.copy()
        assert {line.cause for line in started.documents} == {OWN_LOOP}, "putting and looking costs nobody"
        await world.trigger()
        used = world.meter.by("service", "cause")
        planned = used["pulse", "/"]
        assert planned["writes"] == 3 + 4, "a call for each; the round twice, its hospital, the execution"
        assert set(used) <= {("pulse", "/"), *((name, OWN_LOOP) for name in ("pulse", "caller", "twilio"))}
        before = world.meter.copy()
        await world.sweep()
        swept = world.meter.since(before).by("service", "cause", "method")
        assert swept["pulse", "/tasks/sweep", "left_calls"] == {"reads": 1}, "none, as none is due"
        assert swept["pulse", "/tasks/sweep", "unclosed_rounds"] == {"reads": 1}
        assert ("pulse", "/tasks/sweep", "calls") not in swept


def test_a_route_has_no_ids():
    assert route_of("/twilio/status/0123456789abcdef-1") == "/twilio/status/*"
    assert route_of("/.well-known/agent-card.json") == "/.well-known/agent-card.json"


def test_the_costs_page_is_what_the_code_reckons():
    page = (ROOT / "docs" / "costs.md").read_text()
    assert costs.table(Hospital(), Counted()) in page
    assert costs.prices() in page


@pytest.mark.parametrize(("jobs", "dollars"), [(3, 0.0), (6, 0.30), (8, 0.50)])
def test_three_jobs_are_free(jobs, dollars):
    assert PRICES["jobs"].month(jobs, 30) == pytest.approx(dollars)


def test_what_is_free_every_day_is_free_every_day_of_the_month():
    assert PRICES["reads"].month(30 * 50_000, 30) == 0
    assert PRICES["reads"].month(30 * 50_000 + 100_000, 30) == pytest.approx(0.06)


def test_whoever_is_phoned_more_often_or_longer_costs_more():
    def total(**assumed):
        return sum(line.dollars for _, lines in costs.month(Hospital(**assumed), Counted()) for line in lines)

    usual = total()
    assert total(patients=2000) > 1.9 * usual
    for more in ({"minutes": 3.0}, {"attempts": 2.0}, {"rounds_a_day": 4}, {"answered": 0.9}):
        assert total(**more) > usual, more
