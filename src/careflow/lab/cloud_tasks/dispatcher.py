"""Empties the queues: what is due, within each queue's rate and number, slower while a target asks for mercy."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from careflow.clock import wait_until
from careflow.errors import StoreError
from careflow.lab.cloud_tasks import ledger
from careflow.lab.cloud_tasks.ledger import Taken
from careflow.lab.cloud_tasks.model import Queue, QueueState, Task, ended
from careflow.ports import Clock
from careflow.store.database import Database
from careflow.tasks.pacing import Answer, Pace

POLL_SECONDS = 1.0  # of the clock, when the store cannot be used
IDLE_SECONDS = 3600.0
SLOWEST = 64

Deliver = Callable[[Task, int | None], Awaitable[Answer]]
"""Deliver the task, told the status of its last attempt, and say what came back."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Lane:
    """One queue's dispatches. `slowness` divides its rate: doubled by every 429 or 503, halved by every success."""

    pace: Pace
    in_flight: int = 0
    slowness: int = 1
    queue: Queue | None = None

    def adjust(self, queue: Queue) -> None:
        self.queue = queue
        self.pace.change(queue.per_second / self.slowness, queue.burst if self.slowness == 1 else 1)

    def heard(self, answer: Answer) -> None:
        if answer.status in (429, 503):
            self.slowness = min(SLOWEST, self.slowness * 2)
        elif answer.accepted:
            self.slowness = max(1, self.slowness // 2)


class Dispatcher:
    """Runs the attempts of all queues. One at a time works on a database."""

    def __init__(self, database: Database, clock: Clock, deliver: Deliver) -> None:
        self._database = database
        self._clock = clock
        self._deliver = deliver
        self._lanes: dict[str, _Lane] = {}
        self._wake = asyncio.Event()
        self.is_resting = False
        """Nothing can begin until the clock moves on, or somebody changes a queue or a task."""

    @property
    def in_flight(self) -> int:
        """Attempts that are under way."""
        return sum(lane.in_flight for lane in self._lanes.values())

    def changed(self) -> None:
        """A queue or a task was changed: look again."""
        self.is_resting = False
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled. What is under way then is made again by the next run."""
        await self._persist(ledger.release)
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                try:
                    wait = await self._pass(group)
                except StoreError as error:
                    _log.warning("the lab's Cloud Tasks waits for its store (%s)", type(error).__name__)
                    wait = POLL_SECONDS
                self.is_resting = wait > 0 and not self._wake.is_set()
                await wait_until(self._clock, wait, self._wake)
                self.is_resting = False

    async def _pass(self, group: asyncio.TaskGroup) -> float:
        """Begin what may begin now; seconds until it is worth looking again, unless something changes."""
        now = self._clock.now()
        outlook = await self._database.read(ledger.outlook)
        places = []
        wait = IDLE_SECONDS
        for queue, due in outlook.queues:
            lane = self._lane(queue)
            free = lane.pace.allowed(now, queue.in_flight - lane.in_flight)
            if due is None or queue.state is not QueueState.RUNNING or lane.in_flight >= queue.in_flight:
                continue  # until something changes
            if due <= now and free > 0:
                places.append((queue.name, free))
            wait = min(wait, max((due - now).total_seconds(), lane.pace.wait(now)))
        if places or outlook.any_forced:
            for taken in await self._database.write(lambda connection: ledger.take(connection, places, now)):
                lane = self._lanes[taken.task.queue]
                lane.pace.started(self._clock.now())  # taking it has taken time
                lane.in_flight += 1
                group.create_task(self._attempt(taken, lane))
            return 0.0  # more may be due
        return wait

    def _lane(self, queue: Queue) -> _Lane:
        lane = self._lanes.setdefault(queue.name, _Lane(Pace(queue.per_second, queue.burst)))
        lane.adjust(queue)
        return lane

    async def _attempt(self, taken: Taken, lane: _Lane) -> None:
        task = taken.task
        try:
            answer = await self._deliver(task, taken.previous)
            now = self._clock.now()
            lane.heard(answer)
            assert lane.queue is not None
            after = ended(task, lane.queue.retry, answer, now)
            if after is None and not answer.accepted:
                _log.error(
                    "task %s: given up after %d attempts, last %s", task.id, task.dispatches, answer.status
                )
            await self._persist(lambda connection: ledger.settle(connection, taken, after, now))
        finally:
            lane.in_flight -= 1
            self.changed()

    async def _persist(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Write, trying again for as long as the store is unavailable: what was delivered must not be forgotten."""
        while True:
            try:
                await self._database.write(work)
            except StoreError as error:
                _log.warning("the lab's Cloud Tasks waits for its store (%s)", type(error).__name__)
                await self._clock.sleep(POLL_SECONDS)
            else:
                return
