"""The door of a service that is told to stop: nothing new comes in, what is inside is answered, what would stay is shown out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

RETRY_AFTER_SECONDS = 1  # another instance is there already, or this one's successor soon


class Door:
    """An ASGI app, until `shut` with nothing in the way. `stays_open` are paths that are served to the end; "/x/*" is all below.

    Websockets are the app's own matter, both to refuse and to end.
    """

    def __init__(self, app: Any, *, stays_open: Sequence[str] = ()) -> None:
        self._app = app
        self._stays_open = stays_open
        self._is_shut = False
        self._inside: dict[asyncio.Task[Any], _Visit] = {}
        self._changed = asyncio.Event()

    def shut(self) -> None:
        """From now on answer new requests 503, with Retry-After: nothing of them was begun."""
        self._is_shut = True

    async def answered(self) -> None:
        """Wait until every request inside has at least the beginning of its answer; a stream may last."""
        while any(not visit.has_begun for visit in self._inside.values()):
            self._changed.clear()
            await self._changed.wait()

    async def clear(self) -> None:
        """End every request that is still inside: with 503, or where its stream has come to."""
        leaving = list(self._inside.values())
        for visit in leaving:
            visit.show_out()
        if leaving:
            await asyncio.wait([visit.task for visit in leaving], timeout=1.0)

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
        elif self._is_shut and not self._serves(scope["path"]):
            await _refuse(send)
        else:
            visit = self._inside[task] = _Visit(task, send, self._changed)
            try:
                await self._app(scope, receive, visit.send)
            except asyncio.CancelledError:
                if not visit.is_shown_out:
                    raise
                task.uncancel()
                await visit.end()
            finally:
                del self._inside[task]
                self._changed.set()

    def _serves(self, path: str) -> bool:
        return any(
            path.startswith(each.removesuffix("*")) if each.endswith("*") else path == each
            for each in self._stays_open
        )


class _Visit:
    """One request inside, and how far its answer has come."""

    def __init__(self, task: asyncio.Task[Any], send: _Send, changed: asyncio.Event) -> None:
        self.task = task
        self.has_begun = False
        self.is_shown_out = False
        self._has_ended = False
        self._send = send
        self._changed = changed

    async def send(self, message: _Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            self._changed.set()
        elif message["type"] == "http.response.body":
            self._has_ended = not message.get("more_body", False)
        await self._send(message)

    def show_out(self) -> None:
        self.is_shown_out = True
        self.task.cancel()

    async def end(self) -> None:
        """Complete the answer, so that the peer sees an end and not a broken connection."""
        if not self.has_begun:
            await _refuse(self._send)
        elif not self._has_ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def _refuse(send: _Send) -> None:
    body = b'{"error":{"code":"stopping","message":"this instance is to stop; ask again"}}'
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_SECONDS).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
