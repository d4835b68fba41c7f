"""Told to stop: nothing new is begun, what is inside is answered or handed over, and nothing is cut without a word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from careflow.core.calls import CallState
from careflow.hosting import Service, listen, running, url_of
from pulse_world import HOSPITAL, Crash, World, patient, world


class Shop:
    """A service with a request that lasts until it is told to end, a stream without an end, and a quick one."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.arrived = asyncio.Event()
        self.cut: list[str] = []
        self.app = Starlette(
            routes=[
                Route("/slow", self.slow),
                Route("/stream", self.stream),
                Route("/quick", self.quick),
                Route("/kept/open", self.quick),
            ]
        )

    async def slow(self, _request: Request) -> Response:
        self.arrived.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cut.append("slow")
            raise
        return PlainTextResponse("done")

    async def stream(self, _request: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            yield "begun\n"
            self.arrived.set()
            await asyncio.sleep(3600)

        return StreamingResponse(pieces())

    async def quick(self, _request: Request) -> Response:
        return PlainTextResponse("done")


@asynccontextmanager
async def open_shop(
    shop: Shop, *drain: Callable[[], Awaitable[None]]
) -> AsyncIterator[tuple[httpx.AsyncClient, Callable[[], Awaitable[float]]]]:
    """A client, and a function that stops the service and says how many seconds that took."""
    bound = listen("127.0.0.1", 0, "CAREFLOW_TEST_PORT")
    service = Service("shop", shop.app, bound, drain=drain, stays_open=("/kept/*",))
    stop, stopped = asyncio.Event(), asyncio.Event()
    opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def live() -> None:
        async with running([service]):
            opened.set_result(None)
            await stop.wait()
        stopped.set()

    async def close() -> float:
        began = time.monotonic()
        stop.set()
        await stopped.wait()
        return time.monotonic() - began

    living = asyncio.create_task(live())
    await opened
    try:
        async with httpx.AsyncClient(base_url=url_of(bound), trust_env=False) as client:
            yield client, close
    finally:
        shop.released.set()
        await close()
        await living


async def test_a_request_inside_is_answered_and_a_new_one_refused_before_it_is_begun() -> None:
    shop = Shop()
    async with open_shop(shop) as (client, close):
        inside = asyncio.create_task(client.get("/slow"))
        await client.get("/quick")  # leaves a connection behind that is open
        await shop.arrived.wait()
        closing = asyncio.create_task(close())
        await asyncio.sleep(0.05)
        refused = await client.get("/quick")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await client.get("/kept/open")).status_code == 200
        shop.released.set()
        assert (await inside).text == "done"
        assert await closing < 2


async def test_a_stream_ends_as_if_it_were_over_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop()
    async with open_shop(shop) as (client, close), client.stream("GET", "/stream") as answer:
        pieces = answer.aiter_text()
        assert await anext(pieces) == "begun\n"
        closing = asyncio.create_task(close())
        assert [piece async for piece in pieces] == []  # a cut one would raise RemoteProtocolError
        assert await closing < 2
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_who_does_not_come_to_an_end_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("careflow.hosting.DRAIN_SECONDS", 0.2)
    shop = Shop()
    async with open_shop(shop) as (client, close):
        inside = asyncio.create_task(client.get("/slow"))
        await shop.arrived.wait()
        assert await close() < 3
        assert (await inside).status_code == 503
    assert shop.cut == ["slow"]


async def test_what_was_begun_is_handed_over_while_requests_are_still_served() -> None:
    shop = Shop()
    answers: list[int] = []

    async def hand_over() -> None:
        async with httpx.AsyncClient(base_url=str(shop_url), trust_env=False) as peer:
            answers.append((await peer.get("/kept/open")).status_code)

    async def fail() -> None:
        raise Crash

    async with open_shop(shop, hand_over, fail) as (client, close):
        shop_url = client.base_url
        await close()
    assert answers == [200]


# --- Pulse -------------------------------------------------------------------------------------------------------


class Following:
    """A Caller whose attempt goes on for as long as the test likes."""

    def __init__(self, it: World) -> None:
        self.begun = asyncio.Event()
        self._follow = it.caller.follow
        it.caller.follow = self.follow  # type: ignore[method-assign]
        self.lasts = True

    async def follow(self, order: Any) -> AsyncIterator[Any]:
        async for view in self._follow(order):
            if view.ended:
                break
            yield view
            self.begun.set()
            if self.lasts:
                await asyncio.get_running_loop().create_future()
        async for view in self._follow(order):
            yield view


async def test_a_pulse_that_leaves_gives_its_call_back_and_another_goes_on_at_once() -> None:
    async with world([patient(1)]) as it:
        following = Following(it)
        await it.trigger()
        (task,) = [task for task in it.queue.waiting.values() if task.queue == "calls"]
        delivery = asyncio.create_task(it.deliver(task))
        await following.begun.wait()
        await it.app.state.leave()
        assert await delivery == 409, "503 would slow down the whole queue, and with it every other call"
        assert (await it.only_call()).state is CallState.CALLING
        following.lasts = False
        it.restart()  # another instance; not a second has passed
        assert await it.deliver(task) == 200
        call = await it.only_call()
        assert (call.state, call.attempts) == (CallState.ENDED, 1)
        assert len(it.caller.dialled) == 1


async def test_a_pulse_that_leaves_takes_no_call() -> None:
    async with world([patient(1)]) as it:
        await it.trigger()
        (task,) = [task for task in it.queue.waiting.values() if task.queue == "calls"]
        await it.app.state.leave()
        response = await it.post(task.path, dict(task.body))
        assert (response.status_code, response.headers["retry-after"]) == (409, "1")
        assert (await it.only_call()).state is CallState.WAITING
        assert it.caller.orders == []


async def test_a_task_delivered_to_two_pulses_is_held_by_one() -> None:
    async with world([patient(1)]) as it:
        following = Following(it)
        await it.trigger()
        (task,) = [task for task in it.queue.waiting.values() if task.queue == "calls"]
        first = asyncio.create_task(it.deliver(task))
        await following.begun.wait()
        first_app = it.app
        it.restart()
        it.queue.delivering.add((task.queue, task.name))  # it still is, to the first
        name = {"X-CloudTasks-TaskName": task.name}
        assert (await it.post(task.path, dict(task.body), headers=name)).status_code == 409
        await first_app.state.leave()
        assert await first == 409
        assert len(await it.store.attempts(HOSPITAL, task.body["callId"])) == 1
