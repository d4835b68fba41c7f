"""The task queue in the store's own SQLite file, and the dispatcher that empties it.

One process at a time dispatches for a data directory: it holds the role "queue". The lock vanishes with its holder, so a
task that is marked as being delivered when the role is taken is nobody's delivery any more and is delivered again.
Other processes enqueue beside it, and take over when it ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from careflow.clock import wait_until
from careflow.errors import StoreError
from careflow.instants import micros, of_micros
from careflow.ports import Clock, Task
from careflow.store.database import Database
from careflow.store.locks import when_free
from careflow.tasks.limits import check_task, queue_limits
from careflow.tasks.pacing import Answer, Pace, QueueLimits, backoff

ROLE = "queue"
POLL_SECONDS = 1.0  # of the clock: how late a task that another process enqueued may be noticed

Deliver = Callable[[Task, int], Awaitable[Answer]]
"""Deliver the task for the nth time (from 1) and say what came back."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeadTask:
    """A task that was given up after its last permitted delivery."""

    task: Task
    deliveries: int
    dead_at: datetime


@dataclass(frozen=True, slots=True)
class _Delivery:
    sequence: int
    task: Task
    number: int


class EmbeddedQueue:
    """`ports.TaskQueue` on a `Database`, with the queues "calls" and "rounds".

    `deliver` is asked for each task; `random` draws from [0, 1) for the jitter. Only the process that runs `run` delivers.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        deliver: Deliver,
        *,
        calls_per_second: float,
        calls_in_flight: int,
        random: Callable[[], float],
        limits: Mapping[str, QueueLimits] = MappingProxyType({}),
    ) -> None:
        """`limits` replace those of the queues they name, the two numbers then without effect for "calls"."""
        self._database = database
        self._clock = clock
        self._deliver = deliver
        self._random = random
        self._limits: dict[str, QueueLimits] = {
            **queue_limits(calls_per_second=calls_per_second, calls_in_flight=calls_in_flight),
            **limits,
        }
        self._wake = {queue: asyncio.Event() for queue in self._limits}
        self._running: dict[str, set[asyncio.Task[None]]] = {queue: set() for queue in self._limits}

    # ports.TaskQueue

    async def enqueue(self, tasks: Sequence[Task]) -> int:
        for task in tasks:
            check_task(task, self._limits)
        rows = [
            (task.queue, task.name, task.path, json.dumps(dict(task.body)), micros(task.due_at))
            for task in tasks
        ]

        def work(connection: sqlite3.Connection) -> int:
            # A dead task of the same name comes back to life; one that waits or is being delivered stays as it is.
            added = connection.executemany(
                """
                INSERT INTO tasks (queue, name, path, body, due_at) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (queue, name) DO UPDATE SET
                    path = excluded.path, body = excluded.body, due_at = excluded.due_at,
                    deliveries = 0, dead_at = NULL
                WHERE dead_at IS NOT NULL
                """,
                rows,
            )
            return max(0, added.rowcount)

        added = await self._database.write(work)
        for queue in {task.queue for task in tasks}:
            self._wake[queue].set()
        return added

    async def cancel(self, queue: str, name: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            deleted = connection.execute(
                "DELETE FROM tasks WHERE queue = ? AND name = ? AND delivering = 0 AND dead_at IS NULL",
                (queue, name),
            )
            return deleted.rowcount == 1

        return await self._database.write(work)

    async def depth(self, queue: str) -> int:
        def work(connection: sqlite3.Connection) -> int:
            count: int = connection.execute(
                """
                SELECT (SELECT count(*) FROM tasks WHERE queue = ?1 AND delivering = 0 AND dead_at IS NULL)
                     + (SELECT count(*) FROM tasks WHERE queue = ?1 AND delivering = 1)
                """,
                (queue,),
            ).fetchone()[0]
            return count

        return await self._database.read(work)

    async def dead(self) -> Sequence[DeadTask]:
        """Every task that was given up, latest first. It stays until a task of its name is enqueued again."""

        def work(connection: sqlite3.Connection) -> list[DeadTask]:
            rows = connection.execute(
                """
                SELECT queue, name, path, body, due_at, deliveries, dead_at FROM tasks
                WHERE dead_at IS NOT NULL ORDER BY dead_at DESC, sequence DESC
                """
            )
            return [DeadTask(_task(row[:5]), row[5], of_micros(row[6])) for row in rows]

        return await self._database.read(work)

    # the dispatcher

    @property
    def in_flight(self) -> int:
        """Deliveries that this process is making now."""
        return sum(map(len, self._running.values()))

    async def run(self) -> None:
        """Deliver what is due until cancelled; stand by while another process does.

        On cancellation the deliveries under way are cancelled too; the next `run`, here or elsewhere, makes them again.
        """
        async with self._dispatching(), asyncio.TaskGroup() as group:
            for queue, limits in self._limits.items():
                group.create_task(self._dispatch(queue, limits), name=f"dispatch-{queue}")

    @asynccontextmanager
    async def _dispatching(self) -> AsyncIterator[None]:
        """Hold the dispatcher's role, and take back what its last holder was delivering when it ended."""
        with await when_free(self._database.path.parent, ROLE, self._clock, POLL_SECONDS):
            await self._persist(
                lambda connection: connection.execute("UPDATE tasks SET delivering = 0 WHERE delivering = 1")
            )
            yield

    async def _dispatch(self, queue: str, limits: QueueLimits) -> None:
        """Start the deliveries of one queue, due order first, within its limits."""
        pace = Pace(limits.per_second)
        wake = self._wake[queue]
        running = self._running[queue]

        def finished(delivery: asyncio.Task[None]) -> None:
            running.discard(delivery)
            wake.set()  # a place is free, and the task may be due again

        async with asyncio.TaskGroup() as group:
            while True:
                wake.clear()
                now = self._clock.now()
                free = pace.allowed(now, limits.in_flight - len(running))
                wait = pace.wait(now) or POLL_SECONDS
                if free > 0:
                    deliveries, next_due = await self._take(queue, now, free)
                    for delivery in deliveries:
                        pace.started(self._clock.now())  # taking it has taken time
                        started = group.create_task(self._attempt(delivery, limits))
                        running.add(started)
                        started.add_done_callback(finished)
                    if len(deliveries) == free:
                        continue
                    if next_due is not None:
                        wait = min(POLL_SECONDS, (next_due - now).total_seconds())
                await wait_until(self._clock, wait, wake)

    async def _take(self, queue: str, now: datetime, count: int) -> tuple[list[_Delivery], datetime | None]:
        """Mark up to `count` due tasks as being delivered; them, and when the first of the rest is due."""
        try:
            next_due = await self._database.read(lambda connection: _next_due(connection, queue))
            if next_due is None or next_due > now:
                return [], next_due
            return await self._database.write(lambda connection: _take(connection, queue, now, count))
        except StoreError as error:
            _log.warning("queue %s waits for the store: %s", queue, error)
            return [], None

    async def _attempt(self, delivery: _Delivery, limits: QueueLimits) -> None:
        """One delivery and what follows it."""
        task = delivery.task
        try:
            answer = await self._deliver(task, delivery.number)
        except Exception as error:  # noqa: BLE001 - whatever it is, the task must stay and the others go on
            _log.error("task %s: delivery broke (%s)", task.name, type(error).__name__)
            answer = Answer(None)
        now = self._clock.now()
        if answer.accepted:
            await self._persist(
                lambda connection: connection.execute(
                    "DELETE FROM tasks WHERE sequence = ?", (delivery.sequence,)
                )
            )
        elif delivery.number >= limits.max_deliveries:
            _log.error(
                "task %s: given up after %d deliveries, last %s", task.name, delivery.number, answer.status
            )
            await self._persist(
                lambda connection: connection.execute(
                    "UPDATE tasks SET delivering = 0, dead_at = ? WHERE sequence = ?",
                    (micros(now), delivery.sequence),
                )
            )
        else:
            again = now + backoff(limits, delivery.number, answer, self._random)
            _log.info("task %s: delivery %d answered %s", task.name, delivery.number, answer.status)
            await self._persist(
                lambda connection: connection.execute(
                    "UPDATE tasks SET delivering = 0, due_at = ? WHERE sequence = ?",
                    (micros(again), delivery.sequence),
                )
            )

    async def _persist(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Write, trying again for as long as the store is unavailable: what was delivered must not be forgotten."""
        while True:
            try:
                await self._database.write(work)
            except StoreError as error:
                _log.warning("the queue waits for the store: %s", error)
                await self._clock.sleep(POLL_SECONDS)
            else:
                return


def _next_due(connection: sqlite3.Connection, queue: str) -> datetime | None:
    row = connection.execute(
        """
        SELECT due_at FROM tasks WHERE queue = ? AND delivering = 0 AND dead_at IS NULL
        ORDER BY due_at, sequence LIMIT 1
        """,
        (queue,),
    ).fetchone()
    return None if row is None else of_micros(row[0])


def _take(
    connection: sqlite3.Connection, queue: str, now: datetime, count: int
) -> tuple[list[_Delivery], datetime | None]:
    rows = connection.execute(
        """
        SELECT queue, name, path, body, due_at, sequence, deliveries FROM tasks
        WHERE queue = ? AND delivering = 0 AND dead_at IS NULL AND due_at <= ?
        ORDER BY due_at, sequence LIMIT ?
        """,
        (queue, micros(now), count),
    ).fetchall()
    # Counted before it begins, so that a task which kills its receiver and us is still given up in the end.
    connection.executemany(
        "UPDATE tasks SET delivering = 1, deliveries = deliveries + 1 WHERE sequence = ?",
        [(row[5],) for row in rows],
    )
    return [_Delivery(row[5], _task(row[:5]), row[6] + 1) for row in rows], _next_due(connection, queue)


def _task(row: Sequence[Any]) -> Task:
    queue, name, path, body, due_at = row
    return Task(queue=queue, name=name, path=path, body=json.loads(body), due_at=of_micros(due_at))
