"""Pulse's A2A skill against the SDK's own client: a round is run, followed, lost sight of and found again."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
from a2a.client import A2AClientError, Client, ClientConfig, create_client
from a2a.helpers import get_data_parts, new_data_part
from a2a.server.context import ServerCallContext
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from careflow.auth.issuer import LocalIssuer
from careflow.auth.middleware import RequireToken
from careflow.auth.setup import verifier
from careflow.core.rounds import Trigger
from careflow.pulse.a2a import RoundTasks, trigger_in
from careflow.pulse.app import PUBLIC_PATHS, pulse_rules
from careflow.settings import load_settings
from pulse_world import ROUND_ID, WINDOW_END, World, patient, world

T = TypeVar("T")
PEOPLE = [patient(1), patient(2), patient(3, consent=False)]


@dataclass
class Pulse:
    """One served process, a client with a token and one without."""

    world: World
    url: str
    client: Client
    authorised: httpx.AsyncClient
    anonymous: httpx.AsyncClient

    async def pass_time(self, work: Awaitable[T]) -> T:
        """What comes of the work while seconds of the clock go by."""
        waiting = asyncio.ensure_future(work)
        async with asyncio.timeout(10):
            while not waiting.done():
                await asyncio.sleep(0.005)
                self.world.clock.advance(1)
        return waiting.result()

    async def call_everybody(self) -> None:
        await self.world.drain(self.world.clock.now() + timedelta(minutes=1))


@asynccontextmanager
async def served(it: World, *, account: str | None = None) -> AsyncIterator[Pulse]:
    """The world's present process behind its door, on the port that its settings name."""
    settings = it.settings
    port = int(settings.pulse_url.rpartition(":")[2])
    async with httpx.AsyncClient(trust_env=False) as http:
        door = RequireToken(
            it.app,
            verifier=verifier(settings, http, it.clock),
            rules=pulse_rules(settings),
            public=PUBLIC_PATHS,
        )
        server = uvicorn.Server(
            uvicorn.Config(door, port=port, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)  # type: ignore[arg-type]
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        issuer = LocalIssuer(settings.data_dir / "issuer")
        token = issuer.mint(account or settings.scheduler_account, settings.pulse_url, it.clock.now())
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(headers=headers, timeout=20, trust_env=False) as authorised:
            client = await create_client(settings.pulse_url, ClientConfig(httpx_client=authorised))
            yield Pulse(it, settings.pulse_url, client, authorised, http)
        server.should_exit = True
        await serving


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    async with world(PEOPLE, pulse_url=url, data_dir=tmp_path) as it:
        yield it


def morning(*, at_once: bool = False, **changes: Any) -> SendMessageRequest:
    data = {"scheduleHour": "8"} | changes
    message = Message(message_id="m-1", role=Role.ROLE_USER, parts=[new_data_part(data)])
    return SendMessageRequest(
        message=message, configuration=SendMessageConfiguration(return_immediately=at_once)
    )


def told(response: StreamResponse) -> tuple[TaskState, dict[str, Any]]:
    """The state, and the data that goes with it."""
    kind = response.WhichOneof("payload")
    status = response.task.status if kind == "task" else response.status_update.status
    [data] = get_data_parts(status.message.parts)
    return status.state, dict(data)


async def test_a_stream_tells_the_round_from_its_plan_to_its_end(here: World) -> None:
    async with served(here) as pulse:
        stream = pulse.client.send_message(morning())
        first = await anext(stream)
        assert (first.task.id, first.task.context_id) == (ROUND_ID, ROUND_ID)
        state, data = told(first)
        assert state == TaskState.TASK_STATE_WORKING
        assert (data["patientsQueried"], data["callsInitiated"]) == ("3", "2")
        assert data["skipped"] == {"no-consent": "1"}
        assert data["calls"] == {"ended": "1", "waiting": "2"}
        one, *_ = here.queue.waiting.values()
        await here.deliver(one if one.queue == "calls" else list(here.queue.waiting.values())[1])
        state, data = told(await pulse.pass_time(anext(stream)))
        assert (state, data["calls"]) == (TaskState.TASK_STATE_WORKING, {"ended": "2", "waiting": "1"})
        await pulse.call_everybody()
        rest = await pulse.pass_time(_all(stream))
    state, data = told(rest[-1])
    assert (state, data["outcomes"]) == (TaskState.TASK_STATE_COMPLETED, {"completed": "2", "skipped": "1"})


async def _all(stream: AsyncIterator[StreamResponse]) -> list[StreamResponse]:
    return [response async for response in stream]


@pytest.mark.parametrize("asked", [{"hospitalId": "lakeside"}, {}])
def test_a_round_that_names_no_zone_lives_by_its_hospitals(tmp_path: Path, asked: dict[str, str]) -> None:
    profile = {"id": "lakeside", "name": "Lakeside", "phone": "+13125550101", "timeZone": "America/Chicago"}
    (tmp_path / "hospitals.json").write_text(json.dumps({"hospitals": [profile]}))
    settings = load_settings(hospitals=tmp_path / "hospitals.json", hospital_id="lakeside")
    assert trigger_in(morning(**asked).message, settings).time_zone == "America/Chicago"
    assert trigger_in(morning().message, settings, "lakeside").time_zone == "America/Chicago"


async def test_cutting_the_stream_changes_nothing(here: World) -> None:
    async with served(here) as pulse:
        stream = pulse.client.send_message(morning())
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await pulse.call_everybody()
        task = await pulse.client.get_task(GetTaskRequest(id=ROUND_ID))
        assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert len(here.caller.dialled) == 2


class SlowTriggering:
    """Plans when it is let, and says so."""

    def __init__(self) -> None:
        self.began, self.go_on, self.planned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def receive(self, wanted: Trigger, *, job_name: str = "") -> Any:
        self.began.set()
        await self.go_on.wait()
        self.planned.set()


async def test_planning_goes_on_when_its_request_is_dropped(here: World) -> None:
    slow = SlowTriggering()
    tasks = RoundTasks(slow, here.store, here.clock, here.settings, poll_seconds=1.0)  # type: ignore[arg-type]
    asking = asyncio.ensure_future(anext(tasks.on_message_send_stream(morning(), ServerCallContext())))
    await slow.began.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    slow.go_on.set()
    async with asyncio.timeout(2):
        await slow.planned.wait()


async def test_a_restarted_pulse_answers_for_the_rounds_of_the_one_before(here: World) -> None:
    async with served(here) as pulse:
        await anext(pulse.client.send_message(morning()))
    here.restart()
    async with served(here) as pulse:
        task = await pulse.client.get_task(GetTaskRequest(id=ROUND_ID))
        assert task.status.state == TaskState.TASK_STATE_WORKING
        following = pulse.client.subscribe(SubscribeToTaskRequest(id=ROUND_ID))
        assert told(await anext(following))[0] == TaskState.TASK_STATE_WORKING
        await pulse.call_everybody()
        state, data = told((await pulse.pass_time(_all(following)))[-1])
        assert (state, data["outcomes"]["completed"]) == (TaskState.TASK_STATE_COMPLETED, "2")
        with pytest.raises(UnsupportedOperationError):
            await anext(pulse.client.subscribe(SubscribeToTaskRequest(id=ROUND_ID)))


async def test_the_same_round_twice_is_one_round(here: World) -> None:
    async with served(here) as pulse:
        streams = [pulse.client.send_message(morning()) for _ in range(2)]
        assert [(await anext(stream)).task.id for stream in streams] == [ROUND_ID, ROUND_ID]
        scheduled = await here.trigger()
        assert (scheduled.json()["roundId"], scheduled.json()["callsInitiated"]) == (ROUND_ID, 2)
        await pulse.call_everybody()
    assert len(here.caller.dialled) == 2


async def test_a_closed_round_is_told_at_once(here: World) -> None:
    await here.trigger()
    await here.drain(WINDOW_END + timedelta(minutes=1))
    async with served(here) as pulse:
        task = await pulse.client.get_task(GetTaskRequest(id=ROUND_ID))
    assert task.status.state == TaskState.TASK_STATE_COMPLETED
    assert dict(task.metadata)["status"] == "closed"


async def test_a_message_without_a_stream_is_answered_at_once_or_at_the_end(here: World) -> None:
    async with served(here) as pulse:
        plain = await create_client(pulse.url, ClientConfig(httpx_client=pulse.authorised, streaming=False))
        [at_once] = await _all(plain.send_message(morning(at_once=True)))
        assert at_once.task.status.state == TaskState.TASK_STATE_WORKING
        waiting = asyncio.ensure_future(_all(plain.send_message(morning())))
        await pulse.call_everybody()
        [at_end] = await pulse.pass_time(waiting)
        assert at_end.task.status.state == TaskState.TASK_STATE_COMPLETED


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scheduleHour": "9"}, "scheduleHour"),
        ({"scheduleHour": "8 o'clock"}, "scheduleHour"),
        ({"scheduleHour": 8.5}, "scheduleHour"),
        ({"timezone": "Nowhere/Land"}, "timezone"),
        ({"environment": "prod"}, "environment"),
        ({"triggerType": "whenever"}, "triggerType"),
        ({"hospitalId": "Hospital A"}, "hospitalId"),
        ({"hour": "8"}, "hour"),
    ],
)
async def test_a_bad_field_is_refused_by_its_name_and_opens_no_round(
    here: World, changes: dict[str, Any], field: str
) -> None:
    async with served(here) as pulse:
        with pytest.raises(InvalidParamsError, match=f"^{field}: "):
            await anext(pulse.client.send_message(morning(**changes)))
    assert await here.store.rounds("default") == []


