"""One deployment as on Cloud Run, in this process and on a virtual clock; every document and every request is counted.

Pulse, the Caller for Pulse and the Caller for Twilio, each with a store of its own on Google's Firestore emulator. Beside them
the lab and the work-alike of Cloud Tasks, whose own reading is not counted: they are not there in the cloud.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from bench.meter import Meter
from bench.processes import free_port
from bench.roster import EIGHT_FIFTEEN, HOSPITAL, HOUR, patients
from careflow.app import Assembly, assembled, bind
from careflow.auth import setup as auth
from careflow.clock import Pace, VirtualClock
from careflow.core.patients import Patient
from careflow.core.rounds import Round
from careflow.errors import CareflowError
from careflow.hosting import running
from careflow.lab.app import Lab
from careflow.lab.personas import Persona, Subscriber
from careflow.operating import trigger_round
from careflow.ports import Store
from careflow.settings import Settings, load_settings
from careflow.store.firestore import FirestoreStore
from careflow.telemetry import configure_logging

NEW_YORK = "America/New_York"
BUSY_STEP = 0.12  # virtual seconds at a time while somebody is on the telephone: six frames of sound
WAITING = Pace(speed=600.0, step=2.0)  # finer than the shortest pause between two looks at the store
STILL = Pace(speed=0.0, step=0.0)
PATIENCE_SECONDS = 300.0


@dataclass(slots=True)
class World:
    """The running deployment. Its clock stands still but inside `until` and `pass_time`, and there while a store is asked."""

    settings: Settings
    clock: VirtualClock
    meter: Meter
    store: Store  # the lab's: for putting and looking, at nobody's cost
    lab: Lab
    log: Path
    http: httpx.AsyncClient
    busy: Pace
    pace: Callable[[], Pace] = field(default=lambda: STILL)

    async def enrol(self, people: Sequence[Patient], persona: Persona) -> None:
        """Put these patients on the roster; whoever picks up their telephones behaves like the persona."""
        self.lab.exchange.set_subscribers(
            [
                Subscriber(phone=one.phone or "", persona=persona, given_name=one.given_name, birth_year=1950)
                for one in people
            ]
        )
        await self.store.put_patients(people)

    async def trigger(self) -> str:
        """Have the morning round planned; its id."""
        status, body = await trigger_round(self.settings, HOUR, self.clock, trigger_type="scheduled")
        if status != 200:
            raise CareflowError(f"Pulse answered {status}: {body}")
        return str(body["roundId"])

    async def sweep(self) -> None:
        """What the job careflow-sweep does every five minutes."""
        settings = self.settings
        tokens = auth.tokens(settings, settings.queue_account, self.http, self.clock)
        token = await tokens.token(settings.pulse_audience or settings.pulse_url)
        headers = {"Authorization": f"Bearer {token}"}
        answer = await self.http.post(f"{settings.pulse_url}/tasks/sweep", json={}, headers=headers)
        answer.raise_for_status()

    async def pause_calls(self) -> None:
        """No call is delivered any more."""
        settings = self.settings
        queue = f"projects/{settings.project}/locations/{settings.location}/queues/{settings.calls_queue}"
        answer = await self.http.post(f"{settings.cloud_tasks_url}/v2/{queue}:pause", json={})
        answer.raise_for_status()

    async def round(self, round_id: str) -> Round:
        found = await self.store.round(HOSPITAL, round_id)
        assert found is not None
        return found

    async def open_calls(self, round_id: str) -> int:
        counts = await self.store.count_calls(HOSPITAL, round_id)
        return sum(count for (_, outcome, _), count in counts.items() if not outcome)

    async def until(self, is_so: Callable[[], Awaitable[bool]]) -> None:
        """Let time pass, fast while nobody is on the telephone, until it is so."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.pace = self._pace
            try:
                while not await is_so():
                    await asyncio.sleep(0.05)
            finally:
                self.pace = lambda: STILL
            await asyncio.sleep(0.5)  # real time: what was begun comes to its end

    def _pace(self) -> Pace:
        if self.meter.in_flight:
            return STILL  # the emulator is another process: on a busy machine it would seem slow
        return self.busy if self.lab.live_calls else WAITING

    async def pass_time(self, seconds: float) -> None:
        """Let so many seconds pass."""
        end = self.clock.now().timestamp() + seconds

        async def is_over() -> bool:
            return self.clock.now().timestamp() >= end

        await self.until(is_over)


@asynccontextmanager
async def cloud_world(
    folder: Path, emulator: str, *, start: datetime = EIGHT_FIFTEEN, speed: float = 15.0, **overrides: Any
) -> AsyncIterator[World]:
    """A new deployment on a project of its own in the emulator at host:port, its files in `folder`.

    `speed` is the clock's while somebody is on the telephone, in virtual seconds a real second.
    """
    ports = {name: free_port() for name in ("pulse", "caller", "twilio", "lab", "tasks")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    common = {
        "data_dir": folder,
        "project": f"bench-{secrets.token_hex(6)}",
        "store": "firestore",
        "firestore_emulator": emulator,
        "firestore_database": "(default)",
        "queue": "cloud-tasks",
        "host": "127.0.0.1",
        "time_zone": NEW_YORK,
        "pulse_port": ports["pulse"],
        "caller_port": ports["caller"],
        "lab_port": ports["lab"],
        "tasks_port": ports["tasks"],
        "pulse_url": urls["pulse"],
        "caller_url": urls["caller"],
        "caller_public_url": urls["twilio"],
    } | overrides
    units: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
        "lab": (("lab", "tasks"), {}),
        "caller": (("caller",), {"caller_routes": "a2a"}),
        "twilio": (("caller",), {"caller_routes": "twilio", "caller_port": ports["twilio"]}),
        "pulse": (("pulse",), {}),
    }
    clock, meter = VirtualClock(start), Meter()
    async with AsyncExitStack() as stack:
        log = folder / "log.jsonl"
        configure_logging("bench", clock=clock, stream=stack.enter_context(log.open("w")))
        built: dict[str, Assembly] = {}
        for name, (roles, own) in units.items():
            settings, sockets = bind(load_settings(**common | own), roles)
            one = await stack.enter_async_context(assembled(settings, sockets, clock))
            if name != "lab":
                assert isinstance(one.store, FirestoreStore)
                meter.watch(name, one.store)
                one = replace(one, services=[meter.listen(service, name) for service in one.services])
            built[name] = one
        lab = built["lab"].lab
        assert lab is not None
        world = World(
            settings=built["pulse"].settings,
            clock=clock,
            meter=meter,
            store=built["lab"].store,
            lab=lab,
            log=log,
            busy=Pace(speed=speed, step=BUSY_STEP),
            http=await stack.enter_async_context(httpx.AsyncClient(timeout=600)),
        )
        ticking = asyncio.create_task(clock.run(lambda: world.pace()))
        stack.callback(ticking.cancel)
        await stack.enter_async_context(
            running([service for one in built.values() for service in one.services])
        )
        await asyncio.sleep(0.5)  # real time: what every start does once
        yield world


def people(count: int, *, time_zone: str = NEW_YORK) -> list[Patient]:
    """So many patients who are all due at eight in their zone."""
    return [replace(one, time_zone=time_zone, times=()) for one in patients(count)]
