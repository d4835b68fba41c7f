"""The A2A client against the wire (reference/a2a section 2), spoken here by hand, and against the SDK's own stock server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from careflow.errors import ProviderError
from careflow.ports import AttemptOrder, AttemptView
from careflow.pulse.caller_client import MAX_BREAKS, A2ACaller

ORDER = AttemptOrder(
    attempt_id="abc-1",
    number=1,
    call_id="abc",
    round_id="test-default-20261016-08",
    hospital_id="default",
    patient_id="p1",
    script="morning",
    not_after=datetime(2026, 10, 16, 16, tzinfo=UTC),
)


class CountingTokens:
    def __init__(self) -> None:
        self.made: list[str] = []

    async def token(self, audience: str) -> str:
        self.made.append(f"{audience}#{len(self.made)}")
        return self.made[-1]


class InstantClock:
    """No time passes; what was slept is written down."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 10, 16, 12, tzinfo=UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def task(state: str, /, **data: str) -> dict[str, Any]:
    shown = {"attemptId": "abc-1"} | data
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"data": shown}]}
    return {
        "id": "abc-1",
        "contextId": "abc",
        "status": {"state": f"TASK_STATE_{state}", "message": message, "timestamp": "2026-10-16T12:00:00Z"},
        "metadata": shown,
    }


def update(state: str, /, **data: str) -> dict[str, Any]:
    one = task(state, **data)
    return {"statusUpdate": {"taskId": "abc-1", "contextId": "abc", "status": one["status"]}}


DIALLED = {"task": task("WORKING", state="dialled")}
ANSWERED = update("WORKING", state="answered")
ENDED = update("COMPLETED", state="ended", disposition="answered")
CUT = object()  # the connection drops here

Answers = list[Any]


class HandCallerServer:
    """Answers each JSON-RPC method with the next of what it was given, and keeps what it was asked."""

    def __init__(self, **answers: Answers) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.status = 200
        self.url = ""

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.asked]

    async def card(self, request: Request) -> Response:
        self.asked.append(("card", {}, dict(request.headers)))
        if self.status != 200:
            return Response(status_code=self.status)
        return JSONResponse(
            {
                "name": "Caller",
                "description": "d",
                "version": "1",
                "supportedInterfaces": [
                    {"url": f"{self.url}/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
                ],
                "capabilities": {"streaming": True},
                "defaultInputModes": ["application/json"],
                "defaultOutputModes": ["application/json"],
                "skills": [],
            }
        )

    async def rpc(self, request: Request) -> Response:
        body = await request.json()
        method = body["method"]
        self.asked.append((method, body["params"], dict(request.headers)))
        if self.status != 200:
            return Response(status_code=self.status)
        answer = self.answers[method].pop(0)
        head = {"jsonrpc": "2.0", "id": body["id"]}
        if isinstance(answer, int):
            return JSONResponse(head | {"error": {"code": answer, "message": "no"}})
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, dict):
            return JSONResponse(head | {"result": answer})

        async def events() -> AsyncIterator[bytes]:
            yield b": ping\n\n"
            for one in answer:
                if one is CUT:
                    raise ConnectionAbortedError
                if isinstance(one, int):
                    error = head | {"error": {"code": one, "message": "no"}}
                    yield b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"
                    return
                yield b"data: " + json.dumps(head | {"result": one}).encode() + b"\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


