"""The Queue and Task resources of Cloud Tasks v2: from JSON and to it, with their rules (reference/google-cloud section 1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from careflow.google_api import http_target, masks, names, wire
from careflow.google_api.codes import Code as RpcCode
from careflow.google_api.codes import code_of
from careflow.google_api.refusals import invalid
from careflow.google_api.wire import Leaf, Message, NotImitated, OutputOnly, Tree
from careflow.lab.cloud_tasks.model import Attempt, Queue, QueueState, RetryConfig, Task

USER_AGENT = "Google-Cloud-Tasks"

TASK_BYTES = 100 * 1024
MOST_PER_SECOND = 500.0
MOST_IN_FLIGHT = 5000
FARTHEST = timedelta(days=30)
DEADLINES = (timedelta(seconds=15), timedelta(minutes=30))
LONGEST_DURATION = timedelta(
    days=3650
)  # not documented; keeps the moments that retries lead to in the calendar

STATES = {"STATE_UNSPECIFIED": 0, "RUNNING": 1, "PAUSED": 2, "DISABLED": 3}
VIEWS = {"VIEW_UNSPECIFIED": 0, "BASIC": 1, "FULL": 2}

_ELSEWHERE = "this is not imitated by the lab's Cloud Tasks"

QUEUE = Message(
    {
        "name": Leaf(wire.text),
        "appEngineRoutingOverride": NotImitated(f"{_ELSEWHERE}; its tasks are HTTP requests"),
        "httpTarget": NotImitated(f"{_ELSEWHERE}; each task says its own httpRequest"),
        "rateLimits": Message(
            {
                "maxDispatchesPerSecond": Leaf(wire.number),
                "maxBurstSize": OutputOnly(),
                "maxConcurrentDispatches": Leaf(wire.whole_number),
            }
        ),
        "retryConfig": Message(
            {
                "maxAttempts": Leaf(wire.whole_number),
                "maxRetryDuration": Leaf(wire.duration),
                "minBackoff": Leaf(wire.duration),
                "maxBackoff": Leaf(wire.duration),
                "maxDoublings": Leaf(wire.whole_number),
            }
        ),
        "state": OutputOnly(),
        "purgeTime": OutputOnly(),
        "stackdriverLoggingConfig": Message({"samplingRatio": Leaf(wire.number)}),
    }
)

TASK = Message(
    {
        "name": Leaf(wire.text),
        "appEngineHttpRequest": NotImitated(f"{_ELSEWHERE}; accepted is httpRequest"),
        "httpRequest": http_target.schema("url"),
        "scheduleTime": Leaf(wire.timestamp),
        "createTime": OutputOnly(),
        "dispatchDeadline": Leaf(wire.duration),
        "dispatchCount": OutputOnly(),
        "responseCount": OutputOnly(),
        "firstAttempt": OutputOnly(),
        "lastAttempt": OutputOnly(),
        "view": OutputOnly(),
        "retryConfig": NotImitated(f"{_ELSEWHERE}; accepted is the retryConfig of the queue"),
    }
)

_QUEUE_NAME = rf"{names.LOCATION_NAME}/queues/[A-Za-z0-9-]{{1,100}}"
_QUEUE = re.compile(_QUEUE_NAME)
_TASK = re.compile(rf"{_QUEUE_NAME}/tasks/[A-Za-z0-9_-]{{1,500}}")


# --- names -----------------------------------------------------------------------------------------------------


def checked_queue(name: str, field: str = "name") -> str:
    """A queue's full name. Raises Refused."""
    if not _QUEUE.fullmatch(name):
        raise invalid(
            field,
            'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>", and the queue id'
            " of 1 to 100 letters, digits and hyphens.",
            name,
        )
    return name


def checked_task(name: str, field: str = "name") -> str:
    """A task's full name. Raises Refused."""
    if not _TASK.fullmatch(name):
        raise invalid(
            field,
            "Task name must be formatted: the name of its queue, /tasks/<TASK_ID>, and the task id of 1 to 500 letters,"
            " digits, hyphens and underscores.",
            name,
        )
    return name


# --- queues ----------------------------------------------------------------------------------------------------


