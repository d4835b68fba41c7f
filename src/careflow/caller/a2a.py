"""The Caller as an A2A 1.0 agent. A task is a view of an attempt in the store, so any process answers for any task.

Task id = message id = attempt id, context id = call id; the wire shapes stand in docs/building.md. A request that names a
hospital as its `tenant` sees and begins that hospital's attempts only. The SDK's own task store is not used: it knows tasks
of this process only (reference/a2a section 5).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated

from a2a.helpers import get_data_parts, new_data_part
from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    OpenIdConnectSecurityScheme,
    Role,
    SecurityRequirement,
    SecurityScheme,
    SendMessageRequest,
    StringList,
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
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from careflow.a2a_tasks import StoredTasks, message_of, page_size
from careflow.caller.attempts import AttemptDesk
from careflow.caller.watch import Watch
from careflow.core.attempts import Attempt, AttemptState, Disposition
from careflow.instants import micros
from careflow.ports import AttemptOrder, Began, Store

RETRY_AFTER_SECONDS = 5

_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$")]


class Order(BaseModel):
    """The data part of an order: all values are strings, as numbers in `data` become doubles (reference/a2a section 5.3)."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)

    attempt_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]
    number: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}$")]
    call_id: _Id
    round_id: _Id
    hospital_id: _Id
    patient_id: _Id
    script: _Id
    not_after: AwareDatetime

    def record(self) -> AttemptOrder:
        fields = self.model_dump() | {"number": int(self.number), "not_after": self.not_after.astimezone(UTC)}
        return AttemptOrder(**fields)


def parse_order(message: Message, scripts: frozenset[str]) -> AttemptOrder:
    """The order that the message carries. Raises InvalidParamsError naming the field and what is accepted, never a value."""
    parts = get_data_parts(message.parts)
    if len(parts) != 1 or not isinstance(parts[0], dict):
        raise InvalidParamsError(message="message.parts: must hold exactly one data part, an object")
    try:
        order = Order.model_validate(parts[0]).record()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InvalidParamsError(message=problems) from None
    expected = {
        "message.messageId": (message.message_id, order.attempt_id, "attemptId"),
        "message.contextId": (message.context_id or order.call_id, order.call_id, "callId"),
        "message.taskId": (message.task_id or order.attempt_id, order.attempt_id, "attemptId"),
        "attemptId": (order.attempt_id, f"{order.call_id}-{order.number}", "callId-number"),
    }
    for field, (got, wanted, meaning) in expected.items():
        if got != wanted:
            raise InvalidParamsError(message=f"{field}: must be the {meaning} of the order")
    if order.script not in scripts:
        raise InvalidParamsError(message=f"script: must be one of {', '.join(sorted(scripts))}")
    return order


def task_state(attempt: Attempt) -> TaskState:
    match attempt.state, attempt.disposition:
        case AttemptState.INTENDED, _:
            return TaskState.TASK_STATE_SUBMITTED
        case AttemptState.ENDED, Disposition.CANCELLED:
            return TaskState.TASK_STATE_CANCELED
        case AttemptState.ENDED, Disposition.FAILED:
            return TaskState.TASK_STATE_FAILED
        case AttemptState.ENDED, _:
            return TaskState.TASK_STATE_COMPLETED
    return TaskState.TASK_STATE_WORKING


def task_of(attempt: Attempt) -> Task:
    task = Task(id=attempt.id, context_id=attempt.call_id, status=_status(attempt))
    task.metadata.update(_shown(attempt))
    return task


def _status(attempt: Attempt) -> TaskStatus:
    message = Message(
        message_id=f"{attempt.id}-{attempt.state.value}",
        task_id=attempt.id,
        context_id=attempt.call_id,
        role=Role.ROLE_AGENT,
        parts=[new_data_part(_shown(attempt))],
    )
    status = TaskStatus(state=task_state(attempt), message=message)
    status.timestamp.FromDatetime(_stamp(attempt))
    return status


def _shown(attempt: Attempt) -> dict[str, str]:
    """What Pulse may know of the attempt: words of ours, nothing of what was said."""
    return {
        "attemptId": attempt.id,
        "state": attempt.state.value,
        "disposition": attempt.disposition.value if attempt.disposition else "",
        "ending": attempt.ending.value if attempt.ending else "",
        "failure": attempt.failure,
    }


def _stamp(attempt: Attempt) -> datetime:
    """When the attempt last changed its state."""
    return attempt.ended_at or attempt.answered_at or attempt.dialled_at or attempt.intended_at


def _rejected(order: AttemptOrder, why: str) -> Task:
    message = Message(
        message_id=f"{order.attempt_id}-refused",
        context_id=order.call_id,
        role=Role.ROLE_AGENT,
        parts=[new_data_part({"refused": why})],
    )
    status = TaskStatus(state=TaskState.TASK_STATE_REJECTED, message=message)
    return Task(id=order.attempt_id, context_id=order.call_id, status=status)


