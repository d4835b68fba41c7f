"""The verbs of Cloud Tasks v2 on resources, the same for REST and gRPC: checks, paging, and refusals in the API's words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from careflow.errors import StoreError
from careflow.google_api import masks, names
from careflow.google_api.paging import PageTokens
from careflow.google_api.refusals import Code, Refused, invalid
from careflow.lab.cloud_tasks import ledger, resource
from careflow.lab.cloud_tasks.model import Queue, QueueState, Task
from careflow.ports import Clock
from careflow.store.database import Database

T = TypeVar("T")

MOST_QUEUES = 9800
MOST_TASKS = 1000  # a page; also what is answered when nothing or more is asked for


@dataclass(frozen=True, slots=True)
class QueuePage:
    """Some queues, ordered by name; `next_token` asks for what follows and is empty at the end."""

    queues: Sequence[Queue]
    next_token: str


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Some tasks, ordered by name; `next_token` as above."""

    tasks: Sequence[Task]
    next_token: str


class CloudTasksApi:
    """What the API does, before it is put into JSON or a message. Every method raises Refused.

    Any project and any location that are well formed exist. `changed` is called after whatever may let an attempt begin.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        location: str,
        new_id: Callable[[], str],
        changed: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._location = location
        self._new_id = new_id
        self._changed = changed
        self._tokens = PageTokens(clock)

    # queues

    async def list_queues(self, parent: str, *, page_size: int, token: str) -> QueuePage:
        prefix = f"{names.checked_parent(parent)}/queues/"
        size = _page_size(page_size, MOST_QUEUES)
        after = self._tokens.read(token, prefix) if token else ""
        found = await self._read(lambda connection: ledger.queues(connection, prefix, after, size + 1))
        return QueuePage(found[:size], self._next(found, size))

    async def get_queue(self, name: str) -> Queue:
        resource.checked_queue(name)
        return await self._read(lambda connection: _queue(connection, name))

    async def create_queue(self, parent: str, body: Any) -> Queue:
        queue = resource.new_queue(body, names.checked_parent(parent))

        def work(connection: sqlite3.Connection) -> Queue:
            if ledger.queue(connection, queue.name) is not None:
                raise Refused(Code.ALREADY_EXISTS, "Queue already exists", field="queue.name")
            return self._create_queue(connection, queue)

        return await self._write(work)

    async def update_queue(self, name: str, body: Any, mask: Iterable[str], *, camel_case: bool) -> Queue:
        """Replace the masked fields, or all; make the queue if there is none."""
        resource.checked_queue(name, "queue.name")
        tree = resource.read_queue(body)
        chosen = masks.paths(resource.QUEUE, mask, camel_case=camel_case, resource="queue")

        def work(connection: sqlite3.Connection) -> Queue:
            stored = ledger.queue(connection, name)
            updated = resource.updated_queue(stored or Queue(name=name), tree, chosen)
            if stored is None:
                return self._create_queue(connection, updated)
            ledger.put_queue(connection, updated)
            return updated

        return await self._write(work)

    async def delete_queue(self, name: str) -> None:
        resource.checked_queue(name)

        def work(connection: sqlite3.Connection) -> None:
            if not ledger.delete_queue(connection, name, self._clock.now()):
                raise _no_queue()

        await self._write(work)

    async def purge_queue(self, name: str) -> Queue:
        resource.checked_queue(name)

        def work(connection: sqlite3.Connection) -> Queue:
            now = self._clock.now()
            queue = replace(_queue(connection, name), purge_time=now)
            ledger.purge(connection, name, now)
            ledger.put_queue(connection, queue)
            return queue

        return await self._write(work)

    async def pause_queue(self, name: str) -> Queue:
        return await self._in_state(name, QueueState.PAUSED)

    async def resume_queue(self, name: str) -> Queue:
        return await self._in_state(name, QueueState.RUNNING)

    # tasks

    async def list_tasks(self, parent: str, *, page_size: int, token: str) -> TaskPage:
        resource.checked_queue(parent, "parent")
        size = _page_size(page_size, MOST_TASKS)
        after = self._tokens.read(token, f"{parent}/tasks/") if token else ""

        def work(connection: sqlite3.Connection) -> list[Task]:
            _queue(connection, parent)
            return ledger.tasks(connection, parent, after, size + 1)

        found = await self._read(work)
        return TaskPage(found[:size], self._next(found, size))

    async def get_task(self, name: str) -> Task:
        resource.checked_task(name)
        return await self._read(lambda connection: _task(connection, name))

    async def create_task(self, parent: str, body: Any) -> Task:
        resource.checked_queue(parent, "parent")
        task = resource.new_task(body, parent, self._new_id(), self._clock.now())

        def work(connection: sqlite3.Connection) -> Task:
            _queue(connection, parent)
            if ledger.task(connection, task.name) is not None:
                raise Refused(Code.ALREADY_EXISTS, "Requested entity already exists", field="task.name")
            if ledger.is_gone(connection, task.name, self._clock.now()):
                raise Refused(
                    Code.ALREADY_EXISTS,
                    "The task cannot be created because a task with this name existed too recently.",
                    field="task.name",
                )
            ledger.add_task(connection, task)
            return task

        return await self._write(work)

    async def delete_task(self, name: str) -> None:
        resource.checked_task(name)

        def work(connection: sqlite3.Connection) -> None:
            if not ledger.delete_task(connection, name, self._clock.now()):
                raise _no_task(connection, name)

        await self._write(work)

    async def run_task(self, name: str) -> Task:
        """Dispatch at once, though the queue be paused or at its limits. One that is being dispatched is not started twice."""
        resource.checked_task(name)
        return await self._write(
            lambda connection: ledger.force_task(connection, _task(connection, name), self._clock.now())
        )

    # locations

    def location(self, name: str) -> dict[str, Any]:
        """google.cloud.location.Location of `projects/P/locations/L`."""
        return names.location(name)

    def locations(self, project: str) -> Sequence[dict[str, Any]]:
        """The one location of this machine; gcloud takes it when none is given."""
        return [names.location(f"{names.checked_project(project)}/locations/{self._location}")]

    # ---

    def _create_queue(self, connection: sqlite3.Connection, queue: Queue) -> Queue:
        if ledger.is_gone(connection, queue.name, self._clock.now()):
            raise Refused(
                Code.FAILED_PRECONDITION,
                "The queue cannot be created because a queue with this name existed too recently.",
                field="queue.name",
            )
        ledger.put_queue(connection, queue)
        return queue

    async def _in_state(self, name: str, state: QueueState) -> Queue:
        resource.checked_queue(name)

        def work(connection: sqlite3.Connection) -> Queue:
            queue = replace(_queue(connection, name), state=state)
            ledger.put_queue(connection, queue)
            return queue

        return await self._write(work)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._database.read(work)
        except StoreError as error:
            raise _unavailable() from error

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            done = await self._database.write(work)
        except StoreError as error:
            raise _unavailable() from error
        self._changed()
        return done

    def _next(self, found: Sequence[Queue] | Sequence[Task], size: int) -> str:
        return self._tokens.after(found[size - 1].name) if len(found) > size else ""


def _page_size(asked: int, most: int) -> int:
    if asked < 0:
        raise invalid("pageSize", f"must be 0 to {most}; more is cut to that", asked)
    return min(asked or most, most)


def _queue(connection: sqlite3.Connection, name: str) -> Queue:
    found = ledger.queue(connection, name)
    if found is None:
        raise _no_queue()
    return found


def _task(connection: sqlite3.Connection, name: str) -> Task:
    found = ledger.task(connection, name)
    if found is None:
        raise _no_task(connection, name)
    return found


def _no_queue() -> Refused:
    return Refused(Code.NOT_FOUND, "Queue does not exist.")


def _no_task(connection: sqlite3.Connection, name: str) -> Refused:
    if ledger.queue(connection, name.partition("/tasks/")[0]) is None:
        return _no_queue()
    return Refused(Code.NOT_FOUND, "The task does not exist: it was done, deleted or never there.")


def _unavailable() -> Refused:
    return Refused(Code.UNAVAILABLE, "The store cannot be used now; try again later.")