def new_queue(body: Any, parent: str) -> Queue:
    """The queue that a create asks for. Raises Refused."""
    tree = wire.read(QUEUE, body, "queue")
    name = checked_queue(tree.get("name", ""), "queue.name")
    if not name.startswith(f"{parent}/queues/"):
        raise invalid("queue.name", f"must be under the parent of the request, {parent}", name)
    return _queue(tree, name)


def read_queue(body: Any) -> Tree:
    """The tree of an update's body. Raises Refused."""
    return wire.read(QUEUE, body, "queue")


def updated_queue(stored: Queue, body: Tree, chosen: Sequence[masks.Path] | None) -> Queue:
    """`stored` with what the mask chose of the body, or all of it. Raises Refused."""
    tree = body if chosen is None else masks.merge(QUEUE, _queue_tree(stored), body, chosen)
    fresh = _queue(tree, stored.name)
    return replace(fresh, state=stored.state, purge_time=stored.purge_time)


def _queue(tree: Tree, name: str) -> Queue:
    """What is not said takes the service's defaults, as does a rate of zero."""
    usual = Queue(name=name)
    rates = tree.get("rateLimits", {})
    per_second = rates.get("maxDispatchesPerSecond", usual.per_second)
    if not 0 < per_second <= MOST_PER_SECOND:
        raise invalid("queue.rateLimits.maxDispatchesPerSecond", "must be more than 0, up to 500", per_second)
    in_flight = rates.get("maxConcurrentDispatches", usual.in_flight)
    if not 1 <= in_flight <= MOST_IN_FLIGHT:
        raise invalid("queue.rateLimits.maxConcurrentDispatches", "must be 1 to 5000", in_flight)
    ratio = tree.get("stackdriverLoggingConfig", {}).get("samplingRatio", 0.0)
    if not 0 <= ratio <= 1:
        raise invalid("queue.stackdriverLoggingConfig.samplingRatio", "must be 0.0 to 1.0", ratio)
    return Queue(
        name=name,
        per_second=float(per_second),
        in_flight=in_flight,
        retry=_retry(tree.get("retryConfig", {})),
        sampling_ratio=float(ratio),
    )


def _retry(tree: Tree) -> RetryConfig:
    usual = RetryConfig()
    attempts = tree.get("maxAttempts", usual.max_attempts)
    if attempts < -1:
        raise invalid("queue.retryConfig.maxAttempts", "must be -1 (no limit) or more", attempts)
    doublings = tree.get("maxDoublings", usual.max_doublings)
    if doublings < 0:
        raise invalid("queue.retryConfig.maxDoublings", "must not be negative", doublings)
    least = _span(tree, "minBackoff", usual.min_backoff)
    most = _span(tree, "maxBackoff", usual.max_backoff)
    if least > most:
        raise invalid(
            "queue.retryConfig.minBackoff",
            f"must be at most maxBackoff, {wire.duration_text(most)}",
            wire.duration_text(least),
        )
    return RetryConfig(
        max_attempts=attempts,
        max_retry_duration=_span(tree, "maxRetryDuration", usual.max_retry_duration),
        min_backoff=least,
        max_backoff=most,
        max_doublings=doublings,
    )


def _span(tree: Tree, name: str, default: timedelta) -> timedelta:
    span: timedelta = tree.get(name, default)
    if not timedelta(0) <= span <= LONGEST_DURATION:
        longest = wire.duration_text(LONGEST_DURATION)
        raise invalid(f"queue.retryConfig.{name}", f"must be 0s to {longest}", wire.duration_text(span))
    return span


def _queue_tree(queue: Queue) -> Tree:
    """The user's part as a create would have set it."""
    tree: Tree = {
        "rateLimits": {
            "maxDispatchesPerSecond": queue.per_second,
            "maxConcurrentDispatches": queue.in_flight,
        },
        "retryConfig": {
            "maxAttempts": queue.retry.max_attempts,
            "maxRetryDuration": queue.retry.max_retry_duration,
            "minBackoff": queue.retry.min_backoff,
            "maxBackoff": queue.retry.max_backoff,
            "maxDoublings": queue.retry.max_doublings,
        },
    }
    if queue.sampling_ratio:
        tree["stackdriverLoggingConfig"] = {"samplingRatio": queue.sampling_ratio}
    return tree


