"""The scheduler's API served on a loopback port as `careflow up` serves it, with a target to aim jobs at."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from careflow.clock import SystemClock
from careflow.google_api.port import rest_and_grpc
from careflow.hosting import Service, listen, running, url_of
from careflow.ports import Clock
from careflow.scheduler.api import SchedulerApi
from careflow.scheduler.log_query import Entry
from careflow.scheduler.port import grpc_backend
from careflow.scheduler.rest import create_scheduler_api
from careflow.scheduler.service import Scheduler
from careflow.store.database import Database

PARENT = "projects/careflow-local/locations/us-central1"

T = TypeVar("T")


class _Tokens:
    async def token(self, audience: str) -> str:
        return f"token-for-{audience}"


@dataclass(slots=True)
class Target:
    """Answers every request with `status` and keeps what came."""

    url: str
    status: int = 200
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: Request) -> Response:
        self.received.append((request.method, dict(request.headers), await request.body()))
        self.came.set()
        return Response(status_code=self.status)


@dataclass(frozen=True, slots=True)
class Served:
    """A running scheduler; `url` is of REST, `address` (host:port) of gRPC, and both are the same port."""

    url: str
    scheduler: Scheduler
    target: Target
    database: Database

    @property
    def address(self) -> str:
        return urlsplit(self.url).netloc

    def name(self, job_id: str) -> str:
        return f"{PARENT}/jobs/{job_id}"


@asynccontextmanager
async def serving(data_dir: Path, clock: Clock | None = None) -> AsyncIterator[Served]:
    """A scheduler on an empty store in `data_dir`, until the end."""
    clock = clock or SystemClock()
    database = Database.open(data_dir)
    ids = count(1)
    async with httpx.AsyncHTTPTransport() as transport:
        scheduler = Scheduler(database, clock, transport, lambda _account: _Tokens())
        api = SchedulerApi(
            scheduler, clock=clock, location="us-central1", new_id=lambda: f"invented-{next(ids)}"
        )

        async def executions(project: str, limit: int) -> Sequence[Entry]:
            return await scheduler.log_entries(f"projects/{project}", limit)

        grpc = grpc_backend(api)
        app = create_scheduler_api(api, logs=[executions], on_shutdown=[grpc.close])
        bound, aimed_at = listen("127.0.0.1", 0, "PORT"), listen("127.0.0.1", 0, "PORT")
        target = Target(url_of(aimed_at))
        services = [
            Service(
                "target",
                Starlette(routes=[Route("/{path:path}", target.answer, methods=["GET", "POST", "PUT"])]),
                aimed_at,
            ),
            Service("scheduler", app, bound, background=(scheduler.serve,), http=rest_and_grpc(grpc)),
        ]
        try:
            async with running(services):
                yield Served(url_of(bound), scheduler, target, database)
        finally:
            await asyncio.to_thread(database.close)


@dataclass(frozen=True, slots=True)
class Threaded:
    """A scheduler that runs in a thread's own loop, for clients that block."""

    served: Served
    loop: asyncio.AbstractEventLoop

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it where the scheduler runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


@contextmanager
def serving_in_a_thread(data_dir: Path) -> Iterator[Threaded]:
    found: list[Threaded] = []
    ready = threading.Event()
    stop: list[Callable[[], None]] = []

    async def serve() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(over.set))
        async with serving(data_dir) as served:
            found.append(Threaded(served, loop))
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="scheduler under test", daemon=True)
    thread.start()
    ready.wait(30)
    assert found, "the scheduler did not start"
    try:
        yield found[0]
    finally:
        stop[0]()
        thread.join(30)
    assert not thread.is_alive()
