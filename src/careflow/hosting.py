"""Running ASGI apps and background loops in one process: sockets first, so that addresses are known before anything is built."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from careflow.draining import Door
from careflow.errors import CareflowError

_log = logging.getLogger(__name__)

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

# Told to stop, we have ten seconds (reference/google-cloud section 2). What is begun is handed over in the first of them:
DRAIN_SECONDS = 6.0
GRACE_SECONDS = 1  # and then the server has this to close what nobody is behind any more
BODY_SECONDS = 30.0  # how long a request's body may take to arrive; ours are a few KB


class PortInUse(CareflowError):
    """The port is taken."""


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises PortInUse naming `setting`, which would choose another."""
    # With the protocol named, asyncio turns Nagle's algorithm off on what is accepted (it looks at `proto`). Without it every
    # answer of two segments waits 40 ms for a delayed acknowledgement, and so does speech.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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

    Told to stop, new requests are refused except to the paths `stays_open`, and each of `drain` runs: it hands over what
    the service has begun, and returns when nothing is left of it. All services drain before the first of them is closed.
    """

    name: str
    app: Any
    socket: socket.socket
    prepare: Sequence[Callable[[], Awaitable[None]]] = ()
    background: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    drain: Sequence[Callable[[], Awaitable[None]]] = ()
    stays_open: Sequence[str] = ("/healthz",)
    http: type[asyncio.Protocol] | str = "auto"  # what reads the socket, in uvicorn's terms


class _Server(uvicorn.Server):
    """uvicorn, with signals left to us: several servers share this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(
    services: Sequence[Service], *, body_seconds: float = BODY_SECONDS
) -> AsyncIterator[asyncio.Event]:
    """Serve all of them; inside, every one answers. The event is set when a signal or a failed loop asks for the end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(name, stop.set)
    doors = [Door(service.app, stays_open=service.stays_open) for service in services]
    servers = [_server(service, door, body_seconds) for service, door in zip(services, doors, strict=True)]
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
        await _drain(services, doors)
        for task in loops:
            task.cancel()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*loops, *serving, return_exceptions=True)
        for name in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(name)


async def _drain(services: Sequence[Service], doors: Sequence[Door]) -> None:
    """Let nothing new begin, hand over what runs, then end the requests that are still open."""
    for door in doors:
        door.shut()
    until = asyncio.get_running_loop().time() + DRAIN_SECONDS
    work = [asyncio.ensure_future(drain()) for service in services for drain in service.drain]
    work += [asyncio.ensure_future(door.answered()) for door in doors]
    try:
        async with asyncio.timeout_at(until):
            for failure in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(failure, Exception):
                    _log.error("draining failed: %s", type(failure).__name__)
    except TimeoutError:
        _log.warning(
            "not everything was handed over in %.0f s; what is left is settled from the store", DRAIN_SECONDS
        )
    for door in doors:
        await door.clear()


def _server(service: Service, door: Door, body_seconds: float) -> _Server:
    return _Server(
        uvicorn.Config(
            BodyDeadline(door, seconds=body_seconds),
            access_log=False,
            log_config=None,
            lifespan="auto",
            http=service.http,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ws="websockets-sansio",
            ws_per_message_deflate=False,  # mu-law does not compress, and 50 frames a second a call cost enough
        )
    )


class BodyDeadline:
    """Answers 408 when a request's body is not whole after `seconds`: who trickles one in holds no connection of ours.

    The seconds are real ones, like the network that they pass on; uvicorn itself waits for ever.
    """

    def __init__(self, app: Any, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "http":
            exchange = _Exchange(receive, send, asyncio.get_running_loop().time() + self._seconds)
            await self._app(scope, exchange.receive, exchange.send)
        else:
            await self._app(scope, receive, send)


class _Exchange:
    """One request and its answer, which may be ours."""

    def __init__(self, receive: _Receive, send: _Send, deadline: float) -> None:
        self._receive = receive
        self._send = send
        self._deadline = deadline
        self._is_whole = False
        self._has_begun = False
        self._is_refused = False

    async def receive(self) -> _Message:
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self._is_whole = True
            await self._refuse()
            return {"type": "http.disconnect"}
        self._is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: _Message) -> None:
        """The app's answer, unless the peer has been given ours."""
        if not self._is_refused:
            self._has_begun = True
            await self._send(message)

    async def _refuse(self) -> None:
        if self._has_begun:
            return
        self._is_refused = True
        body = b'{"error":{"code":"too-slow","message":"body: did not arrive in time"}}'
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await self._send({"type": "http.response.start", "status": 408, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


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
