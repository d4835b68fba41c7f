"""The SQLite database's versions: migrations run once and whole, and a newer database is left alone."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from careflow.core.calls import Call, CallState, Outcome, call_id, end
from careflow.errors import StoreTooNew
from careflow.store import codec
from careflow.store.database import FILE, Database
from careflow.store.sqlite import SqliteStore
from databases import insert, names


@pytest.fixture
def database(tmp_path):
    database = Database.open(tmp_path)
    yield database
    database.close()


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
