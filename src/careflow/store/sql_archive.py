"""The tables as `ports.Archive` sees them: which kind of record each holds, and what its columns are made of."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from careflow.errors import StoreError
from careflow.ports import Comparison, R
from careflow.store import codec
from careflow.store.codec import Codec
from careflow.store.sql import left_micros, micros

Columns = Mapping[str, Callable[[R], Any]]


@dataclass(frozen=True, slots=True)
class Table(Generic[R]):
    """One kind of record: the columns of its primary key, the others, and the SQL that gives the record's document."""

    name: str
    codec: Codec[R]
    key: Columns[R]
    others: Columns[R]
    document: str = "document"

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
        columns = {**self.key, **self.others}
        try:
            stored = connection.executemany(
                f"INSERT INTO {self.name} ({', '.join(columns)}) VALUES ({_marks(columns)})"  # noqa: S608
                f" ON CONFLICT ({', '.join(self.key)}) DO NOTHING",
                [_values(columns, record) for record in records],
            )
        except sqlite3.IntegrityError as error:
            # Its words name columns, which are no secret, but its cause is all that helps: what is there is in the way.
            raise StoreError(
                f"one of {len(records)} records does not fit beside those in {self.name}"
            ) from error
        return max(0, stored.rowcount)


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

_TABLES: tuple[Table[Any], ...] = (
    Table(
        "hospitals",
        codec.ROSTER_REVISION,
        {"id": _hospital_id},
        {"revision": lambda roster: roster.revision},
        document="json_object('hospitalId', id, 'revision', revision)",
    ),
    Table(
        "patients",
        codec.PATIENT,
        _OF_HOSPITAL,
        {
            "phone": lambda patient: patient.phone,
            "hours": lambda patient: sum(1 << hour for hour in patient.hours),
            "own_times": lambda patient: bool(patient.times),
            "document": codec.PATIENT.dumps,
        },
    ),
    Table(
        "do_not_call",
        codec.DO_NOT_CALL,
        {
            "hospital_id": _hospital_id,
            "phone": lambda entry: entry.phone,
            "patient_id": lambda entry: entry.patient_id or "",
        },
        {"document": codec.DO_NOT_CALL.dumps},
    ),
    Table(
        "rounds",
        codec.ROUND,
        _OF_HOSPITAL,
        {
            "window_start": lambda round_: micros(round_.window_start),
            "closed": lambda round_: round_.closed_at is not None,
            "version": _version,
            "document": codec.ROUND.dumps,
        },
    ),
    Table(
        "executions",
        codec.EXECUTION,
        _OF_HOSPITAL,
        {
            "received_at": lambda execution: micros(execution.received_at),
            "document": codec.EXECUTION.dumps,
        },
    ),
    Table(
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
            "left_at": left_micros,
            "version": _version,
            "document": codec.CALL.dumps,
        },
    ),
    Table(
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
    ),
    Table("check_ins", codec.CHECK_IN, _OF_HOSPITAL, {"document": codec.CHECK_IN.dumps}),
    Table(
        "interactions",
        codec.INTERACTION,
        _OF_HOSPITAL,
        {
            "patient_id": _patient_id,
            "round_id": _round_id,
            "started_at": lambda interaction: micros(interaction.started_at),
            "document": codec.INTERACTION.dumps,
        },
    ),
    Table(
        "alerts",
        codec.ALERT,
        _OF_HOSPITAL,
        {
            "round_id": _round_id,
            "open": lambda alert: alert.acknowledged_at is None,
            "raised_at": lambda alert: micros(alert.raised_at),
            "document": codec.ALERT.dumps,
        },
    ),
)
TABLE_OF: Mapping[type[Any], Table[Any]] = {table.codec.kind: table for table in _TABLES}
