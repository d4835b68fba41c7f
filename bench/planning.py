"""Planning a round: how long Pulse takes to answer its trigger, and how much more memory it needs meanwhile.

Pulse is the real process behind its real door (HTTP, OIDC token), on a database on disk with the durability it ships with. Its
dispatcher stands by, because this process holds the queue's role: planning alone is measured, not the calls that follow.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure
from bench.processes import serve
from bench.roster import EIGHT_FIFTEEN, HOUR, fill
from careflow.clock import VirtualClock
from careflow.errors import CareflowError
from careflow.operating import trigger_round
from careflow.settings import load_settings
from careflow.store.locks import hold_role
from careflow.store.sqlite import SqliteStore

SIZES = (1_000, 10_000, 100_000)
AIMS = {100_000: ("under 20", "under 150")}


@dataclass(frozen=True, slots=True)
class _Run:
    seconds: float
    again_seconds: float
    growth_mb: float


def measure(folder: Path, sizes: Sequence[int], repeat: int) -> list[Figure]:
    """Each size `repeat` times, every time in a new process on a new copy of the same roster."""
    figures = []
    for size in sizes:
        roster = folder / f"roster-{size}"
        asyncio.run(_prepare(roster, size))
        runs = []
        for number in range(repeat):
            data_dir = folder / f"planning-{size}-{number}"
            shutil.copytree(roster, data_dir)
            runs.append(_run(data_dir, size))
            shutil.rmtree(data_dir)
        shutil.rmtree(roster)
        in_time, in_memory = AIMS.get(size, ("", ""))
        what = f"{size:,} patients due"
        figures += [
            Figure("planning", f"{what}: answered in", "s", tuple(run.seconds for run in runs), in_time),
            Figure("planning", f"{what}: rate", "calls/s", tuple(size / run.seconds for run in runs)),
            Figure("planning", f"{what}: more memory", "MB", tuple(run.growth_mb for run in runs), in_memory),
            Figure(
                "planning", f"{what}: duplicate answered in", "s", tuple(run.again_seconds for run in runs)
            ),
        ]
    return figures


async def _prepare(data_dir: Path, size: int) -> None:
    store = await SqliteStore.open(data_dir)
    try:
        await fill(store, size)
    finally:
        await store.close()


def _run(data_dir: Path, size: int) -> _Run:
    clock_file = data_dir / "clock"
    clock = VirtualClock(EIGHT_FIFTEEN, path=clock_file)
    with (
        hold_role(data_dir, "queue"),
        serve("pulse", data_dir, {"CAREFLOW_CLOCK_FILE": str(clock_file)}) as process,
    ):
        settings = load_settings(data_dir=data_dir, pulse_url=process.url)
        before = process.resident_mb()

        def trigger() -> float:
            began = time.perf_counter()
            status, body = asyncio.run(trigger_round(settings, HOUR, clock, trigger_type="scheduled"))
            seconds = time.perf_counter() - began
            if (status, body.get("callsInitiated")) != (200, size):
                raise CareflowError(f"{size} calls were to be planned, Pulse answered {status}: {body}")
            return seconds

        first = trigger()
        growth = process.peak_mb() - before
        return _Run(first, trigger(), growth)
