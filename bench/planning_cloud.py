"""Planning in other stores: `python -m bench.planning_cloud SIDE DIRECTORY SIZE [EMULATOR [TASKS]]` prints its seconds.

The same `Planner` on the same roster, from the trigger to the stored answer. SIDE is one of:

- `sqlite`: our store and our queue, in DIRECTORY;
- `firestore`: the emulator at EMULATOR (host:port), our queue;
- `cloud`: the emulator, and Google's Cloud Tasks client on the work-alike at TASKS (http://host:port);
- `bare`: the floor, Google's own Firestore client writing as many documents like calls, in batches, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.roster import EIGHT_FIFTEEN, HOSPITAL, HOUR, fill
from careflow.clock import VirtualClock
from careflow.core.rounds import Trigger
from careflow.ports import Store, TaskQueue
from careflow.pulse.planning import Planner
from careflow.settings import Settings
from careflow.store.sqlite import SqliteStore
from careflow.tasks.embedded import EmbeddedQueue
from careflow.tasks.pacing import Answer

BATCH = 1000  # as CAREFLOW_PLANNING_BATCH
BATCH_OF_CLIENT = 500


@dataclass(frozen=True, slots=True)
class Place:
    """Where to work. Every run has a project of its own in the emulator."""

    folder: Path
    size: int
    emulator: str
    tasks: str
    project: str


async def _embedded(
    place: Place, clock: VirtualClock, stack: AsyncExitStack
) -> tuple[SqliteStore, TaskQueue]:
    store = await SqliteStore.open(place.folder)
    stack.push_async_callback(store.close)
    queue = EmbeddedQueue(
        store.database, clock, _undelivered, calls_per_second=1, calls_in_flight=1, random=lambda: 0.5
    )
    return store, queue


async def _firestore(place: Place, stack: AsyncExitStack) -> Store:
    from careflow.store.firestore import FirestoreStore

    store = await FirestoreStore.open(project=place.project, emulator=place.emulator)
    stack.push_async_callback(store.close)
    return store


async def _planned(
    place: Place, parts: Callable[[VirtualClock, AsyncExitStack], Awaitable[tuple[Store, TaskQueue]]]
) -> float:
    clock = VirtualClock(EIGHT_FIFTEEN)
    async with AsyncExitStack() as stack:
        store, queue = await parts(clock, stack)
        await fill(store, place.size)
        planner = Planner(store, queue, clock, hospitals=Settings().served, batch=BATCH)
        began = time.perf_counter()
        round_ = await planner.run(
            Trigger(
                schedule_hour=HOUR,
                time_zone="America/New_York",
                trigger_type="scheduled",
                source="bench",
                environment="bench",
                hospital_id=HOSPITAL,
            )
        )
        seconds = time.perf_counter() - began
        assert round_.calls_initiated == place.size, round_
        return seconds


async def sqlite(place: Place) -> float:
    return await _planned(place, lambda clock, stack: _embedded(place, clock, stack))


async def firestore(place: Place) -> float:
    async def parts(clock: VirtualClock, stack: AsyncExitStack) -> tuple[Store, TaskQueue]:
        return await _firestore(place, stack), (await _embedded(place, clock, stack))[1]

    return await _planned(place, parts)


async def cloud(place: Place) -> float:
    from careflow.tasks.cloud_tasks import CloudTasksQueue, ensure_queues
    from careflow.tasks.limits import queue_limits

    where = {"project": place.project, "location": "us-central1"}
    limits = queue_limits(calls_per_second=1, calls_in_flight=1)
    await ensure_queues(**where, limits=limits, url=place.tasks)

    async def parts(clock: VirtualClock, stack: AsyncExitStack) -> tuple[Store, TaskQueue]:
        queue = await CloudTasksQueue.open(
            **where,
            queues={name: name for name in limits},
            target="http://127.0.0.1:1",
            audience="http://127.0.0.1:1",
            account="bench@example.com",
            deadline=timedelta(minutes=30),
            url=place.tasks,
        )
        stack.push_async_callback(queue.close)
        return await _firestore(place, stack), queue

    return await _planned(place, parts)


async def bare(place: Place) -> float:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.firestore import AsyncClient

    os.environ["FIRESTORE_EMULATOR_HOST"] = place.emulator  # the one way to tell this client
    client = AsyncClient(project=place.project, credentials=AnonymousCredentials())
    document: dict[str, object] = {
        **dict.fromkeys(("callId", "roundId", "patientId", "hospitalId", "state", "tally"), "x" * 20),
        **dict.fromkeys(("dueAt", "notAfter", "createdAt"), EIGHT_FIFTEEN),
    }
    began = time.perf_counter()
    for start in range(0, place.size, BATCH_OF_CLIENT):
        batch = client.batch()
        for _ in range(start, min(place.size, start + BATCH_OF_CLIENT)):
            batch.create(client.collection("calls").document(uuid.uuid4().hex), document)
        await batch.commit()
    return time.perf_counter() - began


async def _undelivered(_task: object, _number: int) -> Answer:
    raise AssertionError("the dispatcher is not running")


SIDES: Mapping[str, Callable[[Place], Awaitable[float]]] = {
    "sqlite": sqlite,
    "firestore": firestore,
    "cloud": cloud,
    "bare": bare,
}


def main(side: str, folder: str, size: str, emulator: str = "", tasks: str = "") -> None:
    place = Place(Path(folder), int(size), emulator, tasks, f"bench-{uuid.uuid4().hex[:12]}")

    async def run() -> float:
        return await SIDES[side](place)

    print(asyncio.run(run()))


if __name__ == "__main__":
    main(*sys.argv[1:])
