"""The Store on SQLite. Every method is one transaction of `database.Database`; its SQL stands where it is used."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, CallState
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient, SkipReason
from careflow.core.rounds import Execution, Round
from careflow.ports import Began, BeginResult, Candidate, Guard, PutCounts
from careflow.store import codec
from careflow.store.codec import Codec
from careflow.store.database import Database

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """The instant as a column holds it: microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


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
        return await self._database.write(lambda connection: _put_patients(connection, patients))

    async def patient(self, hospital_id: str, patient_id: str) -> Patient | None:
        return await self._database.read(lambda connection: _patient(connection, hospital_id, patient_id))

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
        await self._database.write(lambda connection: _bar(connection, entry))

    async def on_do_not_call(self, hospital_id: str, patient_id: str, phone: str | None) -> bool:
        return await self._database.read(
            lambda connection: _barred(connection, hospital_id, patient_id, phone)
        )

    # rounds and executions

    async def open_round(self, round_: Round) -> Round:
        def work(connection: sqlite3.Connection) -> Round:
            _know_hospital(connection, round_.hospital_id)
            connection.execute(
                """
                INSERT INTO rounds (hospital_id, id, window_start, closed, version, document)
                VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
                """,
                (
                    round_.hospital_id,
                    round_.id,
                    micros(round_.window_start),
                    round_.closed_at is not None,
                    round_.version,
                    codec.ROUND.dumps(round_),
                ),
            )
            stored = _one(connection, codec.ROUND, _ROUND, (round_.hospital_id, round_.id))
            assert stored is not None
            return stored

        return await self._database.write(work)

    async def round(self, hospital_id: str, round_id: str) -> Round | None:
        return await self._get(codec.ROUND, _ROUND, (hospital_id, round_id))

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
        after = replace(round_, version=round_.version + 1)
        return await self._update(
            """
            UPDATE rounds SET closed = ?, version = ?, document = ?
            WHERE hospital_id = ? AND id = ? AND version = ?
            """,
            (after.closed_at is not None, after.version, codec.ROUND.dumps(after)),
            (round_.hospital_id, round_.id, round_.version),
        )

    async def add_execution(self, execution: Execution) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO executions (hospital_id, id, received_at, document) VALUES (?, ?, ?, ?)",
                (
                    execution.hospital_id,
                    execution.id,
                    micros(execution.received_at),
                    codec.EXECUTION.dumps(execution),
                ),
            )

        await self._database.write(work)

    async def executions(self, hospital_id: str, *, limit: int = 50) -> Sequence[Execution]:
        return await self._list(
            codec.EXECUTION,
            "SELECT document FROM executions WHERE hospital_id = ? ORDER BY received_at DESC, id DESC LIMIT ?",
            (hospital_id, limit),
        )

    # calls

    async def create_calls(self, calls: Sequence[Call]) -> int:
        rows = [_call_row(call) for call in calls]

        def work(connection: sqlite3.Connection) -> int:
            # The uniqueness of (round, patient) decides what is new.
            created = connection.executemany(
                """
                INSERT INTO calls (state, outcome, reason, version, document, id, hospital_id, round_id, patient_id)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
                """,
                rows,
            )
            return max(0, created.rowcount)

        return await self._database.write(work)

    async def call(self, hospital_id: str, call_id: str) -> Call | None:
        return await self._get(codec.CALL, _CALL, (hospital_id, call_id))

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
            call = _one(connection, codec.CALL, _CALL, (hospital_id, call_id))
            if call is None or not _claimable(call, owner, now):
                return None
            claimed = replace(call, state=CallState.CALLING, lease_owner=owner, lease_until=lease_until)
            return _store_call(connection, replace(claimed, version=call.version + 1))

        return await self._database.write(work)

    async def renew_lease(self, hospital_id: str, call_id: str, *, owner: str, lease_until: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            call = _one(connection, codec.CALL, _CALL, (hospital_id, call_id))
            if call is None or call.state is not CallState.CALLING or call.lease_owner != owner:
                return False
            _store_call(connection, replace(call, lease_until=lease_until))
            return True

        return await self._database.write(work)

    async def update_call(self, call: Call) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            stored = _one(connection, codec.CALL, _CALL, (call.hospital_id, call.id))
            if stored is None or stored.version != call.version:
                return False
            lease = call.lease_until
            if lease and stored.lease_until and stored.lease_owner == call.lease_owner:
                lease = max(lease, stored.lease_until)  # renewed since the caller read the call
            _store_call(connection, replace(call, lease_until=lease, version=call.version + 1))
            return True

        return await self._database.write(work)

    # attempts and what they leave

    async def begin_attempt(self, attempt: Attempt, guard: Guard) -> BeginResult:
        return await self._database.write(lambda connection: _begin(connection, attempt, guard))

    async def attempt(self, attempt_id: str) -> Attempt | None:
        return await self._get(codec.ATTEMPT, _ATTEMPT, (attempt_id,))

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
        return await self._database.write(lambda connection: _update_attempt(connection, attempt))

    async def end_attempt(
        self,
        attempt: Attempt,
        *,
        interaction: Interaction,
        check_in: CheckIn | None = None,
        do_not_call: DoNotCall | None = None,
        alerts: Sequence[Alert] = (),
    ) -> bool:
        if attempt.state is not AttemptState.ENDED:
            raise ValueError(f"attempt {attempt.id} is {attempt.state}, end_attempt stores ended ones")

        def work(connection: sqlite3.Connection) -> bool:
            if not _update_attempt(connection, attempt):
                return False
            _add_interaction(connection, interaction)
            if check_in is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO check_ins (hospital_id, id, document) VALUES (?, ?, ?)",
                    (check_in.hospital_id, check_in.id, codec.CHECK_IN.dumps(check_in)),
                )
            if do_not_call is not None:
                _bar(connection, do_not_call)
            for alert in alerts:
                _add_alert(connection, alert)
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
        return await self._list(codec.INTERACTION, _INTERACTIONS_OF_ROUND, (hospital_id, round_id))

    async def add_alert(self, alert: Alert) -> bool:
        return await self._database.write(lambda connection: _add_alert(connection, alert))

    async def alerts(
        self, hospital_id: str, *, open_only: bool = False, round_id: str | None = None
    ) -> Sequence[Alert]:
        return await self._list(codec.ALERT, _OPEN_ALERTS if open_only else _ALERTS, (hospital_id, round_id))

    async def acknowledge_alert(self, hospital_id: str, alert_id: str, *, by: str, at: datetime) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            alert = _one(
                connection,
                codec.ALERT,
                "SELECT document FROM alerts WHERE hospital_id = ? AND id = ? AND open = 1",
                (hospital_id, alert_id),
            )
            if alert is None:
                return False
            seen = replace(alert, acknowledged_at=at, acknowledged_by=by)
            connection.execute(
                "UPDATE alerts SET open = 0, document = ? WHERE hospital_id = ? AND id = ?",
                (codec.ALERT.dumps(seen), hospital_id, alert_id),
            )
            return True

        return await self._database.write(work)

    # the shapes that most methods share

    async def _row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        return await self._database.read(lambda connection: connection.execute(sql, values).fetchone())

    async def _get(self, kind: Codec[T], sql: str, values: Sequence[Any]) -> T | None:
        return await self._database.read(lambda connection: _one(connection, kind, sql, values))

    async def _list(self, kind: Codec[T], sql: str, values: Sequence[Any] = ()) -> list[T]:
        def work(connection: sqlite3.Connection) -> list[T]:
            return [kind.loads(document) for (document,) in connection.execute(sql, values)]

        return await self._database.read(work)

    async def _update(self, sql: str, changes: Sequence[Any], condition: Sequence[Any]) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            return connection.execute(sql, (*changes, *condition)).rowcount == 1

        return await self._database.write(work)


