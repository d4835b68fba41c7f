"""What a deployment under test is made of: processes that can be killed, the lab's books, free ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from careflow.errors import CareflowError

PROBE_SECONDS = 0.1
READY_SECONDS = 60.0  # real ones, in which a process must answer after its start
FINAL = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})
_CAREFLOW = Path(sys.executable).with_name("careflow")


@dataclass(slots=True)
class Books:
    """The lab's books, read as they are written: the file outlives every process, and tells at once what was dialled."""

    path: Path
    open: dict[str, str] = field(default_factory=dict)  # sid -> status of the calls that are not over
    events: list[str] = field(default_factory=list)  # kinds of entries, statuses by their name
    orders: int = 0
    _read: int = 0

    def catch_up(self) -> None:
        """Take in what was written since the last time."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._take(json.loads(line))

    def _take(self, entry: dict[str, Any]) -> None:
        kind = entry["kind"]
        if kind == "created":
            self.open[entry["sid"]] = "queued"
            self.orders += 1
        elif kind == "status":
            kind = entry["status"]
            self.open[entry["sid"]] = kind
            if kind in FINAL:
                del self.open[entry["sid"]]
        self.events.append("ended" if kind in FINAL else kind)


@dataclass(slots=True)
class Unit:
    """One process of the deployment: what it runs, and where its output goes, whole life after whole life."""

    name: str
    arguments: Sequence[str]
    environment: dict[str, str]
    output: Path
    program: Sequence[str] = (str(_CAREFLOW),)
    process: asyncio.subprocess.Process | None = None
    _began: int = 0
    _is_ready: bool = False

    async def start(self) -> None:
        self._is_ready = False
        self._began = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                *self.program, *self.arguments, "--json", env=self.environment, stdout=out, stderr=out
            )

    def is_ready(self) -> bool:
        """Whether this life said that it serves. Raises CareflowError when it ended by itself."""
        if self.process is None:
            return False
        if self._is_ready and self.process.returncode is None:
            return True
        with self.output.open("rb") as file:
            file.seek(self._began)
            said = file.read()
        if self.process.returncode is not None:
            code = self.process.returncode
            raise CareflowError(f"{self.name} ended by itself with {code}: {said[-2000:]!r}")
        self._is_ready = b'"ready": true' in said
        return self._is_ready

    async def ready(self) -> None:
        limit = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if time.monotonic() > limit:
                raise CareflowError(f"{self.name} is not ready after {READY_SECONDS} s")
            await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """SIGKILL, and wait until nothing is left of it."""
        if self.process is not None and self.process.returncode is None:
            dying, self.process = self.process, None
            dying.send_signal(signal.SIGKILL)
            await dying.wait()

    async def terminate(self) -> tuple[int, float]:
        """SIGTERM, and wait for its end: the exit code, and how many real seconds it took."""
        assert self.process is not None
        stopping, self.process = self.process, None
        began = time.monotonic()
        stopping.send_signal(signal.SIGTERM)
        return await stopping.wait(), time.monotonic() - began


class Probe:
    """How long something takes to answer just now: what it is behind by."""

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        self._ask = ask
        self._asked_at: float | None = None
        self._took = 0.0

    @property
    def seconds(self) -> float:
        """Of the last answer, or of the wait for the next one when that is longer."""
        waiting = time.monotonic() - self._asked_at if self._asked_at is not None else 0.0
        return max(self._took, waiting)

    async def run(self) -> None:
        while True:
            self._asked_at = time.monotonic()
            try:
                await self._ask()
            except (httpx.HTTPError, CareflowError):
                self._asked_at = None  # it is dead or starting, which `_pace` knows
            else:
                self._took, self._asked_at = time.monotonic() - self._asked_at, None
            await asyncio.sleep(PROBE_SECONDS)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the system gives away: they must stay ours between two lives."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
