"""What the scheduler's benchmarks share: a minute that begins when everybody is ready, the client, and a process's cost."""

from __future__ import annotations

import os
import resource
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import httpx

from careflow.scheduler.connections import DirectTransport

LEAD = timedelta(seconds=1)  # from `release` to the slot: time enough to fall asleep before it
SLOT = datetime(2026, 3, 2, 12, 1, tzinfo=UTC)
IN_FLIGHT = 300  # requests at once: our bound for one target, given to the others too
IDLE_SECONDS = 5.0


class Minute:
    """A clock that stands still in the minute before SLOT until `release`; then it runs as time does, and SLOT is LEAD away.

    So jobs are made at leisure, and nobody waits for the next whole minute of the real clock.
    """

    def __init__(self) -> None:
        self._behind: float | None = None

    def now(self, zone: tzinfo = UTC) -> datetime:
        if self._behind is None:
            return (SLOT - LEAD).astimezone(zone)
        return datetime.fromtimestamp(time.time() - self._behind, zone)

    def release(self) -> float:
        """Let time run; the Unix time at which SLOT will be."""
        self._behind = time.time() - (SLOT - LEAD).timestamp()
        return SLOT.timestamp() + self._behind


def client() -> httpx.AsyncClient:
    """The same for everybody. httpx's own pool takes seconds for a thousand requests at once."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return httpx.AsyncClient(transport=DirectTransport())


def cost() -> tuple[float, float]:
    """Processor seconds used so far, and memory in MB, of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return time.process_time(), pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024