_ROUND = "SELECT document FROM rounds WHERE hospital_id = ? AND id = ?"
_CALL = "SELECT document FROM calls WHERE hospital_id = ? AND id = ?"
_ATTEMPT = "SELECT document FROM attempts WHERE id = ?"

_INTERACTIONS_OF_PATIENT = """
    SELECT document FROM interactions
    WHERE hospital_id = ?1 AND patient_id = ?2 AND (?3 IS NULL OR round_id = ?3) ORDER BY started_at, id
"""
_INTERACTIONS_OF_ROUND = """
    SELECT document FROM interactions
    WHERE hospital_id = ?1 AND (?2 IS NULL OR round_id = ?2) ORDER BY started_at, id
"""
_ALERTS = """
    SELECT document FROM alerts
    WHERE hospital_id = ?1 AND (?2 IS NULL OR round_id = ?2) ORDER BY raised_at, id
"""
_OPEN_ALERTS = """
    SELECT document FROM alerts
    WHERE hospital_id = ?1 AND (?2 IS NULL OR round_id = ?2) AND open = 1 ORDER BY raised_at, id
"""


def _one(connection: sqlite3.Connection, kind: Codec[T], sql: str, values: Sequence[Any]) -> T | None:
    row = connection.execute(sql, values).fetchone()
    return None if row is None else kind.loads(row[0])


