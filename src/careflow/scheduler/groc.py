"""English-like schedules, from App Engine's cron ("groc"; reference/cloud-scheduler section 6), in the forms that are documented.

every N minutes|mins|hours                       from the end of one execution to the next
every N minutes|mins|hours from HH:MM to HH:MM   a grid of wall-clock times, both ends included
every N minutes|mins|hours synchronized          a grid over the whole day; N divides it
every day|WEEKDAYS [of MONTHS|month] HH:MM
ORDINALS WEEKDAYS of MONTHS|month HH:MM
MONTHDAYS of MONTHS|month HH:MM
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

from careflow.scheduler.errors import InvalidSchedule
from careflow.scheduler.wall_clock import EVERY_MONTH, Days, WallClock

ACCEPTED = (
    "'every N minutes', 'every N hours', either with 'synchronized' or 'from HH:MM to HH:MM', "
    "'every day HH:MM', 'every monday HH:MM', 'first monday of sep,oct HH:MM', '1,15 of month HH:MM'"
)

_MINUTES_OF_DAY = 24 * 60
_INTERVAL = re.compile(
    r"every (?P<count>[0-9]{1,4}) (?P<unit>minutes?|mins?|hours?)"
    r"(?: from (?P<first>[0-9:]+) to (?P<last>[0-9:]+)|(?P<grid> synchronized))?"
)
_CALENDAR = re.compile(r"(?P<days>.+?)(?: of (?P<months>[a-z,]+))? (?P<time>[0-9:]+)")
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_ORDINALS = MappingProxyType(
    {
        word: number
        for number, words in enumerate(
            (("1st", "first"), ("2nd", "second"), ("3rd", "third"), ("4th", "fourth"), ("5th", "fifth")), 1
        )
        for word in words
    }
)


def _by_name(names: str, start: int) -> MappingProxyType[str, int]:
    """Full names and their first three letters."""
    numbered = list(enumerate(names.split(), start))
    return MappingProxyType({form: number for number, name in numbered for form in (name, name[:3])})


_WEEKDAYS = _by_name("sunday monday tuesday wednesday thursday friday saturday", 0)
_MONTHS = _by_name("january february march april may june july august september october november december", 1)


@dataclass(frozen=True, slots=True)
class Interval:
    """A slot `every` so long after the end of the execution before."""

    every: timedelta

    @property
    def from_end(self) -> bool:
        return True

    def next_after(self, instant: datetime) -> datetime | None:
        """`instant`, the end of the execution before, and the interval."""
        return instant + self.every


def is_groc(text: str) -> bool:
    """Whether this is meant as an English-like schedule: no cron field has these words."""
    return re.search(r"\b(every|of|synchronized)\b", text.lower()) is not None


def parse_groc(text: str, zone: ZoneInfo) -> WallClock | Interval:
    """An English-like schedule. Raises InvalidSchedule."""
    words = " ".join(text.lower().split())
    if match := _INTERVAL.fullmatch(words):
        return _interval(text, zone, match)
    if match := _CALENDAR.fullmatch(words):
        return _calendar(text, zone, match)
    raise _refused(text, "it is none of the forms known")


def _refused(text: str, problem: str) -> InvalidSchedule:
    return InvalidSchedule("schedule", text, problem, ACCEPTED)


def _interval(text: str, zone: ZoneInfo, match: re.Match[str]) -> WallClock | Interval:
    minutes = int(match["count"]) * (60 if match["unit"].startswith("hour") else 1)
    if not minutes:
        raise _refused(text, "an interval is a minute or longer")
    if match["grid"]:
        if _MINUTES_OF_DAY % minutes:
            raise _refused(text, "a synchronized interval must divide 24 hours")
        return WallClock(Days(), frozenset(range(0, _MINUTES_OF_DAY, minutes)), zone)
    if match["first"]:
        first, last = _time(text, match["first"]), _time(text, match["last"])
        if last < first:
            raise _refused(text, "'from' must not be later than 'to'")
        return WallClock(Days(), frozenset(range(first, last + 1, minutes)), zone)
    return Interval(timedelta(minutes=minutes))


def _calendar(text: str, zone: ZoneInfo, match: re.Match[str]) -> WallClock:
    words = match["days"].split(" ")
    months = _months(text, match["months"])
    match words:
        case ["every", "day"]:
            days = Days(months=months)
        case ["every", weekdays]:
            days = Days(months=months, weekdays=_listed(text, weekdays, _WEEKDAYS, "weekdays"))
        case [ordinals, weekdays] if match["months"]:
            days = Days(
                months=months,
                weekdays=_listed(text, weekdays, _WEEKDAYS, "weekdays"),
                ordinals=_listed(text, ordinals, _ORDINALS, "ordinals 'first' to 'fifth'"),
            )
        case [month_days] if match["months"]:
            days = Days(months=months, month_days=_month_days(text, month_days))
        case _:
            raise _refused(text, f"{match['days']!r} does not say which days")
    if not days.possible:
        raise _refused(text, "no month named has such a day")
    return WallClock(days, frozenset({_time(text, match["time"])}), zone)


def _months(text: str, names: str | None) -> frozenset[int]:
    if names in (None, "month"):
        return EVERY_MONTH
    return _listed(text, names, _MONTHS, "months")


def _listed(text: str, words: str, known: MappingProxyType[str, int], what: str) -> frozenset[int]:
    for word in words.split(","):
        if word not in known:
            raise _refused(text, f"{word!r} is not one of the {what}")
    return frozenset(known[word] for word in words.split(","))


def _month_days(text: str, words: str) -> frozenset[int]:
    for word in words.split(","):
        if not re.fullmatch("[0-9]{1,2}", word) or not 1 <= int(word) <= 31:
            raise _refused(text, f"{word!r} is not a day of the month, 1 to 31")
    return frozenset(int(word) for word in words.split(","))


def _time(text: str, words: str) -> int:
    """Minutes since midnight."""
    match = _TIME.fullmatch(words)
    if match is None:
        raise _refused(text, f"{words!r} is not a time from 00:00 to 23:59")
    return int(match[1]) * 60 + int(match[2])
