"""Our scheduler, put together as `app.py` does it: `python -m bench.scheduler_ours fire|idle DIRECTORY COUNT URL`.

`fire` prints the Unix time of the slot and fires COUNT jobs at it, until killed; `idle` prints what COUNT sleeping jobs cost.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.scheduler_minute import BODY, DAILY, EVERY_MINUTE, IDLE_SECONDS, Minute, cost, open_files
from careflow.auth.issuer import LocalIssuer
from careflow.auth.tokens import LocalTokens
from careflow.google_api.http_target import HttpTarget, OidcToken
from careflow.scheduler.connections import DirectTransport
from careflow.scheduler.model import Job, RetryConfig
from careflow.scheduler.service import Scheduler
from careflow.store.database import Database


class _Clock(Minute):
    """`ports.Clock` that `Minute` tells the time of."""

    def now(self, zone: object = UTC) -> datetime:
        return super().now()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


def _job(number: int, schedule: str, url: str) -> Job:
    """As the seed's: a token, a small JSON body, three retries."""
    return Job(
        name=f"projects/bench/locations/us-central1/jobs/job-{number:05}",
        schedule=schedule,
        time_zone="America/New_York",
        http_target=HttpTarget(
            uri=f"{url}/{number}",
            headers={"Content-Type": "application/json"},
            body=BODY,
            oidc_token=OidcToken(service_account_email="scheduler@bench.invalid", audience=url),
        ),
        retry=RetryConfig(retry_count=3),
        attempt_deadline=timedelta(seconds=180),
    )


async def main(what: str, folder: Path, count: int, url: str) -> None:
    open_files()
    clock = _Clock()
    database = Database.open(folder)
    issuer = LocalIssuer(folder / "issuer")
    scheduler = Scheduler(
        database, clock, DirectTransport(), lambda account: LocalTokens(issuer, account, clock)
    )
    schedule = EVERY_MINUTE if what == "fire" else DAILY
    await asyncio.gather(*(scheduler.create(_job(number, schedule, url)) for number in range(count)))
    slot = clock.release()
    serving = asyncio.create_task(scheduler.serve())
    if what == "fire":
        print(slot, flush=True)
        await serving
    await asyncio.sleep(1)
    before, _ = cost()
    await asyncio.sleep(IDLE_SECONDS)
    after, memory = cost()
    print(json.dumps([after - before, memory]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
