"""The scheduler's rows: what is asked and done inside a transaction of the store's database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from careflow.instants import micros, of_micros
from careflow.scheduler.engine import Progress
from careflow.scheduler.logs import Entry
from careflow.scheduler.model import AttemptRecord, Job
from careflow.store.codec import Codec

JOB = Codec(Job)
PROGRESS = Codec(Progress)
ATTEMPT = Codec(AttemptRecord)


def view(job: Job, progress: Progress) -> Job:
    """The job with the service's part filled in."""
    return replace(
        job,
        schedule_time=progress.schedule_time,
        last_attempt_time=progress.last_attempt_time,
        status_code=progress.status_code,
    )


# --- jobs --------------------------------------------------------------------------------------------------------


def find(connection: sqlite3.Connection, name: str) -> tuple[Job, Progress] | None:
    """The job and where it stands."""
    row = connection.execute(
        "SELECT document, progress FROM scheduler_jobs WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else (JOB.loads(row[0]), PROGRESS.loads(row[1]))


def page(connection: sqlite3.Connection, parent: str, after: str, limit: int) -> list[Job]:
    """The parent's jobs with names beyond `after`, in the order of their names."""
    rows = connection.execute(
        "SELECT document, progress FROM scheduler_jobs WHERE parent = ? AND name > ? ORDER BY name LIMIT ?",
        (parent, after, limit),
    )
    return [view(JOB.loads(document), PROGRESS.loads(progress)) for document, progress in rows]


def due(connection: sqlite3.Connection, now: datetime, limit: int) -> list[tuple[Job, Progress]]:
    """Jobs with something to do, longest due first."""
    rows = connection.execute(
        "SELECT document, progress FROM scheduler_jobs WHERE wake_at <= ? ORDER BY wake_at LIMIT ?",
        (micros(now), limit),
    )
    return [(JOB.loads(document), PROGRESS.loads(progress)) for document, progress in rows]


def next_wake(connection: sqlite3.Connection) -> datetime | None:
    """When the first job has something to do."""
    (wake_at,) = connection.execute(
        "SELECT min(wake_at) FROM scheduler_jobs WHERE wake_at IS NOT NULL"
    ).fetchone()
    return None if wake_at is None else of_micros(wake_at)


def insert(connection: sqlite3.Connection, job: Job, progress: Progress) -> bool:
    """Create the job; False when the name is taken."""
    created = connection.execute(
        """
        INSERT INTO scheduler_jobs (name, parent, wake_at, document, progress) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT DO NOTHING
        """,
        (job.name, job.parent, _wake(progress), JOB.dumps(job), PROGRESS.dumps(progress)),
    )
    return created.rowcount == 1


def put_job(connection: sqlite3.Connection, job: Job) -> None:
    """Replace the user's part."""
    connection.execute("UPDATE scheduler_jobs SET document = ? WHERE name = ?", (JOB.dumps(job), job.name))


def put_progress(connection: sqlite3.Connection, changes: Iterable[tuple[str, Progress]]) -> None:
    """Replace where the jobs stand."""
    connection.executemany(
        "UPDATE scheduler_jobs SET wake_at = ?, progress = ? WHERE name = ?",
        [(_wake(progress), PROGRESS.dumps(progress), name) for name, progress in changes],
    )


def delete(connection: sqlite3.Connection, name: str) -> bool:
    """Forget the job; False when there is none. Its history stays."""
    return connection.execute("DELETE FROM scheduler_jobs WHERE name = ?", (name,)).rowcount == 1


def _wake(progress: Progress) -> int | None:
    return None if progress.wake_at is None else micros(progress.wake_at)


# --- history -----------------------------------------------------------------------------------------------------


def begin_attempts(connection: sqlite3.Connection, attempts: Iterable[tuple[AttemptRecord, str]]) -> None:
    """Record the intents, each with the URL that it goes to."""
    connection.executemany(
        """
        INSERT INTO scheduler_attempts (job, execution_id, number, started_at, url, document)
        VALUES (?, ?, ?, ?, ?, ?)
        """,
        [
            (one.job, one.execution_id, one.number, micros(one.started_at), url, ATTEMPT.dumps(one))
            for one, url in attempts
        ],
    )


def end_attempt(connection: sqlite3.Connection, attempt: AttemptRecord) -> str | None:
    """Record the end of an attempt under way; the URL that it went to, None when it was not under way."""
    assert attempt.finished_at is not None
    row = connection.execute(
        """
        UPDATE scheduler_attempts SET finished_at = ?, document = ?
        WHERE execution_id = ? AND number = ? AND finished_at IS NULL RETURNING url
        """,
        (micros(attempt.finished_at), ATTEMPT.dumps(attempt), attempt.execution_id, attempt.number),
    ).fetchone()
    return None if row is None else str(row[0])


def under_way(connection: sqlite3.Connection) -> list[AttemptRecord]:
    """Every attempt without an end, oldest first."""
    rows = connection.execute(
        "SELECT document FROM scheduler_attempts WHERE finished_at IS NULL ORDER BY sequence"
    )
    return [ATTEMPT.loads(document) for (document,) in rows]


def attempts(connection: sqlite3.Connection, job: str, limit: int) -> list[AttemptRecord]:
    """The job's attempts, latest first."""
    rows = connection.execute(
        "SELECT document FROM scheduler_attempts WHERE job = ? ORDER BY sequence DESC LIMIT ?", (job, limit)
    )
    return [ATTEMPT.loads(document) for (document,) in rows]


def log(connection: sqlite3.Connection, entries: Sequence[tuple[str, datetime, Entry]]) -> None:
    """Add entries, each with its job and time."""
    connection.executemany(
        "INSERT INTO scheduler_log (parent, job, written_at, document) VALUES (?, ?, ?, ?)",
        [
            (job.partition("/jobs/")[0], job, micros(moment), json.dumps(entry, separators=(",", ":")))
            for job, moment, entry in entries
        ],
    )


def log_entries(connection: sqlite3.Connection, where: str, limit: int) -> list[Entry]:
    """Entries of a job, of a parent or of a project, whichever `where` names, latest first."""
    if "/jobs/" in where:
        condition, values = "job = ?", [where]
    elif "/locations/" in where:
        condition, values = "parent = ?", [where]
    else:
        condition, values = "parent > ? AND parent < ?", [f"{where}/locations/", f"{where}/locations0"]
    rows = connection.execute(
        f"SELECT sequence, document FROM scheduler_log WHERE {condition} ORDER BY sequence DESC LIMIT ?",  # noqa: S608
        (*values, limit),
    )
    return [{"insertId": f"{sequence:012d}", **json.loads(document)} for sequence, document in rows]


def trim(connection: sqlite3.Connection, before: datetime) -> None:
    """Forget history older than that."""
    connection.execute("DELETE FROM scheduler_log WHERE written_at < ?", (micros(before),))
    connection.execute(
        "DELETE FROM scheduler_attempts WHERE started_at < ? AND finished_at IS NOT NULL", (micros(before),)
    )
