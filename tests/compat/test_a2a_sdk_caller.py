"""The Caller against the A2A SDK's own client: real servers, two processes' worth of apps on one store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from a2a.client import Client, ClientConfig, create_client
from a2a.helpers import get_data_parts, new_data_part
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
    TaskStatus,
)
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from caller_support import NOW, World, patient, world
from careflow.auth.issuer import LocalIssuer
from careflow.auth.middleware import RequireToken
from careflow.auth.setup import verifier
from careflow.caller.app import caller_rules, create_caller, public_paths
from careflow.caller.attempts import AttemptDesk
from careflow.ports import AttemptOrder
from careflow.settings import Settings
from careflow.store.sqlite import SqliteStore


@dataclass
class Caller:
    """One served process: its desk, its address, a client with Pulse's token and one without."""

    desk: AttemptDesk
    url: str
    client: Client
    anonymous: httpx.AsyncClient
    authorised: httpx.AsyncClient

    async def unstreamed(self) -> Client:
        return await create_client(self.url, ClientConfig(httpx_client=self.authorised, streaming=False))


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@asynccontextmanager
async def served(here: World, *, account: str | None = None) -> AsyncIterator[Caller]:
    """A Caller of its own on the data directory, as another process would have it: own store, watch and desk."""
    store = await SqliteStore.open(here.data_dir)
    desk = here.desk(store)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        settings = Settings(caller_url=url, data_dir=here.data_dir)
        issuer = LocalIssuer(here.data_dir / "issuer")
        app = create_caller(desk=desk, watch=here.watch, store=store, settings=settings)
        async with httpx.AsyncClient() as http:
            guarded = RequireToken(
                app,
                verifier=verifier(settings, http, here.clock),
                rules=caller_rules(settings),
                public=public_paths(settings),
            )
            server = uvicorn.Server(
                uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=1)  # type: ignore[arg-type]
            )
            serving = asyncio.create_task(server.serve(sockets=[bound]))
            while not server.started:
                await asyncio.sleep(0.005)
            token = issuer.mint(account or settings.pulse_account, url, NOW)
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(headers=headers, timeout=20) as authorised:
                client = await create_client(url, ClientConfig(httpx_client=authorised, streaming=True))
                yield Caller(desk, url, client, http, authorised)
            server.should_exit = True
            await serving
    await store.close()


def request(order: AttemptOrder, *, immediately: bool = False, **changes: str) -> SendMessageRequest:
    data = {
        "attemptId": order.attempt_id,
        "number": str(order.number),
        "callId": order.call_id,
        "roundId": order.round_id,
        "hospitalId": order.hospital_id,
        "patientId": order.patient_id,
        "script": order.script,
        "notAfter": order.not_after.isoformat(),
    }
    message = Message(
        message_id=order.attempt_id,
        context_id=order.call_id,
        role=Role.ROLE_USER,
        parts=[new_data_part({key: value for key, value in (data | changes).items() if value})],
    )
    configuration = SendMessageConfiguration(return_immediately=immediately)
    return SendMessageRequest(message=message, configuration=configuration)


def data_of(status: TaskStatus) -> dict[str, Any]:
    [part] = get_data_parts(status.message.parts)
    assert isinstance(part, dict)
    return part


def status_of(response: StreamResponse) -> TaskStatus:
    kind = response.WhichOneof("payload")
    return response.task.status if kind == "task" else response.status_update.status


async def sid_of(here: World, order: AttemptOrder) -> str:
    while True:
        attempt = await here.store.attempt(order.attempt_id)
        if attempt is not None and attempt.call_sid is not None:
            return attempt.call_sid
        await asyncio.sleep(0.005)


async def test_a_stream_tells_the_attempt_from_dialling_to_its_end(here: World) -> None:
    async with served(here) as caller:
        order = await here.ready()
        stream = caller.client.send_message(request(order))
        first = await anext(stream)
        assert first.task.id == order.attempt_id
        assert first.task.context_id == order.call_id
        assert first.task.status.state == TaskState.TASK_STATE_WORKING
        sid = await sid_of(here, order)
        await caller.desk.status(order.attempt_id, sid, "ringing")
        assert data_of(status_of(await anext(stream)))["state"] == "ringing"
        await caller.desk.status(order.attempt_id, sid, "busy")
        rest = [response async for response in stream]
    assert data_of(status_of(rest[-1])) == {
        "attemptId": order.attempt_id,
        "state": "ended",
        "disposition": "busy",
        "ending": "",
        "failure": "",
    }
    assert status_of(rest[-1]).state == TaskState.TASK_STATE_COMPLETED


