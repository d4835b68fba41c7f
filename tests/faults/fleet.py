"""Several instances of each agent on one store, behind load balancers, with the lab and a clock that the test owns."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx

from careflow.clock import Pace
from faults.deployment import Deployment, variable
from faults.processes import READY_SECONDS, Unit, free_ports
from load_balancer import LoadBalancer

SPEED = 20.0  # virtual seconds a real second, at the most
MOST = 3  # instances of a role
NETWORK = "network"
RECONNECT_SECONDS = 2.0  # what a client of Firestore may take to notice that it is back
_CHILD = Path(__file__).with_name("instance_child.py")


class Fleet(Deployment):
    """The lab, `callers` Callers and `pulses` Pulses. `chosen` are settings of all of them, e.g. the store.

    With `twilio` as many more Callers take what Twilio sends, and the others only what Pulse asks, as on Cloud Run.
    Between them and the Firestore emulator is a network that can be down, the role "network".
    """

    def __init__(
        self,
        folder: Path,
        start: datetime,
        *,
        callers: int,
        pulses: int,
        twilio: int = 0,
        speed: float = SPEED,
        rng: Random | None = None,
        **chosen: Any,
    ) -> None:
        super().__init__(folder, start, speed=speed, **chosen)
        self.caller = LoadBalancer(Random(1))
        self.pulse = LoadBalancer(Random(2))
        self.twilio = LoadBalancer(Random(3)) if twilio else self.caller
        self._balancers = {"caller": self.caller, "pulse": self.pulse, "twilio": self.twilio}
        self._sizes = {"caller": callers, "pulse": pulses, "twilio": twilio}
        self._network = LoadBalancer(Random(5))
        self._made: Counter[str] = Counter()
        self._rng = rng or Random(4)
        self._environment: dict[str, str] = {}
        self._listing: set[asyncio.Task[None]] = set()
        self._at_real_pace = 0

    _while_starting = 1 / 2  # the others serve

    async def _addresses(self, stack: AsyncExitStack) -> Mapping[str, Any]:
        for balancer in set(self._balancers.values()):
            await stack.enter_async_context(balancer.running())
        lab_port, tasks_port = free_ports(2)
        return {
            "pulse_url": self.pulse.url,
            "caller_url": self.caller.url,
            "caller_public_url": self.twilio.url,
            "lab_port": lab_port,
            "tasks_port": tasks_port,
        }

    async def _surroundings(self, stack: AsyncExitStack) -> Mapping[str, str]:
        if not self.settings.firestore_emulator:
            return {}
        await stack.enter_async_context(self._network.running())
        self._connect()
        return {variable("firestore_emulator"): f"127.0.0.1:{self._network.port}"}

    def _connect(self) -> None:
        self._network.add(NETWORK, int(self.settings.firestore_emulator.rpartition(":")[2]))

    async def _begin(self, environment: dict[str, str]) -> None:
        self._environment = environment
        alone = ["lab", "tasks"] if self.settings.queue == "cloud-tasks" else ["lab"]
        members = [self.start(role, role) for role in alone]
        for role, size in self._sizes.items():
            members += [self.start(self._fresh(role), role) for _ in range(size)]
        await asyncio.gather(*members)

    def _missing(self) -> bool:
        return not all(self._of(role) for role, size in self._sizes.items() if size)

    def _pace(self) -> Pace:
        # The ten seconds that Cloud Run gives are real ones, and so is the patience of gRPC.
        return Pace(speed=1.0, step=0.1) if self._at_real_pace else super()._pace()

    def _of(self, role: str) -> list[str]:
        return [name for name in self.units if name.startswith(f"{role}-")]

    def _fresh(self, role: str) -> str:
        self._made[role] += 1
        return f"{role}-{self._made[role] - 1}"

    async def start(self, name: str, role: str) -> None:
        """Start one more instance, and let its load balancer know once it is ready."""
        await self._launch(name, role)
        await self._list(name, role)

    async def _launch(self, name: str, role: str) -> None:
        environment, served = self._environment, _service(role)
        if role in self._sizes:
            environment = environment | {variable(f"{served}_port"): str(free_ports(1)[0])}
        if served == "caller" and self._sizes["twilio"]:
            environment = environment | {variable("caller_routes"): "twilio" if role == "twilio" else "a2a"}
        unit = Unit(
            name, ("serve", served), environment, self.folder / f"{name}.log", (sys.executable, str(_CHILD))
        )
        await unit.start()
        self.units[name] = unit

    async def _list(self, name: str, role: str) -> None:
        unit = self.units[name]
        async with asyncio.timeout(READY_SECONDS):
            while self.units.get(name) is unit and not unit.is_ready():
                await asyncio.sleep(0.01)
        if role in self._sizes and self.units.get(name) is unit:
            self._balancers[role].add(name, int(unit.environment[variable(f"{_service(role)}_port")]))

    async def stop(self, name: str, *, unlisted: bool = True) -> tuple[int, float]:
        """SIGTERM an instance: its exit code, and the real seconds it took.

        `unlisted` as Cloud Run does it, which sends it no connection any more; else as where there is nobody else.
        """
        unit = self.units.pop(name)
        if unlisted:
            self._unlist(name)
        self._at_real_pace += 1
        try:
            stopped = await unit.terminate()
        finally:
            self._at_real_pace -= 1
        self._unlist(name)
        return stopped

    def _unlist(self, name: str) -> None:
        for balancer in self._balancers.values():
            balancer.remove(name)

    # what the trial does to it

    async def down(self, role: str, *, gently: bool = False) -> str:
        """Kill or stop any instance of the role; one that is stopped while it is the only one is followed by another first."""
        if role == NETWORK:
            self._at_real_pace += 1
            self._network.cut(NETWORK)
            return NETWORK
        if gently and len(self._of(role)) == 1:
            await self.start(self._fresh(role), role)
        name = self._rng.choice(self._of(role))
        if gently:
            await self.units[name].ready()  # as with Cloud Run, which starts an instance before it stops it
            code, seconds = await self.stop(name)
            assert (code, seconds < 10) == (0, True), f"{name} stopped with {code} after {seconds:.1f} s"
        else:
            unit = self.units.pop(name)
            await unit.kill()
            self._unlist(name)
        return name

    async def back(self, name: str, successors: int = 1) -> None:
        """Start as many in its place as leave one at least of its role and `MOST` at most."""
        if name == NETWORK:
            self._connect()
            await asyncio.sleep(RECONNECT_SECONDS)
            self._at_real_pace -= 1
            return
        role = name.partition("-")[0]
        there = len(self._of(role))
        for _ in range(min(max(successors, 1 - there), MOST - there)):
            fresh = self._fresh(role)
            await self._launch(fresh, role)
            listing = asyncio.create_task(self._list(fresh, role))
            self._listing.add(listing)
            listing.add_done_callback(self._listing.discard)

    # what a test asks of it

    async def dialled(self) -> Sequence[dict[str, Any]]:
        """Every telephone call, by the lab's books."""
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{self.settings.lab_port}/lab/calls")
        calls: Sequence[dict[str, Any]] = answer.json()["calls"]
        return calls

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


def _service(role: str) -> str:
    """What `careflow serve` calls it."""
    return "caller" if role == "twilio" else role
