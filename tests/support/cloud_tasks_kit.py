"""The lab's Cloud Tasks served on a loopback port as `careflow up` serves it, and a receiver for what it delivers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from careflow.clock import SystemClock
from careflow.hosting import Service, listen, running, url_of
from careflow.lab.cloud_tasks import CloudTasks, open_cloud_tasks
from careflow.ports import Clock

PARENT = "projects/careflow-local/locations/us-central1"
QUEUE = f"{PARENT}/queues/q"

Answer = Callable[["Request"], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class Request:
    """What reached the receiver. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def task(self) -> str:
        return self.headers["x-cloudtasks-taskname"]


async def _ok(_request: Request) -> int | None:
    return 200


@dataclass(slots=True)
class Receiver:
    """Answers each request with the status that `answer` gives, None by hanging up, and keeps what came.

    By hand and not by a server, because some of its answers are none that a server would give.
    """

    answer: Answer = _ok
    headers: Mapping[str, str] = field(default_factory=dict)
    received: list[Request] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Request(method, path, headers, body)
            self.received.append(request)
            status = await self.answer(request)
            if status is not None:
                extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                writer.write(
                    f"HTTP/1.1 {status} x\r\n{extra}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the sender is gone; a test that minds will see what was received
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Receiver]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            server.close()


class AccountTokens:
    """Tokens that say whose and for whom they are."""

    def __init__(self, account: str) -> None:
        self._account = account

    async def token(self, audience: str) -> str:
        return f"{self._account}|{audience}"


@dataclass(frozen=True, slots=True)
class Served:
    """A running Cloud Tasks; `url` is of REST, `address` (host:port) of gRPC, and both are the same port."""

    url: str
    tasks: CloudTasks
    receiver: Receiver

    @property
    def address(self) -> str:
        return urlsplit(self.url).netloc


@asynccontextmanager
async def serving(
    data_dir: Path, clock: Clock | None = None, receiver: Receiver | None = None
) -> AsyncIterator[Served]:
    """Cloud Tasks on the database in `data_dir`, until the end, and the receiver."""
    clock = clock or SystemClock()
    ids = count(1)
    async with httpx.AsyncHTTPTransport() as transport, (receiver or Receiver()).listening() as target:
        tasks = await open_cloud_tasks(
            data_dir,
            clock,
            transport,
            AccountTokens,
            location="us-central1",
            new_id=lambda: f"invented-{next(ids)}",
        )
        bound = listen("127.0.0.1", 0, "CAREFLOW_TASKS_PORT")
        service = Service("tasks", tasks.app, bound, background=(tasks.run,), http=tasks.http)
        try:
            async with running([service]):
                yield Served(url_of(bound), tasks, target)
        finally:
            await tasks.close()


@contextmanager
def serving_in_a_thread(data_dir: Path) -> Iterator[Served]:
    """The same in a thread's own loop, for clients that block."""
    found: list[Served] = []
    ready = threading.Event()
    stop: list[Callable[[], None]] = []

    async def serve() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(over.set))
        async with serving(data_dir) as served:
            found.append(served)
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="cloud tasks under test", daemon=True)
    thread.start()
    assert ready.wait(30)
    assert found, "Cloud Tasks did not start"
    try:
        yield found[0]
    finally:
        stop[0]()
        thread.join(10)
