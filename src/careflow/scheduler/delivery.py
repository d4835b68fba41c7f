"""One attempt over HTTP: Cloud Scheduler's request (reference/cloud-scheduler section 7), and what its answer means (section 5).

Redirects are not followed (`google_api.sending`), so 3xx is a failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

import httpx

from careflow.errors import CareflowError
from careflow.google_api.sending import Sender, users_headers
from careflow.instants import rfc3339
from careflow.ports import Tokens
from careflow.scheduler.model import AttemptRecord, Job
from careflow.scheduler.outcomes import BROKEN, NO_TOKEN, OVERDUE, UNREACHABLE, Outcome, answered

USER_AGENT = "Google-Cloud-Scheduler"
OCTETS = "application/octet-stream"

_RESERVED = ("x-cloudscheduler", "x-google-", "x-appengine-")
_log = logging.getLogger(__name__)


class HttpDelivery:
    """Sends attempts, at most `in_flight` at once and at most `per_origin` to one scheme, host and port.

    The second bound is what keeps a target that hangs from taking every place. The attempt deadline is real time and
    counts from the sending. The transport is one with connections enough, best `connections.DirectTransport`; a client above it
    would add redirects, cookies and a third of the cost. `copies` requests are made of each attempt; the last one's outcome
    counts.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        tokens_for: Callable[[str], Tokens],
        *,
        in_flight: int = 500,
        per_origin: int = 300,
        copies: int = 1,
    ) -> None:
        self._sender = Sender(transport, tokens_for)
        self._copies = copies
        self._places = asyncio.Semaphore(in_flight)
        self._origins: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(per_origin)
        )

    async def __call__(self, job: Job, attempt: AttemptRecord) -> Outcome:
        """Send the attempt and wait for its end. Never raises for a failed one."""
        target = job.http_target
        origin = "/".join(target.uri.split("/", 3)[:3])
        async with self._origins[origin], self._places:
            try:
                async with asyncio.timeout(job.attempt_deadline.total_seconds()):
                    for _ in range(self._copies - 1):
                        await self._send(job, attempt)
                    return await self._send(job, attempt)
            except TimeoutError:
                return OVERDUE

    async def _send(self, job: Job, attempt: AttemptRecord) -> Outcome:
        target = job.http_target
        headers = request_headers(job, attempt)
        try:
            headers |= await self._sender.authorization(target)
        except CareflowError as error:
            _log.warning("job %s: no token (%s)", job.name, type(error).__name__)
            return NO_TOKEN
        try:
            response = await self._sender.send(target, headers)
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL, OSError):
            return UNREACHABLE
        except (httpx.HTTPError, ValueError):
            return BROKEN
        return answered(response.status_code)


def request_headers(job: Job, attempt: AttemptRecord) -> dict[str, str]:
    """What is sent but for Authorization: the user's headers, then the service's, which win.

    A forced run carries no ScheduleTime, so that nobody takes it for a slot.
    """
    target = job.http_target
    headers = users_headers(target, _RESERVED)
    if target.body and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = OCTETS
    headers["User-Agent"] = USER_AGENT
    headers["X-CloudScheduler"] = "true"
    headers["X-CloudScheduler-JobName"] = job.id
    if attempt.slot is not None:
        headers["X-CloudScheduler-ScheduleTime"] = rfc3339(attempt.slot)
    return headers
