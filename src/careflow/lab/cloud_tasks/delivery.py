"""One attempt over HTTP: Cloud Tasks' request, its headers and its token (reference/google-cloud section 1).

Redirects are not followed: an identity token goes to the task's target and nowhere that the target names. So 3xx is a failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import httpx

from careflow.errors import CareflowError
from careflow.google_api.http_target import HttpTarget
from careflow.lab.cloud_tasks.model import Task
from careflow.lab.cloud_tasks.resource import USER_AGENT
from careflow.ports import Clock, Tokens
from careflow.tasks.delivery import retry_after
from careflow.tasks.pacing import Answer

_RESERVED = ("x-cloudtasks", "x-google-", "x-appengine-")
_COMPUTED = frozenset({"host", "content-length", "transfer-encoding", "connection", "user-agent"})
_SLOW_DOWN = (429, 503)  # whose Retry-After is considered
_LARGEST_ANSWER = 64 * 1024  # bytes that are read so that the connection ends well; the status alone counts
_log = logging.getLogger(__name__)


class HttpDelivery:
    """Sends attempts over `transport`. The dispatch deadline is real time, like the network that it is about.

    `tokens_for` gives the source of an account's tokens.
    """

    def __init__(
        self, transport: httpx.AsyncBaseTransport, tokens_for: Callable[[str], Tokens], clock: Clock
    ) -> None:
        self._transport = transport
        self._tokens_for = tokens_for
        self._tokens: dict[str, Tokens] = {}
        self._clock = clock

    async def __call__(self, task: Task, previous_status: int | None) -> Answer:
        """Send the attempt and wait for its end. Never raises for a failed one."""
        try:
            async with asyncio.timeout(task.dispatch_deadline.total_seconds()):
                headers = request_headers(task, previous_status)
                if (token := task.target.oidc_token) is not None:
                    source = self._source(token.service_account_email)
                    identity = await source.token(token.audience or task.target.uri)
                    headers["Authorization"] = f"Bearer {identity}"
                return await self._answer(task.target, headers)
        except (httpx.HTTPError, httpx.InvalidURL, CareflowError, OSError, ValueError) as error:
            # TimeoutError is an OSError. The kind only: an error's text may hold a URL with more than ids in it.
            _log.info("task %s: no answer (%s)", task.id, type(error).__name__)
            return Answer(None)

    def _source(self, account: str) -> Tokens:
        if account not in self._tokens:
            self._tokens[account] = self._tokens_for(account)
        return self._tokens[account]

    async def _answer(self, target: HttpTarget, headers: dict[str, str]) -> Answer:
        request = httpx.Request(
            target.http_method,
            target.uri,
            headers=headers,
            content=target.body or None,
            extensions={"timeout": httpx.Timeout(None, connect=10.0).as_dict()},
        )
        response = await self._transport.handle_async_request(request)
        try:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            size = 0
            async for chunk in response.stream:
                size += len(chunk)
                if size > _LARGEST_ANSWER:
                    break
        finally:
            await response.aclose()
        if response.status_code not in _SLOW_DOWN:
            return Answer(response.status_code)
        asked = retry_after(response.headers.get("Retry-After", ""), self._clock.now())
        return Answer(response.status_code, asked)


def request_headers(task: Task, previous_status: int | None) -> dict[str, str]:
    """What is sent but for Authorization: the user's headers, then the service's, which win. No Content-Type is added."""
    target = task.target
    headers = {name: value for name, value in target.headers.items() if not _is_reserved(name)}
    if target.oidc_token is not None or target.oauth_token is not None:
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    headers["User-Agent"] = USER_AGENT
    headers["X-CloudTasks-QueueName"] = task.queue.rpartition("/")[2]
    headers["X-CloudTasks-TaskName"] = task.id
    headers["X-CloudTasks-TaskRetryCount"] = str(task.dispatches - 1)
    headers["X-CloudTasks-TaskExecutionCount"] = str(task.answers_counted)
    headers["X-CloudTasks-TaskETA"] = f"{task.schedule_time.timestamp():.6f}"
    if previous_status is not None:
        headers["X-CloudTasks-TaskPreviousResponse"] = str(previous_status)
    return headers


def _is_reserved(name: str) -> bool:
    return name.lower() in _COMPUTED or name.lower().startswith(_RESERVED)
