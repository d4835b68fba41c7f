"""What the two queues are and how fast they may go: the one place that says so, for the embedded queue and for Cloud Tasks."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from careflow.ports import Task
from careflow.tasks.pacing import QueueLimits

_NAME = re.compile(r"[A-Za-z0-9_-]{1,500}")  # Cloud Tasks' rule, so that both queues take the same names


def queue_limits(*, calls_per_second: float, calls_in_flight: int) -> dict[str, QueueLimits]:
    """The limits of each queue; infra/queues.tf says the same, and a test compares them.

    A call's task must outlast every outage of its window, which is at most a day. A closing's must outlast the grace that a
    telephone call has at the window's end; and a round that is still open gets another task every hour (pulse/outbox.py).
    """
    return {
        "calls": QueueLimits(
            per_second=calls_per_second, in_flight=calls_in_flight, retry_for=timedelta(hours=24)
        ),
        "rounds": QueueLimits(per_second=5, retry_for=timedelta(hours=2)),
    }


def cloud_tasks_settings(limits: QueueLimits) -> dict[str, Any]:
    """The limits as a Queue of Cloud Tasks v2 has them, in JSON: `rateLimits` and `retryConfig`."""
    return {
        "rateLimits": {
            "maxDispatchesPerSecond": limits.per_second,
            "maxConcurrentDispatches": limits.in_flight,
        },
        "retryConfig": {
            "maxAttempts": limits.max_deliveries,
            "maxRetryDuration": _seconds(limits.retry_for),
            "minBackoff": _seconds(limits.min_backoff),
            "maxBackoff": _seconds(limits.max_backoff),
            "maxDoublings": math.ceil(math.log2(limits.max_backoff / limits.min_backoff)),
        },
    }


def check_task(task: Task, queues: Collection[str]) -> None:
    """Raises ValueError for a task that no queue would take."""
    if task.queue not in queues:
        raise ValueError(f"queue {task.queue!r} is none of {', '.join(sorted(queues))}")
    if not _NAME.fullmatch(task.name):
        raise ValueError(f"task name {task.name!r} does not match {_NAME.pattern}")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g}s"
