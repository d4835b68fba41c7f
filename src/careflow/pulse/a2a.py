"""Pulse as an A2A 1.0 agent with one skill, `run-round`. A task is a view of a round in the store: any process can answer for it.

Task id = context id = round id; docs/building.md shows what is asked and told. A request that names a hospital as its `tenant`
sees and begins that hospital's rounds only. A stream looks on, and cutting it changes nothing.
Imported at the first request (app.py), since the SDK's server takes longer to load than Pulse may take to start.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from typing import Any

import structlog
from a2a.helpers import get_data_parts, new_data_part
from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import (
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message as AsgiMessage

from careflow.a2a_tasks import MAX_PAGE, StoredTasks, message_of, page_size
from careflow.core.rounds import Round, Trigger
from careflow.jsonrpc import jsonrpc_endpoint
from careflow.ports import Clock, Store
from careflow.pulse.errors import RETRY_AFTER_SECONDS
from careflow.pulse.payload import (
    ROUND_ID,
    Refused,
    TriggerPayload,
    checked,
    read_bounded,
    trigger_of,
)
from careflow.pulse.progress import as_it_stands, is_done
from careflow.pulse.triggering import Triggering
from careflow.settings import Settings

Endpoint = Callable[[Request], Awaitable[Response]]


def round_endpoint(
    triggering: Triggering, store: Store, clock: Clock, settings: Settings, *, poll_seconds: float = 1.0
) -> Endpoint:
    """The JSON-RPC endpoint. `poll_seconds`, of the clock, is how late a stream may tell of a change."""
    handler = RoundTasks(triggering, store, clock, settings, poll_seconds=poll_seconds)
    dispatch = jsonrpc_endpoint(handler)

    async def endpoint(request: Request) -> Response:
        body = await read_bounded(request)
        given = False

        async def receive() -> AsgiMessage:
            nonlocal given
            if given:
                return await request.receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return await dispatch(Request(request.scope, receive))

    return endpoint


def trigger_in(message: Message, settings: Settings, tenant: str = "") -> Trigger:
    """The trigger that the message carries: one data part with the fields of `POST /`, of which only scheduleHour is needed.

    The hour is a string; numbers are taken too, although a protobuf Struct makes doubles of them (reference/a2a section 5.3).
    Raises InvalidParamsError naming the field and what is accepted.
    """
    parts = get_data_parts(message.parts)
    if len(parts) != 1 or not isinstance(parts[0], dict):
        raise InvalidParamsError(message="message.parts: must hold exactly one data part, an object")
    named = parts[0].get("hospitalId", tenant)
    if tenant and named != tenant:
        raise InvalidParamsError(message="hospitalId: must be the request's tenant, or left out")
    hospital = settings.served.get(named if named and isinstance(named, str) else settings.hospital_id)
    usual = {
        **({"hospitalId": tenant} if tenant else {}),
        "timezone": hospital.time_zone if hospital else settings.time_zone,
        "triggerType": "manual",
        "source": "a2a",
        "environment": settings.environment,
    }
    fields: dict[str, Any] = usual | parts[0]
    match fields.get("scheduleHour"):
        case str(text) if re.fullmatch(r"[0-9]{1,2}", text):
            fields["scheduleHour"] = int(text)
        case float(number) if number.is_integer():
            fields["scheduleHour"] = int(number)
    try:
        return trigger_of(checked(fields, TriggerPayload, settings), settings)
    except Refused as error:
        raise InvalidParamsError(message=str(error)) from None


class RoundTasks(StoredTasks):
    """Answers A2A requests from the store."""

    def __init__(
        self, triggering: Triggering, store: Store, clock: Clock, settings: Settings, *, poll_seconds: float
    ) -> None:
        super().__init__(retry_after_seconds=RETRY_AFTER_SECONDS)
        self._triggering = triggering
        self._store = store
        self._clock = clock
        self._settings = settings
        self._poll_seconds = poll_seconds
        self._planning: set[asyncio.Task[Round]] = set()

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task:
        """Run the round, or find it. Waits until everybody has an outcome unless told not to."""
        with self.answered():
            round_ = await self._triggered(params)
            standing = await self._standing(round_)
            while not (params.configuration.return_immediately or is_done(standing)):
                await self._clock.sleep(self._poll_seconds)
                standing = await self._standing(round_)
            return _task(standing, self._clock.now())

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        with self.answered() as streaming:
            async for event in self._events(await self._triggered(params)):
                yield event
                streaming()

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """The round as it is, then its progress. -32001 for an unknown one, -32004 for one that is over."""
        with self.answered() as streaming:
            round_ = await self._known(params.id, params.tenant)
            if is_done(await self._standing(round_)):
                raise UnsupportedOperationError(message=f"task {params.id} is over: GetTask tells how")
            async for event in self._events(round_):
                yield event
                streaming()

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        with self.answered():
            return _task(await self._standing(await self._known(params.id, params.tenant)), self._clock.now())

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        """Never done: a round whose patients were promised a call is not taken back by a client that went away."""
        with self.answered():
            await self._known(params.id, params.tenant)
            raise TaskNotCancelableError(message=f"task {params.id}: a round runs to its end")

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """The latest rounds of the tenant or of every hospital, at most 100 of each, latest first; of a context that one."""
        with self.answered():
            size = page_size(params)
            if params.page_token and not re.fullmatch(r"[0-9]{1,9}", params.page_token):
                raise InvalidParamsError(message="pageToken: must be the nextPageToken of an earlier answer")
            start = int(params.page_token or 0)
            now = self._clock.now()
            tasks = [_task(await self._standing(one), now) for one in await self._rounds(params)]
            wanted = [task for task in tasks if not params.status or task.status.state == params.status]
            page = wanted[start : start + size]
            return ListTasksResponse(
                tasks=page,
                next_page_token=str(start + size) if len(wanted) > start + size else "",
                page_size=size,
                total_size=len(wanted),
            )

    async def _triggered(self, params: SendMessageRequest) -> Round:
        """The round that the message means, planned. The planning goes on when the client goes away."""
        message = message_of(params)
        if message.task_id or message.context_id:
            raise InvalidParamsError(
                message="message.taskId, message.contextId: a message begins a round and follows none; leave them out"
            )
        planning = asyncio.ensure_future(
            self._triggering.receive(trigger_in(message, self._settings, params.tenant))
        )
        self._planning.add(planning)
        planning.add_done_callback(self._planned)
        return await asyncio.shield(planning)

    def _planned(self, planning: asyncio.Task[Round]) -> None:
        self._planning.discard(planning)
        if not planning.cancelled() and (error := planning.exception()) is not None:
            _log().warning("A round was not planned to its end", exc_info=error)

    async def _known(self, round_id: str, tenant: str = "") -> Round:
        if not re.fullmatch(ROUND_ID, round_id):
            raise TaskNotFoundError
        hospital_id = round_id.partition("-")[2].rsplit("-", 2)[0]
        round_ = await self._store.round(hospital_id, round_id)
        if round_ is None or tenant not in ("", hospital_id):
            raise TaskNotFoundError
        return round_

    async def _standing(self, round_: Round) -> dict[str, Any]:
        return await as_it_stands(self._store, await self._known(round_.id))

    async def _events(self, round_: Round) -> AsyncGenerator[Event]:
        """The whole task first, then one update for each change that is seen, until everybody has an outcome."""
        shown: dict[str, Any] | None = None
        while True:
            standing = await self._standing(round_)
            task = _task(standing, self._clock.now())
            if shown is None:
                yield task
            elif shown != standing:
                update = TaskStatusUpdateEvent(
                    task_id=task.id, context_id=task.context_id, status=task.status
                )
                update.metadata.CopyFrom(task.metadata)
                yield update
            if is_done(standing):
                return
            shown = standing
            await self._clock.sleep(self._poll_seconds)

    async def _rounds(self, params: ListTasksRequest) -> list[Round]:
        if params.context_id:
            try:
                return [await self._known(params.context_id, params.tenant)]
            except TaskNotFoundError:
                return []
        hospitals = [params.tenant] if params.tenant else await self._store.hospitals()
        found = [one for each in hospitals for one in await self._store.rounds(each, limit=MAX_PAGE)]
        return sorted(found, key=lambda one: (one.window_start, one.id), reverse=True)


def _task(standing: dict[str, Any], now: datetime) -> Task:
    round_id = standing["roundId"]
    told = _told(standing)
    message = Message(
        message_id=f"{round_id}-{standing['status']}",
        task_id=round_id,
        context_id=round_id,
        role=Role.ROLE_AGENT,
        parts=[new_data_part(told)],
    )
    status = TaskStatus(state=_state(standing), message=message)
    status.timestamp.FromDatetime(now)
    task = Task(id=round_id, context_id=round_id, status=status)
    task.metadata.update(told)
    return task


def _state(standing: dict[str, Any]) -> TaskState:
    if is_done(standing):
        return TaskState.TASK_STATE_COMPLETED
    if standing["status"] == "planning":
        return TaskState.TASK_STATE_SUBMITTED
    return TaskState.TASK_STATE_WORKING


def _told(standing: dict[str, Any]) -> dict[str, Any]:
    """The same with every number as a string."""
    return {
        name: {key: str(count) for key, count in value.items()} if isinstance(value, dict) else str(value)
        for name, value in standing.items()
    }


def _log() -> Any:
    return structlog.get_logger("careflow.pulse")
