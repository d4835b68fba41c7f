"""The SQLite database among several processes: roles, claims, locks, sudden death, and the last guard."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3

import pytest

from careflow.errors import StoreInUse, StoreUnavailable
from careflow.store.database import FILE, Database
from careflow.store.locks import hold_role
from databases import insert, names, running


@pytest.fixture
def database(tmp_path):
    database = Database.open(tmp_path)
    yield database
    database.close()


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
