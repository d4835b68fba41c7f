"""One SQLite file, two threads: a writer that commits in groups, a reader beside it.

A commit costs an fsync, whatever it holds. So writes that are asked for while one is being committed are committed
together by the next. When one of them fails the transaction is undone and each is done again alone, so that a failing one is
undone alone; and nobody is told of success before the commit that holds it is on disk (invariant 8). Reads share
a snapshot in the same way. Every crossing between threads, and every statement, costs more than most statements' work.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from careflow.errors import StoreError, StoreTooNew, StoreUnavailable
from careflow.store.locks import RoleLock, hold_role

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
_Migrations = Sequence[tuple[int, str]]

FILE = "careflow.sqlite3"
SCHEMA = "careflow.store.migrations"
BUSY_TIMEOUT_MS = (
    10_000  # how long another process may hold the write lock before we say that the store is unavailable
)
LARGEST_GROUP = 256  # writes: bounds how long the first of a group waits for the commit
LARGEST_SNAPSHOT = 32  # reads: bounds how long the first of a group waits for the others

_log = logging.getLogger(__name__)

# SQLite's primary result codes (sqlite.org/rescode.html) after which trying again later can help, and what to say.
_PASSING = {
    sqlite3.SQLITE_BUSY: "another process holds it",
    sqlite3.SQLITE_LOCKED: "it is locked",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_IOERR: "the disk reports an error or is full",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_PERM: "access is not permitted",
    sqlite3.SQLITE_NOMEM: "memory is exhausted",
}


@dataclass(slots=True)
class _Job:
    """A piece of work and whom to tell."""

    work: Work[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def resolve(self) -> None:
        """Give the waiting coroutine its result; in its own thread."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """The SQLite database of a data directory. Several processes may have it open at once."""

    def __init__(
        self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection, lock: RoleLock | None
    ) -> None:
        """Use `Database.open`."""
        self.path = path
        self._connections = (writer, reader)
        self._lock = lock
        self._writes: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()
        self._threads = (
            threading.Thread(target=self._run_writes, name="store-writer", daemon=True),
            threading.Thread(target=self._run_reads, name="store-reader", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, data_dir: Path, *, exclusive: str | None = None, schema: str = SCHEMA) -> Database:
        """Open or create the database in `data_dir` and bring it to this version. Blocks; meant for start-up.

        `schema` is the package of the migrations that make it; one of another schema has a directory of its own.
        With `exclusive` the role of that name is held until `close` (`locks.hold_role`). Raises StoreInUse; StoreTooNew for a
        database of a newer version, which is left as it is; StoreUnavailable when the directory cannot be written.
        """
        lock = hold_role(data_dir, exclusive) if exclusive else None
        opened: list[sqlite3.Connection] = []
        path = data_dir / FILE
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            migrations = _migrations(schema)
            writer = _connect(path, opened, migrations)
            _migrate(writer, migrations)
            reader = _connect(path, opened, migrations)
            reader.execute("PRAGMA query_only = ON")
        except BaseException as error:
            for connection in opened:
                connection.close()
            if lock:
                lock.release()
            if isinstance(error, OSError):
                reason = f"data directory {data_dir} cannot be used: {error.strerror}"
                raise StoreUnavailable(reason) from error
            if isinstance(error, sqlite3.Error):
                raise _translated(error, path) from error
            raise
        return cls(path, writer, reader, lock)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction; its result, once that is durable.

        What `work` raises undoes its own changes only and is raised here. `work` may run again from the start when a commit it
        shared with others failed, so it must do nothing but use the connection it is given. When the waiting coroutine is
        cancelled the work is done all the same. Raises StoreUnavailable when nothing can be written now.
        """
        return await self._ask(self._writes, work)

    async def read(self, work: Work[T]) -> T:
        """Run `work`, which only reads, on one snapshot that holds every write completed before."""
        return await self._ask(self._reads, work)

    async def check(self) -> None:
        """Prove that a commit reaches the disk. Raises StoreUnavailable."""
        await self.write(lambda connection: connection.execute("UPDATE health SET checks = checks + 1"))

    def close(self) -> None:
        """Finish what was asked for, then close. Does nothing the second time. Blocks for the last commit."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._writes.put(None)
                self._reads.put(None)
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection.close()
        if self._lock:
            self._lock.release()

    async def _ask(self, jobs: queue.SimpleQueue[_Job | None], work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._closing:
            if self._closed:
                raise StoreUnavailable(f"database {self.path} is closed")
            jobs.put(_Job(work, loop, future))
        return await future

    # the writer's thread

    def _run_writes(self) -> None:
        connection = self._connections[0]
        ending = False
        while not ending:
            group, ending = _next_group(self._writes, LARGEST_GROUP)
            if group and not _commit(connection, group) and len(group) > 1:
                # Undone as a whole. Alone, each fails or succeeds for its own reasons.
                for job in group:
                    _commit(connection, [job])
            self._settle(group)

    # the reader's thread

    def _run_reads(self) -> None:
        connection = self._connections[1]
        ending = False
        while not ending:
            group, ending = _next_group(self._reads, LARGEST_SNAPSHOT)
            _read(connection, group)
            self._settle(group)

    def _settle(self, group: Sequence[_Job]) -> None:
        """Tell everybody who waits, from another thread. Their loop may be gone; then nobody waits."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in group:
            if isinstance(job.error, sqlite3.Error):
                job.error = _translated(job.error, self.path)
            by_loop.setdefault(job.loop, []).append(job)
        for loop, jobs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, jobs)
            except RuntimeError:
                _log.debug("the event loop ended before a result of the store reached it")


