"""A load balancer on TCP: each new connection goes to a random instance of those that are there, and stays with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """One that is open: which instance has it, and the request line that it began with."""

    instance: str
    request: str


class LoadBalancer:
    """Forwards bytes both ways, so websockets and streams pass as they are. Instances come and go while it runs.

    Who is removed gets no new connection and keeps those that it has, as an instance that Cloud Run stops. An instance that
    refuses a connection is passed over for another one; when all do, the connection is closed.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._instances: dict[str, int] = {}
        self._open: dict[Connection, asyncio.StreamWriter] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, port: int) -> None:
        """Let the instance on this port take part."""
        self._instances[name] = port

    def remove(self, name: str) -> None:
        self._instances.pop(name, None)

    def cut(self, name: str) -> None:
        """Remove the instance and break every connection to it, as a network that fails."""
        self.remove(name)
        for connection, writer in self._open.items():
            if connection.instance == name:
                writer.transport.abort()

    def holding(self, path: str) -> list[str]:
        """The instances with an open connection that began with a request of this path, one for each connection."""
        return [one.instance for one in self._open if one.request.split(" ")[1:2] == [path]]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LoadBalancer]:
        """Listen on a free port of 127.0.0.1."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.read(65536)
            if first:
                await self._forward(first, reader, writer)
        writer.close()

    async def _forward(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for name, port in self._random.sample(sorted(self._instances.items()), len(self._instances)):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    answers, requests = await asyncio.open_connection("127.0.0.1", port)
            except (OSError, TimeoutError):
                continue
            connection = Connection(name, first.partition(b"\r\n")[0].decode("latin-1"))
            self._open[connection] = writer
            try:
                requests.write(first)
                await asyncio.gather(_pipe(reader, requests), _pipe(answers, writer))
            finally:
                del self._open[connection]
                requests.close()
            return


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on. The end of one direction ends the other: nobody here speaks after hanging up."""
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
