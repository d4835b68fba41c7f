"""The verdict of `scheduler/run_daily_job.py`: what it takes for a round to count as gone on to its end."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scheduler" / "run_daily_job.py"
ROUND = "local-default-20261123-08"


@pytest.fixture(scope="module")
def job() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_daily_job", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def task(state: str, calls: dict[str, str], outcomes: dict[str, str]) -> dict[str, Any]:
    data = {"patientsQueried": "3", "calls": calls, "outcomes": outcomes}
    return {"id": ROUND, "status": {"state": f"TASK_STATE_{state}", "message": {"parts": [{"data": data}]}}}


class Summary:
    """A Pulse that shows this round at `GET /rounds`."""

    def __init__(self, calls: dict[str, int], outcomes: dict[str, int]) -> None:
        self._shown = {"calls": calls, "outcomes": outcomes}

    async def summary(self, round_id: str) -> dict[str, Any]:
        assert round_id == ROUND
        return self._shown


def test_progress_is_read_from_a_task_and_from_an_update_of_one(job: ModuleType) -> None:
    told = task("WORKING", {"waiting": "1", "calling": "1", "ended": "1"}, {"skipped": "1"})
    progress = job.Progress.of(told)
    update = {"taskId": ROUND, "status": told["status"]}
    assert job.Progress.of(update) == progress
    assert (progress.round_id, progress.queried, progress.open_calls, progress.is_over) == (
        ROUND,
        3,
        2,
        False,
    )
    assert job.Progress.of(task("COMPLETED", {"ended": "3"}, {"completed": "3"})).is_over


async def test_everybody_with_one_outcome_passes(job: ModuleType) -> None:
    cut = job.Progress.of(task("WORKING", {"calling": "2", "ended": "1"}, {"cancelled": "1"}))
    end = job.Progress.of(task("COMPLETED", {"ended": "3"}, {}))
    await job.verify(Summary({"ended": 3}, {"completed": 2, "cancelled": 1}), cut, end)


@pytest.mark.parametrize(
    ("calls", "outcomes", "says"),
    [
        ({"ended": 2, "calling": 1}, {"completed": 2}, "open calls"),
        ({"ended": 3}, {"completed": 2}, "3 patients are in the round"),
        ({"ended": 3}, {"completed": 1, "cancelled": 2}, "cancelled after the cut"),
    ],
)
async def test_a_round_that_lost_somebody_fails(
    job: ModuleType, calls: dict[str, int], outcomes: dict[str, int], says: str
) -> None:
    cut = job.Progress.of(task("WORKING", {"calling": "3"}, {}))
    end = job.Progress.of(task("COMPLETED", {"ended": "3"}, {}))
    with pytest.raises(job.Failed, match=says):
        await job.verify(Summary(calls, outcomes), cut, end)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8001", True),
        ("http://127.0.0.1:8001", True),
        ("http://[::1]:8001", True),
        ("https://careflow-agent.test", False),
        ("http://localhost.elsewhere.test", False),
        ("http://192.0.2.1:8001", False),
    ],
)
def test_tokens_are_made_here_only_for_this_machine(job: ModuleType, url: str, local: bool) -> None:
    assert job.is_local(url) is local
