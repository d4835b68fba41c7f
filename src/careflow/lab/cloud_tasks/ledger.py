"""What the lab's Cloud Tasks keeps: what is asked and done inside a transaction of its database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from careflow.instants import micros, of_micros
from careflow.lab.cloud_tasks.model import Queue, Task, begun
from careflow.store.codec import Codec

SCHEMA = "careflow.lab.cloud_tasks.migrations"
TASK_GONE = timedelta(hours=24)
"""How long a task's name cannot be used again (reference/google-cloud section 1); then a queue's."""

QUEUE_GONE = timedelta(days=7)

_QUEUE = Codec(Queue)
_TASK = Codec(Task)


@dataclass(frozen=True, slots=True)
class Taken:
    """A task whose attempt has begun, and the status that answered the one before."""

    sequence: int
    task: Task
    previous: int | None


# --- queues ----------------------------------------------------------------------------------------------------


def queue(connection: sqlite3.Connection, name: str) -> Queue | None:
    row = connection.execute("SELECT document FROM queues WHERE name = ?", (name,)).fetchone()
    return None if row is None else _QUEUE.loads(row[0])


def queues(connection: sqlite3.Connection, prefix: str = "", after: str = "", limit: int = -1) -> list[Queue]:
    """Those whose names begin so, in the order of their names."""
    rows = connection.execute(
        "SELECT document FROM queues WHERE name > ? AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?",
        (after, len(prefix), prefix, limit),
    )
    return [_QUEUE.loads(document) for (document,) in rows]


def put_queue(connection: sqlite3.Connection, one: Queue) -> None:
    connection.execute(
        "INSERT INTO queues (name, document) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET document = excluded.document",
        (one.name, _QUEUE.dumps(one)),
    )


def delete_queue(connection: sqlite3.Connection, name: str, now: datetime) -> bool:
    """With its tasks; whether there was one."""
    if connection.execute("DELETE FROM queues WHERE name = ?", (name,)).rowcount == 0:
        return False
    connection.execute("DELETE FROM tasks WHERE queue = ?", (name,))
    _bury(connection, name, now + QUEUE_GONE)
    return True


def purge(connection: sqlite3.Connection, name: str, now: datetime) -> None:
    """Delete all of the queue's tasks; those being dispatched run to their end and are not tried again."""
    rows = connection.execute("SELECT name FROM tasks WHERE queue = ?", (name,)).fetchall()
    for (task_name,) in rows:
        _bury(connection, task_name, now + TASK_GONE)
    connection.execute("DELETE FROM tasks WHERE queue = ?", (name,))


# --- tasks -----------------------------------------------------------------------------------------------------


def task(connection: sqlite3.Connection, name: str) -> Task | None:
    row = connection.execute("SELECT document FROM tasks WHERE name = ?", (name,)).fetchone()
    return None if row is None else _TASK.loads(row[0])


def tasks(connection: sqlite3.Connection, of_queue: str, after: str, limit: int) -> list[Task]:
    """The queue's, in the order of their names."""
    rows = connection.execute(
        "SELECT document FROM tasks WHERE queue = ? AND name > ? ORDER BY name LIMIT ?",
        (of_queue, after, limit),
    )
    return [_TASK.loads(document) for (document,) in rows]


def add_task(connection: sqlite3.Connection, one: Task) -> None:
    connection.execute(
        "INSERT INTO tasks (queue, name, due_at, document) VALUES (?, ?, ?, ?)",
        (one.queue, one.name, micros(one.schedule_time), _TASK.dumps(one)),
    )


def force_task(connection: sqlite3.Connection, one: Task, now: datetime) -> Task:
    """Due now and whatever the limits say, unless an attempt is under way."""
    due = replace(one, schedule_time=now)
    changed = connection.execute(
        "UPDATE tasks SET due_at = ?, forced = 1, document = ? WHERE name = ? AND dispatching = 0",
        (micros(now), _TASK.dumps(due), one.name),
    )
    return due if changed.rowcount else one


