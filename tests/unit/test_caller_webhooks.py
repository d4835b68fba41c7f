"""Twilio's webhooks over HTTP: signatures, refusals, TwiML (reference/twilio sections 3, 4 and 6), and health."""

from __future__ import annotations

import base64
import hashlib
import hmac
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from pydantic import SecretStr
from twilio.request_validator import RequestValidator

from caller_support import World, patient, world
from careflow.caller import twiml
from careflow.caller.app import create_caller
from careflow.core.attempts import AttemptState, Disposition
from careflow.errors import StoreUnavailable
from careflow.settings import Settings

PUBLIC = "https://caller.test"
TOKEN = "an-auth-token"


class Site:
    """The Caller's app, and a Twilio that signs."""

    def __init__(self, here: World, *, public_url: str = PUBLIC, store: Any = None) -> None:
        self.here = here
        self.desk = here.desk(store)
        settings = Settings(twilio_auth_token=SecretStr(TOKEN), caller_public_url=public_url)
        app = create_caller(desk=self.desk, watch=here.watch, store=store or here.store, settings=settings)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://internal:9999")

    async def post(self, path: str, form: dict[str, str], *, signed_url: str | None = None) -> httpx.Response:
        signature = RequestValidator(TOKEN).compute_signature(signed_url or PUBLIC + path, form)
        return await self.http.post(path, data=form, headers={"X-Twilio-Signature": signature})


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def dialled(site: Site, **fields: Any) -> tuple[str, str]:
    order = await site.here.ready(patient(**fields))
    result = await site.desk.begin(order)
    assert result.attempt is not None
    assert result.attempt.call_sid is not None
    return order.attempt_id, result.attempt.call_sid


async def test_the_voice_document_connects_the_call_and_redirects_when_the_stream_is_gone(
    here: World,
) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    answer = await site.post(f"/twilio/voice/{attempt_id}", {"CallSid": sid, "Unheard": "of", "Empty": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    connect, redirect = ET.fromstring(answer.text)
    stream = connect.find("Stream")
    assert stream is not None
    attempt = await here.store.attempt(attempt_id)
    assert attempt is not None
    assert attempt.state is AttemptState.ANSWERED
    assert stream.get("url") == "wss://caller.test/twilio/media"
    assert {one.get("name"): one.get("value") for one in stream} == {
        "attempt": attempt_id,
        "token": attempt.stream_token,
    }
    assert redirect.text == f"{PUBLIC}/twilio/resume/{attempt_id}"


async def test_a_repeated_voice_request_gets_the_same_document(here: World) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    first, again = [await site.post(f"/twilio/voice/{attempt_id}", {"CallSid": sid}) for _ in range(2)]
    assert first.text == again.text


async def test_an_ended_attempt_is_told_to_hang_up(here: World) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    await site.desk.cancel(attempt_id)
    for hook in ("voice", "resume"):
        answer = await site.post(f"/twilio/{hook}/{attempt_id}", {"CallSid": sid})
        assert [verb.tag for verb in ET.fromstring(answer.text)] == ["Hangup"]


@pytest.mark.parametrize(("language", "word"), [("en", "Goodbye"), ("es", "Adiós"), ("fr", "Goodbye")])
async def test_a_call_that_cannot_go_on_is_apologised_for_in_the_patients_language(
    here: World, language: str, word: str
) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site, language=language)
    for _ in range(2):
        answer = await site.post(f"/twilio/resume/{attempt_id}", {"CallSid": sid})
        assert "<Stream" in answer.text
    answer = await site.post(f"/twilio/resume/{attempt_id}", {"CallSid": sid})
    say, hang_up = ET.fromstring(answer.text)
    assert word in (say.text or "")
    assert hang_up.tag == "Hangup"


async def test_status_and_amd_callbacks_are_taken(here: World) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    form = {"CallSid": sid, "AnsweredBy": "machine_end_beep", "MachineDetectionDuration": "4000"}
    assert (await site.post(f"/twilio/amd/{attempt_id}", form)).status_code == 204
    form = {"CallSid": sid, "CallStatus": "completed", "SequenceNumber": "3"}
    for _ in range(2):
        assert (await site.post(f"/twilio/status/{attempt_id}", form)).status_code == 204
    attempt = await here.store.attempt(attempt_id)
    assert attempt is not None
    assert attempt.disposition is Disposition.VOICEMAIL


async def test_an_unknown_status_word_changes_nothing(here: World) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    answer = await site.post(f"/twilio/status/{attempt_id}", {"CallSid": sid, "CallStatus": "pondering"})
    assert answer.status_code == 204
    attempt = await here.store.attempt(attempt_id)
    assert attempt is not None
    assert attempt.state is AttemptState.DIALLED


@pytest.mark.parametrize(
    "signed_url",
    [
        "https://caller.test/twilio/status/other-1",
        "http://caller.test/twilio/status/{id}",
        "http://internal:9999/twilio/status/{id}",
    ],
)
async def test_a_signature_for_another_url_is_refused(here: World, signed_url: str) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    form = {"CallSid": sid, "CallStatus": "completed"}
    url = signed_url.format(id=attempt_id)
    answer = await site.post(f"/twilio/status/{attempt_id}", form, signed_url=url)
    assert answer.status_code == 403
    attempt = await here.store.attempt(attempt_id)
    assert attempt is not None
    assert attempt.state is AttemptState.DIALLED


@pytest.mark.parametrize("hook", ["voice", "resume", "status", "amd"])
async def test_nothing_unsigned_or_tampered_with_is_taken(here: World, hook: str) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    path, form = f"/twilio/{hook}/{attempt_id}", {"CallSid": sid, "CallStatus": "ringing", "AnsweredBy": "x"}
    assert (await site.http.post(path, data=form)).status_code == 403
    good = RequestValidator(TOKEN).compute_signature(PUBLIC + path, form)
    tampered = form | {"CallStatus": "completed"}
    headers = {"X-Twilio-Signature": good}
    assert (await site.http.post(path, data=tampered, headers=headers)).status_code == 403
    wrong = RequestValidator("another-token").compute_signature(PUBLIC + path, form)
    answer = await site.http.post(path, data=form, headers={"X-Twilio-Signature": wrong})
    assert answer.status_code == 403
    for odd in ("é", "", "=" * 5000):
        answer = await site.http.post(path, data=form, headers={"X-Twilio-Signature": odd.encode()})
        assert answer.status_code == 403


@pytest.mark.parametrize("port", ["", ":443"])
async def test_a_signature_with_or_without_the_port_is_good(here: World, port: str) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    path = f"/twilio/status/{attempt_id}"
    form = {"CallSid": sid, "CallStatus": "ringing"}
    assert (await site.post(path, form, signed_url=f"https://caller.test{port}{path}")).status_code == 204


async def test_a_signature_over_repeated_fields_and_a_newer_algorithm_is_good(here: World) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    path = f"/twilio/status/{attempt_id}"
    message = f"{PUBLIC}{path}" + f"CallSid{sid}" + "CallStatusringing" + "XaXb"
    digest = hmac.new(TOKEN.encode(), message.encode(), hashlib.sha256).digest()
    body = urlencode([("X", "b"), ("X", "a"), ("X", "b"), ("CallStatus", "ringing"), ("CallSid", sid)])
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        "X-Twilio-Signature": base64.b64encode(digest).decode(),
        "X-Twilio-Webhooks-Signature-Settings": "key=k1,algorithm=HMAC_SHA256",
    }
    assert (await site.http.post(path, content=body, headers=headers)).status_code == 204


