"""What a telephone conversation costs the Caller: processor time per media frame, and so calls at real time per core.

The three services run as processes of their own, at real speed: the lab is the telephone network, the patients and the speech
vendor. Only the Caller's processor time is counted, while it holds a steady number of conversations: media sockets in both
directions, endpointing, a speech-to-text socket each, prompts from the cache, the dialogue, the store. Calls per core are
reckoned from that, not tried: near the limit, frames would come late before the processor is full.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from bench.figures import Figure
from bench.processes import Process, free_port, serve
from bench.roster import HOUR, patients
from careflow.clock import SystemClock
from careflow.core.attempts import AttemptState
from careflow.errors import CareflowError
from careflow.operating import trigger_round
from careflow.settings import load_settings
from careflow.store.sqlite import SqliteStore

CALLS = 6  # at a time: the lab needs its share of the machine too
WARM_UP_SECONDS = 12.0  # telephones ring, and the first prompts fill the cache
WINDOW_SECONDS = 6.0
SAMPLE_SECONDS = 0.2
FRAMES_PER_SECOND = 50  # from the patient, one every 20 ms


def measure(folder: Path, repeat: int) -> list[Figure]:
    """`repeat` windows of the same conversations, one after the other."""
    data_dir = folder / "media"
    costs = asyncio.run(_costs(data_dir, repeat))
    what = f"{CALLS} conversations at a time"
    return [
        Figure(
            "media",
            f"{what}: Caller's processor time per frame from the patient",
            "µs",
            tuple(cost / FRAMES_PER_SECOND * 1e6 for cost in costs),
        ),
        Figure("media", "calls at real time per core, reckoned", "calls", tuple(1 / cost for cost in costs)),
    ]


async def _costs(data_dir: Path, repeat: int) -> list[float]:
    """Processor seconds of the Caller per second of a conversation, for each window."""
    async with _conversations(data_dir) as (store, caller):
        await asyncio.sleep(WARM_UP_SECONDS)
        return [await _cost(store, caller) for _ in range(repeat)]


async def _cost(store: SqliteStore, caller: Process) -> float:
    used, began = caller.cpu_seconds(), time.monotonic()
    talking, last = 0.0, began
    while last < began + WINDOW_SECONDS:
        await asyncio.sleep(SAMPLE_SECONDS)
        open_now = await store.open_attempts()
        now = time.monotonic()
        talking += (now - last) * sum(one.state is AttemptState.ANSWERED for one in open_now)
        last = now
    if talking < WINDOW_SECONDS:
        raise CareflowError(f"nobody talked: {talking:.1f} s of conversation in {WINDOW_SECONDS} s")
    return (caller.cpu_seconds() - used) / talking


@asynccontextmanager
async def _conversations(data_dir: Path) -> AsyncIterator[tuple[SqliteStore, Process]]:
    """A round that has just been triggered, and the Caller that makes its calls."""
    zone = _zone_where_it_is_ten(datetime.now(UTC))
    store = await SqliteStore.open(data_dir)
    try:
        people = (replace(one, time_zone=zone, times=()) for one in patients(CALLS * 6))
        await store.put_patients(list(islice(people, CALLS * 6)))
        ports = {role: free_port() for role in ("lab", "caller", "pulse")}
        environment = {f"CAREFLOW_{role.upper()}_PORT": str(port) for role, port in ports.items()} | {
            "CAREFLOW_TIME_ZONE": zone,
            "CAREFLOW_CALLS_IN_FLIGHT": str(CALLS),
            "CAREFLOW_CALLS_PER_SECOND": "20",
        }
        with ExitStack() as stack:
            started = {
                role: stack.enter_context(serve(role, data_dir, environment, port))
                for role, port in ports.items()
            }
            settings = load_settings(data_dir=data_dir, time_zone=zone, pulse_url=started["pulse"].url)
            status, body = await trigger_round(settings, HOUR, SystemClock(), trigger_type="manual")
            if status != 200:
                raise CareflowError(f"Pulse answered {status}: {body}")
            yield store, started["caller"]
    finally:
        await store.close()


def _zone_where_it_is_ten(now: datetime) -> str:
    """A zone in which it is between 10 and 11 in the morning, inside the morning round's window."""
    east = (10 - now.hour + 12) % 24 - 12
    return f"Etc/GMT{-east:+d}" if east else "Etc/GMT"