async def test_a_message_that_is_no_order_is_refused(here: World) -> None:
    async with served(here) as pulse:
        for changes in ({"parts": []}, {"context_id": "c-1"}, {"task_id": ROUND_ID, "context_id": ROUND_ID}):
            message = Message(message_id="m", role=Role.ROLE_USER, parts=[new_data_part({"scheduleHour": 8})])
            if "parts" in changes:
                message.parts.append(new_data_part({}))
            message.MergeFrom(Message(**{k: v for k, v in changes.items() if k != "parts"}))
            with pytest.raises(InvalidParamsError, match=r"^message\."):
                await anext(pulse.client.send_message(SendMessageRequest(message=message)))
    assert await here.store.rounds("default") == []


async def test_a_number_for_the_hour_is_taken_although_it_arrives_as_a_double(here: World) -> None:
    async with served(here) as pulse:
        assert (await anext(pulse.client.send_message(morning(scheduleHour=8)))).task.id == ROUND_ID


async def test_rounds_are_listed_latest_first_and_in_pages(here: World) -> None:
    await here.trigger()
    here.clock.advance(4 * 3600)
    await here.trigger(scheduleHour=12)
    async with served(here) as pulse:
        pages: list[list[Task]] = []
        token = ""
        while not pages or token:
            page = await pulse.client.list_tasks(ListTasksRequest(page_size=1, page_token=token))
            assert page.total_size == 2
            pages.append(list(page.tasks))
            token = page.next_page_token
        assert [[task.id for task in tasks] for tasks in pages] == [[ROUND_ID[:-2] + "12"], [ROUND_ID]]
        mine = await pulse.client.list_tasks(ListTasksRequest(context_id=ROUND_ID))
        assert [task.id for task in mine.tasks] == [ROUND_ID]
        for bad in (ListTasksRequest(page_size=101), ListTasksRequest(page_token="x")):
            with pytest.raises(InvalidParamsError, match=r"^page"):
                await pulse.client.list_tasks(bad)


