"""When a failed attempt is tried again: Cloud Scheduler's rules (reference/cloud-scheduler section 5), and nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta

from careflow.google_api import backoff
from careflow.scheduler.model import RetryConfig


def retry_delay(config: RetryConfig, retry: int) -> timedelta:
    """How long after the failure the `retry`th retry (from 1) starts."""
    return backoff.retry_delay(
        retry,
        min_backoff=config.min_backoff,
        max_backoff=config.max_backoff,
        max_doublings=config.max_doublings,
    )


def next_retry(
    config: RetryConfig, *, failures: int, first_started_at: datetime, failed_at: datetime
) -> datetime | None:
    """When to try again after the `failures`th failure (from 1), or None to stop.

    A limit that is set stops the retries once it is reached; of two, only both together do. No retry starts later than the
    time limit after the first attempt began, unless the count alone still allows it.
    """
    by_count = config.retry_count > 0
    by_time = config.max_retry_duration > timedelta(0)
    at = failed_at + retry_delay(config, failures)
    allowed_by_count = by_count and failures <= config.retry_count
    allowed_by_time = by_time and at <= first_started_at + config.max_retry_duration
    return at if allowed_by_count or allowed_by_time else None
