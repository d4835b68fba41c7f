"""Slots at times of the day, on certain days, in a time zone; and what becomes of them when the clocks change.

The policy, where Cloud Scheduler's documentation is silent (reference/cloud-scheduler section 6):

- A schedule that has the same minutes in every hour of the day follows elapsed time: a slot whenever a clock on the wall
  shows its minute, in both passes of a repeated hour, and none in a skipped one.
- Every other schedule names fixed times. One in the skipped hour runs once, at the first instant after the gap (several in
  the same gap are one slot); one in the repeated hour runs once, in the first pass.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

EVERY_MONTH = frozenset(range(1, 13))

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_HORIZON = timedelta(
    days=366 * 60
)  # beyond the rarest day there is: a fifth Monday in February, 40 years around 2100
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """Which days of the calendar. None is "not restricted"; a day counts when either restriction takes it.

    `weekdays` count from Sunday, 0; `ordinals` say which of the month's: 1 is its first Monday, say.
    """

    months: frozenset[int] = EVERY_MONTH
    month_days: frozenset[int] | None = None
    weekdays: frozenset[int] | None = None
    ordinals: frozenset[int] | None = None

    def __contains__(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        if self.month_days is None and self.weekdays is None:
            return True
        if self.month_days is not None and day.day in self.month_days:
            return True
        return (
            self.weekdays is not None
            and day.isoweekday() % 7 in self.weekdays
            and (self.ordinals is None or (day.day + 6) // 7 in self.ordinals)
        )

    @property
    def possible(self) -> bool:
        """Whether any year has such a day: 30 February is none."""
        if self.weekdays is not None or self.month_days is None:
            return True
        return any(day <= _LONGEST_MONTH[month - 1] for month in self.months for day in self.month_days)

    def first_from(self, day: date, until: date) -> date | None:
        """The first such day that is `day` or later, and not after `until`."""
        while day <= until:
            if day in self:
                return day
            if day.month in self.months:
                day += _DAY
            else:
                day = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
        return None


class WallClock:
    """Slots on `days` at `times` (minutes since midnight) as clocks in `zone` show them."""

    from_end = False

    def __init__(self, days: Days, times: frozenset[int], zone: ZoneInfo) -> None:
        self._days = days
        self._times = sorted(times)
        self._zone = zone
        minutes = frozenset(at % 60 for at in times)
        # Length decides: every hour has every one of the minutes.
        self._minutes = sorted(minutes) if len(times) == 24 * len(minutes) else None

    def next_after(self, instant: datetime) -> datetime | None:
        """The first slot later than `instant`, in UTC; None when there is none in the next 60 years."""
        try:
            if self._minutes is None:
                return self._next_fixed(instant)
            return self._next_elapsed(instant, self._minutes)
        except OverflowError:  # the year 10000
            return None

    def _next_fixed(self, instant: datetime) -> datetime | None:
        wall = instant.astimezone(self._zone).replace(tzinfo=None, fold=0)
        until = (wall + _HORIZON).date()
        day = self._days.first_from(wall.date(), until)
        index = bisect_right(self._times, wall.hour * 60 + wall.minute) if day == wall.date() else 0
        while day is not None:
            while index < len(self._times):
                at = self._times[index]
                slot = first_instant(datetime.combine(day, time(at // 60, at % 60)), self._zone)
                if slot > instant:
                    return slot
                index += 1  # in the second pass of a repeated hour, or in one gap with the slot before
            day, index = self._days.first_from(day + _DAY, until), 0
        return None

    def _next_elapsed(self, instant: datetime, minutes: list[int]) -> datetime | None:
        at = instant.replace(microsecond=0) + timedelta(seconds=1)
        until = (at + _HORIZON).date()
        while True:
            local = at.astimezone(self._zone)
            if local.second:
                at += timedelta(seconds=60 - local.second)
                continue
            if local.date() not in self._days:
                day = self._days.first_from(local.date() + _DAY, until)
                if day is None:
                    return None
                # Clocks that are set back over midnight return to yesterday: then not even a day is skipped.
                steady = (at + _DAY).astimezone(self._zone).utcoffset() == local.utcoffset()
                if steady or local.date() - _DAY not in self._days:
                    # A midnight that comes twice may lie behind us.
                    at = max(at + _MINUTE, first_instant(datetime.combine(day, time()), self._zone))
                else:
                    at += _MINUTE
                continue
            index = bisect_right(minutes, local.minute - 1)
            ahead = (minutes[index] if index < len(minutes) else 60) - local.minute
            if not ahead:
                return at
            then = at + timedelta(minutes=ahead)
            # Where the clocks change on the way, every minute is looked at.
            same = then.astimezone(self._zone).utcoffset() == local.utcoffset()
            at = then if same else at + _MINUTE


def first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When clocks in `zone` first show the naive time `wall`; for one that they skip, the first instant after the gap. UTC."""
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None, fold=0) == wall:
        return instant
    # Read with the offset after the gap a skipped time lies before the change, with the one before the gap not before it.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    offset = instant.astimezone(zone).utcoffset()
    seconds = int((instant - before).total_seconds())
    low, high = 0, seconds  # `before + low` is before the change, `before + high` is not
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return before + timedelta(seconds=high)
