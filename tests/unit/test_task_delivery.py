"""Delivery of tasks over HTTP: what is sent, and what each answer means."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from careflow.clock import VirtualClock
from careflow.errors import ProviderError
from careflow.ports import Task
from careflow.tasks.delivery import HttpDelivery
from careflow.tasks.pacing import Answer

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
TASK = Task(queue="calls", name="call-abc-0", path="/tasks/call", body={"callId": "abc"}, due_at=NOW)


class FixedTokens:
    async def token(self, audience):
        return f"token-for-{audience}"


def delivery(answer, *, deadline=timedelta(seconds=5), tokens=None):
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return HttpDelivery(
        http, "http://pulse.test/", tokens or FixedTokens(), "https://pulse", deadline, VirtualClock(NOW)
    )


async def test_it_posts_the_body_with_a_token_and_cloud_tasks_headers():
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(204)

    assert await delivery(answer)(TASK, 3) == Answer(204)
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "http://pulse.test/tasks/call")
    assert json.loads(request.content) == {"callId": "abc"}
    expected = {
        "Authorization": "Bearer token-for-https://pulse",
        "Content-Type": "application/json",
        "User-Agent": "Google-Cloud-Tasks",
        "X-CloudTasks-QueueName": "calls",
        "X-CloudTasks-TaskName": "call-abc-0",
        "X-CloudTasks-TaskRetryCount": "2",
    }
    assert {name: request.headers[name] for name in expected} == expected
    assert float(request.headers["X-CloudTasks-TaskETA"]) == NOW.timestamp()


@pytest.mark.parametrize("status", [200, 299, 302, 404, 500])
async def test_the_status_is_what_the_receiver_said(status):
    answer = await delivery(lambda request: httpx.Response(status, headers={"Location": "/elsewhere"}))(
        TASK, 1
    )
    assert answer == Answer(status)
    assert answer.accepted is (200 <= status < 300)


@pytest.mark.parametrize(
    ("status", "header", "wait"),
    [
        (503, "30", timedelta(seconds=30)),
        (409, "90", timedelta(seconds=90)),
        (429, " 0 ", timedelta(0)),
        (503, "Mon, 23 Nov 2026 13:01:00 GMT", timedelta(minutes=1)),
        (503, "Mon, 23 Nov 2026 12:00:00 GMT", timedelta(0)),
        (503, "99999999999999", timedelta(days=1)),
        (503, "soon", None),
        (503, "-5", None),
        (500, "30", None),
    ],
)
async def test_retry_after_is_read_as_seconds_or_date(status, header, wait):
    answer = await delivery(lambda request: httpx.Response(status, headers={"Retry-After": header}))(TASK, 1)
    assert answer.retry_after == wait


async def test_no_answer_is_no_status_and_names_the_task_alone(caplog):
    def refuse(request):
        raise httpx.ConnectError("refused by +12125550123")

    with caplog.at_level(logging.INFO):
        assert await delivery(refuse)(TASK, 1) == Answer(None)
    assert "call-abc-0" in caplog.text
    assert "2125550123" not in caplog.text


async def test_without_a_token_nothing_is_sent():
    class NoTokens:
        async def token(self, audience):
            raise ProviderError("no key")

    def unexpected(request):
        raise AssertionError("sent without a token")

    assert await delivery(unexpected, tokens=NoTokens())(TASK, 1) == Answer(None)


async def test_a_delivery_ends_at_its_deadline():
    async def never(request):
        await asyncio.Event().wait()

    assert await delivery(never, deadline=timedelta(milliseconds=20))(TASK, 1) == Answer(None)
