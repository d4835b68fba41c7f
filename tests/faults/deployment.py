"""A real deployment to be killed: its processes, living by a clock that the test owns. Several of each agent: fleet.py."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from careflow.auth import setup as auth
from careflow.backends import open_store
from careflow.clock import Pace, VirtualClock
from careflow.core.calls import Call
from careflow.core.hospitals import Hospital
from careflow.errors import CareflowError
from careflow.operating import trigger_round
from careflow.ports import Store
from careflow.settings import Settings, load_settings
from careflow.store.database import FILE
from faults.processes import Books, Probe, Unit, free_ports

TRIGGER_SECONDS = 300.0  # real ones, in which a trigger must be answered 200
SOON = timedelta(seconds=20)  # what is due so soon is waited for
LONG_AGO = datetime.fromtimestamp(0, UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


class Deployment(ABC):
    """Processes on one data directory with the lab among them, a store, and the clock. `chosen` are settings of all of them.

    Time runs at `speed` virtual seconds a real one while a telephone is in use, slower when the machine is behind, and leaps
    while nothing is going on. Set `is_held` and it only creeps. No process may take longer to answer than `patience` virtual
    seconds: the busier the machine is, the slower is time.
    """

    def __init__(
        self,
        folder: Path,
        start: datetime,
        *,
        speed: float,
        leaps: bool = True,
        patience: float = 0.5,
        **chosen: Any,
    ) -> None:
        self.folder = folder
        self.speed = speed
        self.is_held = False
        self.wait_for = NEVER  # when the test itself wants to do something
        self._leaps = leaps
        self._patience = patience
        self.data_dir = folder / "data"
        self.data_dir.mkdir(parents=True)
        self.clock = VirtualClock(start, path=folder / "clock")
        self.books = Books(self.data_dir / "lab" / "books.jsonl")
        self.units: dict[str, Unit] = {}
        self._chosen = chosen
        self._settings: Settings | None = None
        self._store: Store | None = None
        self._probes: list[Probe] = []
        self._is_busy = True
        self._is_whole = True
        self._quiet_until = LONG_AGO

    _while_starting = 1 / 8  # of the speed, while a process starts

    # which processes there are

    @abstractmethod
    async def _addresses(self, stack: AsyncExitStack) -> Mapping[str, Any]:
        """Settings that say where everything is; what must run before the processes is begun on the stack."""

    async def _surroundings(self, stack: AsyncExitStack) -> Mapping[str, str]:
        """What the processes' environment says otherwise than the settings of the test."""
        return {}

    @abstractmethod
    async def _begin(self, environment: dict[str, str]) -> None:
        """Start every process, in this environment."""

    @abstractmethod
    async def down(self, role: str, *, gently: bool = False) -> str:
        """Kill a process of this role with SIGKILL, or end it with SIGTERM; its name."""

    @abstractmethod
    async def back(self, name: str, successors: int = 1) -> None:
        """Start what follows it, ready or not. `successors` matters where there are several of a role."""

    def _missing(self) -> bool:
        """Whether the deployment lacks a process that nobody stands in for."""
        return not all(unit.process for unit in self.units.values())

    # life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        """Start everything; at the end nothing is left of it."""
        async with AsyncExitStack() as stack:
            chosen = {
                "data_dir": self.data_dir,
                "clock_file": self.folder / "clock",
                **await self._addresses(stack),
                **self._chosen,
            }
            self._settings = load_settings(**chosen)
            environment = {k: v for k, v in os.environ.items() if not k.startswith("CAREFLOW_")}
            environment |= {variable(name): str(value) for name, value in chosen.items()}
            environment |= await self._surroundings(stack)
            self._store = await open_store(self.settings)
            stack.push_async_callback(self._store.close)
            http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=2))
            asked = (
                f"http://127.0.0.1:{self.settings.lab_port}/lab/health",
                self.settings.caller_public_url + "/healthz",
                self.settings.pulse_url + "/healthz",
            )
            self._probes = [Probe(partial(http.get, url)) for url in asked]
            self._probes.append(Probe(partial(self.store.attempt, "nobody's")))
            for work in (
                self.clock.run(self._pace),
                self._watch(),
                *(probe.run() for probe in self._probes),
            ):
                stack.push_async_callback(_cancelled, asyncio.create_task(work))
            stack.push_async_callback(self.kill_all)
            await self._begin(environment)
            yield self

    async def kill_all(self) -> None:
        for unit in self.units.values():
            await unit.kill()

    async def ready(self) -> None:
        """Wait until every process serves."""
        for unit in list(self.units.values()):
            await unit.ready()

    def _pace(self) -> Pace:
        if self._missing():
            return Pace(speed=self.speed, step=0.1)  # nobody is there who could fall behind
        if self.is_held:
            return Pace(speed=1.0, step=0.05)
        if not self._is_whole:
            # A start takes a second or two, which must not be a minute for the patients.
            return self._careful(self.speed * self._while_starting)
        quiet = (self._quiet_until - self.clock.now()).total_seconds()
        if self._is_busy or not self._leaps or quiet <= 0:
            return self._careful(self.speed)
        return Pace(speed=10_000.0, step=max(1.0, min(20.0, quiet / 2)))

    def _careful(self, speed: float) -> Pace:
        """On a busy machine time slows down with the processes: silence on the line would make patients hang up."""
        slowest = max(probe.seconds for probe in self._probes)
        return Pace(speed=min(speed, self._patience / max(slowest, 0.001)), step=0.1)

    async def _watch(self) -> None:
        """Know whether anything is going on, and until when nothing will: time leaps then, if all processes serve."""
        while True:
            self.books.catch_up()
            self._is_whole = all(unit.is_ready() for unit in self.units.values())
            self._is_busy = bool(self.books.open) or not self._is_whole
            if not self._is_busy:
                self._quiet_until = min(self._next_due(), self.wait_for) - SOON
            await asyncio.sleep(0.01)

    def _next_due(self) -> datetime:
        """When the next task is due; long ago when one is being delivered, or a call is held or an attempt open."""
        if self.settings.queue == "cloud-tasks":
            # Whatever is not over has its task under delivery, or due again within a minute.
            path = self.data_dir / "lab" / "tasks" / FILE
            question = "SELECT min(CASE dispatching WHEN 1 THEN 0 ELSE due_at END) FROM tasks"
        else:
            path = self.data_dir / FILE
            question = (
                "SELECT min(at) FROM ("
                " SELECT CASE delivering WHEN 1 THEN 0 ELSE due_at END AS at FROM tasks WHERE dead_at IS NULL"
                " UNION ALL SELECT 0 FROM calls WHERE state = 'calling'"
                " UNION ALL SELECT 0 FROM attempts WHERE state != 'ended')"
            )
        try:
            micros = _ask(path, question)
        except sqlite3.OperationalError:
            return LONG_AGO  # it is only being made
        return LONG_AGO + timedelta(microseconds=micros) if micros is not None else NEVER

    # what the test asks of it

    @property
    def settings(self) -> Settings:
        assert self._settings is not None
        return self._settings

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    @property
    def output(self) -> str:
        """Everything that the processes ever wrote."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def dead_tasks(self) -> int:
        """How many tasks were given up."""
        if self.settings.queue == "cloud-tasks":
            return (self.folder / "tasks.log").read_text().count(": given up after ")
        return int(_ask(self.data_dir / FILE, "SELECT count(*) FROM tasks WHERE dead_at IS NOT NULL"))

    async def put_lab(self, what: str, document: object) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            answer = await http.put(f"http://127.0.0.1:{self.settings.lab_port}/lab/{what}", json=document)
        assert answer.status_code == 200, answer.text

    async def trigger(self, hour: int = 8, hospital: Hospital | None = None) -> dict[str, Any]:
        """What Pulse answers to the trigger, sent again until it does, as a scheduler does it."""
        settings = self.settings
        if hospital is not None:
            changes = {"hospital_id": hospital.id, "time_zone": hospital.time_zone}
            settings = settings.model_copy(update=changes)
        limit = time.monotonic() + TRIGGER_SECONDS
        while True:
            try:
                status, body = await trigger_round(
                    settings, hour, self.clock, trigger_type="scheduled", source="fault-suite"
                )
            except CareflowError:
                status, body = 0, {}
            if status == 200:
                return body
            assert status == 0 or status >= 500, f"the trigger was answered {status}: {body}"
            assert time.monotonic() < limit, f"no trigger was answered 200, the last one {status}"
            await asyncio.sleep(0.05)

    async def deliver_again(self, call: Call) -> int:
        """Deliver the call's task once more, as a queue may at any time; the status, 0 when nobody answers."""
        settings = self.settings
        body = {"hospitalId": call.hospital_id, "roundId": call.round_id, "callId": call.id}
        async with httpx.AsyncClient(trust_env=False, timeout=600) as http:
            tokens = auth.tokens(settings, settings.queue_account, http, self.clock)
            token = await tokens.token(settings.pulse_audience or settings.pulse_url)
            try:
                answer = await http.post(
                    settings.pulse_url + "/tasks/call",
                    json=body,
                    headers={"Authorization": f"Bearer {token}"},
                )
            except httpx.HTTPError:
                return 0
        return answer.status_code


