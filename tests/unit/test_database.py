"""The SQLite database: group commit, snapshots, and what the disk does to it."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from careflow.errors import StoreError, StoreUnavailable
from careflow.store.database import FILE, Database
from careflow.store.locks import hold_role
from databases import insert, names, running


@pytest.fixture
def database(tmp_path):
    database = Database.open(tmp_path)
    yield database
    database.close()


@contextmanager
def writer_busy(database):
    """Keep the writer's thread inside a job, so that what is asked for meanwhile becomes one group."""
    entered, leave = threading.Event(), threading.Event()

    def block(connection):
        entered.set()
        assert leave.wait(10)

    blocked = asyncio.ensure_future(database.write(block))
    try:
        yield entered, blocked
    finally:
        leave.set()


async def grouped(database, *jobs):
    """Run the jobs as one group; their results and errors."""
    with writer_busy(database) as (entered, blocked):
        await asyncio.to_thread(entered.wait, 10)
        waiting = [asyncio.ensure_future(database.write(job)) for job in jobs]
        await asyncio.sleep(0)
    await blocked
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_writes_asked_for_together_share_one_commit(database):
    statements = []
    database._connections[0].set_trace_callback(statements.append)
    await grouped(database, *(insert(f"h{number:02}") for number in range(50)))
    database._connections[0].set_trace_callback(None)
    assert statements.count("COMMIT") == 2  # the one that kept the writer busy, and the group's
    assert len(await database.read(names)) == 50


async def test_a_failing_write_is_undone_alone(database):
    def half_done(connection):
        insert("half")(connection)
        raise RuntimeError("boom")

    results = await grouped(database, insert("a"), half_done, insert("a"), insert("b"))
    assert isinstance(results[1], RuntimeError)
    assert isinstance(results[2], sqlite3.IntegrityError)
    assert await database.read(names) == ["a", "b"]


async def test_nobody_is_told_of_success_before_the_commit(database, tmp_path):
    """Another connection sees a write as soon as its future is resolved."""
    other = Database.open(tmp_path)
    seen = []

    async def write_then_look(number):
        await database.write(insert(f"h{number:02}"))
        seen.append(f"h{number:02}" in await other.read(names))

    await asyncio.gather(*(write_then_look(number) for number in range(40)))
    assert seen == [True] * 40
    other.close()


async def test_a_group_that_cannot_be_committed_is_done_one_by_one(database):
    """SQLite rolls back everything for some errors; the innocent must not suffer."""
    runs = []

    def poison(connection):
        runs.append("poison")
        connection.execute("ROLLBACK")
        raise RuntimeError("lost everything")

    results = await grouped(database, insert("a"), poison, insert("b"))
    assert isinstance(results[1], RuntimeError)
    assert not isinstance(results[0], Exception)
    assert await database.read(names) == ["a", "b"]
    assert len(runs) == 2


async def test_a_cancelled_waiter_does_not_stop_the_write_or_the_writer(database):
    with writer_busy(database) as (entered, blocked):
        await asyncio.to_thread(entered.wait, 10)
        waiting = asyncio.ensure_future(database.write(insert("a")))
        await asyncio.sleep(0)
        waiting.cancel()
    await blocked
    await database.check()
    assert await database.read(names) == ["a"]


async def test_a_read_sees_one_snapshot_and_cannot_write(database):
    with pytest.raises(StoreUnavailable, match="read-only"):
        await database.read(insert("a"))
    assert await database.read(names) == []


async def test_reads_asked_for_together_share_one_snapshot_and_fail_alone(database):
    await database.write(insert("a"))
    entered, leave = threading.Event(), threading.Event()

    def block(_connection):
        entered.set()
        assert leave.wait(10)

    def fail(_connection):
        raise RuntimeError("boom")

    blocked = asyncio.ensure_future(database.read(block))
    await asyncio.to_thread(entered.wait, 10)
    waiting = [asyncio.ensure_future(database.read(work)) for work in (names, fail, names)]
    await asyncio.sleep(0)
    await database.write(insert("b"))  # after they were asked for, before they run
    statements = []
    database._connections[1].set_trace_callback(statements.append)
    leave.set()
    results = await asyncio.gather(blocked, *waiting, return_exceptions=True)
    assert (results[1], results[3]) == (["a", "b"], ["a", "b"])
    assert isinstance(results[2], RuntimeError)
    assert statements.count("BEGIN") == 1
    assert await database.read(names) == ["a", "b"]


