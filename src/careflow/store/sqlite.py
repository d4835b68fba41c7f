"""The Store on SQLite. Every method is one transaction of `database.Database`.

SQL stands where it is used; what several methods share, and what decides something, is in `sql`; what columns are made of is in
`sql_tables`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from careflow.core.attempts import Attempt
from careflow.core.calls import Call, CallState, claimable, keeping_renewal, left_at
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient
from careflow.core.rounds import Execution, Round
from careflow.instants import micros
from careflow.ports import BeginResult, Candidate, Comparison, Guard, PutCounts, R
from careflow.store import codec, sql
from careflow.store.codec import Codec
from careflow.store.database import Database
from careflow.store.leaving import must_be_left_by
from careflow.store.sql_tables import ALERTS, CALLS, CHECK_INS, EXECUTIONS, INTERACTIONS, ROUNDS, TABLE_OF

T = TypeVar("T")


class SqliteStore:
    """`ports.Store` in one SQLite database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, data_dir: Path, *, exclusive: str | None = None) -> SqliteStore:
        """A store on the database of `data_dir`; errors and `exclusive` as in `Database.open`."""
        return cls(await asyncio.to_thread(Database.open, data_dir, exclusive=exclusive))

    @property
    def database(self) -> Database:
        """What the embedded queue shares with the store."""
        return self._database

    async def check(self) -> None:
        await self._database.check()

    async def close(self) -> None:
        """Close the database, also for the embedded queue that shares it."""
        await asyncio.to_thread(self._database.close)

    # patients and the do-not-call list

    async def put_patients(self, patients: Sequence[Patient]) -> PutCounts:
        return await self._database.write(lambda connection: sql.put_patients(connection, patients))

    async def patient(self, hospital_id: str, patient_id: str) -> Patient | None:
        return await self._database.read(
            lambda connection: sql.find_patient(connection, hospital_id, patient_id)
        )

    async def patients(self, hospital_id: str, *, after: str = "", limit: int = 1000) -> Sequence[Patient]:
        return await self._list(
            codec.PATIENT,
            "SELECT document FROM patients WHERE hospital_id = ? AND id > ? ORDER BY id LIMIT ?",
            (hospital_id, after, limit),
        )

    async def candidates(
        self, hospital_id: str, schedule_hour: int, *, after: str = "", limit: int = 1000
    ) -> Sequence[Candidate]:
        def work(connection: sqlite3.Connection) -> list[Candidate]:
            rows = connection.execute(
                # Walks the roster in the order of its key, so a page costs its own length whatever the roster's.
                """
                SELECT document,
                       EXISTS (SELECT 1 FROM do_not_call AS barred
                               WHERE barred.hospital_id = patients.hospital_id AND barred.phone = patients.phone)
                    OR EXISTS (SELECT 1 FROM do_not_call AS barred
                               WHERE barred.hospital_id = patients.hospital_id
                                 AND barred.patient_id = patients.id AND barred.patient_id <> '')
                FROM patients
                WHERE hospital_id = ? AND id > ? AND (hours & ? <> 0 OR own_times = 1)
                ORDER BY id LIMIT ?
                """,
                (hospital_id, after, 1 << schedule_hour, limit),
            )
            return [Candidate(codec.PATIENT.loads(document), bool(barred)) for document, barred in rows]

        return await self._database.read(work)

    async def roster_revision(self, hospital_id: str) -> int:
        row = await self._row("SELECT revision FROM hospitals WHERE id = ?", (hospital_id,))
        return row[0] if row else 0

    async def hospitals(self) -> Sequence[str]:
        def work(connection: sqlite3.Connection) -> list[str]:
            return [hospital for (hospital,) in connection.execute("SELECT id FROM hospitals ORDER BY id")]

        return await self._database.read(work)

    async def add_do_not_call(self, entry: DoNotCall) -> None:
        await self._database.write(lambda connection: sql.bar(connection, entry))

    async def on_do_not_call(self, hospital_id: str, patient_id: str, phone: str | None) -> bool:
        return await self._database.read(
            lambda connection: sql.is_barred(connection, hospital_id, patient_id, phone)
        )

    # rounds and executions

    async def open_round(self, round_: Round) -> Round:
        def work(connection: sqlite3.Connection) -> Round:
            sql.know_hospital(connection, round_.hospital_id)
            ROUNDS.insert(connection, [round_], "ON CONFLICT DO NOTHING")
            stored = sql.one(connection, codec.ROUND, sql.ROUND, (round_.hospital_id, round_.id))
            assert stored is not None
            return stored

        return await self._database.write(work)

    async def round(self, hospital_id: str, round_id: str) -> Round | None:
        return await self._get(codec.ROUND, sql.ROUND, (hospital_id, round_id))

    async def rounds(self, hospital_id: str, *, limit: int = 50) -> Sequence[Round]:
        return await self._list(
            codec.ROUND,
            "SELECT document FROM rounds WHERE hospital_id = ? ORDER BY window_start DESC, id DESC LIMIT ?",
            (hospital_id, limit),
        )

    async def unclosed_rounds(self) -> Sequence[Round]:
        return await self._list(
            codec.ROUND, "SELECT document FROM rounds WHERE closed = 0 ORDER BY window_start, id"
        )

    async def update_round(self, round_: Round) -> bool:
        after = ROUNDS.row(replace(round_, version=round_.version + 1))

        def work(connection: sqlite3.Connection) -> bool:
            updated = connection.execute(
                """
                UPDATE rounds SET closed = :closed, version = :version, document = :document
                WHERE hospital_id = :hospital_id AND id = :id AND version = :version - 1
                """,
                after,
            )
            return updated.rowcount == 1

        return await self._database.write(work)

    async def add_execution(self, execution: Execution) -> None:
        await self._database.write(lambda connection: EXECUTIONS.put(connection, execution))

    async def executions(self, hospital_id: str, *, limit: int = 50) -> Sequence[Execution]:
        return await self._list(
            codec.EXECUTION,
            "SELECT document FROM executions WHERE hospital_id = ? ORDER BY received_at DESC, id DESC LIMIT ?",
            (hospital_id, limit),
        )

    # calls

    async def create_calls(self, calls: Sequence[Call]) -> int:
        # The uniqueness of (round, patient) decides what is new.
        return await self._database.write(
            lambda connection: CALLS.insert(connection, calls, "ON CONFLICT DO NOTHING")
        )

    async def call(self, hospital_id: str, call_id: str) -> Call | None:
        return await self._get(codec.CALL, sql.CALL, (hospital_id, call_id))

    async def calls(
        self, hospital_id: str, round_id: str, *, after: str = "", limit: int = 1000, open_only: bool = False
    ) -> Sequence[Call]:
        return await self._list(
            codec.CALL,
            """
            SELECT document FROM calls
            WHERE hospital_id = ? AND round_id = ? AND id > ? AND NOT (? AND state = 'ended')
            ORDER BY id LIMIT ?
            """,
            (hospital_id, round_id, after, open_only, limit),
        )

    async def left_calls(
        self,
        hospital_id: str,
        round_id: str,
        *,
        since: datetime,
        after: Call | None = None,
        limit: int = 1000,
    ) -> Sequence[Call]:
        passed = _BEFORE_ALL if after is None else (micros(left_at(after)), after.id)
        return await self._list(
            codec.CALL,
            """
            SELECT document FROM calls
            WHERE hospital_id = ? AND round_id = ? AND left_at <= ? AND (left_at, id) > (?, ?)
            ORDER BY left_at, id LIMIT ?
            """,
            (hospital_id, round_id, micros(since), *passed, limit),
        )

    async def count_calls(self, hospital_id: str, round_id: str) -> Mapping[tuple[str, str, str], int]:
        def work(connection: sqlite3.Connection) -> dict[tuple[str, str, str], int]:
            rows = connection.execute(
                """
                SELECT state, outcome, reason, count(*) FROM calls
                WHERE hospital_id = ? AND round_id = ? GROUP BY state, outcome, reason
                """,
                (hospital_id, round_id),
            )
            return {(state, outcome, reason): count for state, outcome, reason, count in rows}

        return await self._database.read(work)

    async def claim_call(
        self, hospital_id: str, call_id: str, *, owner: str, now: datetime, lease_until: datetime
    ) -> Call | None:
        def work(connection: sqlite3.Connection) -> Call | None:
            call = sql.one(connection, codec.CALL, sql.CALL, (hospital_id, call_id))
            if call is None or not claimable(call, owner, now):
                return None
            claimed = replace(call, state=CallState.CALLING, lease_owner=owner, lease_until=lease_until)
            return sql.store_call(connection, replace(claimed, version=call.version + 1))

        return await self._database.write(work)

    async def renew_lease(self, hospital_id: str, call_id: str, *, owner: str, lease_until: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            call = sql.one(connection, codec.CALL, sql.CALL, (hospital_id, call_id))
            if call is None or call.state is not CallState.CALLING or call.lease_owner != owner:
                return False
            sql.store_call(connection, replace(call, lease_until=lease_until))
            return True

        return await self._database.write(work)

    async def update_call(self, call: Call) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            stored = sql.one(connection, codec.CALL, sql.CALL, (call.hospital_id, call.id))
            if stored is None or stored.version != call.version:
                return False
            kept = keeping_renewal(call, stored)
            sql.store_call(connection, replace(kept, version=call.version + 1))
            return True

        return await self._database.write(work)

    # attempts and what they leave

    async def begin_attempt(self, attempt: Attempt, guard: Guard) -> BeginResult:
        return await self._database.write(lambda connection: sql.begin_attempt(connection, attempt, guard))

    async def attempt(self, attempt_id: str) -> Attempt | None:
        return await self._get(codec.ATTEMPT, sql.ATTEMPT, (attempt_id,))

    async def attempt_of_call_sid(self, call_sid: str) -> Attempt | None:
        return await self._get(codec.ATTEMPT, "SELECT document FROM attempts WHERE call_sid = ?", (call_sid,))

    async def attempts(self, hospital_id: str, call_id: str) -> Sequence[Attempt]:
        return await self._list(
            codec.ATTEMPT,
            "SELECT document FROM attempts WHERE hospital_id = ? AND call_id = ? ORDER BY number",
            (hospital_id, call_id),
        )

    async def open_attempts(self) -> Sequence[Attempt]:
        return await self._list(
            codec.ATTEMPT, "SELECT document FROM attempts WHERE state <> 'ended' ORDER BY intended_at, id"
        )

    async def update_attempt(self, attempt: Attempt) -> bool:
        return await self._database.write(lambda connection: sql.update_attempt(connection, attempt))

    async def end_attempt(
        self,
        attempt: Attempt,
        *,
        interaction: Interaction,
        check_in: CheckIn | None = None,
        do_not_call: DoNotCall | None = None,
        alerts: Sequence[Alert] = (),
    ) -> bool:
        must_be_left_by(attempt, interaction, check_in, do_not_call, alerts)

        def work(connection: sqlite3.Connection) -> bool:
            if not sql.update_attempt(connection, attempt):
                return False
            INTERACTIONS.put(connection, interaction)
            if check_in is not None:
                CHECK_INS.put(connection, check_in)
            if do_not_call is not None:
                sql.bar(connection, do_not_call)
            for alert in alerts:
                sql.add_alert(connection, alert)
            return True

        return await self._database.write(work)

    async def check_in(self, hospital_id: str, attempt_id: str) -> CheckIn | None:
        return await self._get(
            codec.CHECK_IN,
            "SELECT document FROM check_ins WHERE hospital_id = ? AND id = ?",
            (hospital_id, attempt_id),
        )

    async def interactions(
        self, hospital_id: str, patient_id: str | None = None, *, round_id: str | None = None
    ) -> Sequence[Interaction]:
        if patient_id is not None:
            return await self._list(
                codec.INTERACTION, _INTERACTIONS_OF_PATIENT, (hospital_id, patient_id, round_id)
            )
        if round_id is not None:
            return await self._list(codec.INTERACTION, _INTERACTIONS_OF_ROUND, (hospital_id, round_id))
        return await self._list(codec.INTERACTION, _INTERACTIONS, (hospital_id,))

    async def add_alert(self, alert: Alert) -> bool:
        return await self._database.write(lambda connection: sql.add_alert(connection, alert))

    async def alerts(
        self, hospital_id: str, *, open_only: bool = False, round_id: str | None = None
    ) -> Sequence[Alert]:
        return await self._list(codec.ALERT, _OPEN_ALERTS if open_only else _ALERTS, (hospital_id, round_id))

    async def acknowledge_alert(self, hospital_id: str, alert_id: str, *, by: str, at: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            alert = sql.one(
                connection,
                codec.ALERT,
                "SELECT document FROM alerts WHERE hospital_id = ? AND id = ? AND open = 1",
                (hospital_id, alert_id),
            )
            if alert is None:
                return False
            ALERTS.put(connection, replace(alert, acknowledged_at=at, acknowledged_by=by))
            return True

        return await self._database.write(work)

    # all of it, for carrying it to another store

    async def records(self, kind: type[R], *, after: R | None = None, limit: int = 1000) -> Sequence[R]:
        return await self._database.read(lambda connection: TABLE_OF[kind].page(connection, after, limit))

    async def compare(self, kind: type[R], records: Sequence[R]) -> Comparison:
        return await self._database.read(lambda connection: TABLE_OF[kind].compare(connection, records))

    async def restore(self, kind: type[R], records: Sequence[R]) -> int:
        return await self._database.write(lambda connection: TABLE_OF[kind].restore(connection, records))

    # the shapes that most methods share

    async def _row(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return await self._database.read(lambda connection: connection.execute(statement, values).fetchone())

    async def _get(self, kind: Codec[T], statement: str, values: Sequence[Any]) -> T | None:
        return await self._database.read(lambda connection: sql.one(connection, kind, statement, values))

    async def _list(self, kind: Codec[T], statement: str, values: Sequence[Any] = ()) -> list[T]:
        def work(connection: sqlite3.Connection) -> list[T]:
            return [kind.loads(document) for (document,) in connection.execute(statement, values)]

        return await self._database.read(work)


_BEFORE_ALL = (-(2**63), "")  # no instant is that early, and no id that small

_INTERACTIONS_OF_PATIENT = """
    SELECT document FROM interactions
    WHERE hospital_id = ?1 AND patient_id = ?2 AND (?3 IS NULL OR round_id = ?3) ORDER BY started_at, id
"""
_INTERACTIONS_OF_ROUND = """
    SELECT document FROM interactions WHERE hospital_id = ? AND round_id = ? ORDER BY started_at, id
"""
_INTERACTIONS = "SELECT document FROM interactions WHERE hospital_id = ? ORDER BY started_at, id"
_ALERTS = """
    SELECT document FROM alerts
    WHERE hospital_id = ?1 AND (?2 IS NULL OR round_id = ?2) ORDER BY raised_at, id
"""
_OPEN_ALERTS = """
    SELECT document FROM alerts
    WHERE hospital_id = ?1 AND (?2 IS NULL OR round_id = ?2) AND open = 1 ORDER BY raised_at, id
"""
