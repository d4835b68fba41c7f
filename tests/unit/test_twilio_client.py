"""Twilio's REST API as the client speaks it (reference/twilio sections 1 and 2)."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import SecretStr

from careflow.caller.twilio import TwilioAccount, TwilioPhone
from careflow.clock import VirtualClock
from careflow.core.attempts import Attempt
from careflow.errors import ProviderError
from careflow.settings import Settings

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
NUMBER = "+12125550123"
SID = "CA" + "0" * 31 + "1"
ACCOUNT = TwilioAccount(
    api_url="https://twilio.test",
    account_sid="AC1",
    auth_token=SecretStr("hush"),
    hospitals=Settings(twilio_from="+12125550100").served,
    public_url="https://caller.test",
)
ATTEMPT = Attempt(
    id="c1-1",
    hospital_id="h1",
    round_id="r1",
    call_id="c1",
    patient_id="p1",
    number=1,
    phone=NUMBER,
    script="morning",
    stream_token="0.0.s",
    intended_at=NOW,
    not_after=NOW + timedelta(hours=1),
)


class Twilio:
    """Answers requests from a list, and keeps them."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.clock = VirtualClock(NOW)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def phone(self, **account: Any) -> TwilioPhone:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return TwilioPhone(http, replace(ACCOUNT, **account), self.clock, lambda: 0.5)

    def form(self, number: int = 0) -> dict[str, list[str]]:
        return parse_qs(self.requests[number].content.decode(), keep_blank_values=True)

    async def passing(self, work: Any) -> Any:
        task = asyncio.ensure_future(work)
        for _ in range(200):
            await asyncio.sleep(0)
            if task.done():
                break
            self.clock.advance(0.5)
        return await task


def created() -> httpx.Response:
    return httpx.Response(201, json={"sid": SID, "status": "queued"})


def refused(status: int, code: int | None, message: str = "") -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message, "status": status})


async def test_a_create_carries_the_attempt_in_every_url_and_bounds_the_call() -> None:
    twilio = Twilio(created())
    assert await twilio.phone().dial(ATTEMPT) == SID
    [request] = twilio.requests
    assert (request.method, request.url.path) == ("POST", "/2010-04-01/Accounts/AC1/Calls.json")
    assert request.headers["authorization"] == httpx.BasicAuth("AC1", "hush")._auth_header
    assert twilio.form() == {
        "To": [NUMBER],
        "From": ["+12125550100"],
        "Url": ["https://caller.test/twilio/voice/c1-1"],
        "Method": ["POST"],
        "FallbackUrl": ["https://caller.test/twilio/resume/c1-1"],
        "FallbackMethod": ["POST"],
        "StatusCallback": ["https://caller.test/twilio/status/c1-1"],
        "StatusCallbackMethod": ["POST"],
        "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
        "Timeout": ["25"],
        "TimeLimit": ["900"],
        "MachineDetection": ["DetectMessageEnd"],
        "AsyncAmd": ["true"],
        "AsyncAmdStatusCallback": ["https://caller.test/twilio/amd/c1-1"],
        "AsyncAmdStatusCallbackMethod": ["POST"],
    }


async def test_calls_are_recorded_only_when_asked_for() -> None:
    twilio = Twilio(created())
    await twilio.phone(record_calls=True).dial(ATTEMPT)
    assert twilio.form()["Record"] == ["true"]


@pytest.mark.parametrize(
    ("answer", "permanent", "ambiguous", "code"),
    [
        (refused(400, 21211), True, False, "21211"),
        (refused(403, 21215), True, False, "21215"),
        (refused(401, 20003), True, False, "20003"),
        (refused(400, 21204), True, True, "21204"),  # the call was created before
        (refused(500, None), False, True, "500"),
        (refused(503, 20503), False, True, "20503"),
        (httpx.Response(502, text="<html>"), False, True, "502"),
        (httpx.Response(302, text=""), False, True, "302"),
        (
            httpx.Response(
                400,
                json={"type": "about:blank", "title": "Bad", "status": 400, "code": 21214},
                headers={"content-type": "application/problem+json"},
            ),
            True,
            False,
            "21214",
        ),
        (httpx.Response(201, text="not json"), False, True, "not-json"),
        (httpx.Response(201, json={}), False, True, "no-sid"),
        (httpx.ReadTimeout("x"), False, True, "no-answer"),
        (httpx.WriteError("x"), False, True, "no-answer"),
        (httpx.RemoteProtocolError("x"), False, True, "no-answer"),
        (httpx.ConnectError("x"), False, False, "unreachable"),
        (httpx.ConnectTimeout("x"), False, False, "unreachable"),
    ],
)
async def test_a_failed_create_says_whether_the_call_may_exist(
    answer: httpx.Response | Exception, permanent: bool, ambiguous: bool, code: str
) -> None:
    twilio = Twilio(answer)
    with pytest.raises(ProviderError) as caught:
        await twilio.phone().dial(ATTEMPT)
    error = caught.value
    assert (error.permanent, error.ambiguous, error.code) == (permanent, ambiguous, code)
    assert len(twilio.requests) == 1, "a create is never repeated"


async def test_a_create_that_was_not_processed_is_tried_again_in_bounds() -> None:
    twilio = Twilio(refused(429, 20429), refused(429, 20429), created())
    assert await twilio.passing(twilio.phone().dial(ATTEMPT)) == SID
    assert twilio.clock.now() > NOW

    twilio = Twilio(*[refused(429, 20429)] * 9)
    with pytest.raises(ProviderError) as caught:
        await twilio.passing(twilio.phone().dial(ATTEMPT))
    assert (caught.value.permanent, caught.value.ambiguous) == (False, False)
    assert len(twilio.requests) == 4