class OneOfEach(Deployment):
    """Lab, Caller and Pulse as processes of their own, or all in one (`whole`), on SQLite."""

    def __init__(self, folder: Path, start: datetime, *, speed: float, whole: bool) -> None:
        # A morning that is over after two hours; several batches of planning, so that a kill falls between two.
        super().__init__(
            folder, start, speed=speed, round_hours="8,10,20", calls_in_flight=3, planning_batch=4
        )
        self._whole = whole

    async def _addresses(self, stack: AsyncExitStack) -> Mapping[str, Any]:
        ports = dict(zip(("pulse", "caller", "lab", "scheduler"), free_ports(4), strict=True))
        urls = {role: f"http://127.0.0.1:{port}" for role, port in ports.items()}
        return {
            "pulse_url": urls["pulse"],
            "caller_url": urls["caller"],
            "caller_public_url": urls["caller"],
            **{f"{role}_port": port for role, port in ports.items()},
        }

    async def _begin(self, environment: dict[str, str]) -> None:
        apart: Mapping[str, Sequence[str]] = {role: ("serve", role) for role in ("lab", "caller", "pulse")}
        for name, words in ({"up": ("up",)} if self._whole else apart).items():
            self.units[name] = Unit(name, words, environment, self.folder / f"{name}.log")
        for unit in self.units.values():
            await unit.start()
            await unit.ready()

    async def down(self, role: str, *, gently: bool = False) -> str:
        unit = self.units[role]
        await (unit.terminate() if gently else unit.kill())
        return role

    async def back(self, name: str, successors: int = 1) -> None:
        await self.units[name].start()


def variable(setting: str) -> str:
    """The environment variable of a field of the settings."""
    field = Settings.model_fields[setting]
    return str(field.validation_alias or f"CAREFLOW_{setting.upper()}")


def _ask(path: Path, question: str, *values: object) -> Any:
    """The one answer of a database that other processes write."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.1)) as connection:
        return connection.execute(question, values).fetchone()[0]


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