def delete_task(connection: sqlite3.Connection, name: str, now: datetime) -> bool:
    """Whether there was one. An attempt under way runs to its end, and nothing follows it."""
    if connection.execute("DELETE FROM tasks WHERE name = ?", (name,)).rowcount == 0:
        return False
    _bury(connection, name, now + TASK_GONE)
    return True


def is_gone(connection: sqlite3.Connection, name: str, now: datetime) -> bool:
    """Whether the name was used so recently that it cannot be used again."""
    connection.execute("DELETE FROM gone WHERE until <= ?", (micros(now),))
    return connection.execute("SELECT 1 FROM gone WHERE name = ?", (name,)).fetchone() is not None


def _bury(connection: sqlite3.Connection, name: str, until: datetime) -> None:
    connection.execute("INSERT OR REPLACE INTO gone (name, until) VALUES (?, ?)", (name, micros(until)))


# --- dispatching -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is to do: every queue, with the moment at which its first task is due; and whether any task is forced."""

    queues: Sequence[tuple[Queue, datetime | None]]
    any_forced: bool


def outlook(connection: sqlite3.Connection) -> Outlook:
    found: list[tuple[Queue, datetime | None]] = []
    for one in queues(connection):
        row = connection.execute(
            "SELECT due_at FROM tasks WHERE queue = ? AND dispatching = 0 ORDER BY due_at LIMIT 1",
            (one.name,),
        ).fetchone()
        found.append((one, of_micros(row[0]) if row else None))
    forced = connection.execute("SELECT 1 FROM tasks WHERE forced = 1 AND dispatching = 0 LIMIT 1").fetchone()
    return Outlook(found, forced is not None)


def take(connection: sqlite3.Connection, places: Iterable[tuple[str, int]], now: datetime) -> list[Taken]:
    """Begin the attempts that are due, of each queue at most so many, first due first; and all that are forced."""
    rows = connection.execute(
        "SELECT sequence, document FROM tasks WHERE forced = 1 AND dispatching = 0"
    ).fetchall()
    for name, free in places:
        rows += connection.execute(
            """
            SELECT sequence, document FROM tasks
            WHERE queue = ? AND dispatching = 0 AND forced = 0 AND due_at <= ?
            ORDER BY due_at, sequence LIMIT ?
            """,
            (name, micros(now), free),
        ).fetchall()
    taken = [_begun(sequence, _TASK.loads(document), now) for sequence, document in rows]
    connection.executemany(
        "UPDATE tasks SET dispatching = 1, forced = 0, document = ? WHERE sequence = ?",
        [(_TASK.dumps(one.task), one.sequence) for one in taken],
    )
    return sorted(taken, key=lambda one: (one.task.schedule_time, one.sequence))


def _begun(sequence: int, one: Task, now: datetime) -> Taken:
    return Taken(sequence, begun(one, now), one.last_attempt.status if one.last_attempt else None)


def settle(connection: sqlite3.Connection, taken: Taken, after: Task | None, now: datetime) -> None:
    """What follows the attempt: the task due again, or its end. A task that was deleted meanwhile stays so."""
    if after is not None:
        connection.execute(
            "UPDATE tasks SET dispatching = 0, due_at = ?, document = ? WHERE sequence = ?",
            (micros(after.schedule_time), _TASK.dumps(after), taken.sequence),
        )
    elif connection.execute("DELETE FROM tasks WHERE sequence = ?", (taken.sequence,)).rowcount:
        _bury(connection, taken.task.name, now + TASK_GONE)


def release(connection: sqlite3.Connection) -> None:
    """At start: what our predecessor was dispatching when it ended is nobody's attempt any more, and is due at once."""
    connection.execute("UPDATE tasks SET dispatching = 0 WHERE dispatching = 1")
