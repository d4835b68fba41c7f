"""Schedules against a slow oracle that walks every minute and knows nothing of how they are computed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from careflow.scheduler.schedule import parse_schedule, slots_between

MINUTE = timedelta(minutes=1)
DAYS = 4

# Around changes of an hour, of half an hour, of two, of a whole day; at night, at midnight, backwards over midnight; and none.
MOMENTS = [
    ("America/New_York", "2026-03-07"),
    ("America/New_York", "2026-10-31"),
    ("Australia/Lord_Howe", "2026-04-03"),
    ("Australia/Lord_Howe", "2026-10-02"),
    ("Africa/Cairo", "2026-04-22"),
    ("Africa/Cairo", "2026-10-28"),
    ("America/Havana", "2026-03-07"),
    ("America/Havana", "2026-10-31"),
    ("Asia/Beirut", "2026-03-27"),
    ("America/St_Johns", "2006-10-28"),
    ("America/St_Johns", "2007-03-10"),
    ("Antarctica/Troll", "2026-03-27"),
    ("Antarctica/Troll", "2026-10-23"),
    ("Pacific/Apia", "2011-12-28"),
    ("Africa/Monrovia", "1972-01-05"),
    ("Asia/Kathmandu", "2026-02-27"),
    ("UTC", "2028-02-27"),
]


@st.composite
def fields(draw, low, high):
    """A field's text and the values that it means."""
    if draw(st.booleans()):
        return "*", set(range(low, high + 1))
    items, values = [], set()
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, 6))
        match draw(st.sampled_from(["value", "range", "step", "star"])):
            case "value":
                items.append(str(first))
                values.add(first)
            case "range":
                items.append(f"{first}-{last}")
                values |= set(range(first, last + 1))
            case "step":
                items.append(f"{first}-{last}/{step}")
                values |= set(range(first, last + 1, step))
            case "star":
                items.append(f"*/{step}")
                values |= set(range(low, high + 1, step))
    return ",".join(items), values


def walk(start, zone, matches, *, elapsed):
    """Every slot of the days after `start`, minute by minute; `matches` is asked about what a clock on the wall shows."""
    zone = ZoneInfo(zone)
    found, shown = [], set()
    before = None
    second = start - timedelta(days=2)
    second += timedelta(seconds=-second.astimezone(zone).second % 60)
    at = second
    while at <= start + timedelta(days=DAYS):
        wall = at.astimezone(zone).replace(tzinfo=None, fold=0)
        if wall.second:  # the offset changed by seconds: be on the minute again
            at += timedelta(seconds=60 - wall.second)
            continue
        hit = matches(wall) and (elapsed or wall not in shown)
        if not elapsed and before is not None:
            skipped = before + MINUTE
            while skipped < wall and not hit:
                hit = matches(skipped)
                skipped += MINUTE
        if hit and at > start:
            found.append(at)
        shown.add(wall)
        before = wall
        at += MINUTE
    return found


@settings(max_examples=150, deadline=None)
@given(
    moment=st.sampled_from([one for one in MOMENTS if one[0] != "Africa/Monrovia"]),
    minute=fields(0, 59),
    hour=fields(0, 23),
    month_day=fields(1, 31),
    month=fields(1, 12),
    weekday=fields(0, 7),
    offset=st.integers(0, 86_400),
)
@example(MOMENTS[0], ("30", {30}), ("2", {2}), ("*", set()), ("*", set(range(13))), ("*", set()), 3)
@example(MOMENTS[1], ("30", {30}), ("1", {1}), ("*", set()), ("*", set(range(13))), ("*", set()), 3)
def test_cron_slots_are_exactly_the_oracles(moment, minute, hour, month_day, month, weekday, offset):
    zone, day = moment
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(seconds=offset)
    weekdays = {day % 7 for day in weekday[1]}

    def on(wall):
        if wall.month not in month[1]:
            return False
        in_month, in_week = wall.day in month_day[1], wall.isoweekday() % 7 in weekdays
        if month_day[0] == "*" and weekday[0] == "*":
            return True
        if month_day[0] == "*":
            return in_week
        if weekday[0] == "*":
            return in_month
        return in_month or in_week

    def matches(wall):
        return wall.minute in minute[1] and wall.hour in hour[1] and on(wall)

    text = " ".join(field[0] for field in (minute, hour, month_day, month, weekday))
    if weekday[0] == "*" and not any(
        day <= (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[number - 1]
        for number in month[1] & set(range(1, 13))
        for day in month_day[1] or {1}
    ):
        return  # no such day; refused, as test_schedule has it
    elapsed = hour[1] == set(range(24))
    expected = walk(start, zone, matches, elapsed=elapsed)
    schedule = parse_schedule(text, zone)
    found = list(slots_between(schedule, start, start + timedelta(days=DAYS)))
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(
    moment=st.sampled_from(MOMENTS[:-3]),
    count=st.sampled_from([1, 5, 15, 20, 30, 45, 60, 90, 120, 240, 720]),
    span=st.none() | st.tuples(st.integers(0, 1439), st.integers(0, 1439)).map(sorted),
    offset=st.integers(0, 86_400),
)
def test_english_like_grids_are_exactly_the_oracles(moment, count, span, offset):
    zone, day = moment
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(seconds=offset)
    first, last = span or (0, 1439)
    grid = set(range(first, last + 1, count))
    form = "from {:02}:{:02} to {:02}:{:02}".format(*divmod(first, 60), *divmod(last, 60))
    schedule = parse_schedule(f"every {count} minutes {form if span else 'synchronized'}", zone)
    every_hour = all((at % 60 + 60 * hour) in grid for at in grid for hour in range(24))
    expected = walk(start, zone, lambda wall: wall.hour * 60 + wall.minute in grid, elapsed=every_hour)
    assert list(slots_between(schedule, start, start + timedelta(days=DAYS))) == expected


def test_elapsed_time_survives_a_change_by_seconds():
    """Monrovia left an offset of 44 minutes and 30 seconds in January 1972."""
    start = datetime(1972, 1, 6, 20, 0, tzinfo=UTC)
    expected = walk(start, "Africa/Monrovia", lambda wall: wall.minute % 7 == 0, elapsed=True)
    schedule = parse_schedule("*/7 * * * *", "Africa/Monrovia")
    assert list(slots_between(schedule, start, start + timedelta(days=DAYS))) == expected