async def test_closing_finishes_what_was_asked_for(tmp_path):
    database = Database.open(tmp_path)
    waiting = [asyncio.ensure_future(database.write(insert(f"h{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.to_thread(database.close)
    await asyncio.gather(*waiting)
    again = Database.open(tmp_path)
    assert len(await again.read(names)) == 5
    again.close()


async def test_a_commit_reaches_the_disk(database):
    pragmas = await database.write(
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    )
    assert pragmas == ["wal", 2, 1]


async def test_a_full_database_says_so_changes_nothing_and_recovers(database):
    def limit(pages):
        return database._connections[0].execute(f"PRAGMA max_page_count = {pages}")

    await database.write(insert("before"))
    used = await database.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    limit(used)

    def large(connection):
        for number in range(200):
            insert(f"{number}-{'x' * 2000}")(connection)

    results = await grouped(database, insert("small"), large)
    assert isinstance(results[1], StoreUnavailable)
    assert "disk is full" in str(results[1])
    assert await database.read(names) == ["before", "small"]
    limit(1_000_000)
    await database.write(large)
    assert len(await database.read(names)) == 202


@contextmanager
def largest_file(size):
    """The kernel refuses to let a file grow beyond this: a full disk, as the database sees it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_a_disk_that_refuses_a_write_loses_nothing(database):
    await database.write(insert("before"))
    log = database.path.with_name(FILE + "-wal")
    with largest_file(log.stat().st_size):
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="disk"):
                await database.write(insert("refused"))
            with pytest.raises(StoreUnavailable):
                await database.check()
        assert await database.read(names) == ["before"]
    await database.write(insert("after"))
    assert await database.read(names) == ["after", "before"]


async def test_a_database_that_became_read_only_says_so_and_recovers(database):
    database._connections[0].execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match="read-only"):
        await database.write(insert("a"))
    with pytest.raises(StoreUnavailable, match="read-only"):
        await database.check()
    database._connections[0].execute("PRAGMA query_only = OFF")
    await database.write(insert("a"))


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreUnavailable, match="file/data"):
        Database.open(tmp_path / "file" / "data")
    with pytest.raises(StoreUnavailable, match="file/data"):
        hold_role(tmp_path / "file" / "data", "up")


READ_ONLY = """
    import os, sys
    from pathlib import Path
    from careflow.errors import StoreUnavailable
    from careflow.store import database

    NOBODY = 65534
    folder = Path(sys.argv[1])
    known = database._migrations('careflow.store.migrations')  # while the package may still be read
    database._migrations = lambda schema: known
    database.Database.open(folder).close()
    for path in (*folder.iterdir(), folder):
        path.chmod(path.stat().st_mode & 0o555)
    if os.geteuid() == 0:  # root writes to read-only directories
        try:
            for path in (*folder.iterdir(), folder):
                os.chown(path, NOBODY, NOBODY)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except OSError:
            print("still root")
            sys.exit()
    try:
        database.Database.open(folder)
    except StoreUnavailable as error:
        print(error)
    else:
        print("opened")
"""


def test_a_read_only_directory_is_refused_at_the_start():
    # Not in tmp_path, which is in a folder that only its owner may enter.
    with tempfile.TemporaryDirectory() as folder, running(folder, READ_ONLY) as process:
        said, _ = process.communicate(timeout=30)
        Path(folder).chmod(0o755)
    if said == "still root\n":
        pytest.skip("root may not become anybody else here, and writes to read-only directories")
    assert said.startswith(f"database {folder}/{FILE} cannot be used now: ")
    assert "read-only" in said


def test_a_database_that_cannot_be_written_is_refused_at_the_start(tmp_path, monkeypatch):
    """What root can stand in for a read-only directory with: connections that SQLite itself opened read-only."""
    Database.open(tmp_path).close()
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, **options: connect(f"file:{path}?mode=ro", uri=True, **options)
    )
    with pytest.raises(StoreUnavailable, match="read-only"):
        Database.open(tmp_path, exclusive="up")
    hold_role(tmp_path, "up").release()  # a failed start holds nothing


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    (tmp_path / FILE).write_text("precious notes\n" * 1000)
    with pytest.raises(StoreError, match="damaged or is not a database"):
        Database.open(tmp_path)
    assert (tmp_path / FILE).read_text().startswith("precious")
