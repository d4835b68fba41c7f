"""What several methods of the SQLite store do inside a transaction, and the checks that must not be taken apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from careflow.core.attempts import Attempt
from careflow.core.calls import Call, CallState, left_at
from careflow.core.checkins import Alert, Interaction
from careflow.core.patients import DoNotCall, Patient, SkipReason
from careflow.ports import Began, BeginResult, Guard, PutCounts
from careflow.store import codec
from careflow.store.codec import Codec

T = TypeVar("T")

ROUND = "SELECT document FROM rounds WHERE hospital_id = ? AND id = ?"
CALL = "SELECT document FROM calls WHERE hospital_id = ? AND id = ?"
ATTEMPT = "SELECT document FROM attempts WHERE id = ?"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """The instant as a column holds it: microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def one(connection: sqlite3.Connection, kind: Codec[T], statement: str, values: Sequence[Any]) -> T | None:
    """The record that the statement finds, if any."""
    row = connection.execute(statement, values).fetchone()
    return None if row is None else kind.loads(row[0])


# --- patients ----------------------------------------------------------------------------------------------------


def know_hospital(connection: sqlite3.Connection, hospital_id: str) -> None:
    """Have a row for the hospital, at revision 0 when it is new."""
    connection.execute("INSERT INTO hospitals (id) VALUES (?) ON CONFLICT DO NOTHING", (hospital_id,))


def find_patient(connection: sqlite3.Connection, hospital_id: str, patient_id: str) -> Patient | None:
    """The hospital's patient of that id."""
    return one(
        connection,
        codec.PATIENT,
        "SELECT document FROM patients WHERE hospital_id = ? AND id = ?",
        (hospital_id, patient_id),
    )


def put_patients(connection: sqlite3.Connection, patients: Iterable[Patient]) -> PutCounts:
    """Create or replace each, keeping a stored `opted_out`; raise the revision of the hospitals with changes."""
    created = updated = unchanged = 0
    changed: set[str] = set()
    for patient in patients:
        stored = find_patient(connection, patient.hospital_id, patient.id)
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
        know_hospital(connection, hospital_id)
        connection.execute("UPDATE hospitals SET revision = revision + 1 WHERE id = ?", (hospital_id,))
    return PutCounts(created, updated, unchanged)


def bar(connection: sqlite3.Connection, entry: DoNotCall) -> None:
    """Add the entry unless there is one of the same hospital, number and patient."""
    connection.execute(
        """
        INSERT INTO do_not_call (hospital_id, phone, patient_id, document) VALUES (?, ?, ?, ?)
        ON CONFLICT DO NOTHING
        """,
        (entry.hospital_id, entry.phone, entry.patient_id or "", codec.DO_NOT_CALL.dumps(entry)),
    )


def is_barred(connection: sqlite3.Connection, hospital_id: str, patient_id: str, phone: str | None) -> bool:
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


def left_micros(call: Call) -> int | None:
    """`core.calls.left_at` of an open call, as its column holds it."""
    return None if call.state is CallState.ENDED else micros(left_at(call))


def call_row(call: Call) -> tuple[object, ...]:
    """state, outcome, reason, left_at, version, document, id; then hospital, round and patient, which never change."""
    return (
        call.state.value,
        call.outcome.value if call.outcome else "",
        call.reason,
        left_micros(call),
        call.version,
        codec.CALL.dumps(call),
        call.id,
        call.hospital_id,
        call.round_id,
        call.patient_id,
    )


def store_call(connection: sqlite3.Connection, call: Call) -> Call:
    """Replace the stored call. Whoever calls has read it in the same transaction and compared what must be."""
    connection.execute(
        """
        UPDATE calls SET state = ?, outcome = ?, reason = ?, left_at = ?, version = ?, document = ? WHERE id = ?
        """,
        call_row(call)[:7],
    )
    return call


# --- attempts ----------------------------------------------------------------------------------------------------


def begin_attempt(connection: sqlite3.Connection, attempt: Attempt, guard: Guard) -> BeginResult:
    """Store the intent to dial unless something is against it; the order is the port's."""
    stored = one(connection, codec.ATTEMPT, ATTEMPT, (attempt.id,))
    if stored is not None:
        return BeginResult(Began.EXISTS, stored)
    call = one(connection, codec.CALL, CALL, (attempt.hospital_id, attempt.call_id))
    if call is None or call.state is not CallState.CALLING or call.attempt_id != attempt.id:
        return BeginResult(Began.CALL_OVER)
    if (call.round_id, call.patient_id) != (attempt.round_id, attempt.patient_id):
        return BeginResult(Began.CALL_OVER)
    if _line_busy(connection, attempt):
        return BeginResult(Began.LINE_BUSY)
    patient = find_patient(connection, attempt.hospital_id, attempt.patient_id)
    if patient is None:
        return BeginResult(Began.REFUSED, reason=SkipReason.INACTIVE.value)
    barred = is_barred(connection, patient.hospital_id, patient.id, patient.phone) or is_barred(
        connection, patient.hospital_id, patient.id, attempt.phone
    )
    reason = guard(patient, barred)
    if reason is not None:
        return BeginResult(Began.REFUSED, reason=reason)
    try:
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
    except sqlite3.IntegrityError:
        # The line was free a statement ago, so it is the number that another attempt of this call has.
        return BeginResult(Began.CALL_OVER)
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


def update_attempt(connection: sqlite3.Connection, attempt: Attempt) -> bool:
    """Compare the version and store; False when another was first or the call SID is another attempt's."""
    after = replace(attempt, version=attempt.version + 1)
    try:
        updated = connection.execute(
            """
            UPDATE attempts SET state = ?, call_sid = ?, version = ?, document = ?
            WHERE id = ? AND hospital_id = ? AND version = ?
            """,
            (*_attempt_changes(after), attempt.id, attempt.hospital_id, attempt.version),
        )
    except sqlite3.IntegrityError:
        return False
    return updated.rowcount == 1


def add_interaction(connection: sqlite3.Connection, interaction: Interaction) -> None:
    """Write the contact into the patient's record."""
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


def add_alert(connection: sqlite3.Connection, alert: Alert) -> bool:
    """Store it if its id is new; whether it was."""
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
