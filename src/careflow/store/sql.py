"""What several methods of the SQLite store do inside a transaction, and the checks that must not be taken apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from careflow.core.attempts import Attempt
from careflow.core.calls import Call, CallState
from careflow.core.checkins import Alert
from careflow.core.patients import DoNotCall, Patient, SkipReason
from careflow.ports import Began, BeginResult, Guard, PutCounts
from careflow.store import codec
from careflow.store.codec import Codec
from careflow.store.sql_tables import ALERTS, ATTEMPTS, CALLS, DO_NOT_CALL, PATIENTS

T = TypeVar("T")

ROUND = "SELECT document FROM rounds WHERE hospital_id = ? AND id = ?"
CALL = "SELECT document FROM calls WHERE hospital_id = ? AND id = ?"
ATTEMPT = "SELECT document FROM attempts WHERE id = ?"


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
        PATIENTS.put(connection, patient)
        changed.add(patient.hospital_id)
        created += stored is None
        updated += stored is not None
    for hospital_id in changed:
        know_hospital(connection, hospital_id)
        connection.execute("UPDATE hospitals SET revision = revision + 1 WHERE id = ?", (hospital_id,))
    return PutCounts(created, updated, unchanged)


def bar(connection: sqlite3.Connection, entry: DoNotCall) -> None:
    """Add the entry unless there is one of the same hospital, number and patient."""
    DO_NOT_CALL.insert(connection, [entry], "ON CONFLICT DO NOTHING")


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


def store_call(connection: sqlite3.Connection, call: Call) -> Call:
    """Replace the stored call. Whoever calls has read it in the same transaction and compared what must be."""
    connection.execute(
        """
        UPDATE calls SET state = :state, outcome = :outcome, reason = :reason, left_at = :left_at, version = :version,
            document = :document
        WHERE id = :id
        """,
        CALLS.row(call),
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
        ATTEMPTS.insert(connection, [attempt])
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


def update_attempt(connection: sqlite3.Connection, attempt: Attempt) -> bool:
    """Compare the version and store; False when another was first or the call SID is another attempt's."""
    after = replace(attempt, version=attempt.version + 1)
    try:
        updated = connection.execute(
            """
            UPDATE attempts SET state = :state, call_sid = :call_sid, version = :version, document = :document
            WHERE id = :id AND hospital_id = :hospital_id AND version = :version - 1
            """,
            ATTEMPTS.row(after),
        )
    except sqlite3.IntegrityError:
        return False
    return updated.rowcount == 1


def add_alert(connection: sqlite3.Connection, alert: Alert) -> bool:
    """Store it if its id is new; whether it was."""
    return ALERTS.insert(connection, [alert], "ON CONFLICT DO NOTHING") == 1
