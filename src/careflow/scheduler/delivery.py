"""One attempt over HTTP: Cloud Scheduler's request (reference/cloud-scheduler section 7), and what its answer means (section 5).

Redirects are not followed: an identity token goes to the job's target and nowhere that the target names. So 3xx is a failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

import httpx

from careflow.errors import CareflowError
from careflow.google_api.http_target import HttpTarget
from careflow.instants import rfc3339
from careflow.ports import Tokens
from careflow.scheduler.model import AttemptRecord, Job
from careflow.scheduler.outcomes import BROKEN, NO_TOKEN, OVERDUE, UNREACHABLE, Outcome, answered

USER_AGENT = "Google-Cloud-Scheduler"
OCTETS = "application/octet-stream"

_RESERVED = ("x-cloudscheduler", "x-google-", "x-appengine-")
_COMPUTED = frozenset({"host", "content-length", "transfer-encoding", "connection", "user-agent"})
_LARGEST_ANSWER = (
    64 * 1024
)  # bytes that are read so that the connection can serve again; the status alone counts
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
        self._transport = transport
        self._tokens_for = tokens_for
        self._copies = copies
        self._tokens: dict[str, Tokens] = {}
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
            if target.oidc_token is not None:
                account = target.oidc_token.service_account_email
                audience = target.oidc_token.audience or target.uri
                headers["Authorization"] = f"Bearer {await self._source(account).token(audience)}"
        except CareflowError as error:
            _log.warning("job %s: no token (%s)", job.name, type(error).__name__)
            return NO_TOKEN
        try:
            return await self._answer(target, headers)
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL, OSError):
            return UNREACHABLE
        except (httpx.HTTPError, ValueError):
            return BROKEN

    def _source(self, account: str) -> Tokens:
        if account not in self._tokens:
            self._tokens[account] = self._tokens_for(account)
        return self._tokens[account]

    async def _answer(self, target: HttpTarget, headers: dict[str, str]) -> Outcome:
        request = httpx.Request(
            target.http_method,
            target.uri,
            headers=headers,
            content=target.body or None,
            extensions={"timeout": httpx.Timeout(None).as_dict()},
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
        return answered(response.status_code)


def request_headers(job: Job, attempt: AttemptRecord) -> dict[str, str]:
    """What is sent but for Authorization: the user's headers, then the service's, which win.

    A forced run carries no ScheduleTime, so that nobody takes it for a slot.
    """
    target = job.http_target
    headers = {name: value for name, value in target.headers.items() if not _is_reserved(name)}
    if target.oidc_token is not None or target.oauth_token is not None:
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    if target.body and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = OCTETS
    headers["User-Agent"] = USER_AGENT
    headers["X-CloudScheduler"] = "true"
    headers["X-CloudScheduler-JobName"] = job.id
    if attempt.slot is not None:
        headers["X-CloudScheduler-ScheduleTime"] = rfc3339(attempt.slot)
    return headers


def _is_reserved(name: str) -> bool:
    return name.lower() in _COMPUTED or name.lower().startswith(_RESERVED)
