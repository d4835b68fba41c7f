"""A real deployment to be killed: its processes on one data directory, living by a clock that the test owns."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from careflow.clock import Pace, VirtualClock
from careflow.errors import CareflowError
from careflow.operating import trigger_round
from careflow.settings import Settings, load_settings
from careflow.store.sqlite import SqliteStore

PROBE_SECONDS = 0.05
ANSWER_SECONDS = 0.5  # of virtual time: what a process may take to answer at the most
READY_SECONDS = 60.0  # real ones, in which a process must answer after its start
FINAL = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})
_CAREFLOW = Path(sys.executable).with_name("careflow")


@dataclass(slots=True)
class Books:
    """The lab's books, read as they are written: the file outlives every process, and tells at once what was dialled."""

    path: Path
    open: dict[str, str] = field(default_factory=dict)  # sid -> status of the calls that are not over
    events: list[str] = field(default_factory=list)  # kinds of entries, statuses by their name
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
    """How long a process takes to answer just now: what it is behind by."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._asked_at: float | None = None
        self._took = 0.0

    @property
    def seconds(self) -> float:
        """Of the last answer, or of the wait for the next one when that is longer."""
        waiting = time.monotonic() - self._asked_at if self._asked_at is not None else 0.0
        return max(self._took, waiting)

    async def run(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
            while True:
                self._asked_at = time.monotonic()
                try:
                    await http.get(self._url)
                except httpx.HTTPError:
                    self._asked_at = None  # it is dead or starting, which `_pace` knows
                else:
                    self._took, self._asked_at = time.monotonic() - self._asked_at, None
                await asyncio.sleep(PROBE_SECONDS)


class Deployment:
    """Lab, Caller and Pulse as processes of their own, or all in one (`whole`)."""

    def __init__(self, folder: Path, start: datetime, *, whole: bool) -> None:
        self.folder = folder
        data_dir = folder / "data"
        data_dir.mkdir(parents=True)
        self.clock = VirtualClock(start, path=folder / "clock")
        ports = dict(zip(("pulse", "caller", "lab", "scheduler"), free_ports(4), strict=True))
        urls = {role: f"http://127.0.0.1:{port}" for role, port in ports.items()}
        chosen: dict[str, Any] = {
            "data_dir": data_dir,
            "clock_file": folder / "clock",
            "pulse_url": urls["pulse"],
            "caller_url": urls["caller"],
            "caller_public_url": urls["caller"],
            "round_hours": "8,10,20",  # a morning that is over after two hours
            "calls_in_flight": 3,
            "planning_batch": 4,  # several batches, so that a kill falls between two
            **{f"{role}_port": port for role, port in ports.items()},
        }
        self.settings: Settings = load_settings(**chosen)
        self.lab_url = urls["lab"]
        self.books = Books(data_dir / "lab" / "books.jsonl")
        self.is_held = True  # until the round is open, time only creeps
        self._probes = [
            Probe(urls["lab"] + "/lab/health"),
            Probe(urls["caller"] + "/healthz"),
            Probe(urls["pulse"] + "/healthz"),
        ]
        self._store: SqliteStore | None = None
        self._is_busy = True
        self._is_whole = True
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CAREFLOW_")}
        environment |= {f"CAREFLOW_{name.upper()}": str(value) for name, value in chosen.items()}
        apart = {role: ("serve", role) for role in ("lab", "caller", "pulse")}
        commands = {"up": ("up",)} if whole else apart
        self.units = {
            name: Unit(name, words, environment, folder / f"{name}.log") for name, words in commands.items()
        }

    @property
    def store(self) -> SqliteStore:
        assert self._store is not None
        return self._store

    @property
    def output(self) -> str:
        """Everything that the processes ever wrote."""
        return "\n".join(unit.output.read_text(errors="replace") for unit in self.units.values())

    @asynccontextmanager
    async def running(self, speed: float) -> AsyncIterator[None]:
        """Start everything; time runs at `speed` while a telephone is in use, and in leaps while none is."""
        self._store = await SqliteStore.open(self.settings.data_dir)
        watching = asyncio.create_task(self._watch())
        ticking = asyncio.create_task(self.clock.run(lambda: self._pace(speed)))
        probing = [asyncio.create_task(probe.run()) for probe in self._probes]
        try:
            for unit in self.units.values():
                await unit.start()
                await unit.ready()
            yield
        finally:
            for unit in self.units.values():
                await unit.kill()
            for task in (ticking, watching, *probing):
                task.cancel()
            await asyncio.gather(ticking, watching, *probing, return_exceptions=True)
            await self._store.close()

    def _pace(self, speed: float) -> Pace:
        if not all(unit.process for unit in self.units.values()):
            return Pace(speed=speed, step=0.1)  # nobody is there who could fall behind
        if self.is_held:
            return Pace(speed=1.0, step=0.05)
        if not self._is_whole:
            # A start takes a second or two, which must not be a minute for the patients.
            return Pace(speed=speed / 8, step=0.1)
        if self._is_busy:
            # On a busy machine time slows down with the processes: silence on the line would make patients hang up.
            slowest = max(probe.seconds for probe in self._probes)
            return Pace(speed=min(speed, ANSWER_SECONDS / max(slowest, 0.001)), step=0.1)
        return Pace(speed=2500.0, step=5.0)

    async def _watch(self) -> None:
        """Know whether anything is going on: only when nothing is, and all processes serve, may time leap."""
        while True:
            self.books.catch_up()
            self._is_whole = all(unit.is_ready() for unit in self.units.values())
            self._is_busy = bool(self.books.open) or not self._is_whole or not await self._nothing_in_flight()
            await asyncio.sleep(0.005)

    async def _nothing_in_flight(self) -> bool:
        """No call is held by Pulse, due now or about to be, and no attempt is open."""

        def work(connection: Any) -> bool:
            soon = int(self.clock.now().timestamp() * 1_000_000) + 20_000_000
            return not connection.execute(
                "SELECT EXISTS (SELECT 1 FROM calls WHERE state = 'calling')"
                " OR EXISTS (SELECT 1 FROM attempts WHERE state != 'ended')"
                " OR EXISTS (SELECT 1 FROM tasks WHERE dead_at IS NULL AND (delivering = 1 OR due_at <= ?))",
                (soon,),
            ).fetchone()[0]

        return await self.store.database.read(work)

    # what the test asks of it

    async def count(self, what: str) -> int:
        """Rows of the store, as an SQL condition says: "calls", "attempts WHERE …"."""
        return await self.store.database.read(
            lambda connection: connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0]
        )

    async def put_lab(self, what: str, document: object) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.put(f"{self.lab_url}/lab/{what}", json=document)
        assert answer.status_code == 200, answer.text

    async def trigger(self) -> dict[str, Any]:
        """What Pulse answers to the trigger, sent again until it does, as a scheduler does it."""
        limit = time.monotonic() + READY_SECONDS
        while True:
            try:
                status, body = await trigger_round(
                    self.settings, 8, self.clock, trigger_type="scheduled", source="fault-suite"
                )
            except CareflowError:
                status = 0
            if status == 200:
                return body
            assert status == 0 or status >= 500, f"the trigger was answered {status}: {body}"
            assert time.monotonic() < limit, f"no trigger was answered 200, the last one {status}"
            await asyncio.sleep(0.05)


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