async def test_what_is_unknown_or_not_offered_is_said_in_the_protocols_words(here: World) -> None:
    await here.trigger()
    async with served(here) as pulse:
        for unknown in ("nobody", ROUND_ID[:-2] + "12", ""):
            with pytest.raises((TaskNotFoundError, InvalidParamsError)):
                await pulse.client.get_task(GetTaskRequest(id=unknown))
        with pytest.raises(TaskNotFoundError):
            await anext(pulse.client.subscribe(SubscribeToTaskRequest(id="nobody")))
        with pytest.raises(TaskNotCancelableError):
            await pulse.client.cancel_task(CancelTaskRequest(id=ROUND_ID))
        with pytest.raises(PushNotificationNotSupportedError):
            await pulse.client.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id=ROUND_ID, url="https://hook.test")
            )
    assert len(await here.store.rounds("default")) == 1


async def test_only_the_scheduler_s_account_may_run_a_round(here: World) -> None:
    async with served(here, account="somebody@elsewhere.test") as stranger:
        with pytest.raises(A2AClientError, match="403"):
            await anext(stranger.client.send_message(morning()))
        answer = await stranger.anonymous.post(stranger.url + "/a2a", json={})
        assert answer.status_code == 401
    assert await here.store.rounds("default") == []


async def test_a_store_that_is_away_is_an_answer_to_try_again(here: World) -> None:
    async with served(here) as pulse:
        await here.store.close()
        body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": ROUND_ID}}
        answer = await pulse.authorised.post(pulse.url + "/a2a", json=body, headers={"A2A-Version": "1.0"})
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_the_sdk_s_server_does_not_slow_down_the_start() -> None:
    program = "import sys, careflow.pulse.app; print(any(m.startswith('a2a.server') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class TestTenant:
    """A request that names a hospital as its tenant is about that hospital only."""

    async def test_another_hospitals_round_is_not_to_be_found(self, here: World) -> None:
        async with served(here) as pulse:
            await anext(pulse.client.send_message(morning()))
            mine = GetTaskRequest(id=ROUND_ID, tenant="default")
            assert (await pulse.client.get_task(mine)).id == ROUND_ID
            with pytest.raises(TaskNotFoundError):
                await pulse.client.get_task(GetTaskRequest(id=ROUND_ID, tenant="lakeside"))
            with pytest.raises(TaskNotFoundError):
                await pulse.client.cancel_task(CancelTaskRequest(id=ROUND_ID, tenant="lakeside"))
            with pytest.raises(TaskNotFoundError):
                await anext(pulse.client.subscribe(SubscribeToTaskRequest(id=ROUND_ID, tenant="lakeside")))

    async def test_only_the_hospitals_own_rounds_are_listed(self, here: World) -> None:
        await here.store.put_patients([patient(9, hospital_id="lakeside")])
        async with served(here) as pulse:
            await anext(pulse.client.send_message(morning()))
            await anext(pulse.client.send_message(morning(hospitalId="lakeside")))

            async def listed(**asked: str) -> list[str]:
                found = await pulse.client.list_tasks(ListTasksRequest(**asked))
                return sorted(task.id for task in found.tasks)

            theirs = ROUND_ID.replace("default", "lakeside")
            assert await listed() == [ROUND_ID, theirs]
            assert await listed(tenant="lakeside") == [theirs]
            assert await listed(tenant="lakeside", context_id=ROUND_ID) == []

    async def test_a_round_is_begun_for_the_tenant_and_for_nobody_else(self, here: World) -> None:
        async with served(here) as pulse:
            asked = morning()
            asked.tenant = "lakeside"
            first = await anext(pulse.client.send_message(asked))
            assert told(first)[1]["hospitalId"] == "lakeside"
            other = morning(hospitalId="default")
            other.tenant = "lakeside"
            with pytest.raises(InvalidParamsError, match="hospitalId"):
                await anext(pulse.client.send_message(other))
        assert await here.store.rounds("default") == []