def render_queue(queue: Queue, *, enum_numbers: bool = False) -> dict[str, Any]:
    """The queue as the service answers it."""
    retry = queue.retry
    shown: dict[str, Any] = {
        "name": queue.name,
        "rateLimits": {
            "maxDispatchesPerSecond": queue.per_second,
            "maxBurstSize": queue.burst,
            "maxConcurrentDispatches": queue.in_flight,
        },
        "retryConfig": wire.present(
            maxAttempts=retry.max_attempts,
            maxRetryDuration=wire.duration_text(retry.max_retry_duration) if retry.max_retry_duration else "",
            minBackoff=wire.duration_text(retry.min_backoff),
            maxBackoff=wire.duration_text(retry.max_backoff),
            maxDoublings=retry.max_doublings,
        ),
        "state": STATES[QueueState(queue.state).value] if enum_numbers else QueueState(queue.state).value,
    }
    if queue.purge_time:
        shown["purgeTime"] = wire.timestamp_text(queue.purge_time)
    if queue.sampling_ratio:
        shown["stackdriverLoggingConfig"] = {"samplingRatio": queue.sampling_ratio}
    return shown


# --- tasks -----------------------------------------------------------------------------------------------------


def new_task(body: Any, queue: str, invented_id: str, now: datetime) -> Task:
    """The task that a create asks for; without a name it is called `invented_id`. Raises Refused."""
    tree = wire.read(TASK, body, "task")
    name = checked_task(tree.get("name") or f"{queue}/tasks/{invented_id}", "task.name")
    if not name.startswith(f"{queue}/tasks/"):
        raise invalid("task.name", f"must be under the queue of the request, {queue}", name)
    if "httpRequest" not in tree:
        raise invalid("task.httpRequest", "is missing: a task has exactly one request")
    due: datetime = tree.get("scheduleTime", now)
    if due > now + FARTHEST:
        raise invalid("task.scheduleTime", "must be at most 30 days in the future", wire.timestamp_text(due))
    deadline: timedelta = tree.get("dispatchDeadline", Task.__dataclass_fields__["dispatch_deadline"].default)
    if not DEADLINES[0] <= deadline <= DEADLINES[1]:
        raise invalid("task.dispatchDeadline", "must be 15s to 1800s", wire.duration_text(deadline))
    task = Task(
        name=name,
        target=http_target.read(tree["httpRequest"], "task.httpRequest", "url"),
        schedule_time=due,
        create_time=now,
        dispatch_deadline=deadline,
    )
    size = len(name.encode()) + http_target.size(task.target)
    if size > TASK_BYTES:
        raise invalid("task", f"a task has at most {TASK_BYTES} bytes, not {size}")
    return task


def render_task(task: Task, *, full: bool = False, enum_numbers: bool = False) -> dict[str, Any]:
    """The task as the service answers it. The basic view leaves the body out."""
    request = http_target.render(task.target, "url", user_agent=USER_AGENT, enum_numbers=enum_numbers)
    if not full:
        request.pop("body", None)
    view = "FULL" if full else "BASIC"
    shown: dict[str, Any] = {
        "name": task.name,
        "httpRequest": request,
        "scheduleTime": wire.timestamp_text(task.schedule_time),
        "createTime": wire.timestamp_text(task.create_time),
        "dispatchDeadline": wire.duration_text(task.dispatch_deadline),
        **wire.present(dispatchCount=task.dispatches, responseCount=task.responses),
    }
    if task.first_dispatch:
        shown["firstAttempt"] = {"dispatchTime": wire.timestamp_text(task.first_dispatch)}
    if task.last_attempt:
        shown["lastAttempt"] = _render_attempt(task.last_attempt)
    return shown | {"view": VIEWS[view] if enum_numbers else view}


def _render_attempt(attempt: Attempt) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "scheduleTime": wire.timestamp_text(attempt.schedule_time),
        "dispatchTime": wire.timestamp_text(attempt.dispatch_time),
    }
    if attempt.response_time:
        shown["responseTime"] = wire.timestamp_text(attempt.response_time)
        code = RpcCode.UNAVAILABLE if attempt.status is None else code_of(attempt.status)
        said = "no answer" if attempt.status is None else f"HTTP status code {attempt.status}"
        shown["responseStatus"] = wire.present(code=int(code), message=f"{code.name}({int(code)}): {said}")
    return shown
