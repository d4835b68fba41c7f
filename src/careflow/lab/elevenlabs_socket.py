"""A websocket whose silence is measured on the lab's clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from careflow.ports import Clock


class Gone(Exception):
    """The other side closed the socket."""


class Silent(Exception):
    """Nothing came for as long as was waited."""


class Unreadable(Exception):
    """A message that is not a JSON object."""


class Socket:
    """An accepted websocket, used as a context manager: a reader runs while it is open."""

    def __init__(self, websocket: WebSocket, clock: Clock) -> None:
        self._websocket = websocket
        self._clock = clock
        self._inbox: asyncio.Queue[str | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Socket:
        await self._websocket.accept()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                self._inbox.put_nowait(await self._websocket.receive_text())
        except (WebSocketDisconnect, KeyError, RuntimeError):  # KeyError: a binary message
            self._inbox.put_nowait(None)

    async def receive(self, seconds: float) -> Mapping[str, object]:
        """The next message. Raises Gone, Unreadable, or Silent after `seconds` of the clock."""
        # No timer, which costs two tasks, while messages are waiting.
        text = self._inbox.get_nowait() if not self._inbox.empty() else await self._wait(seconds)
        if text is None:
            raise Gone
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise Unreadable from None
        if not isinstance(document, dict):
            raise Unreadable
        return document

    async def _wait(self, seconds: float) -> str | None:
        getter = asyncio.ensure_future(self._inbox.get())
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({getter, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not getter.done():
                raise Silent
            return getter.result()
        finally:
            getter.cancel()
            timer.cancel()

    async def send(self, message: Mapping[str, object]) -> None:
        """Send one message. Raises Gone."""
        try:
            await self._websocket.send_text(json.dumps(message, separators=(",", ":")))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise Gone from error

    async def close(self, code: int, reason: str = "") -> None:
        """Close it unless it is closed."""
        if self._websocket.application_state is WebSocketState.CONNECTED:
            try:
                await self._websocket.close(code, reason)
            except (WebSocketDisconnect, RuntimeError):
                return
