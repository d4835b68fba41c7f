"""Slots, windows and calling hours: where local time meets UTC. Everything returned is aware and in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from careflow.core.patients import Patient

EARLY = timedelta(hours=2)  # a forced run may come this long before its slot and still find its round


@dataclass(frozen=True, slots=True)
class Window:
    """The span a round owns: from its slot (included) to the next round's slot (excluded), in UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


def local_instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The UTC instant of a local wall time.

    A time that a clock change skips is moved forward by the gap; of a time that occurs twice the first is meant.
    """
    return datetime.combine(day, at.replace(fold=0), tzinfo=zone).astimezone(UTC)


def slot_date(hour: int, zone: ZoneInfo, now: datetime) -> date:
    """The local date of the latest occurrence of `hour`:00 in `zone` that is not later than now + 2 h (docs/rounds.md)."""
    latest = now + EARLY
    day = latest.astimezone(zone).date() + timedelta(days=1)
    while local_instant(day, time(hour), zone) > latest:
        day -= timedelta(days=1)
    return day


def round_window(day: date, hour: int, round_hours: tuple[int, ...], zone: ZoneInfo) -> Window:
    """The window of the round at `hour`:00 on `day`; `round_hours` are all rounds of a day, ascending."""
    later = [other for other in round_hours if other > hour]
    following = (day, later[0]) if later else (day + timedelta(days=1), round_hours[0])
    return Window(
        local_instant(day, time(hour), zone),
        local_instant(following[0], time(following[1]), zone),
    )


def _local_days(window: Window, zone: ZoneInfo) -> Iterator[date]:
    """Every local date in `zone` that the window touches."""
    day = window.start.astimezone(zone).date()
    last = window.end.astimezone(zone).date()
    while day <= last:
        yield day
        day += timedelta(days=1)


def due_moment(patient: Patient, hour: int, day: date, window: Window) -> datetime | None:
    """When the patient wants to be phoned in this window, or None when the round is not the patient's.

    The patient's own times that fall in the window come first (the earliest of them); otherwise the round's hour on the
    round's date in the patient's own zone. That may lie before the window in a zone ahead of the hospital's: the
    call is then due at once.
    """
    zone = ZoneInfo(patient.time_zone)
    own = [
        moment
        for local_day in _local_days(window, zone)
        for at in patient.times
        if (moment := local_instant(local_day, at, zone)) in window
    ]
    if own:
        return min(own)
    if hour in patient.hours:
        return local_instant(day, time(hour), zone)
    return None


def within_calling_hours(patient: Patient, moment: datetime) -> bool:
    """Whether `moment` lies in the patient's calling hours, in the patient's own zone."""
    local = moment.astimezone(ZoneInfo(patient.time_zone)).time()
    return patient.calling_from <= local < patient.calling_until


def first_dialable(patient: Patient, not_before: datetime, not_after: datetime) -> datetime | None:
    """The first permitted moment in [not_before, not_after), or None when there is none."""
    zone = ZoneInfo(patient.time_zone)
    if not_before >= not_after:
        return None
    if within_calling_hours(patient, not_before):
        return not_before
    day = not_before.astimezone(zone).date()
    while True:
        opening = local_instant(day, patient.calling_from, zone)
        if opening >= not_after:
            return None
        if opening >= not_before and within_calling_hours(patient, opening):
            return opening
        day += timedelta(days=1)
