"""Clocks: the system's, and a virtual one that runs faster than real time without outrunning the programs that live by it."""

from __future__ import annotations

import asyncio
import heapq
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from careflow.instants import micros, of_micros
from careflow.ports import Clock


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast virtual time runs: `speed` virtual seconds a real second, at most `step` virtual seconds at a time.

    The step is what keeps a busy machine honest: when the programs fall behind, time slows down with them instead of
    running out under them.
    """

    speed: float
    step: float


class VirtualClock:
    """A clock that `run` advances, or that a test advances by hand.

    With `path` the present instant is published in a small file, and other processes follow it with `FollowedClock`.
    """

    def __init__(self, start: datetime, *, path: Path | None = None) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._published = _Published.create(path, start) if path else None

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._count, future))
        await future

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking every sleeper whose time comes; a sleeper never sees a time before its own."""
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)
        if self._published:
            self._published.write(self.now())

    async def run(self, pace: Callable[[], Pace], *, tick: float = 0.002) -> None:
        """Advance until cancelled, asking for the pace at every tick (real seconds)."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(tick)
            real = time.monotonic()
            wanted = pace()
            self.advance(min((real - last) * wanted.speed, wanted.step))
            last = real


class FollowedClock:
    """The virtual clock that another process runs; `run` must be running for sleepers to wake."""

    def __init__(self, path: Path) -> None:
        self._published = _Published.open(path)
        self._mirror = VirtualClock(self._published.read())

    def now(self) -> datetime:
        self._catch_up()
        return self._mirror.now()

    async def sleep(self, seconds: float) -> None:
        self._catch_up()
        await self._mirror.sleep(seconds)

    def _catch_up(self) -> None:
        behind = (self._published.read() - self._mirror.now()).total_seconds()
        if behind > 0:
            self._mirror.advance(behind)

    async def run(self, *, tick: float = 0.002) -> None:
        """Follow the published time until cancelled."""
        while True:
            await asyncio.sleep(tick)
            self._catch_up()


class _Published:
    """Eight bytes in a file: microseconds since the epoch. One aligned store, so a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    @classmethod
    def create(cls, path: Path, start: datetime) -> _Published:
        # In place: cutting the file short would kill, with SIGBUS, whoever follows it.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.write(struct.pack("<q", micros(start)))
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> _Published:
        return cls(path)

    def write(self, moment: datetime) -> None:
        self._map[0:8] = struct.pack("<q", micros(moment))

    def read(self) -> datetime:
        return of_micros(struct.unpack("<q", self._map[0:8])[0])


def published_time(path: Path) -> datetime | None:
    """The instant that a clock last published in this file; None when there is no such file."""
    try:
        return _Published.open(path).read()
    except (OSError, ValueError):
        return None


async def wait_until(clock: Clock, seconds: float, done: asyncio.Event) -> bool:
    """Wait for the event for at most `seconds` of the clock's time; whether it was set."""
    if done.is_set():
        return True
    timer = asyncio.ensure_future(clock.sleep(seconds))
    waiter = asyncio.ensure_future(done.wait())
    try:
        await asyncio.wait({timer, waiter}, return_when=asyncio.FIRST_COMPLETED)
        return done.is_set()
    finally:
        timer.cancel()
        waiter.cancel()