def _resolve(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.resolve()


def _next_group(jobs: queue.SimpleQueue[_Job | None], most: int) -> tuple[list[_Job], bool]:
    """What waits, in order, once anything does; and whether the end was asked for."""
    group: list[_Job] = []
    job = jobs.get()
    while job is not None:
        group.append(job)
        if len(group) == most:
            return group, False
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            return group, False
    return group, True


def _commit(connection: sqlite3.Connection, group: Sequence[_Job]) -> bool:
    """Run the jobs in one transaction; whether each has its result or an error of its own.

    When not, everything was undone, and another try, one by one, tells who is to blame.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:  # no job's fault, and a busy database has been waited for
        for job in group:
            job.error = error
        return True
    try:
        for job in group:
            job.error = None
            job.result = job.work(connection)
        connection.execute("COMMIT")
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits
        _roll_back(connection)
        for job in group:
            job.error = error
        return False
    return True


def _read(connection: sqlite3.Connection, group: Sequence[_Job]) -> None:
    """Run the jobs on one snapshot, which holds every write completed before the last of them was asked for."""
    for job in group:
        try:
            if not connection.in_transaction:
                connection.execute("BEGIN")
            job.result = job.work(connection)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            job.error = error
    _roll_back(connection)


def _roll_back(connection: sqlite3.Connection) -> None:
    """Leave the transaction, if there is one; an error that this meets is the one that is being reported already."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _connect(path: Path, opened: list[sqlite3.Connection], migrations: _Migrations) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
    )
    opened.append(connection)
    _refuse_newer(connection, path, migrations)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cache_size = -16000")  # 16 MB: the indexes that planning a large round touches
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    return connection


def _migrations(schema: str) -> _Migrations:
    """(number, SQL) of each, ascending."""
    files = resources.files(schema).iterdir()
    return sorted((int(file.name[:4]), file.read_text()) for file in files if file.name.endswith(".sql"))


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _refuse_newer(connection: sqlite3.Connection, path: Path, migrations: _Migrations) -> None:
    stored, known = _version(connection), migrations[-1][0]
    if stored > known:
        raise StoreTooNew(
            f"database {path} has version {stored}, this CareFlow Pulse knows versions up to {known}; "
            "run the newer CareFlow Pulse, or choose another data directory"
        )


def _migrate(connection: sqlite3.Connection, migrations: _Migrations) -> None:
    """Run the migrations that the database lacks, each in one transaction; then prove that it can be written."""
    for number, script in migrations:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) < number:  # asked inside: another process may have been migrating
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
    connection.execute("UPDATE health SET checks = checks + 1")


def _statements(script: str) -> list[str]:
    """The script's statements; each ends at the end of a line."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def _translated(error: sqlite3.Error, path: Path) -> BaseException:
    """What the caller should see of an SQLite error. Our own mistakes (SQL, constraints) stay what they are."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in _PASSING:
        translated: StoreError = StoreUnavailable(f"database {path} cannot be used now: {_PASSING[primary]}")
    elif primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        translated = StoreError(f"database {path} is damaged or is not a database: restore a copy of it")
    else:
        return error
    translated.__cause__ = error
    return translated
