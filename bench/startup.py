"""A cold start of Pulse: a new process and an empty data directory, until the first 200 of /readyz.

The interpreter's files are in the page cache and compiled; the keys of the local issuer are made on the way.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Figure
from bench.processes import serve

MODULES = (
    "careflow.cli.serve",
    "careflow.app",
    "careflow.hosting",
    "careflow.telemetry",
    "careflow.pulse.app",
    "careflow.pulse.caller_client",
    "careflow.tasks.delivery",
    "careflow.tasks.embedded",
)
HEAVIEST = 8


def measure(folder: Path, repeat: int) -> list[Figure]:
    """Time to ready, the imports' share of it, and a bare interpreter beside them."""
    ready, imports, bare = [], [], []
    for number in range(repeat):
        data_dir = folder / f"start-{number}"
        data_dir.mkdir()
        with serve("pulse", data_dir, {}) as process:
            ready.append(process.seconds_to_ready)
        imports.append(_seconds(f"import {', '.join(MODULES)}"))
        bare.append(_seconds("pass"))
    return [
        Figure("start-up", "careflow serve pulse: first 200 of /readyz", "s", tuple(ready), "under 1"),
        Figure("start-up", "its imports, interpreter included", "s", tuple(imports), "under 1"),
        Figure("start-up", "a bare interpreter", "s", tuple(bare)),
    ]


def heaviest_imports() -> list[str]:
    """What `python -X importtime` says: the total, and the top packages by what they add."""
    lines = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {', '.join(MODULES)}"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr.splitlines()
    packages: dict[str, int] = {}
    for line in lines:
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdecimal():
            package = name.strip().split(".")[0]
            packages[package] = packages.get(package, 0) + int(own)
    total = sum(packages.values()) / 1000
    heavy = sorted(packages.items(), key=lambda item: -item[1])[:HEAVIEST]
    listed = ", ".join(f"{package} {micros / 1000:.0f}" for package, micros in heavy)
    return [f"-X importtime: {total:.0f} ms in all (its own overhead included); ms by package: {listed}"]


def _seconds(program: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began
