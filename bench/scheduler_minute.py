"""What the scheduler's benchmarks share: a minute that begins when everybody is ready, the request, and a process's cost."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import httpx

from careflow.errors import CareflowError
from careflow.scheduler.connections import DirectTransport

LEAD = timedelta(seconds=1)  # from `release` to the slot: time enough to fall asleep before it
SLOT = datetime(2026, 3, 2, 12, 1, tzinfo=UTC)
IN_FLIGHT = 300  # requests at once: our bound for one target, given to the others too
IDLE_SECONDS = 5.0
EVERY_MINUTE, DAILY = "* * * * *", "15 8 * * *"
BODY = b'{"triggerType":"scheduled","source":"cloud-scheduler","scheduleHour":"8"}'


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


def open_files() -> None:
    """Let this process have as many connections as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def sender() -> Callable[[str], Awaitable[None]]:
    """What posts to a URL for those who have no delivery of their own: by our connections, no more at once than we allow.

    httpx's own pool takes seconds for a thousand requests at once, and would be all that is measured.
    """
    transport, places = DirectTransport(), asyncio.Semaphore(IN_FLIGHT)

    async def send(url: str) -> None:
        async with places:
            request = httpx.Request("POST", url, headers={"Content-Type": "application/json"}, content=BODY)
            answer = await transport.handle_async_request(request)
            await answer.aread()
            await answer.aclose()
            if answer.status_code != 200:
                raise CareflowError(f"the target answered {answer.status_code}")

    return send


def cost() -> tuple[float, float]:
    """Processor seconds used so far, and memory in MB, of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return time.process_time(), pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024