async def test_no_create_is_sent_when_settling_may_have_begun() -> None:
    asks_for_patience = httpx.Response(429, json={"code": 20429}, headers={"retry-after": "9"})
    twilio = Twilio(asks_for_patience, asks_for_patience, created())
    with pytest.raises(ProviderError) as caught:
        await twilio.passing(twilio.phone().dial(ATTEMPT))
    assert caught.value.code == "20429"
    assert len(twilio.requests) == 2


class HeldUp(VirtualClock):
    """The process stands still for 40 s in its pause."""

    async def sleep(self, seconds: float) -> None:
        self.advance(40)


async def test_who_was_held_up_between_two_tries_sends_no_create() -> None:
    twilio = Twilio(refused(429, 20429), created())
    twilio.clock = HeldUp(NOW)
    with pytest.raises(ProviderError) as caught:
        await twilio.phone().dial(ATTEMPT)
    assert (caught.value.code, caught.value.ambiguous) == ("too-late", False)
    assert len(twilio.requests) == 1, "others may have taken the attempt for one that was never dialled"


async def test_the_last_try_does_not_come_after_the_permitted_time() -> None:
    twilio = Twilio(
        httpx.Response(429, json={"code": 20429}, headers={"retry-after": "10"}),
        created(),
    )
    soon = replace(ATTEMPT, not_after=NOW + timedelta(seconds=5))
    with pytest.raises(ProviderError) as caught:
        await twilio.passing(twilio.phone().dial(soon))
    assert caught.value.code == "too-late"
    assert len(twilio.requests) == 1


async def test_a_silent_server_is_given_up() -> None:
    async def silent(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    http = httpx.AsyncClient(transport=httpx.MockTransport(silent))
    phone = TwilioPhone(http, replace(ACCOUNT, timeout_seconds=0.01), VirtualClock(NOW), lambda: 0.5)
    with pytest.raises(ProviderError) as caught:
        await phone.dial(ATTEMPT)
    assert caught.value.ambiguous


async def test_no_error_and_no_log_line_holds_the_number(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for answer in (refused(400, 21211, f"{NUMBER} is not valid"), httpx.ReadTimeout(f"to {NUMBER}")):
            twilio = Twilio(answer, answer)
            phone = twilio.phone()
            for work in (phone.dial(ATTEMPT), phone.calls_to(NUMBER)):
                with pytest.raises(ProviderError) as caught:
                    await work
                assert "5550123" not in f"{caught.value}{caught.value.__cause__}"
        await Twilio(httpx.Response(200, json={"calls": []})).phone().calls_to(NUMBER)
    assert "5550123" not in caplog.text


@pytest.mark.parametrize(
    "answers",
    [
        [httpx.Response(200, json={"sid": SID})],
        [refused(404, 20404)],
        [refused(400, 21220), httpx.Response(200, json={"sid": SID})],
        [refused(400, 21220), refused(400, 21220)],
    ],
    ids=["live", "just over", "queued", "long over"],
)
async def test_hanging_up_works_in_every_state_of_the_call(answers: list[httpx.Response]) -> None:
    twilio = Twilio(*answers)
    await twilio.phone().hang_up(SID)
    statuses = [twilio.form(number)["Status"] for number in range(len(twilio.requests))]
    assert statuses == [["completed"], ["canceled"]][: len(answers)]


async def test_a_hang_up_that_failed_says_so() -> None:
    with pytest.raises(ProviderError) as caught:
        await Twilio(refused(500, None)).phone().hang_up(SID)
    assert not caught.value.ambiguous


async def test_one_call_is_read_in_twilios_formats() -> None:
    twilio = Twilio(
        httpx.Response(
            200,
            json={
                "sid": SID,
                "status": "completed",
                "to": NUMBER,
                "date_created": "Mon, 23 Nov 2026 15:00:07 +0000",
                "answered_by": "human",
                "duration": "42",
            },
        ),
        httpx.Response(200, json={"sid": SID, "status": "queued", "date_created": None, "duration": None}),
        refused(404, 20404),
    )
    phone = twilio.phone()
    call = await phone.fetch(SID)
    assert call is not None
    assert call.created_at == NOW + timedelta(seconds=7)
    assert (call.status, call.answered_by, call.duration_seconds) == ("completed", "human", 42)
    queued = await phone.fetch(SID)
    assert queued is not None
    assert (queued.created_at, queued.duration_seconds) == (None, None)
    assert await phone.fetch(SID) is None


async def test_listing_follows_every_page_newest_first() -> None:
    def page(sid: str, minute: int, following: str | None) -> httpx.Response:
        date = f"Mon, 23 Nov 2026 15:{minute:02}:00 +0000"
        call = {"sid": sid, "status": "queued", "to": NUMBER, "date_created": date}
        return httpx.Response(200, json={"calls": [call], "next_page_uri": following})

    following = "/2010-04-01/Accounts/AC1/Calls.json?PageToken=x&To=%2B12125550123"
    twilio = Twilio(page("CA1", 1, following), page("CA2", 2, None))
    assert [call.sid for call in await twilio.phone().calls_to(NUMBER)] == ["CA2", "CA1"]
    first, second = twilio.requests
    assert dict(first.url.params) == {"To": NUMBER, "From": "+12125550100", "PageSize": "100"}
    assert second.url.raw_path.decode() == following


async def test_an_endless_list_is_given_up() -> None:
    endless = httpx.Response(200, json={"calls": [], "next_page_uri": "/again"})
    with pytest.raises(ProviderError, match="pages"):
        await Twilio(*[endless] * 60).phone().calls_to(NUMBER)
