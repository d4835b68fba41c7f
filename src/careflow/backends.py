"""What keeps the ledger and what carries the tasks: chosen by the settings, each from a table of makers.

Every command and every service opens them here. Google's clients are imported only when they are chosen.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from careflow.auth import setup as auth
from careflow.errors import SettingsError, StoreUnavailable
from careflow.ports import Clock, Store, TaskQueue
from careflow.settings import Settings

if TYPE_CHECKING:
    import httpx

    from careflow.store.database import Database


async def open_store(settings: Settings) -> Store:
    """The store that `CAREFLOW_STORE` names, to be closed by who asked. Raises StoreUnavailable, StoreTooNew."""
    return await _STORES[settings.store](settings)


@contextmanager
def store_named(settings: Settings) -> Iterator[None]:
    """StoreUnavailable inside says which store it was and what to look at, for a person who may have named the wrong one."""
    try:
        yield
    except StoreUnavailable as error:
        if settings.store == "sqlite":
            raise  # it names the directory itself
        database = f"database {settings.firestore_database} of project {settings.project}"
        if settings.firestore_emulator:
            place = f"in the emulator at {settings.firestore_emulator} (FIRESTORE_EMULATOR_HOST): is that running?"
        else:
            place = (
                "(CAREFLOW_PROJECT, CAREFLOW_FIRESTORE_DATABASE): does it exist, and may you read it?"
                " `gcloud auth application-default login` lets this machine act for you"
            )
        raise StoreUnavailable(f"{error}; it was {database} {place}") from error


@dataclass(frozen=True, slots=True)
class Shared:
    """What the services of one process have in common. `stack` closes what they open."""

    settings: Settings
    clock: Clock
    store: Store
    http: httpx.AsyncClient
    stack: AsyncExitStack

    async def database(self) -> Database:
        """The SQLite database of the data directory: the store's own, where that is one."""
        import asyncio

        from careflow.store.database import Database
        from careflow.store.sqlite import SqliteStore

        if isinstance(self.store, SqliteStore):
            return self.store.database
        database = await asyncio.to_thread(Database.open, self.settings.data_dir)
        self.stack.push_async_callback(asyncio.to_thread, database.close)
        return database


@dataclass(frozen=True, slots=True)
class Carrier:
    """A queue, the loops that empty it in this process, and how many tasks those are delivering now."""

    queue: TaskQueue
    background: Sequence[Callable[[], Awaitable[None]]] = ()
    in_flight: Callable[[], int] = lambda: 0


async def open_carrier(shared: Shared) -> Carrier:
    """The queue that `CAREFLOW_QUEUE` names, delivering to Pulse."""
    return await _CARRIERS[shared.settings.queue](shared)


# --- makers ------------------------------------------------------------------------------------------------------


async def _sqlite(settings: Settings) -> Store:
    from careflow.store.sqlite import SqliteStore

    return await SqliteStore.open(settings.data_dir)


async def _firestore(settings: Settings) -> Store:
    try:
        from careflow.store.firestore import FirestoreStore
    except ImportError as error:
        raise _lacking("CAREFLOW_STORE", settings.store) from error

    return await FirestoreStore.open(
        project=settings.project,
        database=settings.firestore_database,
        emulator=settings.firestore_emulator,
    )


async def _embedded(shared: Shared) -> Carrier:
    from careflow.tasks.delivery import HttpDelivery
    from careflow.tasks.embedded import EmbeddedQueue

    settings, clock = shared.settings, shared.clock
    queue = EmbeddedQueue(
        await shared.database(),
        clock,
        HttpDelivery(
            shared.http,
            settings.pulse_url,
            auth.tokens(settings, settings.queue_account, shared.http, clock),
            settings.pulse_audience or settings.pulse_url,
            settings.task_deadline,
            clock,
        ),
        calls_per_second=settings.calls_per_second,
        calls_in_flight=settings.calls_in_flight,
        random=random.random,
    )
    return Carrier(queue, (queue.run,), lambda: queue.in_flight)


async def _cloud_tasks(shared: Shared) -> Carrier:
    settings = shared.settings
    try:
        from careflow.tasks.cloud_tasks import CloudTasksQueue
    except ImportError as error:
        raise _lacking("CAREFLOW_QUEUE", settings.queue) from error

    queue = await CloudTasksQueue.open(
        project=settings.project,
        location=settings.location,
        queues={"calls": settings.calls_queue, "rounds": settings.rounds_queue},
        target=settings.pulse_url,
        audience=settings.pulse_audience or settings.pulse_url,
        account=settings.queue_account,
        deadline=settings.task_deadline,
        url=settings.cloud_tasks_url,
    )
    shared.stack.push_async_callback(queue.close)
    return Carrier(queue)


def _lacking(setting: str, value: str) -> SettingsError:
    return SettingsError(f"{setting}: {value!r} needs Google's client libraries; install careflow-pulse[gcp]")


_STORES: Mapping[str, Callable[[Settings], Awaitable[Store]]] = {"sqlite": _sqlite, "firestore": _firestore}
_CARRIERS: Mapping[str, Callable[[Shared], Awaitable[Carrier]]] = {
    "embedded": _embedded,
    "cloud-tasks": _cloud_tasks,
}
