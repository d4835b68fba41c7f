"""The Cloud Tasks queue beyond the contract: what is sent, what breaks off, what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import tasks_v2

from careflow.clock import VirtualClock
from careflow.errors import StoreUnavailable
from careflow.ports import Task
from careflow.tasks.cloud_tasks import CREATES, CloudTasksQueue, ensure_queues, queue_name
from careflow.tasks.limits import cloud_tasks_settings, queue_limits
from cloud_tasks_kit import Served, serving

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
ACCOUNT = "careflow-queue@careflow-test.iam.gserviceaccount.com"
WHERE = {"project": "careflow-test", "location": "us-central1"}
LIMITS = queue_limits(calls_per_second=2, calls_in_flight=10)


def task(name: str = "t1", queue: str = "calls", **fields: Any) -> Task:
    given: dict[str, Any] = {
        "path": "/tasks/call",
        "body": {"callId": "c1"},
        "due_at": NOW + timedelta(hours=1),
    }
    return Task(queue=queue, name=name, **given | fields)


@asynccontextmanager
async def practising(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[CloudTasksQueue, Served]]:
    """A queue on the lab's Cloud Tasks, whose two queues are there."""
    async with serving(tmp_path, VirtualClock(NOW)) as served:
        await ensure_queues(limits=LIMITS, url=served.url, **WHERE)
        queue = await CloudTasksQueue.open(
            **{
                "queues": {"calls": "calls", "rounds": "rounds"},
                "target": "https://pulse.test/",
                "audience": "https://pulse-audience.test",
                "account": ACCOUNT,
                "deadline": timedelta(minutes=25),
                "url": served.url,
                **WHERE,
            }
            | settings
        )
        try:
            yield queue, served
        finally:
            await queue.close()


@dataclass
class ScriptedClient:
    """CreateTask alone: fails for the names it is told, and counts."""

    fails: dict[str, Exception] = field(default_factory=dict)
    held: asyncio.Event | None = None
    created: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def create_task(self, *, parent: str, task: tasks_v2.Task, retry: Any, timeout: float) -> None:
        assert retry is not None
        assert timeout > 0
        name = task.name.rpartition("/")[2]
        self.asked.append(name)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            if name in self.fails:
                raise self.fails[name]
            if name in self.created:
                raise exceptions.AlreadyExists("there")
            self.created.add(name)
        finally:
            self.under_way -= 1


def scripted(client: Any, **settings: Any) -> CloudTasksQueue:
    names = {ours: queue_name("p", "l", ours) for ours in ("calls", "rounds")}
    given: dict[str, Any] = {
        "queues": names,
        "target": "https://pulse.test",
        "audience": "a",
        "account": ACCOUNT,
    }
    return CloudTasksQueue(client, **given | {"deadline": timedelta(minutes=30)} | settings)


async def test_what_is_sent_says_who_where_when_and_ids_alone(tmp_path: Path) -> None:
    async with practising(tmp_path) as (queue, served):
        assert await queue.enqueue([task("0a1b-17", body={"hospitalId": "h1", "callId": "c1"})]) == 1
        stored = await served.tasks.api.get_task(
            f"{queue_name('careflow-test', 'us-central1', 'calls')}/tasks/0a1b-17"
        )

    target = stored.target
    assert target.uri == "https://pulse.test/tasks/call"
    assert target.http_method == "POST"
    assert dict(target.headers) == {"Content-Type": "application/json"}
    assert json.loads(target.body) == {"hospitalId": "h1", "callId": "c1"}
    assert target.oidc_token is not None
    assert target.oidc_token.service_account_email == ACCOUNT
    assert target.oidc_token.audience == "https://pulse-audience.test"
    assert stored.schedule_time == NOW + timedelta(hours=1)
    assert stored.dispatch_deadline == timedelta(minutes=25)


async def test_the_queues_have_the_limits_that_the_embedded_queue_has(tmp_path: Path) -> None:
    async with practising(tmp_path) as (_queue, served):
        calls = await served.tasks.api.get_queue(queue_name("careflow-test", "us-central1", "calls"))
        rounds = await served.tasks.api.get_queue(queue_name("careflow-test", "us-central1", "rounds"))

    assert (calls.per_second, calls.in_flight, rounds.in_flight) == (2, 10, LIMITS["rounds"].in_flight)
    assert calls.retry.max_retry_duration >= timedelta(hours=24)  # longer than any window
    assert rounds.retry.max_retry_duration >= timedelta(minutes=45)  # longer than the grace at a window's end
    assert (calls.retry.min_backoff, calls.retry.max_backoff) == (timedelta(seconds=2), timedelta(seconds=60))


