"""Retries: the formula and the stop rules of reference/cloud-scheduler section 5."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from careflow.scheduler.model import RetryConfig
from careflow.scheduler.retries import next_retry, retry_delay

T0 = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)


def seconds(count):
    return timedelta(seconds=count)


def config(count=0, duration=0, low=5, high=3600, doublings=5):
    return RetryConfig(
        retry_count=count,
        max_retry_duration=seconds(duration),
        min_backoff=seconds(low),
        max_backoff=seconds(high),
        max_doublings=doublings,
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (config(low=10, high=300, doublings=3), [10, 20, 40, 80, 160, 240, 300, 300]),  # Google's own example
        (config(low=60, high=3600, doublings=16), [60, 120, 240]),  # the seed's jobs
        (config(), [5, 10, 20, 40, 80, 160, 320, 480]),  # the defaults
        (config(low=7, high=100, doublings=0), [7, 14, 21]),  # linear from the start
        (config(low=50, high=20), [20, 20]),  # the cap wins
        (config(low=1, high=3600, doublings=10_000), [1, 2, 4]),  # no huge numbers
    ],
)
def test_delays(settings, expected):
    delays = [retry_delay(settings, retry).total_seconds() for retry in range(1, len(expected) + 1)]
    assert delays == expected


def test_the_cap_holds_however_long_it_goes_on():
    assert retry_delay(config(doublings=10_000), 100_000) == seconds(3600)


def made(settings, limit=50):
    """How many retries follow when every attempt fails at once, and when the last one starts, in seconds."""
    at, failures = T0, 0
    while failures < limit:
        failures += 1
        following = next_retry(settings, failures=failures, first_started_at=T0, failed_at=at)
        if following is None:
            return failures - 1, (at - T0).total_seconds()
        at = following
    return limit, None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (config(), (0, 0)),  # neither limit: no retry
        (config(count=3, low=60), (3, 420)),  # the count alone, however long it takes: 60 + 120 + 240
        (config(count=1, low=3600), (1, 3600)),
        (config(duration=100, low=10, doublings=0), (4, 100)),  # at the very end of the time, and no later
        (
            config(count=1, duration=60, low=10, doublings=0),
            (3, 60),
        ),  # the count is reached before the time: on
        (
            config(count=5, duration=5, low=10, doublings=0),
            (5, 150),
        ),  # the time is reached before the count: on
    ],
)
def test_when_to_stop(settings, expected):
    assert made(settings) == expected


def test_the_delay_counts_from_the_end_of_the_failed_attempt():
    failed_at = T0 + seconds(33)
    assert next_retry(
        config(count=1), failures=1, first_started_at=T0, failed_at=failed_at
    ) == failed_at + seconds(5)


def test_no_retry_starts_after_the_time_limit():
    settings = config(duration=30, low=20)
    assert next_retry(settings, failures=1, first_started_at=T0, failed_at=T0 + seconds(10)) == T0 + seconds(
        30
    )
    assert next_retry(settings, failures=1, first_started_at=T0, failed_at=T0 + seconds(11)) is None
