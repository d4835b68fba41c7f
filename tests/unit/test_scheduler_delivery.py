"""One attempt over HTTP: the request (reference/cloud-scheduler section 7) and what answers mean (sections 5 and 11)."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from careflow.errors import ProviderError
from careflow.google_api.http_target import HttpTarget, OAuthToken, OidcToken
from careflow.scheduler.connections import DirectTransport
from careflow.scheduler.delivery import HttpDelivery, request_headers
from careflow.scheduler.model import AttemptRecord, Job

SLOT = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
JOB = Job(
    name="projects/p/locations/l/jobs/morning",
    schedule="15 8 * * *",
    http_target=HttpTarget(uri="http://pulse.test/path?q=1", body=b"{}"),
    attempt_deadline=timedelta(seconds=5),
)
ATTEMPT = AttemptRecord(job=JOB.name, execution_id="e1", slot=SLOT, number=1, started_at=SLOT)


class FixedTokens:
    def __init__(self, account):
        self.account = account

    async def token(self, audience):
        if self.account == "broken@p":
            raise ProviderError("no metadata server")
        return f"{self.account}|{audience}"


def aimed(uri, deadline=5.0, **target):
    return replace(
        JOB, http_target=HttpTarget(uri=uri, **target), attempt_deadline=timedelta(seconds=deadline)
    )


def headers(attempt=ATTEMPT, **target):
    job = replace(JOB, http_target=replace(JOB.http_target, **target))
    return {name.lower(): value for name, value in request_headers(job, attempt).items()}


async def test_the_request_is_the_targets_with_the_services_headers_and_a_token():
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(204)

    job = aimed(
        "http://pulse.test/path?q=1",
        http_method="PUT",
        headers={"X-Own": "1", "Content-Type": "application/json"},
        body=b'{"a":1}',
        oidc_token=OidcToken(service_account_email="careflow@p"),
    )
    deliver = HttpDelivery(httpx.MockTransport(answer), FixedTokens)
    outcome = await deliver(job, ATTEMPT)
    assert (outcome.code.name, outcome.http_status, outcome.succeeded) == ("OK", 204, True)
    (request,) = seen
    assert (request.method, str(request.url), request.content) == ("PUT", job.http_target.uri, b'{"a":1}')
    expected = {
        "Authorization": "Bearer careflow@p|http://pulse.test/path?q=1",
        "Content-Type": "application/json",
        "User-Agent": "Google-Cloud-Scheduler",
        "X-CloudScheduler": "true",
        "X-CloudScheduler-JobName": "morning",
        "X-CloudScheduler-ScheduleTime": "2026-11-23T13:15:00Z",
        "X-Own": "1",
        "Host": "pulse.test",
        "Content-Length": "7",
    }
    assert {name: request.headers[name] for name in expected} == expected


async def test_an_audience_that_is_set_is_used():
    seen = []

    def answer(request):
        seen.append(request.headers["Authorization"])
        return httpx.Response(200)

    token = OidcToken(service_account_email="careflow@p", audience="https://pulse")
    deliver = HttpDelivery(httpx.MockTransport(answer), FixedTokens)
    await deliver(aimed("http://pulse.test/", oidc_token=token), ATTEMPT)
    assert seen == ["Bearer careflow@p|https://pulse"]


def test_a_body_without_a_type_is_octets_and_without_a_body_there_is_no_type():
    assert headers()["content-type"] == "application/octet-stream"
    assert headers(headers={"content-type": "text/plain"})["content-type"] == "text/plain"
    assert "content-type" not in headers(body=b"")


def test_a_forced_run_carries_no_schedule_time():
    assert "x-cloudscheduler-scheduletime" not in headers(replace(ATTEMPT, slot=None))


def test_the_users_values_of_reserved_headers_do_not_get_through():
    users = dict.fromkeys(
        ("user-agent", "X-CloudScheduler", "x-cloudscheduler-jobname", "X-Google-A", "X-AppEngine-B", "host"),
        "mine",
    )
    sent = headers(headers={**users, "Content-Length": "99", "Transfer-Encoding": "chunked"})
    assert "mine" not in sent.values()
    assert not {"x-google-a", "x-appengine-b", "content-length", "transfer-encoding"} & sent.keys()
    assert sent["user-agent"] == "Google-Cloud-Scheduler"


def test_a_token_replaces_the_users_authorization():
    users = {"authorization": "Basic x"}
    assert headers(headers=users)["authorization"] == "Basic x"
    assert "authorization" not in headers(headers=users, oidc_token=OidcToken(service_account_email="a@p"))
    assert "authorization" not in headers(headers=users, oauth_token=OAuthToken(service_account_email="a@p"))


async def test_without_a_token_nothing_is_sent():
    def answer(request):
        raise AssertionError("it was sent")

    deliver = HttpDelivery(httpx.MockTransport(answer), FixedTokens)
    outcome = await deliver(
        aimed("http://x/", oidc_token=OidcToken(service_account_email="broken@p")), ATTEMPT
    )
    assert (outcome.code.name, outcome.http_status) == ("UNAUTHENTICATED", None)


async def test_cookies_of_one_answer_are_not_sent_with_the_next_attempt():
    seen = []

    def answer(request):
        seen.append(request.headers.get("Cookie"))
        return httpx.Response(200, headers={"Set-Cookie": "session=1"})

    deliver = HttpDelivery(httpx.MockTransport(answer), FixedTokens)
    await deliver(JOB, ATTEMPT)
    await deliver(JOB, ATTEMPT)
    assert seen == [None, None]


async def test_duplicates_can_be_had_on_demand():
    seen = []

    def answer(request):
        seen.append(request.headers["X-CloudScheduler-ScheduleTime"])
        return httpx.Response(200 if len(seen) == 2 else 500)

    transport = httpx.MockTransport(answer)
    assert (await HttpDelivery(transport, FixedTokens, copies=2)(JOB, ATTEMPT)).succeeded
    assert seen == ["2026-11-23T13:15:00Z"] * 2


# real servers


@asynccontextmanager
async def server(behave):
    """A server on this machine that reads a request's head and then behaves; its URL."""
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            await behave(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sends(*parts):
    async def behave(writer):
        for part in parts:
            writer.write(part)
            await writer.drain()

    return behave


async def hangs(writer):
    await asyncio.Event().wait()


async def sends_for_ever(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()


async def starts_and_hangs(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")
    await hangs(writer)


async def resets(writer):
    writer.transport.abort()


@pytest.fixture(params=[DirectTransport, httpx.AsyncHTTPTransport])
async def deliver(request):
    async with request.param() as transport:
        yield HttpDelivery(transport, FixedTokens)


@pytest.mark.parametrize(
    ("behave", "code", "status"),
    [
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "OK", 200),
        (sends(b"HTTP/1.1 204 No Content\r\n\r\n"), "OK", 204),
        (sends(b"HTTP/1.0 200 OK\r\n\r\nuntil the end"), "OK", 200),
        (
            sends(b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n"),
            "OK",
            299,
        ),
        (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"), "OK", 200),
        (sends_for_ever, "OK", 200),
        (sends(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"), "UNKNOWN", 302),
        (sends(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"), "INVALID_ARGUMENT", 400),
        (sends(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"), "UNAUTHENTICATED", 401),
        (sends(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), "PERMISSION_DENIED", 403),
        (sends(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), "NOT_FOUND", 404),
        (sends(b"HTTP/1.1 418 No\r\nContent-Length: 0\r\n\r\n"), "FAILED_PRECONDITION", 418),
        (
            sends(b"HTTP/1.1 429 Slow\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"),
            "RESOURCE_EXHAUSTED",
            429,
        ),
        (sends(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "INTERNAL", 500),
        (sends(b"HTTP/1.1 502 Oops\r\nContent-Length: 0\r\n\r\n"), "INTERNAL", 502),
        (sends(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), "UNAVAILABLE", 503),
        (sends(b"HTTP/1.1 504 Late\r\nContent-Length: 0\r\n\r\n"), "DEADLINE_EXCEEDED", 504),
        (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), "UNAVAILABLE", None),
        (sends(b"\x00\xff" * 100_000), "UNAVAILABLE", None),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123"), "UNAVAILABLE", None),
        (sends(), "UNAVAILABLE", None),
        (resets, "UNAVAILABLE", None),
    ],
)
async def test_what_an_answer_means(deliver, behave, code, status):
    async with server(behave) as uri:
        outcome = await deliver(aimed(uri), ATTEMPT)
    assert (outcome.code.name, outcome.http_status) == (code, status)
    assert outcome.succeeded is (code == "OK")


@pytest.mark.parametrize("behave", [hangs, starts_and_hangs])
async def test_an_answer_that_does_not_come_in_time_is_a_failure_by_deadline(deliver, behave):
    async with server(behave) as uri:
        outcome = await deliver(aimed(uri, deadline=0.1), ATTEMPT)
    assert (outcome.code.name, outcome.http_status) == ("DEADLINE_EXCEEDED", None)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1/", "http://nowhere.invalid/", "http://[::bad/"])
async def test_a_target_that_is_not_there_is_unavailable(deliver, uri):
    assert (await deliver(aimed(uri), ATTEMPT)).code.name == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, "URL_CRAWLED. Original HTTP response code number = 200"),
        (500, "URL_UNREACHABLE-UNREACHABLE_5xx. Original HTTP response code number = 500"),
        (403, "URL_ERROR-ERROR_OTHER. Original HTTP response code number = 403"),
    ],
)
async def test_debug_info_is_googles(status, expected):
    transport = httpx.MockTransport(lambda _: httpx.Response(status))
    assert (await HttpDelivery(transport, FixedTokens)(JOB, ATTEMPT)).debug_info == expected


async def test_a_target_that_hangs_does_not_take_the_places_of_others():
    async with (
        server(hangs) as stuck,
        server(sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as fine,
    ):
        deliver = HttpDelivery(DirectTransport(), FixedTokens, in_flight=3, per_origin=2)
        waiting = [asyncio.create_task(deliver(aimed(stuck), ATTEMPT)) for _ in range(10)]
        await asyncio.sleep(0)
        began = time.monotonic()
        for _ in range(5):
            assert (await deliver(aimed(fine), ATTEMPT)).succeeded
        assert time.monotonic() - began < 2
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
