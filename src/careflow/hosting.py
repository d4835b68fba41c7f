"""Running ASGI apps and background loops in one process: sockets first, so that addresses are known before anything is built."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from careflow.errors import CareflowError

_log = logging.getLogger(__name__)

GRACE_SECONDS = 3  # how long open requests may take to end when we are told to stop


class PortInUse(CareflowError):
    """The port is taken."""


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises PortInUse naming `setting`, which would choose another."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise PortInUse(
            f"{host}:{port} cannot be listened on ({error.strerror}): stop what uses it, or set {setting} to another "
            "port (0 takes a free one)"
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    """http://host:port of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass(frozen=True, slots=True)
class Service:
    """One ASGI app on its socket, and the loops that belong to it.

    `prepare` runs before the socket is served, `background` from then on until the end. A background loop that fails ends
    the whole process: a half-working round is worse than one that starts again from its store.
    """

    name: str
    app: Any
    socket: socket.socket
    prepare: Sequence[Callable[[], Awaitable[None]]] = ()
    background: Sequence[Callable[[], Awaitable[None]]] = field(default=())


class _Server(uvicorn.Server):
    """uvicorn, with signals left to us: several servers share this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(services: Sequence[Service]) -> AsyncIterator[asyncio.Event]:
    """Serve all of them; inside, every one answers. The event is set when a signal or a failed loop asks for the end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(name, stop.set)
    servers = [_server(service) for service in services]
    for service in services:
        for prepare in service.prepare:
            await prepare()
    serving = [
        asyncio.create_task(server.serve(sockets=[service.socket]), name=service.name)
        for server, service in zip(servers, services, strict=True)
    ]
    loops: list[asyncio.Task[None]] = []
    try:
        await _started(servers, serving)
        loops += [
            asyncio.create_task(_guarded(service.name, work, stop), name=f"{service.name} background")
            for service in services
            for work in service.background
        ]
        yield stop
        failed = [task for task in loops if task.done() and not task.cancelled() and task.exception()]
        if failed:
            raise failed[0].exception() or CareflowError()
    finally:
        for task in loops:
            task.cancel()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*loops, *serving, return_exceptions=True)
        for name in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(name)


def _server(service: Service) -> _Server:
    return _Server(
        uvicorn.Config(
            service.app,
            access_log=False,
            log_config=None,
            lifespan="auto",
            timeout_graceful_shutdown=GRACE_SECONDS,
            ws="websockets-sansio",
            ws_per_message_deflate=False,  # mu-law does not compress, and 50 frames a second a call cost enough
        )
    )


async def _started(servers: Sequence[_Server], serving: Sequence[asyncio.Task[None]]) -> None:
    while not all(server.started for server in servers):
        for task in serving:
            if task.done():
                task.result()
                raise CareflowError(f"{task.get_name()} did not start")
        await asyncio.sleep(0.005)


async def _guarded(name: str, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    try:
        await work()
    except Exception:
        _log.critical("%s: a background loop failed; stopping", name, exc_info=True)
        stop.set()
        raise