@asynccontextmanager
async def served(make: Callable[[str], Any]) -> AsyncIterator[str]:
    """Serve the app that `make` builds for its own URL, on a free port."""
    placeholder = Starlette()
    server = uvicorn.Server(
        uvicorn.Config(placeholder, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    )
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    placeholder.router = Starlette(routes=make(url)).router
    placeholder.middleware_stack = None
    try:
        yield url
    finally:
        server.should_exit = server.force_exit = True
        await serving


class Meeting:
    def __init__(self, server: HandCallerServer, client: A2ACaller) -> None:
        self.server, self.client = server, client
        self.tokens = CountingTokens()
        self.clock = InstantClock()

    async def follow(self) -> list[AttemptView]:
        return [view async for view in self.client.follow(ORDER)]


@asynccontextmanager
async def meeting(**answers: Answers) -> AsyncIterator[Meeting]:
    server = HandCallerServer(**answers)

    def routes(url: str) -> list[Route]:
        server.url = url
        return [
            Route("/.well-known/agent-card.json", server.card),
            Route("/", server.rpc, methods=["POST"]),
        ]

    async with served(routes) as url:
        one = Meeting(server, None)  # type: ignore[arg-type]
        one.client = A2ACaller(url, audience="https://caller", tokens=one.tokens, clock=one.clock)
        try:
            yield one
        finally:
            await one.client.close()


async def test_the_order_goes_out_as_agreed_and_its_changes_come_back_until_the_end() -> None:
    async with meeting(SendStreamingMessage=[[DIALLED, ANSWERED, ANSWERED, ENDED]]) as it:
        views = await it.follow()
        assert [(view.state, view.ended) for view in views] == [
            ("dialled", False),
            ("answered", False),
            ("ended", True),
        ]
        _, params, headers = it.server.asked[-1]
        message = params["message"]
        assert (message["messageId"], message["contextId"], message["role"]) == ("abc-1", "abc", "ROLE_USER")
        assert message["parts"] == [
            {
                "data": {
                    "attemptId": "abc-1",
                    "number": "1",
                    "callId": "abc",
                    "roundId": "test-default-20261016-08",
                    "hospitalId": "default",
                    "patientId": "p1",
                    "script": "morning",
                    "notAfter": "2026-10-16T16:00:00Z",
                }
            }
        ]
        assert headers["a2a-version"] == "1.0"


async def test_every_request_carries_a_token_asked_for_anew() -> None:
    async with meeting(SendStreamingMessage=[[DIALLED]], GetTask=[task("COMPLETED")]) as it:
        await it.follow()
        sent = [headers["authorization"] for _, _, headers in it.server.asked]
        assert sent == [f"Bearer https://caller#{number}" for number in range(3)]


@pytest.mark.parametrize("why", ["line-busy", "opted-out", "call-over"])
async def test_a_rejected_order_is_a_refusal_with_its_reason(why: str) -> None:
    async with meeting(SendStreamingMessage=[[{"task": task("REJECTED", refused=why)}]]) as it:
        (view,) = await it.follow()
        assert (view.refused, view.ended) == (why, False)


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELED"])
async def test_each_terminal_state_is_an_end(end: str) -> None:
    async with meeting(SendStreamingMessage=[[{"task": task(end, state="ended")}]]) as it:
        assert [view.ended for view in await it.follow()] == [True]


@pytest.mark.parametrize("breaking", [[DIALLED], [DIALLED, CUT]])
async def test_a_stream_that_ends_early_is_answered_by_reading_the_task_and_subscribing(
    breaking: Answers,
) -> None:
    async with meeting(
        SendStreamingMessage=[breaking],
        GetTask=[task("WORKING", state="ringing")],
        SubscribeToTask=[[{"task": task("WORKING", state="ringing")}, ENDED]],
    ) as it:
        assert [view.state for view in await it.follow()] == ["dialled", "ringing", "ended"]
        assert it.server.methods == ["card", "SendStreamingMessage", "GetTask", "SubscribeToTask"]
        assert it.server.asked[-1][1]["id"] == "abc-1"


async def test_a_caller_whose_store_is_down_is_asked_again_before_and_in_the_stream() -> None:
    down = Response(status_code=503, headers={"Retry-After": "5"})
    async with meeting(
        SendStreamingMessage=[down, [DIALLED, -32603]],
        GetTask=[down, task("WORKING", state="ringing")],
        SubscribeToTask=[[-32603], [ENDED]],
    ) as it:
        it.server.answers["GetTask"] += [task("WORKING", state="ringing")]
        assert [view.state for view in await it.follow()] == ["dialled", "ringing", "ended"]
        assert it.server.methods.count("SendStreamingMessage") == 2


async def test_an_attempt_that_ended_while_the_stream_was_away_is_read_and_not_subscribed_to() -> None:
    async with meeting(SendStreamingMessage=[[DIALLED]], GetTask=[task("COMPLETED", state="ended")]) as it:
        assert (await it.follow())[-1].ended
        assert "SubscribeToTask" not in it.server.methods


async def test_an_attempt_that_ends_between_reading_and_subscribing_is_read_again() -> None:
    async with meeting(
        SendStreamingMessage=[[DIALLED]],
        GetTask=[task("WORKING", state="ringing"), task("COMPLETED", state="ended")],
        SubscribeToTask=[-32004],
    ) as it:
        assert (await it.follow())[-1].ended


async def test_an_order_that_never_arrived_is_sent_again_under_the_same_id() -> None:
    async with meeting(SendStreamingMessage=[[CUT], [DIALLED], [ENDED]], GetTask=[-32001]) as it:
        assert (await it.follow())[-1].ended
        sent = [params["message"]["messageId"] for method, params, _ in it.server.asked if "Send" in method]
        assert sent == ["abc-1"] * 3


async def test_breaks_without_an_event_are_bounded_and_end_as_ambiguous() -> None:
    async with meeting(SendStreamingMessage=[[] for _ in range(50)]) as it:
        with pytest.raises(ProviderError) as caught:
            await it.follow()
        assert (caught.value.ambiguous, caught.value.permanent) == (True, False)
        assert len(it.server.methods) == 1 + 1 + MAX_BREAKS
        assert it.clock.slept == sorted(it.clock.slept)


async def test_a_caller_that_is_not_there_is_a_provider_error_after_bounded_tries() -> None:
    clock = InstantClock()
    client = A2ACaller("http://127.0.0.1:1", audience="a", tokens=CountingTokens(), clock=clock)
    with pytest.raises(ProviderError) as caught:
        [view async for view in client.follow(ORDER)]
    assert not caught.value.permanent
    assert len(clock.slept) == MAX_BREAKS
    await client.close()


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("on_the_card", [True, False])
async def test_a_refused_token_is_permanent_and_not_tried_again(status: int, on_the_card: bool) -> None:
    async with meeting(SendStreamingMessage=[[DIALLED, ENDED]]) as it:
        if not on_the_card:
            await it.follow()
        it.server.status = status
        it.server.asked.clear()
        with pytest.raises(ProviderError) as caught:
            await it.follow()
        assert (caught.value.permanent, caught.value.code) == (True, str(status))
        assert len(it.server.asked) == 1


async def test_an_error_names_ids_only() -> None:
    async with meeting(SendStreamingMessage=[-32603] * 50) as it:
        with pytest.raises(ProviderError, match="attempt abc-1") as caught:
            await it.follow()
        assert "p1" not in str(caught.value)


async def test_cancel_tells_whether_there_was_something_to_end() -> None:
    async with meeting(CancelTask=[task("CANCELED"), -32002, -32001, -32603]) as it:
        assert [await it.client.cancel("abc-1") for _ in range(3)] == [True, False, False]
        with pytest.raises(ProviderError):
            await it.client.cancel("abc-1")
        assert it.server.asked[-1][1]["id"] == "abc-1"


async def test_it_follows_a_task_of_the_sdks_own_stock_server() -> None:
    from a2a.helpers import new_data_message, new_task_from_user_message
    from a2a.server.agent_execution import AgentExecutor, RequestContext
    from a2a.server.events import EventQueue
    from a2a.server.request_handlers import DefaultRequestHandler
    from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
    from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
    from a2a.types import AgentCapabilities, AgentCard, AgentInterface, TaskState

    class Executor(AgentExecutor):
        async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
            assert context.message is not None
            new = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(new)
            updater = TaskUpdater(event_queue, new.id, new.context_id)
            await updater.start_work()
            await updater.update_status(TaskState.TASK_STATE_COMPLETED, new_data_message({"state": "ended"}))

        async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
            raise NotImplementedError

    def routes(url: str) -> list[Any]:
        card = AgentCard(
            name="stock",
            description="d",
            version="1",
            supported_interfaces=[
                AgentInterface(url=f"{url}/", protocol_binding="JSONRPC", protocol_version="1.0")
            ],
            capabilities=AgentCapabilities(streaming=True),
            default_input_modes=["application/json"],
            default_output_modes=["application/json"],
        )
        handler = DefaultRequestHandler(
            agent_executor=Executor(), task_store=InMemoryTaskStore(), agent_card=card
        )
        return [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")]

    async with served(routes) as url:
        client = A2ACaller(url, audience="a", tokens=CountingTokens(), clock=InstantClock())
        views = [view async for view in client.follow(ORDER)]
        await client.close()
    assert [view.state for view in views] == ["submitted", "working", "ended"]
    assert [view.ended for view in views] == [False, False, True]
