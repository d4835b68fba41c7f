"""How long Cloud Tasks and Cloud Scheduler wait before they try again: one curve (reference/cloud-scheduler section 5)."""

from __future__ import annotations

from datetime import timedelta

_MOST_DOUBLINGS = 70  # one microsecond doubled so often is longer than any timedelta


def retry_delay(
    retry: int, *, min_backoff: timedelta, max_backoff: timedelta, max_doublings: int
) -> timedelta:
    """How long after the failure the `retry`th retry (from 1) starts: doubled `max_doublings` times, then linear, then capped."""
    doublings = min(max_doublings, _MOST_DOUBLINGS)
    micros = min_backoff // timedelta(microseconds=1)
    factor = 2 ** (retry - 1) if retry <= doublings + 1 else 2**doublings * (retry - doublings)
    return timedelta(microseconds=min(micros * factor, max_backoff // timedelta(microseconds=1)))
