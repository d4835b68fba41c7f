"""APScheduler 3 in a process of its own: `python -m bench.scheduler_apscheduler fire|idle DIRECTORY COUNT URL memory|sqlite`.

An AsyncIOScheduler with its executor for coroutines, and the same requests by the same connections, no more at once than ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC
from pathlib import Path

from apscheduler.executors import base as executors
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers import base as schedulers
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from bench.scheduler_minute import DAILY, EVERY_MINUTE, IDLE_SECONDS, Minute, cost, open_files, sender

_senders: list[Callable[[str], Awaitable[None]]] = []  # its store keeps a job's function by name


async def post(url: str) -> None:
    """What a job does."""
    await _senders[0](url)


def _scheduler(folder: Path, store: str) -> AsyncIOScheduler:
    if store == "memory":
        kept = MemoryJobStore()
    else:
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

        kept = SQLAlchemyJobStore(url=f"sqlite:///{folder / 'jobs.sqlite'}")
    # A second's grace, the default, would drop the later half of a crowd; ours is a minute.
    defaults = {"misfire_grace_time": 60}
    return AsyncIOScheduler(jobstores={"default": kept}, job_defaults=defaults, timezone=UTC)


async def main(what: str, folder: Path, count: int, url: str, store: str) -> None:
    clock = Minute()
    schedulers.datetime = clock  # they only ask it for the time
    executors.datetime = clock
    open_files()
    _senders.append(sender())
    scheduler = _scheduler(folder, store)
    scheduler.start(paused=True)
    schedule = EVERY_MINUTE if what == "fire" else DAILY
    for number in range(count):
        scheduler.add_job(
            "bench.scheduler_apscheduler:post",
            CronTrigger.from_crontab(schedule, timezone="America/New_York"),
            args=(f"{url}/{number}",),
            id=str(number),
        )
    slot = clock.release()
    scheduler.resume()
    if what == "fire":
        print(slot, flush=True)
        await asyncio.Event().wait()
    await asyncio.sleep(1)
    before, _ = cost()
    await asyncio.sleep(IDLE_SECONDS)
    after, memory = cost()
    print(json.dumps([after - before, memory]), flush=True)


if __name__ == "__main__":
    from bench.scheduler_apscheduler import main as run  # under the name by which the store finds `post`

    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
