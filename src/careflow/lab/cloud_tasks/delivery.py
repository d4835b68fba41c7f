"""One attempt over HTTP: Cloud Tasks' request, its headers and its token (reference/google-cloud section 1).

Redirects are not followed (`google_api.sending`), so 3xx is a failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import httpx

from careflow.errors import CareflowError
from careflow.google_api.sending import Sender, users_headers
from careflow.lab.cloud_tasks.model import Task
from careflow.lab.cloud_tasks.resource import USER_AGENT
from careflow.ports import Clock, Tokens
from careflow.tasks.delivery import retry_after
from careflow.tasks.pacing import Answer

_RESERVED = ("x-cloudtasks", "x-google-", "x-appengine-")
_SLOW_DOWN = (429, 503)  # whose Retry-After is considered
_log = logging.getLogger(__name__)


class HttpDelivery:
    """Sends attempts over `transport`. The dispatch deadline is real time, like the network that it is about.

    `tokens_for` gives the source of an account's tokens.
    """

    def __init__(
        self, transport: httpx.AsyncBaseTransport, tokens_for: Callable[[str], Tokens], clock: Clock
    ) -> None:
        self._sender = Sender(transport, tokens_for, connect_seconds=10.0)
        self._clock = clock

    async def __call__(self, task: Task, previous_status: int | None) -> Answer:
        """Send the attempt and wait for its end. Never raises for a failed one."""
        try:
            async with asyncio.timeout(task.dispatch_deadline.total_seconds()):
                headers = request_headers(task, previous_status)
                headers |= await self._sender.authorization(task.target)
                response = await self._sender.send(task.target, headers)
            if response.status_code not in _SLOW_DOWN:
                return Answer(response.status_code)
            asked = retry_after(response.headers.get("Retry-After", ""), self._clock.now())
            return Answer(response.status_code, asked)
        except (httpx.HTTPError, httpx.InvalidURL, CareflowError, OSError, ValueError) as error:
            # TimeoutError is an OSError. The kind only: an error's text may hold a URL with more than ids in it.
            _log.info("task %s: no answer (%s)", task.id, type(error).__name__)
            return Answer(None)


def request_headers(task: Task, previous_status: int | None) -> dict[str, str]:
    """What is sent but for Authorization: the user's headers, then the service's, which win. No Content-Type is added."""
    headers = users_headers(task.target, _RESERVED)
    headers["User-Agent"] = USER_AGENT
    headers["X-CloudTasks-QueueName"] = task.queue.rpartition("/")[2]
    headers["X-CloudTasks-TaskName"] = task.id
    headers["X-CloudTasks-TaskRetryCount"] = str(task.dispatches - 1)
    headers["X-CloudTasks-TaskExecutionCount"] = str(task.answers_counted)
    headers["X-CloudTasks-TaskETA"] = f"{task.schedule_time.timestamp():.6f}"
    if previous_status is not None:
        headers["X-CloudTasks-TaskPreviousResponse"] = str(previous_status)
    return headers
