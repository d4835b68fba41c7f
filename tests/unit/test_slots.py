"""Slots, windows and calling hours, above all across clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from careflow.core.patients import Patient
from careflow.core.slots import (
    Window,
    due_moment,
    first_dialable,
    local_instant,
    round_window,
    slot_date,
    within_calling_hours,
)

NEW_YORK = ZoneInfo("America/New_York")
HOURS = (8, 12, 20)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def patient(**changes: object) -> Patient:
    known: dict[str, object] = {
        "id": "p1",
        "hospital_id": "h",
        "given_name": "Ada",
        "family_name": "Test",
        "time_zone": "America/New_York",
        "hours": frozenset({8}),
    }
    return Patient(**(known | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hour", "now", "expected"),
    [
        (8, "2026-11-23T13:15", date(2026, 11, 23)),  # 08:15 in New York: on time
        (8, "2026-11-23T12:50", date(2026, 11, 23)),  # 07:50: forced ten minutes early
        (8, "2026-11-23T11:00", date(2026, 11, 23)),  # 06:00: two hours early to the minute
        (8, "2026-11-23T10:59", date(2026, 11, 22)),  # a minute earlier it is still yesterday's round
        (8, "2026-11-23T20:00", date(2026, 11, 23)),  # 15:00: forced in the afternoon
        (20, "2026-11-24T05:30", date(2026, 11, 23)),  # 00:30 the next day: a retry after midnight
        (20, "2026-11-24T01:15", date(2026, 11, 23)),  # 20:15, already tomorrow in UTC
    ],
)
def test_a_trigger_finds_its_round_s_date_late_or_early(hour: int, now: str, expected: date) -> None:
    assert slot_date(hour, NEW_YORK, utc(now)) == expected


def test_a_window_reaches_to_the_next_round_and_the_last_one_over_midnight() -> None:
    noon = round_window(date(2026, 11, 23), 12, HOURS, NEW_YORK)
    evening = round_window(date(2026, 11, 23), 20, HOURS, NEW_YORK)
    assert noon == Window(utc("2026-11-23T17:00"), utc("2026-11-24T01:00"))
    assert evening == Window(utc("2026-11-24T01:00"), utc("2026-11-24T13:00"))


class TestClockChanges:
    """New York: forward on 2026-03-08 at 02:00, back on 2026-11-01 at 02:00; other zones differ."""

    def test_an_evening_window_is_an_hour_shorter_in_the_spring_night(self) -> None:
        window = round_window(date(2026, 3, 7), 20, HOURS, NEW_YORK)
        assert window.end - window.start == timedelta(hours=11)

    def test_an_evening_window_is_an_hour_longer_in_the_autumn_night(self) -> None:
        window = round_window(date(2026, 10, 31), 20, HOURS, NEW_YORK)
        assert window.end - window.start == timedelta(hours=13)

    def test_a_skipped_time_moves_forward_by_the_gap(self) -> None:
        assert local_instant(date(2026, 3, 8), time(2, 30), NEW_YORK) == utc("2026-03-08T07:30")

    def test_of_a_repeated_time_the_first_is_meant(self) -> None:
        assert local_instant(date(2026, 11, 1), time(1, 30), NEW_YORK) == utc("2026-11-01T05:30")

    def test_half_hour_changes_are_followed(self) -> None:
        lord_howe = ZoneInfo("Australia/Lord_Howe")  # moves by 30 minutes on 2026-10-04
        assert local_instant(date(2026, 10, 4), time(2, 15), lord_howe) == utc("2026-10-03T15:45")

    def test_a_morning_call_is_at_eight_local_time_on_both_sides(self) -> None:
        for day in (date(2026, 3, 7), date(2026, 3, 8), date(2026, 10, 31), date(2026, 11, 1)):
            window = round_window(day, 8, HOURS, NEW_YORK)
            due = due_moment(patient(), 8, day, window)
            assert due is not None
            assert due.astimezone(NEW_YORK).time() == time(8)


class TestDueMoment:
    day = date(2026, 11, 23)
    window = round_window(day, 8, HOURS, NEW_YORK)

    def test_the_round_s_hour_is_meant_in_the_patient_s_own_zone(self) -> None:
        los_angeles = patient(time_zone="America/Los_Angeles")
        assert due_moment(los_angeles, 8, self.day, self.window) == utc("2026-11-23T16:00")

    def test_an_own_time_inside_the_window_comes_before_the_hour(self) -> None:
        own = patient(times=(time(11, 0), time(9, 30)))
        assert due_moment(own, 8, self.day, self.window) == utc("2026-11-23T14:30")

    def test_an_own_time_outside_the_window_is_another_round_s(self) -> None:
        own = patient(hours=frozenset(), times=(time(13, 0),))
        assert due_moment(own, 8, self.day, self.window) is None

    def test_an_own_time_early_in_the_morning_belongs_to_the_evening_before(self) -> None:
        evening = round_window(self.day, 20, HOURS, NEW_YORK)
        own = patient(hours=frozenset(), times=(time(7, 0),))
        assert due_moment(own, 20, self.day, evening) == utc("2026-11-24T12:00")

    def test_the_window_s_end_belongs_to_the_next_round(self) -> None:
        own = patient(hours=frozenset(), times=(time(12, 0),))
        assert due_moment(own, 8, self.day, self.window) is None

    def test_a_patient_without_this_hour_is_not_due(self) -> None:
        assert due_moment(patient(hours=frozenset({20})), 8, self.day, self.window) is None


class TestCallingHours:
    @pytest.mark.parametrize(
        ("local", "inside"),
        [("07:59", False), ("08:00", True), ("20:59", True), ("21:00", False), ("00:00", False)],
    )
    def test_start_is_included_and_end_is_not(self, local: str, inside: bool) -> None:
        moment = datetime.combine(date(2026, 11, 23), time.fromisoformat(local), NEW_YORK)
        assert within_calling_hours(patient(), moment) is inside

    def test_before_opening_the_opening_is_the_first_moment(self) -> None:
        assert first_dialable(patient(), utc("2026-11-23T11:00"), utc("2026-11-23T17:00")) == utc(
            "2026-11-23T13:00"
        )

    def test_after_closing_it_is_the_next_morning(self) -> None:
        assert first_dialable(patient(), utc("2026-11-24T02:30"), utc("2026-11-25T00:00")) == utc(
            "2026-11-24T13:00"
        )

    def test_there_is_none_when_the_window_ends_first(self) -> None:
        assert first_dialable(patient(), utc("2026-11-24T02:30"), utc("2026-11-24T13:00")) is None
        assert first_dialable(patient(), utc("2026-11-23T15:00"), utc("2026-11-23T15:00")) is None
