"""Firestore beside SQLite, on Google's emulator: documents that are billed, planning, durable lifecycles.

The emulator says how many documents, which is what Google bills. Of Google's speed it says nothing: it is one Java process on
this machine that keeps everything in memory and looks at a whole collection for a query.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import documents
from bench.documents import PART
from bench.figures import Figure
from bench.processes import serve
from careflow.errors import CareflowError
from careflow.lab.firestore_emulator import EmulatorMissing, running_emulator

SIZES = (1_000, 10_000)
OFTEN = 1_000  # larger rounds are planned once: the emulator needs minutes
LIFECYCLES = 100
IN_FLIGHT = (1, 10)


def measure(folder: Path, repeat: int, sizes: Sequence[int] = SIZES) -> tuple[list[Figure], list[str]]:
    """Figures, and who read and wrote what. Nothing, and why, where there is no emulator."""

    async def run() -> tuple[list[Figure], list[str]]:
        async with running_emulator() as emulator:
            figures, notes = await asyncio.to_thread(documents.measure, folder / "documents", emulator)
        async with running_emulator() as emulator:
            figures += await asyncio.to_thread(_planning, folder, emulator, repeat, sizes)
        async with running_emulator() as emulator:
            figures += await asyncio.to_thread(_lifecycles, folder, emulator, repeat)
        return figures, notes

    try:
        return asyncio.run(run())
    except EmulatorMissing as missing:
        return [], [f"firestore: not measured, {missing}"]


def _planning(folder: Path, emulator: str, repeat: int, sizes: Sequence[int]) -> list[Figure]:
    """Every size on each side, in turns."""
    names = {
        "bare": "bare Firestore client, documents alone",
        "firestore": "Firestore, our queue",
        "cloud": "Firestore, Cloud Tasks work-alike",
    }
    figures: list[Figure] = []
    with ExitStack() as stack:
        home = folder / "tasks"
        home.mkdir()
        tasks = stack.enter_context(serve("tasks", home, {"CAREFLOW_QUEUE": "cloud-tasks"}))
        for size in sizes:
            took: dict[str, list[float]] = {side: [] for side in ("sqlite", *names)}
            for _ in range(repeat if size <= OFTEN else 1):
                for side, seconds in took.items():
                    seconds.append(
                        _seconds(folder, "bench.planning_cloud", side, str(size), emulator, tasks.url)
                    )
            what = f"planning {size:,}"
            figures.append(_figure(f"{what}: SQLite, our queue", "s", took["sqlite"]))
            for side, name in names.items():
                ratios = [theirs / ours for theirs, ours in zip(took[side], took["sqlite"], strict=True)]
                figures.append(_figure(f"{what}: {name}", "s", took[side]))
                figures.append(_figure(f"{what}: {name} / SQLite", "times", ratios))
    return figures


def _lifecycles(folder: Path, emulator: str, repeat: int) -> list[Figure]:
    figures: list[Figure] = []
    for number in IN_FLIGHT:
        rates: dict[str, list[float]] = {"SQLite": [], "Firestore": []}
        for _ in range(repeat):
            for name, place in (("SQLite", ()), ("Firestore", (emulator,))):
                seconds = _seconds(folder, "bench.lifecycle_ours", "", str(LIFECYCLES), str(number), *place)
                rates[name].append(LIFECYCLES / seconds)
        what = f"lifecycles, {number} in flight"
        figures += [_figure(f"{what}: {name}", "1/s", values) for name, values in rates.items()]
        ratios = [theirs / ours for theirs, ours in zip(rates["Firestore"], rates["SQLite"], strict=True)]
        figures.append(_figure(f"{what}: Firestore / SQLite", "times", ratios))
    return figures


def _figure(what: str, unit: str, values: Sequence[float]) -> Figure:
    return Figure(PART, what, unit, tuple(values))


def _seconds(folder: Path, module: str, side: str, *words: str) -> float:
    """What one run in a process of its own says, in a directory of its own."""
    place = folder / "run"
    place.mkdir()
    before = (side, str(place)) if side else (str(place),)
    done = subprocess.run(
        [sys.executable, "-m", module, *before, *words], capture_output=True, text=True, timeout=600
    )
    shutil.rmtree(place)
    if done.returncode:
        raise CareflowError(f"{module} {side} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])