async def test_bad_requests_are_refused_with_the_field_named(here: World) -> None:
    site = Site(here)
    attempt_id, sid = await dialled(site)
    path = f"/twilio/status/{attempt_id}"
    answer = await site.post(path, {"CallSid": sid})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "CallStatus: missing")
    assert (await site.post("/twilio/status/nobody-1", {"CallSid": sid})).status_code == 404
    assert (await site.http.post(path, json={})).status_code == 415
    huge = "x" * 70_000
    assert (await site.post(path, {"CallSid": huge})).status_code == 413

    async def undeclared() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    assert (await site.http.post(path, content=undeclared())).status_code == 413


class Down:
    """A store that cannot be used."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def refuse(*_: Any, **__: Any) -> None:
            raise StoreUnavailable

        return refuse


async def test_a_store_that_is_down_is_told_with_the_time_to_come_back(here: World) -> None:
    site = Site(here, store=Down())
    hook = await site.post("/twilio/status/c1-1", {"CallSid": "CA1", "CallStatus": "ringing"})
    ready = await site.http.get("/readyz")
    calls = [("GetTask", {"id": "c1-1"}), ("SubscribeToTask", {"id": "c1-1"})]
    rpcs = [
        await site.http.post(
            "/",
            json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params},
            headers={"A2A-Version": "1.0"},
        )
        for method, params in calls
    ]
    for answer in (hook, ready, *rpcs):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "Traceback" not in answer.text
    assert (await site.http.get("/healthz")).status_code == 200


async def test_a_bug_tells_the_outside_nothing(here: World) -> None:
    class Buggy:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            raise RuntimeError("a secret of the inside")

    site = Site(here, store=Buggy())
    hook = await site.post("/twilio/status/c1-1", {"CallSid": "CA1", "CallStatus": "ringing"})
    call = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "c1-1"}}
    rpc = await site.http.post("/", json=call, headers={"A2A-Version": "1.0"})
    assert hook.status_code == 500
    assert rpc.json()["error"]["code"] == -32603
    assert "secret" not in hook.text + rpc.text


async def test_health_is_told_without_a_token(here: World) -> None:
    site = Site(here)
    for path in ("/healthz", "/readyz", "/.well-known/agent-card.json"):
        assert (await site.http.get(path)).status_code == 200


def test_the_socket_of_a_local_set_up_is_not_tls() -> None:
    assert twiml.stream_url("http://127.0.0.1:8002") == "ws://127.0.0.1:8002/twilio/media"
