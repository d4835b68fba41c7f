"""Schedules: what is accepted, when it fires, and what the clock changes do to it (reference/cloud-scheduler section 6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from careflow.scheduler.errors import InvalidSchedule
from careflow.scheduler.schedule import parse_schedule, parse_zone, slots_between

NEW_YORK = "America/New_York"
START = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


def slots(text, zone="UTC", *, after=START, count=3, form="%m-%d %H:%M"):
    """The next slots as clocks in the zone show them."""
    schedule, found = parse_schedule(text, zone), []
    for _ in range(count):
        after = schedule.next_after(after)
        assert after.tzinfo is UTC
        found.append(after.astimezone(ZoneInfo(zone)).strftime(form))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15 8 * * *", ["01-01 08:15", "01-02 08:15", "01-03 08:15"]),
        ("*/20 * * * *", ["01-01 00:20", "01-01 00:40", "01-01 01:00"]),
        ("5-30/10 6 * * *", ["01-01 06:05", "01-01 06:15", "01-01 06:25"]),
        ("0 8,12,20 * * *", ["01-01 08:00", "01-01 12:00", "01-01 20:00"]),
        ("0 0 * * MON-wed", ["01-05 00:00", "01-06 00:00", "01-07 00:00"]),
        ("0 0 * * 7", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * 0", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * 6-7", ["01-03 00:00", "01-04 00:00", "01-10 00:00"]),
        ("0 0 1 feb,APR *", ["02-01 00:00", "04-01 00:00", "02-01 00:00"]),
        ("0 0 31 * *", ["01-31 00:00", "03-31 00:00", "05-31 00:00"]),
        ("0 0 13 * 5", ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),  # both restricted: either
        ("0 0 13 * *", ["01-13 00:00", "02-13 00:00", "03-13 00:00"]),
        ("0 0 */15 * 6", ["01-03 00:00", "01-10 00:00", "01-16 00:00"]),  # a step is a restriction
        ("0 0 30 2 1", ["02-02 00:00", "02-09 00:00", "02-16 00:00"]),  # Mondays save 30 February
        ("  0   0  *\t* * ", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
    ],
)
def test_cron(text, expected):
    assert slots(text) == expected


def test_29_february_waits_for_a_leap_year():
    assert slots("0 0 29 2 *", count=2, form="%Y-%m-%d") == ["2028-02-29", "2032-02-29"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("every 12 hours synchronized", ["01-01 12:00", "01-02 00:00", "01-02 12:00"]),
        ("every 2 hours synchronized", ["01-01 02:00", "01-01 04:00", "01-01 06:00"]),
        ("every 30 mins from 10:00 to 11:00", ["01-01 10:00", "01-01 10:30", "01-01 11:00"]),
        ("every 45 minutes from 10:00 to 11:00", ["01-01 10:00", "01-01 10:45", "01-02 10:00"]),
        ("every day 00:00", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        ("every monday 09:00", ["01-05 09:00", "01-12 09:00", "01-19 09:00"]),
        ("Every Mon,Wed of March 9:00", ["03-02 09:00", "03-04 09:00", "03-09 09:00"]),
        ("2nd,third mon,wed of march 17:00", ["03-09 17:00", "03-11 17:00", "03-16 17:00"]),
        ("1,8,15 of month 09:00", ["01-01 09:00", "01-08 09:00", "01-15 09:00"]),
        ("first monday of sep,oct,nov 17:00", ["09-07 17:00", "10-05 17:00", "11-02 17:00"]),
        ("fifth saturday of month 06:30", ["01-31 06:30", "05-30 06:30", "08-29 06:30"]),
    ],
)
def test_english_like(text, expected):
    assert slots(text) == expected


@pytest.mark.parametrize(("text", "minutes"), [("every 5 minutes", 5), ("every 12 hours", 720)])
def test_a_plain_interval_is_counted_from_the_end_of_the_run_before(text, minutes):
    schedule = parse_schedule(text, NEW_YORK)
    ended = START + timedelta(seconds=17)
    assert schedule.from_end
    assert schedule.next_after(ended) == ended + timedelta(minutes=minutes)
    assert not parse_schedule("* * * * *", NEW_YORK).from_end


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("* * * *", "4 fields"),
        ("0 15 8 * * *", "6 fields"),
        ("@daily", "1 fields"),
        ("0 0 L * *", "day-of-month 'l'"),
        ("0 0 ? * *", "day-of-month '?'"),
        ("0 0 15W * *", "day-of-month '15w'"),
        ("0 0 * * 5#2", "day-of-week '5#2'"),
        ("60 * * * *", "minute '60'"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day-of-month '0'"),
        ("* * * 13 *", "month '13'"),
        ("* * * * 8", "day-of-week '8'"),
        ("* * * * JAN", "day-of-week 'jan'"),
        ("* * * january *", "month 'january'"),
        ("MON * * * *", "minute 'mon'"),
        ("-5 * * * *", "minute '-5'"),
        ("1.5 * * * *", "minute '1.5'"),
        ("٣ * * * *", "minute '٣'"),
        ("1,,2 * * * *", "minute ''"),
        ("*/0 * * * *", "minute '*/0'"),
        ("*/61 * * * *", "minute '*/61'"),
        ("5/15 * * * *", "minute '5/15'"),
        ("* 22-2 * * *", "hour '22-2'"),
        ("* * * * FRI-MON", "day-of-week 'fri-mon'"),
        ("0 0 30 2 *", "such a day"),
        ("0 0 31 4,6,9,11 *", "such a day"),
        ("every 0 minutes", "a minute or longer"),
        ("every 7 hours synchronized", "divide 24 hours"),
        ("every 30 mins from 22:00 to 02:00", "'from'"),
        ("every 5 seconds", "'every 5 seconds'"),
        ("every day", "'every day'"),
        ("every day 24:00", "'24:00'"),
        ("every caturday 09:00", "'caturday'"),
        ("sixth monday of march 09:00", "'sixth'"),
        ("first monday 09:00", "3 fields"),
        ("32 of month 09:00", "'32'"),
        ("31 of feb 09:00", "such a day"),
        ("1 of smarch 09:00", "'smarch'"),
    ],
)
def test_anything_else_is_refused_by_name(text, named):
    with pytest.raises(InvalidSchedule) as refused:
        parse_schedule(text, "UTC")
    assert refused.value.field == "schedule"
    assert refused.value.value == text
    assert named in str(refused.value)
    assert refused.value.accepted in str(refused.value)


@pytest.mark.parametrize("zone", ["", "utc", "UTC", "Etc/UTC", "GMT"])
def test_utc_has_many_names(zone):
    assert parse_schedule("15 8 * * *", zone).next_after(START) == START.replace(hour=8, minute=15)


@pytest.mark.parametrize(
    "zone",
    [
        "Mars/Olympus",
        "America",
        "../etc/passwd",
        "/etc/localtime",
        "New York",
        "EST5EDT4",
        "localtime",
        "-5",
        "\0",
    ],
)
def test_an_unknown_zone_is_refused(zone):
    with pytest.raises(InvalidSchedule) as refused:
        parse_zone(zone)
    assert (refused.value.field, refused.value.value) == ("time_zone", zone)


def test_a_slot_is_later_than_the_instant_asked_about():
    schedule = parse_schedule("15 8 * * *", NEW_YORK)
    slot = schedule.next_after(START)
    assert schedule.next_after(slot - timedelta(microseconds=1)) == slot
    assert schedule.next_after(slot) == slot + timedelta(days=1)
    assert schedule.next_after(slot + timedelta(microseconds=1)) == slot + timedelta(days=1)


def test_what_will_run_can_be_listed():
    week = slots_between(parse_schedule("15 8,20 * * *", NEW_YORK), START, START + timedelta(days=7))
    assert len(list(week)) == 14


class TestNewYorkSpringsForward:
    """2026-03-08: at 02:00 EST (07:00 UTC) clocks show 03:00 EDT."""

    BEFORE = datetime(2026, 3, 8, 5, 0, tzinfo=UTC)  # midnight
    CHANGE = datetime(2026, 3, 8, 7, 0, tzinfo=UTC)

    def slots(self, text, count=3):
        return slots(text, NEW_YORK, after=self.BEFORE, count=count, form="%d %H:%M %Z")

    def test_the_default_rounds_keep_their_local_time(self):
        assert self.slots("15 8 * * *", 2) == ["08 08:15 EDT", "09 08:15 EDT"]
        assert parse_schedule("15 8 * * *", NEW_YORK).next_after(self.BEFORE).hour == 12

    def test_a_time_in_the_skipped_hour_runs_once_at_the_first_instant_after_it(self):
        assert self.slots("30 2 * * *", 2) == ["08 03:00 EDT", "09 02:30 EDT"]
        assert parse_schedule("30 2 * * *", NEW_YORK).next_after(self.BEFORE) == self.CHANGE

    def test_several_times_in_the_skipped_hour_are_one_slot(self):
        assert self.slots("*/10 2 * * *", 2) == ["08 03:00 EDT", "09 02:00 EDT"]

    def test_a_skipped_time_and_one_right_after_the_gap_are_one_slot(self):
        assert self.slots("0 2,3 * * *", 2) == ["08 03:00 EDT", "09 02:00 EDT"]

    def test_every_hour_follows_elapsed_time(self):
        assert self.slots("30 * * * *") == ["08 00:30 EST", "08 01:30 EST", "08 03:30 EDT"]
        minutes = slots_between(
            parse_schedule("* * * * *", NEW_YORK), self.BEFORE, self.BEFORE + timedelta(hours=4)
        )
        assert {later - earlier for earlier, later in pairwise(minutes)} == {timedelta(minutes=1)}

    def test_every_other_hour_names_fixed_times(self):
        assert self.slots("0 */2 * * *") == ["08 03:00 EDT", "08 04:00 EDT", "08 06:00 EDT"]

    def test_a_schedule_of_the_day_before_or_after_does_not_slip(self):
        assert self.slots("30 2 9 3 *", 1) == ["09 02:30 EDT"]
        assert self.slots("30 2 * * SUN", 2) == ["08 03:00 EDT", "15 02:30 EDT"]

    def test_english_like_times_have_the_same_policy(self):
        assert self.slots("every sunday 02:30", 2) == ["08 03:00 EDT", "15 02:30 EDT"]
        assert self.slots("every 1 hours synchronized") == ["08 01:00 EST", "08 03:00 EDT", "08 04:00 EDT"]


class TestNewYorkFallsBack:
    """2026-11-01: at 02:00 EDT (06:00 UTC) clocks show 01:00 EST."""

    BEFORE = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)  # midnight

    def slots(self, text, count=3):
        return slots(text, NEW_YORK, after=self.BEFORE, count=count, form="%d %H:%M %Z")

    def test_the_default_rounds_keep_their_local_time(self):
        assert self.slots("15 20 * * *", 2) == ["01 20:15 EST", "02 20:15 EST"]

    def test_a_time_in_the_repeated_hour_runs_once_in_the_first_pass(self):
        assert self.slots("30 1 * * *", 2) == ["01 01:30 EDT", "02 01:30 EST"]

    def test_asked_during_the_second_pass_it_has_run(self):
        second_pass = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
        assert slots("30 1 * * *", NEW_YORK, after=second_pass, count=1, form="%d %H:%M") == ["02 01:30"]

    def test_several_times_in_the_repeated_hour_run_once_each(self):
        assert self.slots("*/20 1,2 * * *", 4) == [
            "01 01:00 EDT",
            "01 01:20 EDT",
            "01 01:40 EDT",
            "01 02:00 EST",
        ]

    def test_every_hour_follows_elapsed_time(self):
        assert self.slots("30 * * * *", 4) == ["01 00:30 EDT", "01 01:30 EDT", "01 01:30 EST", "01 02:30 EST"]

    def test_every_other_hour_names_fixed_times(self):
        assert self.slots("0 1-23/2 * * *", 2) == ["01 01:00 EDT", "01 03:00 EST"]


class TestOtherChanges:
    def test_half_an_hour_forward_on_lord_howe(self):
        after = datetime(2026, 10, 3, 14, 0, tzinfo=UTC)  # 2026-10-04 02:00 becomes 02:30
        assert slots("15 2 * * *", "Australia/Lord_Howe", after=after, count=2) == [
            "10-04 02:30",
            "10-05 02:15",
        ]

    def test_half_an_hour_back_on_lord_howe(self):
        after = datetime(2026, 4, 4, 14, 0, tzinfo=UTC)  # 2026-04-05 02:00 becomes 01:30
        found = slots("45 * * * *", "Australia/Lord_Howe", after=after, count=3)
        assert found == ["04-05 01:45", "04-05 01:45", "04-05 02:45"]
        assert slots("45 1 * * *", "Australia/Lord_Howe", after=after, count=2) == [
            "04-05 01:45",
            "04-06 01:45",
        ]

    def test_midnight_skipped_in_cairo(self):
        after = datetime(2026, 4, 23, 20, 0, tzinfo=UTC)  # 2026-04-24 00:00 becomes 01:00
        assert slots("0 0 * * *", "Africa/Cairo", after=after, count=2) == ["04-24 01:00", "04-25 00:00"]
        assert slots("30 * 24 4 *", "Africa/Cairo", after=after, count=1) == ["04-24 01:30"]

    def test_the_hour_before_midnight_repeated_in_cairo(self):
        after = datetime(2026, 10, 29, 18, 0, tzinfo=UTC)  # 2026-10-30 00:00 becomes 23:00 of the 29th
        assert slots("30 23 * * *", "Africa/Cairo", after=after, count=2) == ["10-29 23:30", "10-30 23:30"]
        assert slots("0 0 * * *", "Africa/Cairo", after=after, count=2) == ["10-30 00:00", "10-31 00:00"]

    def test_midnight_undone_in_st_johns(self):
        after = datetime(2006, 10, 29, 2, 20, tzinfo=UTC)  # 2006-10-29 00:01 becomes 23:01 of the 28th
        found = slots("5,58 * 28 10 *", "America/St_Johns", after=after, count=3)
        assert found == ["10-28 23:58", "10-28 23:05", "10-28 23:58"]

    def test_a_whole_day_skipped_in_samoa(self):
        after = datetime(2011, 12, 30, 9, 0, tzinfo=UTC)  # 2011-12-29 23:00; the 30th never was
        assert slots("0 8 * * *", "Pacific/Apia", after=after, count=2) == ["12-31 00:00", "12-31 08:00"]
