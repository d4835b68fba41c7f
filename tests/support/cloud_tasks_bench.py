"""The lab's Cloud Tasks on a clock that is advanced, with a receiver that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from careflow.clock import VirtualClock
from cloud_tasks_kit import QUEUE, Receiver, Request, Served, serving

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bench:
    served: Served
    clock: VirtualClock
    rest: httpx.AsyncClient

    async def queue(self, name: str = QUEUE, **settings: Any) -> None:
        answer = await self.rest.patch(f"/v2/{name}", json=settings)
        assert answer.status_code == 200, answer.text

    async def create(self, id_: str = "t1", queue: str = QUEUE, **fields: Any) -> httpx.Response:
        request = {"url": f"{self.served.receiver.url}/tasks/call", **fields.pop("httpRequest", {})}
        task = {"name": f"{queue}/tasks/{id_}", "httpRequest": request, **fields}
        return await self.rest.post(f"/v2/{queue}/tasks", json={"task": task})

    async def settle(self) -> None:
        """Until nothing happens any more unless the clock moves."""
        dispatcher = self.served.tasks.dispatcher
        for _ in range(5):
            await asyncio.sleep(0)
        while not dispatcher.is_resting or dispatcher.in_flight:
            await asyncio.sleep(0.001)

    async def let(self, seconds: float, step: float = 1.0) -> None:
        await self.settle()
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            await self.settle()

    @property
    def names(self) -> list[str]:
        return [request.task for request in self.served.receiver.received]

    async def task(self, id_: str = "t1", queue: str = QUEUE) -> Any:
        return (await self.rest.get(f"/v2/{queue}/tasks/{id_}")).json()


@asynccontextmanager
async def bench(
    path: Path, answers: list[int | None] | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Bench]:
    """A queue `q` at the defaults, and a receiver that answers these, then 200."""
    clock = VirtualClock(NOW)
    left = list(answers or [])

    async def answer(_request: Request) -> int | None:
        return left.pop(0) if left else 200

    receiver = Receiver(answer, headers or {})
    async with serving(path, clock, receiver) as served, httpx.AsyncClient(base_url=served.url) as rest:
        made = Bench(served, clock, rest)
        await made.queue()
        yield made


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    """(HTTP status, status name, field)."""
    error = answer.json()["error"]
    details = error.get("details") or [{"fieldViolations": [{"field": ""}]}]
    return answer.status_code, error["status"], details[0]["fieldViolations"][0]["field"]