class AttemptTasks(StoredTasks):
    """Answers A2A requests from the store. `scripts` are the names an order may ask for."""

    def __init__(self, desk: AttemptDesk, store: Store, watch: Watch, scripts: frozenset[str]) -> None:
        super().__init__(retry_after_seconds=RETRY_AFTER_SECONDS)
        self._desk = desk
        self._store = store
        self._watch = watch
        self._scripts = scripts

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task:
        """Begin the attempt, or find it: the same messageId is the same attempt. Waits for its end unless told not to."""
        with self.answered():
            task = await self._ordered(params)
            if params.configuration.return_immediately or task.status.state == TaskState.TASK_STATE_REJECTED:
                return task
            async for attempt in self._watch.changes(task.id):
                task = task_of(attempt)
            return task

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        with self.answered() as streaming:
            task = await self._ordered(params)
            if task.status.state == TaskState.TASK_STATE_REJECTED:
                yield task
                return
            async for event in self._events(task.id):
                yield event
                streaming()

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """The task as it is, then its changes. -32001 for an unknown one, -32004 for one that has ended."""
        with self.answered() as streaming:
            if (await self._known(params.id, params.tenant)).state is AttemptState.ENDED:
                raise UnsupportedOperationError(message=f"task {params.id} has ended: GetTask tells how")
            async for event in self._events(params.id):
                yield event
                streaming()

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        with self.answered():
            return task_of(await self._known(params.id, params.tenant))

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        """Hang up. The task may still be live in the answer when its call is just being created; its end follows."""
        with self.answered():
            await self._known(params.id, params.tenant)
            if not await self._desk.cancel(params.id):
                raise TaskNotCancelableError(message=f"task {params.id} has ended")
            return task_of(await self._known(params.id))

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """The tasks of `contextId`, or those in flight when it is not given; last changed first."""
        with self.answered():
            size = page_size(params)
            after = _position(params.page_token) if params.page_token else None
            wanted = sorted((a for a in await self._attempts(params) if _asked_for(params, a)), key=_order)
            rest = [attempt for attempt in wanted if after is None or _order(attempt) > after]
            page = rest[:size]
            return ListTasksResponse(
                tasks=[task_of(attempt) for attempt in page],
                next_page_token=_page_token(page[-1]) if len(rest) > size else "",
                page_size=size,
                total_size=len(wanted),
            )

    async def _ordered(self, params: SendMessageRequest) -> Task:
        order = parse_order(message_of(params), self._scripts)
        if params.tenant not in ("", order.hospital_id):
            raise InvalidParamsError(message="hospitalId: must be the request's tenant")
        result = await self._desk.begin(order)
        attempt = result.attempt
        if attempt is None or result.result not in (Began.BEGUN, Began.EXISTS):
            return _rejected(order, result.reason or result.result.value)
        for field, got, stored in (
            ("hospitalId", order.hospital_id, attempt.hospital_id),
            ("callId", order.call_id, attempt.call_id),
            ("patientId", order.patient_id, attempt.patient_id),
        ):
            if got != stored:
                raise InvalidParamsError(message=f"{field}: attempt {attempt.id} was begun with another one")
        return task_of(attempt)

    async def _known(self, task_id: str, tenant: str = "") -> Attempt:
        attempt = await self._store.attempt(task_id) if task_id else None
        if attempt is None or tenant not in ("", attempt.hospital_id):
            raise TaskNotFoundError
        return attempt

    async def _events(self, attempt_id: str) -> AsyncGenerator[Event]:
        """The whole task first, then one update for each change that the task shows."""
        shown: dict[str, str] | None = None
        async for attempt in self._watch.changes(attempt_id):
            if shown is None:
                yield task_of(attempt)
            elif shown != _shown(attempt):
                update = TaskStatusUpdateEvent(
                    task_id=attempt.id, context_id=attempt.call_id, status=_status(attempt)
                )
                update.metadata.update(_shown(attempt))
                yield update
            shown = _shown(attempt)

    async def _attempts(self, params: ListTasksRequest) -> list[Attempt]:
        if not params.context_id:
            in_flight = await self._store.open_attempts()
            return [one for one in in_flight if params.tenant in ("", one.hospital_id)]
        hospitals = [params.tenant] if params.tenant else await self._store.hospitals()
        found = [await self._store.attempts(hospital, params.context_id) for hospital in hospitals]
        return [attempt for attempts in found for attempt in attempts]


def _asked_for(params: ListTasksRequest, attempt: Attempt) -> bool:
    if params.status and params.status != task_state(attempt):
        return False
    if params.HasField("status_timestamp_after"):
        after: datetime = params.status_timestamp_after.ToDatetime(tzinfo=UTC)
        return _stamp(attempt) > after
    return True


def _order(attempt: Attempt) -> tuple[int, str]:
    return -micros(_stamp(attempt)), attempt.id


def _page_token(attempt: Attempt) -> str:
    stamp, attempt_id = _order(attempt)
    return f"{-stamp}.{attempt_id}"


def _position(token: str) -> tuple[int, str]:
    stamp, _, attempt_id = token.partition(".")
    if not stamp.isdecimal() or len(stamp) > 20 or not attempt_id:
        raise InvalidParamsError(message="pageToken: must be the nextPageToken of an earlier answer")
    return -int(stamp), attempt_id


def caller_card(url: str, version: str, scripts: frozenset[str]) -> AgentCard:
    """The agent card (reference/a2a section 3). It only declares; the token is checked in front of the handler."""
    return AgentCard(
        name="CareFlow Caller Agent",
        description="Telephones one patient for one call of a round and holds the check-in conversation.",
        version=version,
        supported_interfaces=[
            AgentInterface(url=f"{url}/", protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False, extended_agent_card=False),
        default_input_modes=["application/json"],
        default_output_modes=["application/json"],
        skills=[
            AgentSkill(
                id="attempt",
                name="Make one telephone attempt",
                description="Dials the patient once and reports how it ended. Scripts: "
                + ", ".join(sorted(scripts)),
                tags=["telephone", "check-in"],
            )
        ],
        security_schemes={
            "oidc": SecurityScheme(
                open_id_connect_security_scheme=OpenIdConnectSecurityScheme(
                    description="An OIDC identity token of the Pulse Agent's service account",
                    open_id_connect_url="https://accounts.google.com/.well-known/openid-configuration",
                )
            )
        },
        security_requirements=[SecurityRequirement(schemes={"oidc": StringList(list=[])})],
    )
