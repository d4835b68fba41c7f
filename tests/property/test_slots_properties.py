"""Calling hours and windows, over all zones and the whole year."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from careflow.core.patients import Patient
from careflow.core.rounds import Trigger, plan, round_for
from careflow.core.slots import first_dialable, round_window, slot_date, within_calling_hours

ZONES = st.sampled_from(
    [
        "America/New_York",
        "America/Los_Angeles",
        "Pacific/Honolulu",
        "Europe/London",
        "Australia/Lord_Howe",  # half-hour clock change
        "America/Santiago",  # changes at midnight
        "Asia/Kathmandu",  # +05:45
        "Pacific/Kiritimati",  # +14
    ]
)
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(  # noqa: DTZ001 - made aware here
    lambda moment: moment.replace(tzinfo=UTC, second=0, microsecond=0)
)
QUARTERS = st.integers(0, 95).map(lambda count: time(count // 4, 15 * (count % 4)))


@st.composite
def patients(draw: st.DrawFn) -> Patient:
    opening, closing = sorted((draw(QUARTERS), draw(QUARTERS)))
    return Patient(
        id="p",
        hospital_id="h",
        given_name="A",
        family_name="B",
        phone="+12125550101",
        time_zone=draw(ZONES),
        consent=True,
        hours=frozenset(draw(st.sets(st.sampled_from([8, 12, 20])))),
        times=tuple(draw(st.lists(QUARTERS, max_size=3))),
        calling_from=opening,
        calling_until=closing,
    )


@given(patients(), MOMENTS, st.integers(0, 60 * 24))
def test_the_first_dialable_moment_is_the_first_of_a_walk_over_every_minute(
    patient: Patient, start: datetime, minutes: int
) -> None:
    end = start + timedelta(minutes=minutes)
    walk = (start + timedelta(minutes=minute) for minute in range(minutes))
    expected = next((moment for moment in walk if within_calling_hours(patient, moment)), None)
    assert first_dialable(patient, start, end) == expected


@given(ZONES, MOMENTS)
def test_windows_of_a_day_s_rounds_meet_without_gap_or_overlap(zone_name: str, now: datetime) -> None:
    zone, hours = ZoneInfo(zone_name), (8, 12, 20)
    day = slot_date(8, zone, now)
    windows = [round_window(day, hour, hours, zone) for hour in hours]
    windows.append(round_window(day + timedelta(days=1), 8, hours, zone))
    assert all(one.end == other.start for one, other in itertools.pairwise(windows))


@given(patients(), MOMENTS, st.sampled_from([8, 12, 20]), ZONES)
def test_a_planned_call_lies_in_window_and_calling_hours(
    patient: Patient, now: datetime, hour: int, zone: str
) -> None:
    trigger = Trigger(
        schedule_hour=hour,
        time_zone=zone,
        trigger_type="scheduled",
        source="s",
        environment="prod",
        hospital_id="h",
    )
    round_ = round_for(trigger, now, (8, 12, 20))
    call = plan(round_, patient, now, do_not_call=False)
    if call is not None and call.outcome is None:
        assert call.due_at in round_.window
        assert call.due_at >= now
        assert within_calling_hours(patient, call.due_at)
