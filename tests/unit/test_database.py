"""The SQLite database: group commit, faults, versions, roles, several processes, sudden death."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from careflow.core.calls import Call, CallState, Outcome, call_id, end
from careflow.errors import StoreError, StoreInUse, StoreTooNew, StoreUnavailable
from careflow.store import codec
from careflow.store.database import FILE, Database
from careflow.store.locks import hold_role
from careflow.store.sqlite import SqliteStore


@pytest.fixture
def database(tmp_path):
    database = Database.open(tmp_path)
    yield database
    database.close()


def insert(name):
    return lambda connection: connection.execute("INSERT INTO hospitals (id) VALUES (?)", (name,))


def names(connection):
    return [name for (name,) in connection.execute("SELECT id FROM hospitals ORDER BY id")]


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


# --- group commit


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


# --- what the disk does


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


# --- versions


def test_a_newer_database_is_refused_naming_both_versions_and_left_untouched(tmp_path):
    Database.open(tmp_path).close()
    path = tmp_path / FILE
    with sqlite3.connect(path) as connection:
        known = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreTooNew, match=f"999.*{known}"):
        Database.open(tmp_path)
    assert path.read_bytes() == before


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path, monkeypatch):
    from careflow.store import database as module

    Database.open(tmp_path).close()
    known = module._migrations("careflow.store.migrations")
    broken = [*known, (known[-1][0] + 1, "CREATE TABLE extra (id INTEGER);\nINSERT INTO nowhere VALUES (1);")]
    monkeypatch.setattr(module, "_migrations", lambda schema: broken)
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        Database.open(tmp_path)
    monkeypatch.setattr(module, "_migrations", lambda schema: known)
    Database.open(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "extra" not in tables


def test_a_new_migration_runs_once_and_keeps_the_data(tmp_path, monkeypatch):
    from careflow.store import database as module

    async def count(change):
        database = Database.open(tmp_path)
        try:
            return await database.write(change)
        finally:
            database.close()

    asyncio.run(count(insert("kept")))
    known = module._migrations("careflow.store.migrations")
    added = [*known, (known[-1][0] + 1, "CREATE TABLE extra (id INTEGER);\n-- the end\n")]
    monkeypatch.setattr(module, "_migrations", lambda schema: added)
    for _ in range(2):
        assert asyncio.run(count(names)) == ["kept"]


def test_open_calls_of_an_older_database_are_found_by_when_they_were_left(tmp_path, monkeypatch):
    from careflow.store import database as module

    micro, noon = timedelta(microseconds=1), datetime(2026, 11, 23, 12, tzinfo=UTC)

    def call(patient_id, **changes):
        times = {"due_at": noon, "not_after": noon, "created_at": noon, **changes}
        name = call_id("r1", patient_id)
        return Call(id=name, hospital_id="h1", round_id="r1", patient_id=patient_id, **times)

    held = call("held", state=CallState.CALLING, lease_owner="w", lease_until=noon + micro)
    calls = [call("due"), call("later", due_at=noon + 999_999 * micro), held]
    calls.append(end(call("ended"), noon, Outcome.CANCELLED))
    known = module._migrations("careflow.store.migrations")
    monkeypatch.setattr(module, "_migrations", lambda schema: known[:2])
    Database.open(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.executemany(
            "INSERT INTO calls VALUES (?, 'h1', 'r1', ?, ?, '', '', 0, ?)",
            [(call.id, call.patient_id, call.state.value, codec.CALL.dumps(call)) for call in calls],
        )
    connection.close()
    monkeypatch.setattr(module, "_migrations", lambda schema: known)

    async def left_by(since):
        store = await SqliteStore.open(tmp_path)
        try:
            return {call.patient_id for call in await store.left_calls("h1", "r1", since=since)}
        finally:
            await store.close()

    for patient_id, moment in (("due", noon), ("held", noon + micro), ("later", noon + 999_999 * micro)):
        assert patient_id in asyncio.run(left_by(moment))
        assert patient_id not in asyncio.run(left_by(moment - micro))
    assert asyncio.run(left_by(noon + timedelta(days=1))) == {"due", "held", "later"}


def test_migrations_are_numbered_without_gaps():
    from careflow.store.database import _migrations

    numbers = [number for number, _ in _migrations("careflow.store.migrations")]
    assert numbers == list(range(1, len(numbers) + 1))


# --- roles and processes


def child(tmp_path, script):
    """Another process on the same data directory. It prints lines; it is killed by the test or ends by itself."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@contextmanager
def running(tmp_path, script):
    process = child(tmp_path, script)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