# --- patients ----------------------------------------------------------------------------------------------------


def _know_hospital(connection: sqlite3.Connection, hospital_id: str) -> None:
    connection.execute("INSERT INTO hospitals (id) VALUES (?) ON CONFLICT DO NOTHING", (hospital_id,))


def _patient(connection: sqlite3.Connection, hospital_id: str, patient_id: str) -> Patient | None:
    return _one(
        connection,
        codec.PATIENT,
        "SELECT document FROM patients WHERE hospital_id = ? AND id = ?",
        (hospital_id, patient_id),
    )


def _put_patients(connection: sqlite3.Connection, patients: Iterable[Patient]) -> PutCounts:
    created = updated = unchanged = 0
    changed: set[str] = set()
    for patient in patients:
        stored = _patient(connection, patient.hospital_id, patient.id)
        if stored is not None and stored.opted_out:
            patient = replace(patient, opted_out=True)
        if stored == patient:
            unchanged += 1
            continue
        connection.execute(
            """
            INSERT INTO patients (hospital_id, id, phone, hours, own_times, document) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (hospital_id, id) DO UPDATE SET
                phone = excluded.phone, hours = excluded.hours, own_times = excluded.own_times,
                document = excluded.document
            """,
            (
                patient.hospital_id,
                patient.id,
                patient.phone,
                sum(1 << hour for hour in patient.hours),
                bool(patient.times),
                codec.PATIENT.dumps(patient),
            ),
        )
        changed.add(patient.hospital_id)
        created += stored is None
        updated += stored is not None
    for hospital_id in changed:
        _know_hospital(connection, hospital_id)
        connection.execute("UPDATE hospitals SET revision = revision + 1 WHERE id = ?", (hospital_id,))
    return PutCounts(created, updated, unchanged)


def _bar(connection: sqlite3.Connection, entry: DoNotCall) -> None:
    connection.execute(
        """
        INSERT INTO do_not_call (hospital_id, phone, patient_id, document) VALUES (?, ?, ?, ?)
        ON CONFLICT DO NOTHING
        """,
        (entry.hospital_id, entry.phone, entry.patient_id or "", codec.DO_NOT_CALL.dumps(entry)),
    )


def _barred(connection: sqlite3.Connection, hospital_id: str, patient_id: str, phone: str | None) -> bool:
    """Whether an entry names the patient, or the number (whoever said it)."""
    row = connection.execute(
        """
        SELECT EXISTS (SELECT 1 FROM do_not_call WHERE hospital_id = :hospital AND phone = :phone)
            OR EXISTS (SELECT 1 FROM do_not_call
                       WHERE hospital_id = :hospital AND patient_id = :patient AND patient_id <> '')
        """,
        {"hospital": hospital_id, "phone": phone, "patient": patient_id},
    ).fetchone()
    return bool(row[0])


# --- calls -------------------------------------------------------------------------------------------------------


def _call_row(call: Call) -> tuple[object, ...]:
    return (
        call.state.value,
        call.outcome.value if call.outcome else "",
        call.reason,
        call.version,
        codec.CALL.dumps(call),
        call.id,
        call.hospital_id,
        call.round_id,
        call.patient_id,
    )


def _store_call(connection: sqlite3.Connection, call: Call) -> Call:
    connection.execute(
        "UPDATE calls SET state = ?, outcome = ?, reason = ?, version = ?, document = ? WHERE id = ?",
        _call_row(call)[:6],
    )
    return call


def _claimable(call: Call, owner: str, now: datetime) -> bool:
    match call.state:
        case CallState.WAITING:
            return call.due_at <= now
        case CallState.CALLING:
            return call.lease_owner in (owner, None) or call.lease_until is None or call.lease_until <= now
        case CallState.ENDED:
            return False


