"""The Caller as Pulse sees it: an A2A 1.0 client on the a2a-sdk. With a2a.py, the only file of Pulse that knows the protocol.

The message id is the attempt's id and so is the task's, so sending again finds the same attempt (docs/building.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.client.errors import AgentCardResolutionError
from a2a.helpers import get_data_parts, new_data_part
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    TaskState,
    TaskStatus,
)
from a2a.utils.errors import (
    A2AError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from careflow.errors import ProviderError
from careflow.instants import rfc3339
from careflow.ports import AttemptOrder, AttemptView, Clock, Tokens

# A server pings every 15 s (reference/a2a section 2): three missed pings mean a dead one.
TIMEOUT = httpx.Timeout(10.0, read=45.0)
MAX_BREAKS = 5
"""Breaks in a row, without one event between them, after which the Caller counts as unreachable."""

_ENDED = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
    }
)


class IdentityToken(httpx.Auth):
    """Puts a fresh OIDC token on every request, the card's too (reference/a2a section 4, way a)."""

    def __init__(self, tokens: Tokens, audience: str) -> None:
        self._tokens = tokens
        self._audience = audience

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = f"Bearer {await self._tokens.token(self._audience)}"
        yield request


class A2ACaller:
    """`ports.CallerAgent` over A2A. `url` is the Caller's base URL; call `close` at the end."""

    def __init__(self, url: str, *, audience: str, tokens: Tokens, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._http = httpx.AsyncClient(
            auth=IdentityToken(tokens, audience),
            timeout=TIMEOUT,
            # One stream is open for each call that is held; a pool limit would make calls wait for each other.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        """Drop every connection."""
        await self._http.aclose()

    async def follow(self, order: AttemptOrder) -> AsyncIterator[AttemptView]:
        """See `ports.CallerAgent.follow`. A stream that ends early is answered by GetTask and then a new subscription."""
        known = False
        breaks = 0
        last: AttemptView | None = None
        while True:
            try:
                async with aclosing(self._views(order, known)) as views:
                    async for view in views:
                        known, breaks = True, 0
                        if view != last:
                            last = view
                            yield view
                        if view.ended or view.refused:
                            return
            except TaskNotFoundError:
                known = False  # our message never got there, or got lost with the Caller: send it again
            except UnsupportedOperationError:
                pass  # it ended between GetTask and the subscription: GetTask will say how
            except (A2AError, httpx.HTTPError) as error:
                failure = _provider_error(order.attempt_id, error)
                if failure.permanent or breaks >= MAX_BREAKS:
                    raise failure from error
            breaks += 1
            if breaks > MAX_BREAKS:
                raise ProviderError(
                    f"attempt {order.attempt_id}: the Caller's stream broke {breaks} times in a row",
                    code="stream-broken",
                    ambiguous=True,
                )
            await self._clock.sleep(min(8.0, 0.25 * 2**breaks))

    async def cancel(self, attempt_id: str) -> bool:
        """See `ports.CallerAgent.cancel`."""
        try:
            client = await self._connected()
            await client.cancel_task(CancelTaskRequest(id=attempt_id))
        except (TaskNotFoundError, TaskNotCancelableError):
            return False
        except (A2AError, httpx.HTTPError) as error:
            raise _provider_error(attempt_id, error) from error
        return True

    async def _views(self, order: AttemptOrder, known: bool) -> AsyncGenerator[AttemptView, None]:
        client = await self._connected()
        if not known:
            events = client.send_message(SendMessageRequest(message=_message(order)))
        else:
            task = await client.get_task(GetTaskRequest(id=order.attempt_id, history_length=0))
            now = _view(order.attempt_id, task.status)
            yield now
            if now.ended or now.refused:
                return
            events = client.subscribe(SubscribeToTaskRequest(id=order.attempt_id))
        try:
            async for event in events:
                status = _status(event)
                if status is not None:
                    yield _view(order.attempt_id, status)
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None:
                self._client = await create_client(
                    self._url, ClientConfig(httpx_client=self._http, streaming=True)
                )
            return self._client


def _message(order: AttemptOrder) -> Message:
    """All values are strings: numbers become doubles on the wire (reference/a2a section 5)."""
    return Message(
        message_id=order.attempt_id,
        context_id=order.call_id,
        role=Role.ROLE_USER,
        parts=[
            new_data_part(
                {
                    "attemptId": order.attempt_id,
                    "number": str(order.number),
                    "callId": order.call_id,
                    "roundId": order.round_id,
                    "hospitalId": order.hospital_id,
                    "patientId": order.patient_id,
                    "script": order.script,
                    "notAfter": rfc3339(order.not_after),
                }
            )
        ],
    )


def _status(event: StreamResponse) -> TaskStatus | None:
    match event.WhichOneof("payload"):
        case "task":
            return event.task.status
        case "status_update":
            return event.status_update.status
        case _:
            return None


def _view(attempt_id: str, status: TaskStatus) -> AttemptView:
    data: dict[str, object] = {}
    for part in get_data_parts(status.message.parts):
        if isinstance(part, dict):
            data |= part
    if status.state == TaskState.TASK_STATE_REJECTED:
        return AttemptView(
            attempt_id=attempt_id,
            state="refused",
            ended=False,
            refused=str(data.get("refused") or "rejected"),
        )
    name = TaskState.Name(status.state).removeprefix("TASK_STATE_").lower()
    return AttemptView(
        attempt_id=attempt_id, state=str(data.get("state") or name), ended=status.state in _ENDED
    )


def _provider_error(attempt_id: str, error: Exception) -> ProviderError:
    """401 and 403 are permanent: asking again with the same account cannot help. All else may have arrived."""
    cause = error.__cause__
    code = str(getattr(error, "status_code", "") or "")
    if isinstance(cause, httpx.HTTPStatusError):
        code = str(cause.response.status_code)
    refused = code in ("401", "403")
    unsent = isinstance(error, AgentCardResolutionError)
    return ProviderError(
        f"attempt {attempt_id}: the Caller cannot be reached ({type(error).__name__})",
        code=code or type(error).__name__,
        permanent=refused,
        ambiguous=not refused and not unsent,
    )
