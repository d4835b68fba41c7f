"""What the lab's Cloud Tasks sends and when: headers and tokens, rates, retries, and deadlines."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from careflow.clock import VirtualClock
from careflow.errors import CareflowError
from careflow.google_api.http_target import HttpTarget, OidcToken
from careflow.lab.cloud_tasks.delivery import HttpDelivery, request_headers
from careflow.lab.cloud_tasks.model import RetryConfig, Task, begun, ended, retry_delay
from careflow.tasks.pacing import Answer, Pace
from cloud_tasks_bench import NOW, Bench, bench, refused
from cloud_tasks_kit import QUEUE, AccountTokens, Receiver, Request, serving

TASK = Task(name=f"{QUEUE}/tasks/t1", target=HttpTarget(uri="http://x/"), schedule_time=NOW, create_time=NOW)


async def test_the_request_carries_the_services_headers_and_the_accounts_token(tmp_path: Path) -> None:
    async with bench(tmp_path, [500, 404]) as it:
        await it.create(
            scheduleTime="2026-11-23T13:00:05.5Z",
            httpRequest={
                "headers": {
                    "Content-Type": "application/json",
                    "x-cloudtasks-taskname": "forged",
                    "x-cloudtasks-x": "forged",
                    "A": "b",
                },
                "body": "e30=",
                "oidcToken": {"serviceAccountEmail": "queue@p.iam", "audience": "https://pulse.test"},
            },
        )
        await it.let(7, step=0.5)
        first, second, third = (request.headers for request in it.served.receiver.received)

    assert it.served.receiver.received[0].body == b"{}"
    assert first["authorization"] == "Bearer queue@p.iam|https://pulse.test"
    assert "x-cloudtasks-x" not in first
    assert (first["content-type"], first["a"]) == ("application/json", "b")
    assert first["user-agent"] == "Google-Cloud-Tasks"
    assert (first["x-cloudtasks-queuename"], first["x-cloudtasks-taskname"]) == ("q", "t1")
    eta = datetime.fromtimestamp(float(first["x-cloudtasks-tasketa"]), UTC)
    assert eta == NOW + timedelta(seconds=5.5)
    counted = [
        (one["x-cloudtasks-taskretrycount"], one["x-cloudtasks-taskexecutioncount"])
        for one in (first, second, third)
    ]
    assert counted == [("0", "0"), ("1", "0"), ("2", "1")]  # a 5xx is a retry and no execution
    assert "x-cloudtasks-taskpreviousresponse" not in first
    assert third["x-cloudtasks-taskpreviousresponse"] == "404"


def test_a_body_has_no_content_type_unless_the_task_says_one() -> None:
    assert "content-type" not in {name.lower() for name in request_headers(begun(TASK, NOW), None)}


async def test_the_audience_is_the_url_unless_the_task_says_one(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.create(httpRequest={"oidcToken": {"serviceAccountEmail": "queue@p.iam"}})
        await it.settle()
        (request,) = it.served.receiver.received
    assert request.headers["authorization"] == f"Bearer queue@p.iam|{it.served.receiver.url}/tasks/call"


async def test_a_redirect_is_a_failure_and_takes_no_token_anywhere(tmp_path: Path) -> None:
    async with Receiver().listening() as elsewhere:
        async with bench(tmp_path, [302], {"Location": elsewhere.url}) as it:
            await it.create()
            await it.settle()
            assert (await it.task())["lastAttempt"]["responseStatus"]["message"].endswith("302")
        assert elsewhere.received == []


class NoTokens:
    def __init__(self, _account: str) -> None:
        pass

    async def token(self, audience: str) -> str:
        raise CareflowError


async def test_without_a_token_nothing_is_sent() -> None:
    sent: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b""))

    deliver = HttpDelivery(httpx.MockTransport(handle), NoTokens, VirtualClock(NOW))
    wanted = HttpTarget(uri="http://x/", oidc_token=OidcToken(service_account_email="a@p"))
    assert (await deliver(begun(replace(TASK, target=wanted), NOW), None)).status is None
    assert sent == []


async def test_no_answer_within_the_dispatch_deadline_is_a_failure() -> None:
    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    deliver = HttpDelivery(httpx.MockTransport(never), AccountTokens, VirtualClock(NOW))
    hasty = replace(TASK, dispatch_deadline=timedelta(milliseconds=20))
    async with asyncio.timeout(1):
        assert (await deliver(begun(hasty, NOW), None)).status is None


async def test_no_more_are_under_way_than_the_queue_allows(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def hold(_request: Request) -> int | None:
        await gate.wait()
        return 200

    clock, receiver = VirtualClock(NOW), Receiver(hold)
    async with serving(tmp_path, clock, receiver) as served, httpx.AsyncClient(base_url=served.url) as rest:
        it = Bench(served, clock, rest)
        await it.queue(rateLimits={"maxDispatchesPerSecond": 500, "maxConcurrentDispatches": 3})
        for numbers in (range(2), range(2, 9)):
            await rest.post(f"/v2/{QUEUE}:pause")
            for number in numbers:
                await it.create(f"t{number}")
            await rest.post(f"/v2/{QUEUE}:resume")
            while not served.tasks.dispatcher.is_resting:
                await asyncio.sleep(0.001)
        assert served.tasks.in_flight == 3
        gate.set()
        await it.let(1, step=0.1)
        assert sorted(it.names) == [f"t{number}" for number in range(9)]


async def test_starts_keep_to_the_rate_and_the_burst(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.queue(rateLimits={"maxDispatchesPerSecond": 10, "maxConcurrentDispatches": 100})
        for number in range(20):
            await it.create(f"t{number}")
        await it.settle()
        assert len(it.names) == 2  # a fifth of a second's worth at once
        await it.let(1.0, step=0.1)
        assert len(it.names) in (11, 12)  # the clock's steps are not exact


async def test_a_target_that_asks_for_mercy_slows_its_queue_down(tmp_path: Path) -> None:
    async with bench(tmp_path, [503] * 4) as it:
        await it.queue(
            rateLimits={"maxDispatchesPerSecond": 4}, retryConfig={"minBackoff": "600s", "maxBackoff": "600s"}
        )
        for number in range(40):
            await it.create(f"t{number}")
        await it.let(10, step=0.25)
        slowed = len(it.names)
        await it.let(10, step=0.25)
        assert slowed < 20  # 40 without
        assert len(it.names) - slowed > slowed  # and it recovers


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_kept_to(tmp_path: Path, status: int) -> None:
    async with bench(tmp_path, [status], {"Retry-After": "120"}) as it:
        await it.create()
        await it.let(119)
        assert it.names == ["t1"]
        await it.let(2)
        assert it.names == ["t1", "t1"]


async def test_run_dispatches_though_the_queue_is_paused(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.rest.post(f"/v2/{QUEUE}:pause")
        await it.create("t1")
        await it.create("t2")
        await it.let(60, step=10)
        assert it.names == []
        assert (await it.rest.post(f"/v2/{QUEUE}/tasks/t2:run", json={})).status_code == 200
        await it.settle()
        assert it.names == ["t2"]
        await it.rest.post(f"/v2/{QUEUE}:resume")
        await it.settle()
        assert it.names == ["t2", "t1"]
        assert refused(await it.rest.post(f"/v2/{QUEUE}/tasks/t2:run", json={}))[1] == "NOT_FOUND"


@given(
    st.integers(1, 5),
    st.floats(0.5, 50),
    st.lists(st.floats(0, 3), min_size=1, max_size=40),
)
def test_no_second_has_more_starts_than_the_rate_and_the_burst(
    burst: int, rate: float, pauses: list[float]
) -> None:
    pace, now, starts = Pace(rate, burst), NOW, []
    for pause in pauses:
        now += timedelta(seconds=pause)
        for _ in range(pace.allowed(now, 100)):
            pace.started(now)
            starts.append(now)
        assert pace.allowed(now, 100) == 0
        assert pace.allowed(now + timedelta(seconds=pace.wait(now) + 1e-5), 1) == 1
    for first in starts:
        within = sum(1 for one in starts if first <= one < first + timedelta(seconds=1))
        assert within <= rate + burst + 1


def test_the_delays_double_then_grow_evenly_then_stay() -> None:
    """The curve of the reference: 10 s doubled three times, then 80 s more each time, then the cap of 300 s."""
    retry = RetryConfig(
        min_backoff=timedelta(seconds=10), max_backoff=timedelta(seconds=300), max_doublings=3
    )
    seconds = [retry_delay(retry, failures).total_seconds() for failures in range(1, 9)]
    assert seconds == [10, 20, 40, 80, 160, 240, 300, 300]


@pytest.mark.parametrize(
    ("retry", "deliveries"),
    [
        (RetryConfig(max_attempts=3), 3),  # the first counts
        (RetryConfig(max_attempts=3, max_retry_duration=timedelta(seconds=10)), 11),  # both must be spent
        (RetryConfig(max_attempts=20, max_retry_duration=timedelta(seconds=10)), 20),
        (RetryConfig(max_attempts=-1, max_retry_duration=timedelta(seconds=5)), 6),
    ],
)
def test_a_task_is_given_up_when_every_limit_that_is_set_is_spent(
    retry: RetryConfig, deliveries: int
) -> None:
    every_second = RetryConfig(
        max_attempts=retry.max_attempts,
        max_retry_duration=retry.max_retry_duration,
        min_backoff=timedelta(seconds=1),
        max_backoff=timedelta(seconds=1),
    )
    task: Task | None = TASK
    made = 0
    while task is not None and made < 100:
        at = task.schedule_time
        made += 1
        task = ended(begun(task, at), every_second, Answer(500), at)
    assert made == deliveries


def test_a_task_without_limits_is_kept_for_a_month() -> None:
    unlimited = RetryConfig(max_attempts=-1, min_backoff=timedelta(hours=1), max_backoff=timedelta(hours=1))
    task: Task | None = TASK
    last = NOW
    while task is not None:
        last = task.schedule_time
        task = ended(begun(task, last), unlimited, Answer(None), last)
    assert timedelta(days=30) < last - NOW <= timedelta(days=31)


async def test_a_task_deleted_while_it_is_delivered_is_not_tried_again(tmp_path: Path) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()

    async def wait_then_fail(_request: Request) -> int | None:
        reached.set()
        await gate.wait()
        return 500

    clock = VirtualClock(NOW)
    receiver = Receiver(wait_then_fail)
    async with serving(tmp_path, clock, receiver) as served, httpx.AsyncClient(base_url=served.url) as rest:
        it = Bench(served, clock, rest)
        await it.queue()
        await it.create()
        await asyncio.wait_for(reached.wait(), 10)
        assert (await rest.delete(f"/v2/{QUEUE}/tasks/t1")).status_code == 200
        gate.set()
        await it.let(60, step=10)
        assert it.names == ["t1"]
