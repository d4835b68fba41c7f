"""Our voice on the wire: paced a little ahead of the clock, with a mark after every prompt.

Twilio queues whatever it gets and plays it in order; `clear` drops the queue and returns the marks in it, so a mark
that returns proves that its prompt was heard only if we did not clear (reference/twilio section 5.2).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from careflow.caller.media_protocol import clear_frame, mark_frame, media_frame
from careflow.ports import Clock

BYTES_PER_SECOND = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackConfig:
    """`lead_seconds` is how far what was sent may run ahead of what was played; None sends every prompt at once."""

    chunk_bytes: int = 1600  # 200 ms
    lead_seconds: float | None = 0.4
    mark_grace_seconds: float = 5.0  # a mark that is later than this after the audio's end is not waited for


@dataclass(slots=True)
class _Prompt:
    mark: str
    wire_mark: str
    audio: bytes


class Playback:
    """Plays prompts one after the other. `run` must be running; `play`, `stop` and `mark_returned` steer it.

    `spoken` is called with a prompt's mark when it was heard to its end, exactly once, and never after `stop`;
    `first_byte` when a prompt's first audio was put on the wire. `send` puts one text frame on the wire.
    """

    def __init__(
        self,
        stream_sid: str,
        send: Callable[[str], Awaitable[None]],
        clock: Clock,
        config: PlaybackConfig,
        *,
        spoken: Callable[[str], None],
        first_byte: Callable[[], None],
    ) -> None:
        self._stream_sid = stream_sid
        self._send = send
        self._clock = clock
        self._config = config
        self._spoken = spoken
        self._first_byte = first_byte
        self._queue: deque[_Prompt] = deque()
        self._more = asyncio.Event()
        self._wire = asyncio.Lock()  # a chunk and a `clear` must not overtake each other
        self._on_air: dict[
            str, str
        ] = {}  # wire mark -> mark, of every prompt that began and was not heard to its end
        self._era = 0  # grows with every stop: what belongs to an earlier one is not sent any more
        self._count = 0
        self._plays_until: datetime | None = None

    @property
    def playing(self) -> bool:
        """Whether our voice is, as far as we know, in the patient's ear."""
        return bool(self._on_air)

    def play(self, mark: str, audio: bytes) -> None:
        """Queue a prompt behind those that are queued already."""
        self._count += 1
        # Twilio's name must be our own: the same mark may be said twice, and the first one's return is not the second's.
        self._queue.append(_Prompt(mark, f"{self._count}.{mark}", audio))
        self._more.set()

    async def stop(self) -> None:
        """Drop what is queued or playing; none of it will be reported as spoken. Nothing of it follows the `clear`."""
        self._era += 1
        self._queue.clear()
        self._plays_until = None
        if self._on_air:
            self._on_air.clear()
            async with self._wire:
                await self._send(clear_frame(self._stream_sid))

    def mark_returned(self, wire_mark: str) -> None:
        mark = self._on_air.pop(wire_mark, None)
        if mark is not None:
            self._spoken(mark)

    async def run(self) -> None:
        """Play until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._queue:
                    prompt = self._queue.popleft()
                    if await self._put_on_air(prompt):
                        group.create_task(self._give_up_on(prompt))

    async def _put_on_air(self, prompt: _Prompt) -> bool:
        """Send the prompt and its mark; False when it was stopped on the way."""
        era, config = self._era, self._config
        begins = max(self._clock.now(), self._plays_until or self._clock.now())
        self._on_air[prompt.wire_mark] = prompt.mark
        for offset in range(0, len(prompt.audio), config.chunk_bytes):
            if config.lead_seconds is not None:
                plays_at = begins + timedelta(seconds=offset / BYTES_PER_SECOND)
                ahead = (plays_at - self._clock.now()).total_seconds() - config.lead_seconds
                if ahead > 0:
                    await self._clock.sleep(ahead)
            chunk = prompt.audio[offset : offset + config.chunk_bytes]
            if not await self._transmit(era, media_frame(self._stream_sid, chunk)):
                return False
            if offset == 0:
                self._first_byte()
        self._plays_until = begins + timedelta(seconds=len(prompt.audio) / BYTES_PER_SECOND)
        return await self._transmit(era, mark_frame(self._stream_sid, prompt.wire_mark))

    async def _transmit(self, era: int, frame: str) -> bool:
        async with self._wire:
            if era != self._era:
                return False
            await self._send(frame)
            return True

    async def _give_up_on(self, prompt: _Prompt) -> None:
        """A mark that never returns must not hold the conversation for ever."""
        remaining = 0.0
        if self._plays_until is not None:
            remaining = max(0.0, (self._plays_until - self._clock.now()).total_seconds())
        await self._clock.sleep(remaining + self._config.mark_grace_seconds)
        self.mark_returned(prompt.wire_mark)