# --- attempts ----------------------------------------------------------------------------------------------------


def _begin(connection: sqlite3.Connection, attempt: Attempt, guard: Guard) -> BeginResult:
    stored = _one(connection, codec.ATTEMPT, _ATTEMPT, (attempt.id,))
    if stored is not None:
        return BeginResult(Began.EXISTS, stored)
    call = _one(connection, codec.CALL, _CALL, (attempt.hospital_id, attempt.call_id))
    if call is None or call.state is not CallState.CALLING or call.attempt_id != attempt.id:
        return BeginResult(Began.CALL_OVER)
    if (call.round_id, call.patient_id) != (attempt.round_id, attempt.patient_id):
        return BeginResult(Began.CALL_OVER)
    if _line_busy(connection, attempt):
        return BeginResult(Began.LINE_BUSY)
    patient = _patient(connection, attempt.hospital_id, attempt.patient_id)
    if patient is None:
        return BeginResult(Began.REFUSED, reason=SkipReason.INACTIVE.value)
    barred = _barred(connection, patient.hospital_id, patient.id, patient.phone) or _barred(
        connection, patient.hospital_id, patient.id, attempt.phone
    )
    reason = guard(patient, barred)
    if reason is not None:
        return BeginResult(Began.REFUSED, reason=reason)
    connection.execute(
        """
        INSERT INTO attempts
            (state, call_sid, version, document, id, hospital_id, call_id, patient_id, number, phone, intended_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            *_attempt_changes(attempt),
            attempt.id,
            attempt.hospital_id,
            attempt.call_id,
            attempt.patient_id,
            attempt.number,
            attempt.phone,
            micros(attempt.intended_at),
        ),
    )
    return BeginResult(Began.BEGUN, attempt)


def _line_busy(connection: sqlite3.Connection, attempt: Attempt) -> bool:
    """Whether the patient or the number has an attempt in flight: what two partial unique indexes also refuse."""
    row = connection.execute(
        """
        SELECT EXISTS (SELECT 1 FROM attempts
                       WHERE state <> 'ended' AND hospital_id = ? AND patient_id = ?)
            OR EXISTS (SELECT 1 FROM attempts WHERE state <> 'ended' AND phone = ?)
        """,
        (attempt.hospital_id, attempt.patient_id, attempt.phone),
    ).fetchone()
    return bool(row[0])


def _attempt_changes(attempt: Attempt) -> tuple[object, ...]:
    return (attempt.state.value, attempt.call_sid, attempt.version, codec.ATTEMPT.dumps(attempt))


def _update_attempt(connection: sqlite3.Connection, attempt: Attempt) -> bool:
    after = replace(attempt, version=attempt.version + 1)
    try:
        updated = connection.execute(
            """
            UPDATE attempts SET state = ?, call_sid = ?, version = ?, document = ?
            WHERE id = ? AND hospital_id = ? AND version = ?
            """,
            (*_attempt_changes(after), attempt.id, attempt.hospital_id, attempt.version),
        )
    except sqlite3.IntegrityError:  # the call SID is another attempt's
        return False
    return updated.rowcount == 1


def _add_interaction(connection: sqlite3.Connection, interaction: Interaction) -> None:
    connection.execute(
        """
        INSERT OR REPLACE INTO interactions (hospital_id, id, patient_id, round_id, started_at, document)
        VALUES (?, ?, ?, ?, ?, ?)
        """,
        (
            interaction.hospital_id,
            interaction.id,
            interaction.patient_id,
            interaction.round_id,
            micros(interaction.started_at),
            codec.INTERACTION.dumps(interaction),
        ),
    )


def _add_alert(connection: sqlite3.Connection, alert: Alert) -> bool:
    added = connection.execute(
        """
        INSERT INTO alerts (hospital_id, id, round_id, open, raised_at, document) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT DO NOTHING
        """,
        (
            alert.hospital_id,
            alert.id,
            alert.round_id,
            alert.acknowledged_at is None,
            micros(alert.raised_at),
            codec.ALERT.dumps(alert),
        ),
    )
    return added.rowcount == 1


__all__ = ["SqliteStore", "micros"]
