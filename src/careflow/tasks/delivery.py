"""Delivery of a task to Pulse over HTTP, with the headers that Cloud Tasks sends (reference/google-cloud section 1)."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from careflow.errors import CareflowError
from careflow.ports import Clock, Task, Tokens
from careflow.tasks.pacing import Answer

_log = logging.getLogger(__name__)


class HttpDelivery:
    """POSTs tasks to `base_url`. Its connections are the client's: allow as many as all queues have deliveries in flight.

    `deadline` is real time, as a dispatch deadline of Cloud Tasks: a delivery without an answer by then counts as failed,
    though the receiver may still be working. `clock` is what a Retry-After date is compared with.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        base_url: str,
        tokens: Tokens,
        audience: str,
        deadline: timedelta,
        clock: Clock,
    ) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._tokens = tokens
        self._audience = audience
        self._deadline = deadline
        self._clock = clock

    async def __call__(self, task: Task, attempt_number: int) -> Answer:
        """Deliver the task for the `attempt_number`th time (from 1). Never raises for a failed delivery."""
        try:
            async with asyncio.timeout(self._deadline.total_seconds()):
                token = await self._tokens.token(self._audience)
                response = await self._http.post(
                    self._base_url + task.path,
                    content=json.dumps(dict(task.body)),
                    headers=self._headers(task, attempt_number, token),
                    timeout=httpx.Timeout(None, connect=10.0),
                    follow_redirects=False,
                )
        except (httpx.HTTPError, CareflowError, OSError, TimeoutError) as error:
            # The kind only: an error's text may hold a URL with more than ids in it.
            _log.info("task %s: no answer (%s)", task.name, type(error).__name__)
            return Answer(None)
        return Answer(response.status_code, self._retry_after(response))

    def _headers(self, task: Task, attempt_number: int, token: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "User-Agent": "Google-Cloud-Tasks",
            "X-CloudTasks-QueueName": task.queue,
            "X-CloudTasks-TaskName": task.name,
            "X-CloudTasks-TaskRetryCount": str(attempt_number - 1),
            "X-CloudTasks-TaskETA": f"{task.due_at.timestamp():.6f}",
        }

    def _retry_after(self, response: httpx.Response) -> timedelta | None:
        """The header's seconds or date (RFC 9110 section 10.2.3) on 409, 429 and 503; None when absent or unreadable.

        409 is Pulse's "not now": of a round that is still open, whose telephone calls may last longer than the retries.
        """
        if response.status_code not in (409, 429, 503):
            return None
        return retry_after(response.headers.get("Retry-After", ""), self._clock.now())


def retry_after(header: str, now: datetime) -> timedelta | None:
    """What a Retry-After header asks for, at most a day in seconds; None when it is absent or unreadable."""
    value = header.strip()
    if value.isdecimal():
        return timedelta(seconds=min(int(value), 24 * 3600))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(timedelta(0), aware - now)