def test_the_limits_are_said_as_cloud_tasks_has_them() -> None:
    assert cloud_tasks_settings(queue_limits(calls_per_second=1, calls_in_flight=10)["calls"]) == {
        "rateLimits": {"maxDispatchesPerSecond": 1, "maxConcurrentDispatches": 10},
        "retryConfig": {
            "maxAttempts": 30,
            "maxRetryDuration": "86400s",
            "minBackoff": "2s",
            "maxBackoff": "60s",
            "maxDoublings": 5,
        },
    }
    rounds = cloud_tasks_settings(queue_limits(calls_per_second=1, calls_in_flight=10)["rounds"])
    assert rounds["rateLimits"] == {"maxDispatchesPerSecond": 5, "maxConcurrentDispatches": 4}
    assert rounds["retryConfig"]["maxRetryDuration"] == "7200s"


async def test_a_batch_that_breaks_off_is_no_success_and_can_be_asked_for_again() -> None:
    client = ScriptedClient(fails={"t7": exceptions.ServiceUnavailable("down")})
    queue = scripted(client)
    wanted = [task(f"t{number}") for number in range(100)]

    with pytest.raises(StoreUnavailable, match="calls"):
        await queue.enqueue(wanted)
    before = set(client.created)
    assert 0 < len(before) < 100
    client.fails.clear()

    assert await queue.enqueue(wanted) == 100 - len(before)
    assert client.created == {one.name for one in wanted}


async def test_after_a_failure_the_rest_is_not_tried() -> None:
    client = ScriptedClient(fails={"t0": exceptions.Forbidden("no")})
    with pytest.raises(StoreUnavailable, match="Forbidden"):
        await scripted(client).enqueue([task(f"t{number}") for number in range(1000)])
    assert len(client.asked) <= 2 * CREATES


async def test_creates_run_at_once_but_not_all() -> None:
    client = ScriptedClient()
    assert await scripted(client).enqueue([task(f"t{number}") for number in range(200)]) == 200
    assert 1 < client.most_under_way <= CREATES


async def test_nothing_is_sent_of_a_batch_that_holds_a_bad_task() -> None:
    client = ScriptedClient()
    for bad in (task("no/slash"), task("t2", "faxes")):
        with pytest.raises(ValueError, match=r"no/slash|faxes"):
            await scripted(client).enqueue([task("t1"), bad])
    assert client.asked == []


async def test_a_queue_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    async with practising(tmp_path, queues={"calls": "gone", "rounds": "rounds"}) as (queue, _served):
        for asking in (queue.enqueue([task()]), queue.depth("calls")):
            with pytest.raises(StoreUnavailable, match="calls"):
                await asking
        assert not await queue.cancel("calls", "t1")


async def test_a_refusal_does_not_repeat_what_was_sent(tmp_path: Path) -> None:
    async with practising(tmp_path) as (queue, _served):
        far = task("0a1b-17", due_at=NOW + timedelta(days=40))
        with pytest.raises(StoreUnavailable) as caught:
            await queue.enqueue([far])
    assert "c1" not in str(caught.value)
    assert "0a1b" not in str(caught.value)


async def test_a_name_of_yesterday_is_new_again_and_one_of_today_is_not(tmp_path: Path) -> None:
    async with practising(tmp_path) as (queue, served):
        clock: Any = served.tasks.api._clock
        assert await queue.enqueue([task()]) == 1
        assert await queue.cancel("calls", "t1")
        clock.advance(23.9 * 3600)
        again = replace(task(), due_at=clock.now() + timedelta(hours=1))
        assert await queue.enqueue([again]) == 0
        clock.advance(0.2 * 3600)
        assert await queue.enqueue([again]) == 1


async def test_depth_counts_beyond_one_page(tmp_path: Path) -> None:
    async with practising(tmp_path) as (queue, _served):
        await queue.enqueue([task(f"t{number}") for number in range(1003)])
        assert await queue.depth("calls") == 1003
        assert await queue.depth("rounds") == 0


async def test_a_create_whose_answer_is_lost_is_one_task(tmp_path: Path) -> None:
    async with practising(tmp_path) as (queue, served):
        api, lose = served.tasks.api, [True]
        create = api.create_task

        async def losing(parent: str, body: Any) -> Any:
            made = await create(parent, body)
            if lose and lose.pop():
                raise RuntimeError("the connection is gone")  # answered INTERNAL, after it was done
            return made

        api.create_task = losing  # type: ignore[method-assign]
        assert await queue.enqueue([task()]) == 0  # there, though not known to be new
        assert await queue.depth("calls") == 1


@pytest.mark.parametrize("deadline", [timedelta(seconds=14), timedelta(minutes=30, seconds=1)])
def test_a_deadline_that_cloud_tasks_does_not_take_is_refused_at_the_start(deadline: timedelta) -> None:
    with pytest.raises(ValueError, match="15 s to 1800 s"):
        scripted(ScriptedClient(), deadline=deadline)


async def test_nobody_there_is_an_outage_after_the_patience() -> None:
    import grpc
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcAsyncIOTransport

    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    client = tasks_v2.CloudTasksAsyncClient(transport=CloudTasksGrpcAsyncIOTransport(channel=channel))
    queue = scripted(client, patience=timedelta(milliseconds=300))
    try:
        with pytest.raises(StoreUnavailable):
            await queue.enqueue([task()])
    finally:
        await queue.close()
