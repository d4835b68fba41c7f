"""A connection for each request: the httpx transport for many attempts at once.

httpx's own pool looks at every connection and every waiting request whenever one of either changes, so a thousand attempts
that are due at once take seconds (and a reused connection that the target has just closed would fail an attempt for
nothing). Jobs run once a minute at most; there is nothing to reuse. h11 does the protocol, as it does in httpx.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from functools import cached_property

import h11
import httpx

_CONNECT_SECONDS = 30.0
_READ_BYTES = 64 * 1024


class DirectTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1, one connection a request, closed after the answer. Use it as `httpx.AsyncClient(transport=DirectTransport())`."""

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and wait for the head of the answer. Raises httpx's ConnectError, NetworkError or ProtocolError."""
        reader, writer = await self._connect(request)
        exchange = _Exchange(reader, writer)
        try:
            return await exchange.response(request)
        except BaseException:
            await exchange.aclose()
            raise

    async def _connect(self, request: httpx.Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = request.url
        secure = url.scheme == "https"
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await asyncio.open_connection(
                    url.raw_host.decode("ascii"),
                    url.port or (443 if secure else 80),
                    ssl=self._tls if secure else None,
                )
        except (OSError, TimeoutError) as error:
            raise httpx.ConnectError(type(error).__name__, request=request) from error


class _Exchange(httpx.AsyncByteStream):
    """One request and its answer; iterated, the answer's body."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ_BYTES)

    async def response(self, request: httpx.Request) -> httpx.Response:
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"connection"]
        head = h11.Request(
            method=request.method.encode("ascii"),
            target=request.url.raw_path,
            headers=[*headers, (b"Connection", b"close")],
        )
        try:
            data = [self._protocol.send(head), self._protocol.send(h11.Data(data=request.content))]
            data.append(self._protocol.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error), request=request) from error
        self._writer.write(b"".join(part for part in data if part))
        while True:  # answers that only say "go on" (1xx) come before the one that counts
            event = await self._next()
            if isinstance(event, h11.Response):
                return httpx.Response(event.status_code, headers=list(event.headers), stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    async def _next(self) -> object:
        while True:
            try:
                event = self._protocol.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self._protocol.receive_data(await self._reader.read(_READ_BYTES))
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            except OSError as error:
                raise httpx.ReadError(type(error).__name__) from error

    async def aclose(self) -> None:
        self._writer.close()
