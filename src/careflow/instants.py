"""Instants as they are written outside: a number in a column or a file, text in a log or on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Microseconds since 1970, as columns hold an instant: exact, and in the order of time."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def of_micros(number: int) -> datetime:
    """The instant of which `micros` is the number, in UTC."""
    return _EPOCH + timedelta(microseconds=number)


def rfc3339(moment: datetime) -> str:
    """The instant in UTC with Z, to the second or to the microsecond."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