async def test_a_message_without_a_stream_is_answered_at_once_or_at_the_end(here: World) -> None:
    order = await here.ready()
    async with served(here) as caller:
        plain = await caller.unstreamed()
        [at_once] = [answer async for answer in plain.send_message(request(order, immediately=True))]
        assert at_once.task.status.state == TaskState.TASK_STATE_WORKING
        waiting = asyncio.ensure_future(anext(plain.send_message(request(order))))
        await caller.desk.status(order.attempt_id, await sid_of(here, order), "busy")
        assert (await here.pass_time(waiting)).task.status.state == TaskState.TASK_STATE_COMPLETED
    assert here.phone.creates == 1


async def test_a_dropped_stream_is_taken_up_again_at_another_process(here: World) -> None:
    order = await here.ready()
    async with served(here) as first, served(here) as second:
        stream = first.client.send_message(request(order))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        following = second.client.subscribe(SubscribeToTaskRequest(id=order.attempt_id))
        snapshot = await anext(following)
        assert snapshot.task.status.state == TaskState.TASK_STATE_WORKING
        sid = await sid_of(here, order)
        await first.desk.status(order.attempt_id, sid, "no-answer")
        last = await here.pass_time(anext(following), at_most=2.0)
        assert data_of(status_of(last))["disposition"] == "no-answer"
        with pytest.raises(StopAsyncIteration):
            await anext(following)
    async with served(here) as later:
        task = await later.client.get_task(GetTaskRequest(id=order.attempt_id))
        assert task.status.state == TaskState.TASK_STATE_COMPLETED
        with pytest.raises(UnsupportedOperationError):
            await anext(later.client.subscribe(SubscribeToTaskRequest(id=order.attempt_id)))


async def test_the_same_message_twice_is_one_call(here: World) -> None:
    order = await here.ready()
    async with served(here) as one, served(here) as other:
        streams = [caller.client.send_message(request(order)) for caller in (one, other)]
        for stream in streams:
            assert (await anext(stream)).task.id == order.attempt_id
        assert here.phone.creates == 1
        await one.client.cancel_task(CancelTaskRequest(id=order.attempt_id))
        again = [answer async for answer in other.client.send_message(request(order))]
    assert [answer.task.status.state for answer in again] == [TaskState.TASK_STATE_CANCELED]
    assert here.phone.creates == 1


async def test_a_cancel_at_another_process_hangs_up(here: World) -> None:
    order = await here.ready()
    async with served(here) as first, served(here) as second:
        stream = first.client.send_message(request(order))
        await anext(stream)
        task = await second.client.cancel_task(CancelTaskRequest(id=order.attempt_id))
        assert task.status.state == TaskState.TASK_STATE_CANCELED
        assert here.phone.live == []
        last = await here.pass_time(anext(stream), at_most=2.0)
        assert status_of(last).state == TaskState.TASK_STATE_CANCELED
        with pytest.raises(TaskNotCancelableError):
            await first.client.cancel_task(CancelTaskRequest(id=order.attempt_id))


async def test_a_refused_order_is_a_rejected_task_that_is_not_kept(here: World) -> None:
    order = await here.ready()
    await here.store.put_patients([patient(consent=False)])
    async with served(here) as caller:
        [answer] = [answer async for answer in caller.client.send_message(request(order))]
        assert answer.task.status.state == TaskState.TASK_STATE_REJECTED
        assert data_of(answer.task.status) == {"refused": "no-consent"}
        with pytest.raises(TaskNotFoundError):
            await caller.client.get_task(GetTaskRequest(id=order.attempt_id))
    assert here.phone.creates == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"notAfter": "tomorrow"}, "notAfter"),
        ({"notAfter": "2026-11-23T15:00:00"}, "notAfter"),  # which zone?
        ({"number": "0"}, "number"),
        ({"number": "2"}, "attemptId"),
        ({"patientId": ""}, "patientId"),
        ({"script": "midnight"}, "script"),
        ({"callId": "another"}, "message.contextId"),
        ({"attemptId": "another-1"}, "message.messageId"),
    ],
)
async def test_a_malformed_order_is_refused_with_its_field(
    here: World, changes: dict[str, str], field: str
) -> None:
    order = await here.ready()
    async with served(here) as caller:
        with pytest.raises(InvalidParamsError, match=f"^{field}: "):
            async for _ in caller.client.send_message(request(order, **changes)):
                pass
    assert here.phone.creates == 0


