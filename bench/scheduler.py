"""The scheduler beside APScheduler 3: how late jobs reach their target, what idling costs, how fast slots are reckoned.

Lateness is measured at the target, another process: the arrival of the whole request less the slot. Everybody has the same
jobs, the same connections, the same bound on requests at once, and a database on the same disk; every run a new process and a new
database. What each does by then is not the same:

- ours has the intent of every attempt, its log entry and the job's next slot on disk before the request leaves, sends an
  identity token, and records the outcome afterwards;
- APScheduler with its SQLAlchemy store (SQLite) has the job's next slot on disk, one commit a job; with its memory store
  nothing. Neither keeps a history, sends a token, or knows after a crash what it had begun.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from bench.figures import Figure
from careflow.errors import CareflowError
from careflow.scheduler.schedule import parse_schedule

JOBS = (1, 1_000, 10_000)
MANY = 10_000  # from here on one run is enough, and long enough
IDLE_JOBS = 1_000
AIMS = {(1_000, "p99"): "under 100"}
SLOW = 10.0  # seconds a thousand jobs, after which a run has failed
OURS, MEMORY, SQLITE, BARE = "CareFlow Pulse", "APScheduler, memory", "APScheduler, SQLite", "bare requests"
SIDES: dict[str, tuple[str, ...]] = {
    OURS: ("bench.scheduler_ours",),
    MEMORY: ("bench.scheduler_apscheduler", "memory"),
    SQLITE: ("bench.scheduler_apscheduler", "sqlite"),
    BARE: ("bench.scheduler_bare",),
}
# APScheduler numbers weekdays from Monday and restricts by both days, so neither is compared.
SCHEDULES = {"every minute": "* * * * *", "a daily 8:15": "15 8 * * *", "each 29 February": "0 0 29 2 *"}
RECKONED = 2_000
FEW = 50  # of the rare ones


def measure(folder: Path, jobs: Sequence[int], repeat: int) -> list[Figure]:
    """All three, the sides in turns. The largest sizes and idling, which hardly vary, once."""
    return [*_lateness(folder, jobs, repeat), *_idle(folder), *_reckoning(repeat)]


def _lateness(folder: Path, jobs: Sequence[int], repeat: int) -> list[Figure]:
    figures = []
    for count in jobs:
        late: dict[str, list[list[float]]] = {side: [] for side in SIDES}
        for _ in range(repeat if count < MANY else 1):
            for side in SIDES:
                late[side].append(_fire(folder, side, count))
        for side, runs in late.items():
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                values = tuple(_quantile(run, share) * 1000 for run in runs)
                aim = AIMS.get((count, name), "") if side == OURS else ""
                figures.append(
                    Figure("scheduler", f"{count:,} due: {side}, late by {name}", "ms", values, aim)
                )
    return figures


def _fire(folder: Path, side: str, count: int) -> list[float]:
    """Seconds between the slot and the arrival of each job, ascending."""
    allowed = SLOW * max(1, count / 1000)
    with _process(folder, "bench.scheduler_target", str(count)) as target:
        url = f"http://127.0.0.1:{_line(target)}"
        with _side(folder, side, "fire", count, url) as process:
            slot = float(_line(process))
            try:
                said, _ = target.communicate(timeout=allowed)
            except subprocess.TimeoutExpired:
                raise CareflowError(f"{side}: {count} requests were not there within {allowed} s") from None
    arrivals = json.loads(said)
    if sorted(path for path, _ in arrivals) != sorted(f"/{number}" for number in range(count)):
        raise CareflowError(f"{side}: {count} jobs did not arrive once each")
    return sorted(at - slot for _, at in arrivals)


def _idle(folder: Path) -> list[Figure]:
    figures = []
    for side in (OURS, MEMORY, SQLITE):
        with _side(folder, side, "idle", IDLE_JOBS, "http://127.0.0.1:9") as process:
            cpu, memory = json.loads(_line(process))
        what = f"idle with {IDLE_JOBS:,} jobs: {side}"
        aim = "nothing measurable" if side == OURS else ""
        figures.append(Figure("scheduler", f"{what}, CPU in 5 s", "ms", (cpu * 1000,), aim))
        figures.append(Figure("scheduler", f"{what}, memory", "MB", (memory,)))
    return figures


def _reckoning(repeat: int) -> list[Figure]:
    from apscheduler.triggers.cron import CronTrigger

    start, zone = datetime(2026, 3, 2, 12, 0, 30, tzinfo=UTC), "America/New_York"
    figures = []
    for name, text in SCHEDULES.items():
        schedule = parse_schedule(text, zone)
        trigger = CronTrigger.from_crontab(text, timezone=zone)
        count = FEW if "February" in name else RECKONED
        ours, theirs = [], []
        for _ in range(repeat):
            began, slots, slot = time.perf_counter(), [], start
            for _ in range(count):
                slot = schedule.next_after(slot) or start
                slots.append(slot)
            ours.append(count / (time.perf_counter() - began))
            began, fires, fire = time.perf_counter(), [], None
            now = start.astimezone(ZoneInfo(zone))
            for _ in range(count):
                fire = trigger.get_next_fire_time(fire, now)
                fires.append(fire)
                now = fire
            theirs.append(count / (time.perf_counter() - began))
            if slots != [fire.astimezone(UTC) for fire in fires]:
                raise CareflowError(f"{text!r} does not mean the same to both")
        figures.append(Figure("scheduler", f"next slot of {name}: {OURS}", "1/s", tuple(ours)))
        figures.append(Figure("scheduler", f"next slot of {name}: APScheduler", "1/s", tuple(theirs)))
    return figures


@contextmanager
def _side(folder: Path, side: str, what: str, count: int, url: str) -> Iterator[subprocess.Popen[str]]:
    module, *more = SIDES[side]
    place = folder / "scheduler"
    place.mkdir()
    try:
        with _process(folder, module, what, str(place), str(count), url, *more) as process:
            yield process
    finally:
        shutil.rmtree(place)


@contextmanager
def _process(folder: Path, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The module's program until the end of the block."""
    with (folder / f"{module}.log").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, stderr=said, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise CareflowError(f"{process.args!r} ended without a word; it left a log beside the data")
    return line.strip()


def _quantile(ascending: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return ascending[min(len(ascending) - 1, round(share * len(ascending)))]
