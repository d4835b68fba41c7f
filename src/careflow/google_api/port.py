"""One TCP port for REST and gRPC: the first bytes of a connection tell HTTP/2 with prior knowledge, which gRPC is, from HTTP/1.1.

HTTP/1.1 stays with uvicorn. gRPC's bytes are passed on to a server on a Unix socket of this process, which is started, and its
libraries imported, when somebody first asks for it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_log = logging.getLogger(__name__)

_PREFACE = b"PRI"  # RFC 9113 section 3.4; no method of HTTP/1.1 begins so
GRACE_SECONDS = 1.0  # how long calls under way may take to end when we stop


class GrpcBackend:
    """The gRPC server behind the port, from the first connection that wants it until `close`.

    `create` is where it is made, "module:function", which is given `api` and the address; `needs` are the
    modules that it imports, each with the name of its package.
    """

    def __init__(self, create: str, api: Any, needs: Mapping[str, str]) -> None:
        self._create = create
        self._api = api
        self._starting = asyncio.Lock()
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._server: Any = None
        self._stopping: asyncio.Task[None] | None = None
        self.available = _installed(needs)
        if not self.available:
            _log.warning(
                "gRPC is not served: %s are not installed (REST is served)",
                " and ".join(sorted(set(needs.values()))),
            )

    async def path(self) -> str:
        """The server's Unix socket. The server is running when this returns."""
        async with self._starting:
            if self._server is None:
                # in a thread, because this takes long enough to make a job late
                name, _, function = self._create.partition(":")
                create = getattr(await asyncio.to_thread(importlib.import_module, name), function)
                directory = tempfile.TemporaryDirectory(prefix="careflow-grpc-")
                self._directory = directory
                self._server = create(self._api, f"unix:{Path(directory.name) / 'grpc'}")
                await self._server.start()
        assert self._directory is not None
        return str(Path(self._directory.name) / "grpc")

    def drain(self) -> None:
        """Take no new calls; those under way may end. Returns at once."""
        if self._server is not None and self._stopping is None:
            self._stopping = asyncio.ensure_future(self._server.stop(GRACE_SECONDS))

    async def close(self) -> None:
        self.drain()
        if self._stopping is not None:
            await self._stopping
        if self._directory is not None:
            self._directory.cleanup()


def rest_and_grpc(grpc: GrpcBackend) -> type[asyncio.Protocol]:
    """The protocol class for `uvicorn.Config(http=...)`."""

    class RestAndGrpc(_Door):
        backend = grpc

    return RestAndGrpc


class _Door(asyncio.Protocol):
    """A connection that has not yet said what it speaks. uvicorn makes one for each."""

    backend: GrpcBackend

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        self._http: Callable[[], Any] = partial(H11Protocol, config, server_state, app_state, _loop)
        self._connections: set[Any] = server_state.connections
        self._transport: Any = None
        self._received = b""
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._connecting is not None or _PREFACE.startswith(self._received):
            return
        if self._received.startswith(_PREFACE):
            self._transport.pause_reading()
            self._connecting = asyncio.ensure_future(self._pass_on())
            return
        self._connections.discard(self)
        http = self._http()
        self._transport.set_protocol(http)
        http.connection_made(self._transport)
        http.data_received(self._received)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops."""
        self._transport.close()

    async def _pass_on(self) -> None:
        front = self._transport
        if not self.backend.available:
            front.close()
            return
        loop = asyncio.get_running_loop()
        try:
            path = await self.backend.path()
            back, _ = await loop.create_unix_connection(lambda: _Pipe(front), path)
        except Exception:  # noqa: BLE001 - REST goes on whatever is wrong with this installation
            _log.exception("gRPC could not be started")
            front.close()
            return
        if front.is_closing():
            back.close()
            return
        self._connections.discard(self)
        pipe = _Pipe(back, on_lost=lambda: self._connections.discard(pipe), on_shutdown=self.backend.drain)
        pipe.connection_made(front)
        self._connections.add(pipe)
        front.set_protocol(pipe)
        back.write(self._received)
        front.resume_reading()


class _Pipe(asyncio.Protocol):
    """One end of a connection whose bytes go on to `other`, no faster than they are taken there."""

    def __init__(
        self,
        other: Any,
        *,
        on_lost: Callable[[], None] = lambda: None,
        on_shutdown: Callable[[], None] = lambda: None,
    ) -> None:
        self._other = other
        self._on_lost = on_lost
        self._on_shutdown = on_shutdown

    def data_received(self, data: bytes) -> None:
        self._other.write(data)

    def pause_writing(self) -> None:
        self._other.pause_reading()

    def resume_writing(self) -> None:
        self._other.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self._on_lost()
        self._other.close()

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops: the gRPC server says goodbye, and closes the connection."""
        self._on_shutdown()


def _installed(needs: Iterable[str]) -> bool:
    try:
        return all(importlib.util.find_spec(name) for name in needs)
    except ModuleNotFoundError:
        return False
