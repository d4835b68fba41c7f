"""Pulse's HTTP surface: the trigger, the queue's tasks, health, the agent card, a round's summary."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from careflow.auth.middleware import Rule
from careflow.core.retry import RetryPolicy
from careflow.hospitals import HOSPITAL_ID
from careflow.ports import CallerAgent, Clock, Store, TaskQueue
from careflow.pulse import errors
from careflow.pulse.calling import CallHandler, Handled
from careflow.pulse.card import A2A_PATH, agent_card
from careflow.pulse.closing import Closed, Closer
from careflow.pulse.overdue import Overdue
from careflow.pulse.payload import (
    ROUND_ID,
    CallTask,
    CloseTask,
    Refused,
    SweepTask,
    TriggerPayload,
    read_body,
    rounds_of_day,
    trigger_of,
)
from careflow.pulse.planning import Planner
from careflow.pulse.progress import as_it_stands, planned_answer
from careflow.pulse.recovery import EVERY, Recovery
from careflow.pulse.triggering import Triggering
from careflow.settings import Settings

OPEN_ROUND_RETRY_SECONDS = 90
"""So that the queue's bounded retries outlast the grace that telephone calls have at a window's end."""

PUBLIC_PATHS = ("/healthz", "/readyz", "/.well-known/agent-card.json")


def pulse_rules(settings: Settings) -> tuple[Rule, ...]:
    """Who may do what (docs/auth.md), for `auth.middleware.RequireToken`."""
    audience = settings.pulse_audience or settings.pulse_url
    scheduler = frozenset({settings.scheduler_account})
    queue = frozenset({settings.queue_account})
    post, get = frozenset({"POST"}), frozenset({"GET"})
    readers = scheduler | queue | {settings.pulse_account}
    return (
        Rule(path="/", methods=post, accounts=scheduler, audience=audience),
        Rule(path=A2A_PATH, methods=post, accounts=scheduler, audience=audience),
        Rule(path="/tasks/*", methods=post, accounts=queue, audience=audience),
        Rule(path="/rounds/*", methods=get, accounts=readers, audience=audience),
    )


def create_pulse(
    *,
    store: Store,
    queue: TaskQueue,
    caller: CallerAgent,
    clock: Clock,
    settings: Settings,
    ids: Callable[[], str],
    recover_at_start: bool = True,
) -> FastAPI:
    """The Pulse agent as an ASGI app, without its door: wrap it in `RequireToken(app, rules=pulse_rules(settings), ...)`.

    `ids` makes unguessable unique ids (executions, lease owners). With `recover_at_start` the lifespan rebuilds tasks
    from the store beside the first requests, and every few minutes from then on. `app.state.recovery` offers the same to
    others. `app.state.leave` gives back what this process has taken, before it stops. Closes nothing it was given.
    """
    policy = RetryPolicy(max_attempts=settings.max_attempts, spacing=settings.retry_spacing)
    batch = settings.planning_batch
    planner = Planner(store, queue, clock, hospitals=settings.served, batch=batch)
    handler = CallHandler(store, queue, caller, clock, ids=ids, policy=policy, lease=settings.call_lease)
    closer = Closer(
        store,
        queue,
        caller,
        clock,
        planner,
        policy=policy,
        grace=settings.attempt_deadline,
        batch=batch,
    )
    overdue = Overdue(store, clock, settings, batch=batch)
    most = math.ceil(settings.calls_per_second * EVERY.total_seconds())
    recovery = Recovery(store, queue, clock, planner, overdue, batch=batch, most=most)
    triggering = Triggering(store, planner, closer, clock, ids=ids, grace=settings.round_grace)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        recovering = asyncio.ensure_future(recovery.run()) if recover_at_start else None
        yield
        if recovering is not None:
            recovering.cancel()
            await asyncio.gather(recovering, return_exceptions=True)

    app = FastAPI(
        title="CareFlow Pulse",
        version=_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # "/tasks/call/" is another path, not this one: a redirect would be followed without its token.
        redirect_slashes=False,
    )
    app.state.recovery = recovery
    app.state.leave = handler.leave
    errors.install(app)

    @app.post(
        "/",
        summary="Trigger a round",
        description=(
            "Opens the round that the trigger means, or finds it, and plans it. Idempotent: a duplicate, late or "
            "concurrent delivery gets the same answer. 200 means that every call and its task are durable."
        ),
        responses=_leading_on(
            _answers("The round is planned", _PLANNED, 400, 401, 403, 413, 415, 503), settings.hospital_id
        ),
        openapi_extra=_takes(_trigger_schema(settings)),
        response_class=JSONResponse,
    )
    async def trigger(request: Request) -> JSONResponse:
        payload = await read_body(request, TriggerPayload, settings)
        job_name = request.headers.get("x-cloudscheduler-jobname", "")
        return JSONResponse(
            planned_answer(await triggering.receive(trigger_of(payload, settings), job_name=job_name))
        )

    @app.post(
        "/tasks/call",
        summary="Hold one call",
        description=(
            "Called by the queue. Claims the call, has its attempt made and follows it to its end. 200 means that the "
            "call has its outcome or that its next task is there; 409 asks the queue to come back later."
        ),
        responses=_answers("Durable", _status("ended", "waiting"), 400, 401, 403, 404, 409, 413, 415, 503),
        openapi_extra=_takes(CallTask.model_json_schema(by_alias=True)),
        response_class=JSONResponse,
    )
    async def call(request: Request) -> JSONResponse:
        task = await read_body(request, CallTask, settings)
        name = request.headers.get("x-cloudtasks-taskname", "")
        match await handler.handle(task.hospital_id, task.call_id, task_name=name):
            case Handled.UNKNOWN:
                raise Refused(404, "unknown-call", "callId: there is no such call of this hospital", "callId")
            case Handled.HELD:
                raise Refused(409, "held", "the call is held by another delivery; come back later")
            case Handled.NOT_DUE:
                raise Refused(409, "not-due", "the call is not due yet; come back later")
            case Handled.LEFT:
                # Not 503: Cloud Tasks would slow down the queue for every other call (docs/cloud-tasks.md).
                raise Refused(
                    409, "stopping", "this instance is to stop; the call goes on elsewhere", retry_after=1
                )
            case (Handled.ENDED | Handled.WAITING) as handled:
                return JSONResponse({"status": handled.value})

    @app.post(
        "/tasks/close",
        operation_id="closeRound",
        summary="Close one round",
        description=(
            "Called by the queue at the end of the round's window. Gives every open call its outcome and writes the "
            "summary; 409 while a telephone call is still going on."
        ),
        responses=_answers("Durable", _status("closed", "later"), 400, 401, 403, 404, 409, 413, 415, 503),
        openapi_extra=_takes(CloseTask.model_json_schema(by_alias=True)),
        response_class=JSONResponse,
    )
    async def close(request: Request) -> JSONResponse:
        task = await read_body(request, CloseTask, settings)
        match await closer.close(task.hospital_id, task.round_id):
            case Closed.UNKNOWN:
                raise _unknown_round()
            case Closed.OPEN:
                raise Refused(
                    409,
                    "open",
                    "a call of the round is still going on; come back later",
                    retry_after=OPEN_ROUND_RETRY_SECONDS,
                )
            case Closed.NOT_DUE:
                raise Refused(409, "not-due", "the round's window is not over yet; come back later")
            case (Closed.CLOSED | Closed.LATER) as closed:
                return JSONResponse({"status": closed.value})

    @app.post(
        "/tasks/sweep",
        summary="Put right and report what is overdue",
        description=(
            "Called every few minutes, since an instance that holds no request may have no processor: adds the tasks "
            "that open calls and rounds lack, and logs rounds that are missing or not closed and alerts that nobody "
            "acknowledged. Safe to repeat."
        ),
        responses=_answers("Done", _SWEPT, 400, 401, 403, 413, 415, 503),
        openapi_extra=_takes(SweepTask.model_json_schema(by_alias=True)),
        response_class=JSONResponse,
    )
    async def sweep(request: Request) -> JSONResponse:
        await read_body(request, SweepTask, settings)
        return JSONResponse({"status": "swept", "overdue": await recovery.sweep()})

    @app.get(
        "/rounds/{roundId}",
        operation_id="readRound",
        summary="One round as it stands",
        responses=_answers("The round", _ROUND, 400, 401, 403, 404, 503),
        response_class=JSONResponse,
    )
    async def round_summary(
        round_id: Annotated[str, Path(alias="roundId", json_schema_extra={"pattern": ROUND_ID})],
        hospital_id: Annotated[
            str | None, Query(alias="hospitalId", json_schema_extra={"pattern": HOSPITAL_ID})
        ] = None,
    ) -> JSONResponse:
        round_ = await store.round(hospital_id or settings.hospital_id, round_id)
        if round_ is None:
            raise _unknown_round()
        return JSONResponse(await as_it_stands(store, round_))

    @app.get("/healthz", summary="The process answers", responses=_answers("Alive", _status("ok")))
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        summary="The store can be written",
        responses=_answers("Ready", _status("ready"), 503),
    )
    async def readyz() -> dict[str, str]:
        await store.check()
        return {"status": "ready"}

    @app.get("/.well-known/agent-card.json", summary="The A2A agent card")
    async def card() -> dict[str, Any]:
        return agent_card(version=app.version, url=settings.pulse_url)

    @cache
    def rounds_by_a2a() -> Callable[[Request], Awaitable[Response]]:
        from careflow.pulse.a2a import round_endpoint

        return round_endpoint(triggering, store, clock, settings)

    @app.post(A2A_PATH, include_in_schema=False)
    async def a2a(request: Request) -> Response:
        # Loading the SDK's server takes longer than a cold start may: the first request pays for it, and holds up no other.
        endpoint = await asyncio.to_thread(rounds_by_a2a)
        return await endpoint(request)

    return app


def _unknown_round() -> Refused:
    return Refused(404, "unknown-round", "roundId: there is no such round of this hospital", "roundId")


def _version() -> str:
    try:
        return version("careflow-pulse")
    except PackageNotFoundError:
        return "0"


# --- OpenAPI ---------------------------------------------------------------------------------------------------

_COUNTS = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}}
_PLANNED: dict[str, Any] = {
    "type": "object",
    "required": ["roundId", "status", "patientsQueried", "callsInitiated", "skipped"],
    "properties": {
        "roundId": {"type": "string", "pattern": ROUND_ID},
        "status": {"type": "string", "enum": ["planned", "planning", "closed"]},
        "patientsQueried": {"type": "integer", "minimum": 0},
        "callsInitiated": {"type": "integer", "minimum": 0},
        "skipped": _COUNTS,
    },
}
_SWEPT: dict[str, Any] = {
    "type": "object",
    "required": ["status", "overdue"],
    "properties": {
        "status": {"type": "string", "enum": ["swept"]},
        "overdue": {"type": "integer", "minimum": 0},
    },
}
_ROUND: dict[str, Any] = {
    "type": "object",
    "required": [*_PLANNED["required"], "hospitalId", "calls", "outcomes", "windowStart", "windowEnd"],
    "properties": {
        **_PLANNED["properties"],
        "hospitalId": {"type": "string"},
        "scheduleHour": {"type": "integer"},
        "timezone": {"type": "string"},
        "localDate": {"type": "string", "format": "date"},
        "windowStart": {"type": "string", "format": "date-time"},
        "windowEnd": {"type": "string", "format": "date-time"},
        "calls": _COUNTS,
        "outcomes": _COUNTS,
    },
}


def _trigger_schema(settings: Settings) -> dict[str, Any]:
    """The payload's schema, with what this deployment accepts: its hours and its own environment."""
    schema = TriggerPayload.model_json_schema(by_alias=True)
    schema["properties"]["scheduleHour"]["enum"] = list(rounds_of_day(settings))
    if settings.hospitals:
        schema["properties"]["hospitalId"] = {"enum": [one.id for one in settings.served]}
    schema["properties"]["environment"]["enum"] = [settings.environment]
    return schema


def _takes(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, **_json(schema)}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _answers(description: str, schema: dict[str, Any], *refusals: int) -> dict[int | str, dict[str, Any]]:
    answers = errors.documented(*refusals)
    answers[200] = {"description": description, **_json(schema)}
    return answers


def _leading_on(
    answers: dict[int | str, dict[str, Any]], hospital_id: str
) -> dict[int | str, dict[str, Any]]:
    """The answers, the good one with links to what can be done with the round of the hospital that is meant by default."""
    round_id = "$response.body#/roundId"
    answers[200]["links"] = {
        "round": {"operationId": "readRound", "parameters": {"roundId": round_id}},
        "close": {
            "operationId": "closeRound",
            "requestBody": {"hospitalId": hospital_id, "roundId": round_id},
        },
    }
    return answers


def _status(*values: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"type": "string", "enum": list(values)}},
    }
