"""How fast tasks may start, and when a failed one is tried again: decisions without a clock or a queue."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """The limits of one queue.

    `per_second` bounds how many deliveries start in a second of the clock (`math.inf`: no bound), `in_flight` how many run at
    a time. A task is tried `max_deliveries` times, the first included, `min_backoff` to `max_backoff` apart. Where a name
    that was given up cannot be used again (Cloud Tasks) it is tried on until `retry_for` after the first time as well.
    """

    per_second: float = math.inf
    in_flight: int = 4
    max_deliveries: int = 30
    min_backoff: timedelta = timedelta(seconds=2)
    max_backoff: timedelta = timedelta(seconds=60)
    retry_for: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        for name, value in (
            ("per_second", self.per_second),
            ("in_flight", self.in_flight),
            ("max_deliveries", self.max_deliveries),
        ):
            if not value > 0:
                raise ValueError(f"{name} is {value}, it must be greater than 0")
        if not timedelta(0) < self.min_backoff <= self.max_backoff:
            raise ValueError(
                f"min_backoff {self.min_backoff} must be positive and at most {self.max_backoff}"
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a delivery brought back: the HTTP status, None when there was no answer; and its Retry-After, if any."""

    status: int | None
    retry_after: timedelta | None = None

    @property
    def accepted(self) -> bool:
        """Whether the task is done: 2xx (reference/google-cloud section 1)."""
        return self.status is not None and 200 <= self.status < 300


def backoff(limits: QueueLimits, deliveries: int, answer: Answer, random: Callable[[], float]) -> timedelta:
    """How long to wait after the failed delivery number `deliveries` (from 1).

    The ceiling doubles from twice the minimum up to the maximum; the wait is drawn from the ceiling's upper half, so that tasks
    which failed together do not come back together. A longer Retry-After is honoured. `random` draws from [0, 1).
    """
    doublings = min(deliveries, 16)  # keeps the product a timedelta
    ceiling = min(limits.max_backoff, limits.min_backoff * (1 << doublings))
    floor = max(limits.min_backoff, ceiling / 2)
    wait = floor + (ceiling - floor) * random()
    return wait if answer.retry_after is None else max(wait, answer.retry_after)


class Pace:
    """A token bucket that holds `burst` tokens: with one, starts are never closer together than the rate allows."""

    def __init__(self, per_second: float, burst: int = 1) -> None:
        self._full_at: datetime | None = None  # when the bucket is full again; None: it always was
        self.change(per_second, burst)

    def change(self, per_second: float, burst: int = 1) -> None:
        """From now on another rate; what has been started counts."""
        self._interval = timedelta(seconds=1 / per_second)
        self._burst = burst

    def allowed(self, now: datetime, wanted: int) -> int:
        """How many of `wanted` may start at `now`."""
        if not self._interval:
            return wanted
        return max(0, min(wanted, self._burst - math.ceil(self._lacking(now) / self._interval)))

    def wait(self, now: datetime) -> float:
        """Seconds until the next may start; 0 when it may start now. A clock that was set back does not make it longer."""
        return max(0.0, (self._lacking(now) - (self._burst - 1) * self._interval).total_seconds())

    def started(self, now: datetime) -> None:
        """One starts at `now`."""
        self._full_at = now + self._lacking(now) + self._interval

    def _lacking(self, now: datetime) -> timedelta:
        """How long the bucket needs until it is full."""
        if self._full_at is None:
            return timedelta(0)
        self._full_at = min(self._full_at, now + self._burst * self._interval)
        return max(timedelta(0), self._full_at - now)