async def test_tasks_are_listed_by_call_and_in_pages(here: World) -> None:
    async with served(here) as caller:
        orders = [
            await here.ready(patient(id=f"p{number}", phone=f"+1212555010{number}")) for number in range(3)
        ]
        for order in orders:
            here.clock.advance(1)
            await caller.desk.begin(order)
        pages: list[Sequence[Task]] = []
        token = ""
        while True:
            page = await caller.client.list_tasks(ListTasksRequest(page_size=2, page_token=token))
            pages.append(page.tasks)
            assert page.total_size == 3
            token = page.next_page_token
            if not token:
                break
        listed = [task.id for tasks in pages for task in tasks]
        assert listed == [order.attempt_id for order in reversed(orders)]
        assert [len(tasks) for tasks in pages] == [2, 1]
        await caller.desk.cancel(orders[0].attempt_id)
        mine = await caller.client.list_tasks(ListTasksRequest(context_id=orders[0].call_id))
        assert [task.status.state for task in mine.tasks] == [TaskState.TASK_STATE_CANCELED]
        for bad in (ListTasksRequest(page_size=101), ListTasksRequest(page_token="x")):
            with pytest.raises(InvalidParamsError, match=r"^page"):
                await caller.client.list_tasks(bad)


async def test_what_is_unknown_or_not_offered_is_said_in_the_protocols_words(here: World) -> None:
    async with served(here) as caller:
        for work in (
            caller.client.get_task(GetTaskRequest(id="nobody-1")),
            caller.client.cancel_task(CancelTaskRequest(id="nobody-1")),
            anext(caller.client.subscribe(SubscribeToTaskRequest(id="nobody-1"))),
        ):
            with pytest.raises(TaskNotFoundError):
                await work
        config = TaskPushNotificationConfig(task_id="nobody-1", url="https://pulse.test")
        with pytest.raises(PushNotificationNotSupportedError):
            await caller.client.create_task_push_notification_config(config)


async def test_only_pulse_may_order(here: World) -> None:
    order = await here.ready()
    call = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": order.attempt_id}}
    async with served(here) as caller:
        answer = await caller.anonymous.post(f"{caller.url}/", json=call, headers={"A2A-Version": "1.0"})
        assert answer.status_code == 401
    async with served(here, account="somebody@else.test") as stranger:
        with pytest.raises(Exception, match="403"):
            await stranger.client.get_task(GetTaskRequest(id=order.attempt_id))


async def test_a_client_of_the_older_protocol_is_told_the_version(here: World) -> None:
    async with served(here) as caller:
        token = LocalIssuer(here.data_dir / "issuer").mint(Settings().pulse_account, caller.url, NOW)
        answer = await caller.anonymous.post(
            f"{caller.url}/",
            json={"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}},
            headers={"Authorization": f"Bearer {token}"},
        )
    assert answer.json()["error"]["code"] == -32009


class TestTenant:
    """A request that names a hospital as its tenant is about that hospital only."""

    async def test_another_hospitals_attempt_is_not_to_be_found(self, here: World) -> None:
        async with served(here) as caller:
            order = await here.ready()
            await anext(caller.client.send_message(request(order)))
            task_id = order.attempt_id
            mine = GetTaskRequest(id=task_id, tenant=order.hospital_id)
            assert (await caller.client.get_task(mine)).id == task_id
            with pytest.raises(TaskNotFoundError):
                await caller.client.get_task(GetTaskRequest(id=task_id, tenant="lakeside"))
            with pytest.raises(TaskNotFoundError):
                await anext(caller.client.subscribe(SubscribeToTaskRequest(id=task_id, tenant="lakeside")))
            with pytest.raises(TaskNotFoundError):
                await caller.client.cancel_task(CancelTaskRequest(id=task_id, tenant="lakeside"))
            assert (await here.attempt(order)).cancel_requested_at is None

    @pytest.mark.parametrize("by_context", [False, True])
    async def test_only_the_hospitals_own_attempts_are_listed(self, here: World, by_context: bool) -> None:
        async with served(here) as caller:
            order = await here.ready()
            await anext(caller.client.send_message(request(order)))

            async def listed(tenant: str) -> list[str]:
                context = order.call_id if by_context else ""
                asked = ListTasksRequest(tenant=tenant, context_id=context)
                return [task.id for task in (await caller.client.list_tasks(asked)).tasks]

            assert await listed("") == await listed(order.hospital_id) == [order.attempt_id]
            assert await listed("lakeside") == []

    async def test_an_order_in_another_hospitals_name_is_refused_and_nothing_is_dialled(
        self, here: World
    ) -> None:
        async with served(here) as caller:
            order = await here.ready()
            asked = request(order)
            asked.tenant = "lakeside"
            with pytest.raises(InvalidParamsError, match="hospitalId"):
                await anext(caller.client.send_message(asked))
            await here.store.put_patients([patient(hospital_id="lakeside")])  # the same id and number
            answer = await anext(caller.client.send_message(request(order, hospitalId="lakeside")))
            assert data_of(status_of(answer)) == {"refused": "call-over"}
        assert await here.store.open_attempts() == []
