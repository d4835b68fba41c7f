"""When a job runs: unix-cron and English-like schedules as Cloud Scheduler takes them (reference/cloud-scheduler section 6).

Where Google's documentation leaves a form open it is refused, so that no schedule means one thing here and another there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from careflow.scheduler.errors import InvalidSchedule
from careflow.scheduler.groc import is_groc, parse_groc
from careflow.scheduler.wall_clock import Days, WallClock

_CRON = (
    "five fields (minute hour day-of-month month day-of-week) of numbers, names like JAN or MON, `*`, "
    "lists `a,b`, ranges `a-b` that do not wrap, and steps `*/n` or `a-b/n`"
)
_ZONES = "a tz database name like 'America/New_York' or 'Etc/UTC'"
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_NOT_ZONES = ("posix/", "right/", "posixrules", "localtime", "Factory")  # files beside the zones
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = MappingProxyType({name: number for number, name in enumerate(_MONTH_NAMES, 1)})
_WEEKDAYS = MappingProxyType({name: number for number, name in enumerate(_DAY_NAMES)})


class Schedule(Protocol):
    """Something to call next on."""

    @property
    def from_end(self) -> bool:
        """Whether the next slot is counted from the end of the execution before, and not from its slot."""
        ...

    def next_after(self, instant: datetime) -> datetime | None:
        """The first slot later than `instant`, both in UTC; None when there is none."""
        ...


def parse_schedule(text: str, time_zone: str) -> Schedule:
    """The schedule that `text` names in `time_zone` (empty: UTC). Raises InvalidSchedule."""
    zone = parse_zone(time_zone)
    if not text.strip():
        raise InvalidSchedule("schedule", text, "it is empty", _CRON)
    return parse_groc(text, zone) if is_groc(text) else parse_cron(text, zone)


def parse_zone(name: str) -> ZoneInfo:
    """The time zone; empty and `utc` are UTC. Raises InvalidSchedule."""
    key = "UTC" if name.lower() in ("", "utc") else name
    if not _ZONE.fullmatch(key) or key.startswith(_NOT_ZONES):
        raise InvalidSchedule("time_zone", name, "it is not the name of a time zone", _ZONES)
    try:
        return ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidSchedule("time_zone", name, "there is no such time zone", _ZONES) from None


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five, and what it takes."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day-of-week", 0, 7, _WEEKDAYS),
)
_ITEM = re.compile(
    r"(?:(?P<star>\*)|(?P<first>[0-9a-z]+)(?:-(?P<last>[0-9a-z]+))?)(?:/(?P<step>[0-9]{1,2}))?"
)


def parse_cron(text: str, zone: ZoneInfo) -> WallClock:
    """A unix-cron schedule. Raises InvalidSchedule naming the field that is wrong.

    Where both days are restricted either suffices. Only the bare `*` is no restriction: `*/2` is one.
    """
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise InvalidSchedule("schedule", text, f"it has {len(parts)} fields", _CRON)
    minutes, hours, month_days, months, weekdays = (
        _values(text, field, part) for field, part in zip(_FIELDS, parts, strict=True)
    )
    days = Days(
        months=months,
        month_days=None if parts[2] == "*" else month_days,
        weekdays=None if parts[4] == "*" else frozenset(day % 7 for day in weekdays),
    )
    if not days.possible:
        raise InvalidSchedule("schedule", text, "no month named has such a day", "a date that exists")
    return WallClock(days, frozenset(hour * 60 + minute for hour in hours for minute in minutes), zone)


def _values(text: str, field: _Field, part: str) -> frozenset[int]:
    return frozenset(value for item in part.lower().split(",") for value in _item(text, field, item))


def _item(text: str, field: _Field, item: str) -> range:
    def refused(problem: str) -> InvalidSchedule:
        return InvalidSchedule("schedule", text, f"{field.name} {item!r} {problem}", _CRON)

    def number(word: str) -> int:
        value = int(word) if re.fullmatch("[0-9]{1,2}", word) else field.names.get(word)
        if value is None or not field.low <= value <= field.high:
            raise refused(f"is not within {field.low}-{field.high}")
        return value

    match = _ITEM.fullmatch(item)
    if match is None:
        raise refused("is not a value, a range or a step")
    step = int(match["step"] or 1)
    if not 1 <= step <= field.high + 1 - field.low:
        raise refused(f"has a step outside 1-{field.high + 1 - field.low}")
    if match["star"]:
        # Sunday is 0 and 7, but a week has it once.
        return range(field.low, min(field.high, 6 if field.name == "day-of-week" else 59) + 1, step)
    if match["step"] and not match["last"]:
        raise refused("has a step without a range")
    first = number(match["first"])
    last = number(match["last"]) if match["last"] else first
    if last < first:
        raise refused("is a range that runs backwards")
    return range(first, last + 1, step)


def slots_between(schedule: Schedule, start: datetime, end: datetime) -> Iterator[datetime]:
    """Slots later than `start` and not later than `end`, for people who ask what will run.

    Those of an interval suppose executions that take no time.
    """
    slot = schedule.next_after(start)
    while slot is not None and slot <= end:
        yield slot
        slot = schedule.next_after(slot)
