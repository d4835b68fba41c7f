"""Several instances of each agent on one store, behind load balancers, with the lab and a clock that the test owns."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx

from careflow.backends import open_store
from careflow.clock import Pace, VirtualClock
from careflow.operating import trigger_round
from careflow.ports import Store
from careflow.settings import Settings, load_settings
from faults.deployment import ANSWER_SECONDS, Books, Probe, Unit, free_ports
from load_balancer import LoadBalancer

SPEED = 20.0  # virtual seconds a real second, at the most
_CHILD = Path(__file__).with_name("instance_child.py")


class Fleet:
    """The lab, `callers` Callers and `pulses` Pulses. `chosen` are settings of all of them, e.g. the store.

    With `twilio` as many more Callers take what Twilio sends, and the others only what Pulse asks, as on Cloud Run.
    """

    def __init__(
        self, folder: Path, start: datetime, *, callers: int, pulses: int, twilio: int = 0, **chosen: Any
    ) -> None:
        self.folder = folder
        self.speed = SPEED
        self.clock = VirtualClock(start, path=folder / "clock")
        self.caller = LoadBalancer(Random(1))
        self.pulse = LoadBalancer(Random(2))
        self.twilio = LoadBalancer(Random(3)) if twilio else self.caller
        self.units: dict[str, Unit] = {}
        self.books = Books(folder / "data" / "lab" / "books.jsonl")
        self._sizes = {"caller": callers, "pulse": pulses, "twilio": twilio}
        self._chosen = chosen
        self._settings: Settings | None = None
        self._store: Store | None = None
        self._environment: dict[str, str] = {}
        self._lab_url = ""

    @property
    def settings(self) -> Settings:
        assert self._settings is not None
        return self._settings

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        async with AsyncExitStack() as stack:
            for balancer in {self.caller, self.pulse, self.twilio}:
                await stack.enter_async_context(balancer.running())
            lab_port, tasks_port = free_ports(2)
            self._lab_url = f"http://127.0.0.1:{lab_port}"
            chosen = {
                "data_dir": self.folder / "data",
                "clock_file": self.folder / "clock",
                "pulse_url": self.pulse.url,
                "caller_url": self.caller.url,
                "caller_public_url": self.twilio.url,
                "lab_port": lab_port,
                "tasks_port": tasks_port,
                **self._chosen,
            }
            self._settings = load_settings(**chosen)
            self._environment = {k: v for k, v in os.environ.items() if not k.startswith("CAREFLOW_")}
            self._environment |= {_variable(name): str(value) for name, value in chosen.items()}
            probes = [Probe(url) for url in (self._lab_url + "/lab/health", self.twilio.url + "/readyz")]

            def pace() -> Pace:
                # On a busy machine time slows down with the processes: silence on the line would make patients hang up.
                slowest = max(probe.seconds for probe in probes)
                return Pace(speed=min(self.speed, ANSWER_SECONDS / max(slowest, 0.001)), step=0.1)

            for work in (self.clock.run(pace), *(probe.run() for probe in probes)):
                stack.callback(asyncio.create_task(work).cancel)
            self._store = await open_store(self.settings)
            stack.push_async_callback(self._store.close)
            stack.push_async_callback(self._kill_all)
            members = [("lab", "lab")]
            if self.settings.queue == "cloud-tasks":
                members.append(("tasks", "tasks"))
            for role, size in self._sizes.items():
                members += [(f"{role}-{number}", role) for number in range(size)]
            await asyncio.gather(*(self.start(name, role) for name, role in members))
            yield self

    async def start(self, name: str, role: str) -> None:
        """Start one more instance, and let its load balancer know once it is ready."""
        (port,) = free_ports(1)
        environment, served = self._environment, "caller" if role == "twilio" else role
        if role in self._sizes:
            environment = environment | {_variable(f"{served}_port"): str(port)}
        if served == "caller" and self._sizes["twilio"]:
            environment = environment | {_variable("caller_routes"): "twilio" if role == "twilio" else "a2a"}
        unit = Unit(
            name, ("serve", served), environment, self.folder / f"{name}.log", (sys.executable, str(_CHILD))
        )
        await unit.start()
        self.units[name] = unit
        await unit.ready()
        if role in self._sizes:
            {"caller": self.caller, "pulse": self.pulse, "twilio": self.twilio}[role].add(name, port)

    async def stop(self, name: str, *, unlisted: bool = True) -> tuple[int, float]:
        """SIGTERM an instance: its exit code, and the real seconds it took.

        `unlisted` as Cloud Run does it, which sends it no connection any more; else as where there is nobody else.
        """
        unit = self.units.pop(name)
        if unlisted:
            self._unlist(name)
        stopped = await unit.terminate()
        self._unlist(name)
        return stopped

    def _unlist(self, name: str) -> None:
        for balancer in (self.caller, self.pulse, self.twilio):
            balancer.remove(name)

    async def _kill_all(self) -> None:
        for unit in self.units.values():
            await unit.kill()

    # what the test asks of it

    async def put_lab(self, what: str, document: object) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.put(f"{self._lab_url}/lab/{what}", json=document)
        assert answer.status_code == 200, answer.text

    async def dialled(self) -> Sequence[dict[str, Any]]:
        """Every telephone call, by the lab's books."""
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"{self._lab_url}/lab/calls")
        calls: Sequence[dict[str, Any]] = answer.json()["calls"]
        return calls

    async def trigger(self) -> dict[str, Any]:
        status, body = await trigger_round(
            self.settings, 8, self.clock, trigger_type="scheduled", source="fault-suite"
        )
        assert status == 200, body
        return body

    async def until(self, true: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        """What the function, or the coroutine that it makes, answers once that is true; fails after so many real seconds."""
        limit = time.monotonic() + seconds
        while True:
            answer = true()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return answer
            assert time.monotonic() < limit, f"it never came true; files in {self.folder}"
            await asyncio.sleep(0.02)


def _variable(setting: str) -> str:
    field = Settings.model_fields[setting]
    return str(field.validation_alias or f"CAREFLOW_{setting.upper()}")
