"""Whole durable lifecycles of calls, beside DBOS doing the same durable steps: in turns, on one disk, pair by pair.

A third party sets the scale: five bare commits, one after another, which no lifecycle of five durable steps can beat by itself.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure
from careflow.errors import CareflowError

IN_FLIGHT = (1, 10, 50)
JOURNALS = {"delete": "DBOS as it ships", "wal": "DBOS put in WAL"}
OUR_COUNT = 1_000  # a lifecycle of ours is shorter, so more of them make a run of the same length
DBOS_COUNT = 150
BARE_COUNT = 100
COMMITS = 5  # of a lifecycle, on both sides


def measure(folder: Path, in_flight: Sequence[int], repeat: int) -> list[Figure]:
    """Rates of both and their ratio, for each number in flight. Every run has a process and a database of its own."""
    figures: list[Figure] = []
    bare: list[float] = []
    for number in in_flight:
        ours: list[float] = []
        theirs: dict[str, list[float]] = {journal: [] for journal in JOURNALS}
        for _ in range(repeat):
            bare.append(_bare_rate(folder))
            ours.append(_rate(folder, "bench.lifecycle_ours", OUR_COUNT, number))
            for journal, rates in theirs.items():
                rates.append(_rate(folder, "bench.lifecycle_dbos", DBOS_COUNT, number, journal))
        what = f"{number} in flight"
        figures.append(Figure("lifecycles", f"{what}: CareFlow Pulse", "1/s", tuple(ours)))
        for journal, rates in theirs.items():
            figures.append(Figure("lifecycles", f"{what}: {JOURNALS[journal]}", "1/s", tuple(rates)))
            ratios = tuple(us / them for us, them in zip(ours, rates, strict=True))
            figures.append(Figure("lifecycles", f"{what}: ours / {JOURNALS[journal]}", "times", ratios, "10"))
    what = f"{COMMITS} bare commits one after another"
    return [*figures, Figure("lifecycles", what, "1/s", tuple(bare))]


def _rate(folder: Path, module: str, count: int, in_flight: int, *more: str) -> float:
    """Lifecycles per second of one run."""
    place = folder / "lifecycles"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", module, str(place), str(count), str(in_flight), *more],
        capture_output=True,
        text=True,
        timeout=600,
    )
    shutil.rmtree(place)
    if done.returncode:
        raise CareflowError(f"{module} failed:\n{done.stderr[-2000:]}")
    return count / float(done.stdout.split()[-1])


def _bare_rate(folder: Path) -> float:
    """How often a second this disk takes five commits of one small row, in the journal mode and durability that we use."""
    place = folder / "bare"
    place.mkdir()
    connection = sqlite3.connect(place / "bare.sqlite", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE steps (number INTEGER PRIMARY KEY)")
        began = time.perf_counter()
        for number in range(BARE_COUNT * COMMITS):
            connection.execute("INSERT INTO steps VALUES (?)", (number,))
        return BARE_COUNT / (time.perf_counter() - began)
    finally:
        connection.close()
        shutil.rmtree(place)
