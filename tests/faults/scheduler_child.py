"""A scheduler that kills itself at its nth step. Arguments: data directory, target's URL, start, last slot, n (0: never).

It ends by itself once the last slot's execution has succeeded.

A step is a place between two things that last: before and after each commit, before and after each request.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import httpx

from careflow.clock import VirtualClock
from careflow.google_api.http_target import HttpTarget
from careflow.scheduler.errors import JobExists
from careflow.scheduler.model import Job, RetryConfig
from careflow.scheduler.service import Scheduler
from careflow.store.database import Database

NAME = "projects/p/locations/l/jobs/every-minute"


class Fuse:
    """Kills the process at the nth step."""

    def __init__(self, at):
        self._at = at
        self._steps = count(1)

    def step(self):
        if next(self._steps) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


class FusedDatabase:
    def __init__(self, database, fuse):
        self._database, self._fuse = database, fuse
        self.path, self.read = database.path, database.read

    async def write(self, work):
        self._fuse.step()
        result = await self._database.write(work)
        self._fuse.step()
        return result


class FusedTransport(httpx.AsyncHTTPTransport):
    def __init__(self, fuse):
        super().__init__()
        self._fuse = fuse

    async def handle_async_request(self, request):
        self._fuse.step()
        response = await super().handle_async_request(request)
        self._fuse.step()
        return response


async def succeeded(scheduler, slot):
    return any(one.slot == slot and one.code == "OK" for one in await scheduler.attempts(NAME))


async def main(data_dir, url, start, last_slot, at):
    clock = VirtualClock(datetime.fromisoformat(start), path=Path(data_dir) / "clock")
    database = Database.open(Path(data_dir))
    fuse = Fuse(int(at))
    async with FusedTransport(fuse) as transport:
        scheduler = Scheduler(
            FusedDatabase(database, fuse),
            clock,
            transport,
            lambda _account: None,
            grace=timedelta(minutes=30),  # the clock runs away on a busy machine
        )
        with suppress(JobExists):
            await scheduler.create(
                Job(
                    name=NAME,
                    schedule="* * * * *",
                    http_target=HttpTarget(uri=url),
                    retry=RetryConfig(retry_count=1, min_backoff=timedelta(seconds=5)),
                )
            )
        serving = asyncio.create_task(scheduler.serve())
        while not await succeeded(scheduler, datetime.fromisoformat(last_slot)):
            await asyncio.sleep(0.003)
            clock.advance(3)
        serving.cancel()
        await asyncio.wait([serving])
    database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