HOLDER = """
    import sys
    from pathlib import Path
    from careflow.store.locks import hold_role
    lock = hold_role(Path(sys.argv[1]), "up")
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_role_has_one_holder_who_is_named_and_whose_death_frees_it(tmp_path):
    with running(tmp_path, HOLDER) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse, match=f"{tmp_path}.*{holder.pid}"):
            Database.open(tmp_path, exclusive="up")
        hold_role(tmp_path, "pulse").release()
        holder.kill()
        holder.wait()
        Database.open(tmp_path, exclusive="up").close()


def test_a_role_is_given_up_at_close_and_only_then(tmp_path):
    database = Database.open(tmp_path, exclusive="up")
    with pytest.raises(StoreInUse):
        hold_role(tmp_path, "up")
    database.close()
    with hold_role(tmp_path, "up") as lock:
        lock.release()
        lock.release()


CLAIMER = """
    import asyncio, json, sys
    from datetime import datetime, timedelta, UTC
    from pathlib import Path
    from careflow.store.sqlite import SqliteStore

    async def main():
        store = await SqliteStore.open(Path(sys.argv[1]))
        now = datetime(2026, 11, 23, 13, tzinfo=UTC)
        print("ready", flush=True)
        sys.stdin.readline()
        won = []
        for number in range(100):
            claimed = await store.claim_call(
                "h1", f"c{number}", owner=OWNER, now=now, lease_until=now + timedelta(minutes=1)
            )
            won += [number] if claimed and claimed.version == 1 else []
        print(json.dumps(won), flush=True)
        await store.close()

    asyncio.run(main())
"""


async def test_two_processes_never_claim_the_same_call(tmp_path):
    from datetime import UTC, datetime

    from careflow.core.calls import Call
    from careflow.store.sqlite import SqliteStore

    now = datetime(2026, 11, 23, 13, tzinfo=UTC)
    store = await SqliteStore.open(tmp_path)
    await store.create_calls(
        [
            Call(
                id=f"c{number}",
                hospital_id="h1",
                round_id="r1",
                patient_id=f"p{number}",
                due_at=now,
                not_after=now,
                created_at=now,
            )
            for number in range(100)
        ]
    )
    await store.close()
    scripts = [CLAIMER.replace("OWNER", repr(owner)) for owner in ("one", "two")]
    with running(tmp_path, scripts[0]) as one, running(tmp_path, scripts[1]) as two:
        for process in (one, two):
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        won = [json.loads(process.stdout.readline()) for process in (one, two)]
    assert sorted(won[0] + won[1]) == list(range(100))


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from careflow.store.database import Database

    database = Database.open(Path(sys.argv[1]))

    async def write(worker):
        for number in range(10**6):
            name = f"{worker}-{number}"
            def work(connection):
                connection.execute("INSERT INTO hospitals (id) VALUES (?)", (name + "-a",))
                connection.execute("INSERT INTO hospitals (id) VALUES (?)", (name + "-b",))
            await database.write(work)
            print(name, flush=True)

    async def main():
        await asyncio.gather(*(write(worker) for worker in range(8)))

    asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 57, 200])
async def test_what_was_promised_survives_kill_9_and_nothing_is_half_done(tmp_path, lines):
    with running(tmp_path, WRITER) as writer:
        promised = [writer.stdout.readline().strip() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        promised += [
            line.strip() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")
        ]
    database = Database.open(tmp_path)
    stored = set(await database.read(names))
    assert {f"{name}-{part}" for name in promised for part in "ab"} <= stored
    assert {name[:-2] + "-b" for name in stored if name.endswith("-a")} <= stored
    assert (
        await database.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()[0])
        == "ok"
    )
    database.close()


async def test_a_writer_waits_for_another_process_to_finish(database, tmp_path):
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(database.write(insert("a")))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    other.execute("COMMIT")
    other.close()
    await waiting


async def test_a_lock_that_is_never_given_up_is_said_to_be_so(database, tmp_path):
    database._connections[0].execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another process"):
        await database.write(insert("a"))
    other.execute("ROLLBACK")
    other.close()
    await database.write(insert("a"))


# --- the last guard of invariant 1


async def test_the_database_itself_refuses_a_second_open_attempt(database):
    def row(attempt, patient, phone, state="intended"):
        def work(connection):
            connection.execute(
                "INSERT INTO calls VALUES (?, 'h1', 'r1', ?, 'calling', '', '', 0, '{}', 0)",
                (f"c{attempt}", attempt),
            )
            connection.execute(
                "INSERT INTO attempts VALUES (?, 'h1', ?, ?, 1, ?, ?, NULL, 0, 0, '{}')",
                (attempt, f"c{attempt}", patient, phone, state),
            )

        return work

    await database.write(row("1", "p1", "n1"))
    for attempt in (row("2", "p1", "n2"), row("3", "p2", "n1")):
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(attempt)
    await database.write(row("4", "p1", "n1", state="ended"))
    await database.write(row("5", "p2", "n2"))
