"""The tables of records: which kind each holds, what its columns are made of, and what follows from that alone.

The rest of the SQL stands where it is used (`sqlite`, `sql`) and takes its values from here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from careflow.core.calls import CallState, left_at
from careflow.errors import StoreError
from careflow.instants import micros
from careflow.ports import Comparison, R
from careflow.store import codec
from careflow.store.codec import Codec

Columns = Mapping[str, Callable[[R], Any]]


@dataclass(frozen=True, slots=True)
class Table(Generic[R]):
    """One kind of record: the columns of its primary key, the others, and the SQL that gives the record's document."""

    name: str
    codec: Codec[R]
    key: Columns[R]
    others: Columns[R]
    document: str = "document"

    def row(self, record: R) -> dict[str, Any]:
        """The record's columns by name, for statements with `:name` in them."""
        return {column: value(record) for column, value in {**self.key, **self.others}.items()}

    def insert(self, connection: sqlite3.Connection, records: Iterable[R], otherwise: str = "") -> int:
        """How many of the records are new. `otherwise` is the ON CONFLICT clause; without one a conflict is an IntegrityError."""
        columns = [*self.key, *self.others]
        inserted = connection.executemany(
            f"INSERT INTO {self.name} ({', '.join(columns)}) VALUES (:{', :'.join(columns)}) {otherwise}",  # noqa: S608
            map(self.row, records),
        )
        return max(0, inserted.rowcount)

    def put(self, connection: sqlite3.Connection, record: R) -> None:
        """Create the record, or replace what is stored under its key."""
        changes = ", ".join(f"{column} = excluded.{column}" for column in self.others)
        self.insert(connection, [record], f"ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {changes}")

    def page(self, connection: sqlite3.Connection, after: R | None, limit: int) -> list[R]:
        """Records in the order of the primary key, beginning after that of `after`."""
        key = ", ".join(self.key)
        later = "" if after is None else f"WHERE ({key}) > ({_marks(self.key)})"
        rows = connection.execute(
            f"SELECT {self.document} FROM {self.name} {later} ORDER BY {key} LIMIT ?",  # noqa: S608 - names of this file
            (*(() if after is None else _values(self.key, after)), limit),
        )
        return [self.codec.loads(document) for (document,) in rows]

    def compare(self, connection: sqlite3.Connection, records: Sequence[R]) -> Comparison:
        """`ports.Archive.compare`."""
        same = other = absent = 0
        for record in records:
            row = connection.execute(
                f"SELECT {self.document} FROM {self.name} WHERE ({', '.join(self.key)}) = ({_marks(self.key)})",  # noqa: S608
                _values(self.key, record),
            ).fetchone()
            if row is None:
                absent += 1
            elif self.codec.loads(row[0]) == record:
                same += 1
            else:
                other += 1
        return Comparison(same, other, absent)

    def restore(self, connection: sqlite3.Connection, records: Sequence[R]) -> int:
        """`ports.Archive.restore`."""
        try:
            return self.insert(connection, records, f"ON CONFLICT ({', '.join(self.key)}) DO NOTHING")
        except sqlite3.IntegrityError as error:
            # Its words name columns, which are no secret, but its cause is all that helps: what is there is in the way.
            raise StoreError(
                f"one of {len(records)} records does not fit beside those in {self.name}"
            ) from error


def _marks(columns: Columns[R]) -> str:
    return ", ".join("?" * len(columns))


def _values(columns: Columns[R], record: R) -> tuple[Any, ...]:
    return tuple(value(record) for value in columns.values())


def _id(record: Any) -> Any:
    return record.id


def _hospital_id(record: Any) -> Any:
    return record.hospital_id


def _round_id(record: Any) -> Any:
    return record.round_id


def _patient_id(record: Any) -> Any:
    return record.patient_id


def _version(record: Any) -> Any:
    return record.version


_OF_HOSPITAL: Columns[Any] = {"hospital_id": _hospital_id, "id": _id}

HOSPITALS = Table(
    "hospitals",
    codec.ROSTER_REVISION,
    {"id": _hospital_id},
    {"revision": lambda roster: roster.revision},
    document="json_object('hospitalId', id, 'revision', revision)",
)
PATIENTS = Table(
    "patients",
    codec.PATIENT,
    _OF_HOSPITAL,
    {
        "phone": lambda patient: patient.phone,
        "hours": lambda patient: sum(1 << hour for hour in patient.hours),
        "own_times": lambda patient: bool(patient.times),
        "document": codec.PATIENT.dumps,
    },
)
DO_NOT_CALL = Table(
    "do_not_call",
    codec.DO_NOT_CALL,
    {
        "hospital_id": _hospital_id,
        "phone": lambda entry: entry.phone,
        "patient_id": lambda entry: entry.patient_id or "",
    },
    {"document": codec.DO_NOT_CALL.dumps},
)
ROUNDS = Table(
    "rounds",
    codec.ROUND,
    _OF_HOSPITAL,
    {
        "window_start": lambda round_: micros(round_.window_start),
        "closed": lambda round_: round_.closed_at is not None,
        "version": _version,
        "document": codec.ROUND.dumps,
    },
)
EXECUTIONS = Table(
    "executions",
    codec.EXECUTION,
    _OF_HOSPITAL,
    {
        "received_at": lambda execution: micros(execution.received_at),
        "document": codec.EXECUTION.dumps,
    },
)
CALLS = Table(
    "calls",
    codec.CALL,
    {"id": _id},
    {
        "hospital_id": _hospital_id,
        "round_id": _round_id,
        "patient_id": _patient_id,
        "state": lambda call: call.state.value,
        "outcome": lambda call: call.outcome.value if call.outcome else "",
        "reason": lambda call: call.reason,
        "left_at": lambda call: None if call.state is CallState.ENDED else micros(left_at(call)),
        "version": _version,
        "document": codec.CALL.dumps,
    },
)
ATTEMPTS = Table(
    "attempts",
    codec.ATTEMPT,
    {"id": _id},
    {
        "hospital_id": _hospital_id,
        "call_id": lambda attempt: attempt.call_id,
        "patient_id": _patient_id,
        "number": lambda attempt: attempt.number,
        "phone": lambda attempt: attempt.phone,
        "state": lambda attempt: attempt.state.value,
        "call_sid": lambda attempt: attempt.call_sid,
        "intended_at": lambda attempt: micros(attempt.intended_at),
        "version": _version,
        "document": codec.ATTEMPT.dumps,
    },
)
CHECK_INS = Table("check_ins", codec.CHECK_IN, _OF_HOSPITAL, {"document": codec.CHECK_IN.dumps})
INTERACTIONS = Table(
    "interactions",
    codec.INTERACTION,
    _OF_HOSPITAL,
    {
        "patient_id": _patient_id,
        "round_id": _round_id,
        "started_at": lambda interaction: micros(interaction.started_at),
        "document": codec.INTERACTION.dumps,
    },
)
ALERTS = Table(
    "alerts",
    codec.ALERT,
    _OF_HOSPITAL,
    {
        "round_id": _round_id,
        "open": lambda alert: alert.acknowledged_at is None,
        "raised_at": lambda alert: micros(alert.raised_at),
        "document": codec.ALERT.dumps,
    },
)
TABLE_OF: Mapping[type[Any], Table[Any]] = {
    table.codec.kind: table
    for table in (
        HOSPITALS,
        PATIENTS,
        DO_NOT_CALL,
        ROUNDS,
        EXECUTIONS,
        CALLS,
        ATTEMPTS,
        CHECK_INS,
        INTERACTIONS,
        ALERTS,
    )
}
