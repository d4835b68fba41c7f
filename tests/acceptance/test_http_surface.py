"""The doors of a served deployment, knocked at over the wire: tokens, bodies, signatures, sockets, and a store that is away."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import websockets
from twilio.request_validator import RequestValidator

from careflow.core.attempts import Attempt, AttemptState, Disposition
from careflow.store.database import FILE
from surface import (
    CALL_TASK,
    CLOSE_TASK,
    DOORS,
    FORGERIES,
    GET_TASK,
    ROUND,
    TRIGGER,
    Door,
    Surface,
    claims_of,
    deployed,
    resident,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
SECRET = "Quintessa Exampleton +12125550177"
PUBLIC = ("/healthz", "/readyz", "/.well-known/agent-card.json")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Surface]:
    async with deployed(tmp_path_factory.mktemp("surface") / "data", body_seconds=0.3) as surface:
        yield surface


def door(role: str, path: str) -> Door:
    return next(one for one in DOORS if (one.role, one.path) == (role, path))


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The one shape of a refusal, in which nothing of a stack trace and nothing of what was sent is told."""
    assert answer.headers["content-type"] == "application/json"
    for never in ("Traceback", "File ", "Error(", *SECRET.split()):
        assert never not in answer.text
    error = answer.json()["error"]
    assert error["code"]
    assert error["message"]
    return dict(error)


class TestTokens:
    @pytest.mark.parametrize("where", DOORS, ids=str)
    @pytest.mark.parametrize("what", FORGERIES)
    async def test_a_token_that_proves_nothing_opens_no_door(
        self, here: Surface, where: Door, what: str
    ) -> None:
        forge, status, code = FORGERIES[what]
        token = forge(here.issuer, claims_of(here.token(where.role, where.account)))
        answer = await here.knock(where, token)
        assert (answer.status_code, error_of(answer)["code"]) == (status, code)
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert token is None or token not in answer.text

    @pytest.mark.parametrize("where", DOORS, ids=str)
    async def test_the_door_s_own_account_comes_in(self, here: Surface, where: Door) -> None:
        assert (await here.enter(where)).status_code == where.status

    @pytest.mark.parametrize(
        ("where", "account"),
        [
            (door("pulse", "/"), "queue_account"),
            (door("pulse", "/"), "pulse_account"),
            (door("pulse", "/tasks/call"), "scheduler_account"),
            (door("pulse", "/tasks/close"), "pulse_account"),
            (door("caller", "/"), "scheduler_account"),
            (door("caller", "/"), "queue_account"),
        ],
        ids=str,
    )
    async def test_an_account_of_ours_opens_its_own_doors_only(
        self, here: Surface, where: Door, account: str
    ) -> None:
        answer = await here.knock(where, here.token(where.role, account))
        assert (answer.status_code, error_of(answer)["code"]) == (403, "account")

    async def test_a_token_for_one_service_does_not_open_the_other(self, here: Surface) -> None:
        for_pulse = here.issuer.mint(here.settings.pulse_account, here.url("pulse"), here.clock.now())
        answer = await here.knock(door("caller", "/"), for_pulse)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "audience")

    async def test_a_token_is_good_until_its_end_and_not_after(self, tmp_path: Path) -> None:
        async with deployed(tmp_path / "data") as its:
            where = door("caller", "/")
            token = its.token("caller", where.account)
            its.clock.advance(3600)  # its end, within the leeway
            assert (await its.knock(where, token)).status_code == where.status
            its.clock.advance(31)
            answer = await its.knock(where, token)
            assert (answer.status_code, error_of(answer)["code"]) == (401, "expired")

    async def test_rotated_keys_stay_good_until_they_are_removed(self, tmp_path: Path) -> None:
        async with deployed(tmp_path / "data") as its:
            before = [(one, its.token(one.role, one.account)) for one in DOORS]
            its.issuer.rotate()
            for where, token in before:
                assert (await its.knock(where, token)).status_code == where.status
                assert (await its.enter(where)).status_code == where.status
            its.issuer.rotate()  # the set holds two
            for where, token in before:
                answer = await its.knock(where, token)
                assert (answer.status_code, error_of(answer)["code"]) == (401, "unknown-key")
                assert (await its.enter(where)).status_code == where.status

    async def test_without_any_key_the_doors_stay_shut_and_say_when_to_come_back(
        self, tmp_path: Path
    ) -> None:
        async with deployed(tmp_path / "data") as its:
            tokens = [(one, its.token(one.role, one.account)) for one in DOORS]
            its.issuer.jwks_path.unlink()
            for where, token in tokens:
                answer = await its.knock(where, token)
                assert (answer.status_code, error_of(answer)["code"]) == (503, "keys-unavailable")
                assert int(answer.headers["retry-after"]) > 0

    async def test_refused_requests_leave_nothing_behind(self, tmp_path: Path) -> None:
        async with deployed(tmp_path / "data") as its:
            where = door("pulse", "/")
            for forge, _, _ in FORGERIES.values():
                await its.knock(where, forge(its.issuer, claims_of(its.token(where.role, where.account))))
            await its.enter(where, json=TRIGGER | {"environment": "prod"})
            assert await its.assembly.store.round("default", ROUND) is None
            assert (await its.enter(where)).status_code == 200
            assert await its.assembly.store.round("default", ROUND) is not None  # the same, once it may

    @pytest.mark.parametrize("role", ["pulse", "caller"])
    @pytest.mark.parametrize("path", PUBLIC)
    async def test_public_paths_need_no_token(self, here: Surface, role: str, path: str) -> None:
        assert (await here.http.get(here.url(role) + path)).status_code == 200

    @pytest.mark.parametrize("role", ["pulse", "caller"])
    @pytest.mark.parametrize(
        "path",
        [
            "/docs",
            "/openapi.json",
            "/redoc",
            "/tasks",
            "/tasks/",
            "/rounds",
            "/healthz/",
            "/lab/calls",
            "/%2e%2e/x",
        ],
    )
    async def test_what_is_not_offered_is_not_there(self, here: Surface, role: str, path: str) -> None:
        for token in (None, here.token(role, "pulse_account"), here.token(role, "queue_account")):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = await here.http.get(here.url(role) + path, headers=headers)
            assert answer.status_code in (401, 403, 404, 405)
            error_of(answer)

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
    async def test_another_method_is_405_with_those_that_are_accepted(
        self, here: Surface, method: str
    ) -> None:
        for role in ("pulse", "caller"):
            answer = await here.http.request(method, here.url(role) + "/")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
            error_of(answer)


class TestBodies:
    """Design section 7: 400 with the field named, 413, 415, and never the value again."""

    @pytest.mark.parametrize(
        ("path", "change", "field"),
        [
            ("/", {"scheduleHour": 7}, "scheduleHour"),
            ("/", {"scheduleHour": "8"}, "scheduleHour"),
            ("/", {"scheduleHour": 8.0}, "scheduleHour"),
            ("/", {"scheduleHour": True}, "scheduleHour"),
            ("/", {"scheduleHour": 10**400}, "scheduleHour"),
            ("/", {"scheduleHour": -(2**63)}, "scheduleHour"),
            ("/", {"scheduleHour": None}, "scheduleHour"),
            ("/", {"scheduleHour": [8]}, "scheduleHour"),
            ("/", {"timezone": "Europe/Atlantis"}, "timezone"),
            ("/", {"timezone": "America"}, "timezone"),  # a folder of zones
            ("/", {"timezone": "../../etc/passwd"}, "timezone"),
            ("/", {"timezone": SECRET}, "timezone"),
            ("/", {"timezone": "America/New_York\x00"}, "timezone"),
            ("/", {"triggerType": SECRET}, "triggerType"),
            ("/", {"source": SECRET}, "source"),
            ("/", {"source": "x\n2026 forged log line"}, "source"),
            ("/", {"environment": "prod"}, "environment"),
            ("/", {"environment": SECRET}, "environment"),
            ("/", {"hospitalId": SECRET}, "hospitalId"),
            ("/", {"hospitalId": {"$ne": None}}, "hospitalId"),
            ("/", {"patientName": "x"}, "patientName"),
            ("/", {SECRET: "x"}, "(unprintable)"),
            ("/tasks/call", {"callId": SECRET}, "callId"),
            ("/tasks/call", {"callId": "' OR 1=1 --"}, "callId"),
            ("/tasks/call", {"roundId": SECRET}, "roundId"),
            ("/tasks/call", {"hospitalId": 1}, "hospitalId"),
            ("/tasks/call", {"force": True}, "force"),
            ("/tasks/close", {"roundId": "x" * 5000}, "roundId"),
            ("/tasks/close", {"hospitalId": None}, "hospitalId"),
        ],
    )
    async def test_a_wrong_field_is_named(
        self, here: Surface, path: str, change: dict[str, Any], field: str
    ) -> None:
        good = {"/": TRIGGER, "/tasks/call": CALL_TASK, "/tasks/close": CLOSE_TASK}[path]
        answer = await here.enter(door("pulse", path), json=good | change)
        error = error_of(answer)
        assert (answer.status_code, error["field"]) == (400, field)
        assert error["message"].startswith(f"{field}: ")

    @pytest.mark.parametrize("path", ["/", "/tasks/call", "/tasks/close"])
    @pytest.mark.parametrize(
        ("body", "word"),
        [
            (b"", "JSON"),
            (b"scheduleHour=8", "JSON"),
            (b"{'scheduleHour': 8}", "JSON"),
            (b'{"scheduleHour": 8,}', "JSON"),
            (b"[]", "array"),
            (b'"x"', "string"),
            (b"null", "null"),
            (b'{"scheduleHour": NaN}', "number"),
            (b'{"scheduleHour": -Infinity}', "number"),
            (b'{"scheduleHour": ' + b"9" * 9000 + b"}", "number"),
            (b'{"scheduleHour": 8, "scheduleHour": 12}', "twice"),
            (b"[" * 16_000, "deep"),
            (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "deep"),
            (b'{"source": "\xff\xfe"}', "UTF-8"),
            (json.dumps(TRIGGER).encode("utf-16"), "UTF-8"),
            (b"\xef\xbb\xbf" + json.dumps(TRIGGER).encode(), "JSON"),
        ],
    )
    async def test_what_is_no_json_object_is_refused(
        self, here: Surface, path: str, body: bytes, word: str
    ) -> None:
        answer = await here.enter(door("pulse", path), content=body, headers=JSON)
        error = error_of(answer)
        assert answer.status_code == 400
        assert error["message"].startswith("body: ")
        assert word in error["message"]

    @pytest.mark.parametrize("where", [one for one in DOORS if one.method == "POST"], ids=str)
    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/octet-stream", "multipart/form-data", "application/jsonp", ""]
    )
    async def test_another_content_type_is_415(self, here: Surface, where: Door, kind: str) -> None:
        answer = await here.enter(where, content=json.dumps(where.body), headers={"Content-Type": kind})
        assert answer.status_code == 415
        assert "application/json" in error_of(answer)["message"]

    @pytest.mark.parametrize("where", [one for one in DOORS if one.method == "POST"], ids=str)
    @pytest.mark.parametrize("is_chunked", [False, True])
    async def test_a_body_that_is_too_large_is_413_declared_or_not(
        self, here: Surface, where: Door, is_chunked: bool
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 1000

        content = pieces() if is_chunked else b" " * 100_000
        answer = await here.enter(where, content=content, headers=JSON)
        assert answer.status_code == 413
        assert "at most" in error_of(answer)["message"]

    @pytest.mark.parametrize("where", [one for one in DOORS if one.method == "POST"], ids=str)
    async def test_a_chunked_body_without_a_length_is_read_like_any_other(
        self, here: Surface, where: Door
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for letter in json.dumps(where.body).encode():
                yield bytes([letter])

        assert (await here.enter(where, content=pieces(), headers=JSON)).status_code == where.status

    @pytest.mark.parametrize("where", [one for one in DOORS if one.method == "POST"], ids=str)
    async def test_a_body_that_trickles_in_is_408_and_the_connection_is_given_up(
        self, here: Surface, where: Door
    ) -> None:
        reader, writer = await asyncio.open_connection(*_address(here.url(where.role)))
        token = here.token(where.role, where.account)
        head = f"POST {where.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        writer.write((head + "Content-Type: application/json\r\nContent-Length: 200\r\n\r\n{").encode())
        answer = await asyncio.wait_for(reader.read(), 10)  # to the end of the connection
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive in time" in answer

    async def test_a_body_that_breaks_off_harms_nobody(self, here: Surface) -> None:
        for where in (one for one in DOORS if one.method == "POST"):
            reader, writer = await asyncio.open_connection(*_address(here.url(where.role)))
            token = here.token(where.role, where.account)
            head = f"POST {where.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            writer.write((head + "Content-Type: application/json\r\nContent-Length: 200\r\n\r\n{").encode())
            await writer.drain()
            writer.close()
            assert b" 200 " not in await reader.read()
            assert (await here.enter(where)).status_code == where.status

    @pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\n\n", b"GET\r\n\r\n"])
    async def test_what_is_no_http_is_refused(self, here: Surface, garbage: bytes) -> None:
        for role in ("pulse", "caller"):
            reader, writer = await asyncio.open_connection(*_address(here.url(role)))
            writer.write(garbage)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"Traceback" not in answer

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"{", -32700),
            (b"\xff", -32700),
            (b"[" * 10_000, -32700),
            (b'{"jsonrpc": "2.0", "id": 1, "id": 2}', -32700),
            (b"[]", -32600),
            (json.dumps(GET_TASK | {"jsonrpc": "1.0"}).encode(), -32600),
            (json.dumps(GET_TASK | {"id": [SECRET]}).encode(), -32600),
            (json.dumps(GET_TASK | {"method": SECRET}).encode(), -32601),
            (json.dumps(GET_TASK | {"params": {"id": {SECRET: SECRET}}}).encode(), -32602),
            (json.dumps(GET_TASK | {"params": {"id": "x", "historyLength": SECRET}}).encode(), -32602),
        ],
    )
    @pytest.mark.parametrize("where", [door("caller", "/"), door("pulse", "/a2a")], ids=str)
    async def test_a_malformed_a2a_request_is_told_in_json_rpc(
        self, here: Surface, where: Door, body: bytes, code: int
    ) -> None:
        answer = await here.enter(where, content=body, headers=JSON)
        assert (answer.status_code, error_of(answer)["code"]) == (200, code)

    @pytest.mark.parametrize("role", ["pulse", "caller"])
    async def test_an_odd_path_is_not_found(self, here: Surface, role: str) -> None:
        for path in (
            "/rounds/%00",
            "/rounds/%ff",
            "/rounds/" + "x" * 9000,
            "/rounds/a%2Fb",
            "//",
            "/rounds/../",
        ):
            token = here.token(role, "scheduler_account")
            answer = await here.http.get(here.url(role) + path, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code in (400, 404, 405)
            error_of(answer)


def _address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


HOOKS = {
    "voice": {"CallStatus": "in-progress"},
    "resume": {"CallStatus": "in-progress"},
    "status": {"CallStatus": "busy"},
    "amd": {"AnsweredBy": "human"},
}


class TestWebhooks:
    """What Twilio posts, and what somebody else would like us to believe that it posted."""

    @pytest.mark.parametrize("hook", HOOKS)
    async def test_nobody_but_twilio_is_listened_to(self, here: Surface, hook: str) -> None:
        attempt = await here.dialled(10 + list(HOOKS).index(hook))
        path, form = f"/twilio/{hook}/{attempt.id}", {"CallSid": str(attempt.call_sid)} | HOOKS[hook]
        token = here.settings.twilio_auth_token.get_secret_value()
        signer = RequestValidator(token)
        url = here.settings.caller_public_url
        for signature in (
            "",
            "c2lnbmVk",
            SECRET,
            RequestValidator("another").compute_signature(url + path, form),
            signer.compute_signature(url + path, form | {"CallStatus": "completed", "AnsweredBy": "fax"}),
            signer.compute_signature(f"{url}/twilio/{hook}/another-1", form),
            signer.compute_signature(url + path + "?x=1", form),
            signer.compute_signature(url + path, {}),
        ):
            answer = await here.webhook(path, form, signed=signature)
            assert answer.status_code == 403
            assert token not in answer.text
            error_of(answer)
        assert await here.assembly.store.attempt(attempt.id) == attempt

    async def test_a_callback_that_comes_again_changes_nothing(self, here: Surface) -> None:
        attempt = await here.dialled(20)
        form = {"CallSid": str(attempt.call_sid), "CallStatus": "busy"}
        for _ in range(3):
            assert (await here.webhook(f"/twilio/status/{attempt.id}", form)).status_code == 204
        late = form | {"CallStatus": "ringing"}
        assert (await here.webhook(f"/twilio/status/{attempt.id}", late)).status_code == 204
        stored = await here.assembly.store.attempt(attempt.id)
        assert stored is not None
        assert (stored.state, stored.disposition) == (AttemptState.ENDED, Disposition.BUSY)
        assert len(await here.assembly.store.interactions("default", attempt.patient_id)) == 1

    async def test_a_replayed_answer_gets_the_same_document(self, here: Surface) -> None:
        attempt = await here.dialled(21)
        form = {"CallSid": str(attempt.call_sid), "CallStatus": "in-progress"}
        first, again = [await here.webhook(f"/twilio/voice/{attempt.id}", form) for _ in range(2)]
        assert (first.status_code, first.text) == (200, again.text)
        assert "<Stream" in first.text
        assert attempt.phone not in first.text

    @pytest.mark.parametrize(
        ("content", "kind", "status"),
        [
            (b'{"CallSid": "x"}', "application/json", 415),
            (b"CallSid=%ff", "application/x-www-form-urlencoded", 400),
            (b"\xff=\xff", "application/x-www-form-urlencoded", 400),
            (b"&".join(b"a=b" for _ in range(600)), "application/x-www-form-urlencoded", 400),
            (b"CallSid=" + b"x" * 70_000, "application/x-www-form-urlencoded", 413),
            (b"", "application/x-www-form-urlencoded", 403),
        ],
    )
    async def test_a_bad_form_is_refused(self, here: Surface, content: bytes, kind: str, status: int) -> None:
        answer = await here.http.post(
            here.url("caller") + "/twilio/status/nobody-1", content=content, headers={"Content-Type": kind}
        )
        assert answer.status_code == status
        error_of(answer)

    async def test_a_signed_callback_about_nobody_or_without_its_fields_is_refused(
        self, here: Surface
    ) -> None:
        attempt = await here.dialled(22)
        for path, form, status in (
            ("/twilio/status/nobody-1", {"CallSid": "CA1", "CallStatus": "busy"}, 404),
            (f"/twilio/status/{attempt.id}", {"CallStatus": "busy"}, 400),
            (f"/twilio/status/{attempt.id}", {"CallSid": "CA1"}, 400),
            (f"/twilio/amd/{attempt.id}", {"CallSid": "CA1"}, 400),
        ):
            answer = await here.webhook(path, form)
            assert answer.status_code == status
            error_of(answer)
        assert await here.assembly.store.attempt(attempt.id) == attempt


def start_frame(attempt: Attempt, changes: Mapping[str, str] | None = None) -> str:
    return json.dumps(
        {
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": "MZ" + "0" * 32,
            "start": {
                "accountSid": "AC0",
                "streamSid": "MZ" + "0" * 32,
                "callSid": attempt.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"attempt": attempt.id, "token": attempt.stream_token}
                | dict(changes or {}),
            },
        }
    )


class TestMediaSocket:
    @staticmethod
    def connect(here: Surface, **options: Any) -> Any:
        url = here.settings.caller_public_url.replace("http", "ws", 1) + "/twilio/media"
        signer = RequestValidator(here.settings.twilio_auth_token.get_secret_value())
        headers = {"X-Twilio-Signature": options.pop("signed", signer.compute_signature(url, {}))}
        return websockets.connect(options.pop("url", url), additional_headers=headers, proxy=None)

    @staticmethod
    async def close_code(socket: Any) -> int:
        async with asyncio.timeout(10):
            await socket.wait_closed()
        return int(socket.close_code)

    @pytest.mark.parametrize("signed", ["", "c2lnbmVk", SECRET])
    async def test_an_upgrade_that_is_not_twilio_s_is_403(self, here: Surface, signed: str) -> None:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with self.connect(here, signed=signed):
                pass
        assert caught.value.response.status_code == 403

    @pytest.mark.parametrize("path", ["/", "/tasks/call", "/twilio/status/x", "/twilio/media/", "/healthz"])
    async def test_no_other_path_speaks_websocket(self, here: Surface, path: str) -> None:
        for role in ("pulse", "caller"):
            url = here.url(role).replace("http", "ws", 1) + path
            with pytest.raises(websockets.InvalidStatus):
                async with self.connect(here, url=url):
                    pass

    async def test_a_wrong_token_or_call_or_attempt_opens_no_conversation(self, here: Surface) -> None:
        attempt = await here.dialled(30)
        for frame in (
            start_frame(attempt, {"token": "0.0.guessed"}),
            start_frame(attempt, {"token": ""}),
            start_frame(attempt, {"attempt": "nobody-1"}),
            start_frame(attempt, {"attempt": "'; DROP TABLE attempts"}),
        ):
            async with self.connect(here) as socket:
                await socket.send('{"event": "connected", "protocol": "Call", "version": "1.0.0"}')
                await socket.send(frame)
                assert await self.close_code(socket) == 1008
        assert await here.assembly.store.attempt(attempt.id) == attempt

    async def test_without_a_start_the_socket_is_closed_in_time(self, here: Surface) -> None:
        async with self.connect(here) as socket:
            closing = asyncio.ensure_future(self.close_code(socket))
            while not closing.done():
                here.clock.advance(1)
                await asyncio.sleep(0.005)
            assert await closing == 1008

    @pytest.mark.parametrize(
        "frame",
        [
            "no JSON",
            "[" * 50_000,
            '{"event": "media", "media": {"payload": "!!!"}}',
            '{"event": ["start"]}',
            '{"event": "start", "start": null}',
            b"\x00\x01\x02",
            "x" * 100_000,
        ],
        ids=lambda frame: str(frame[:12]),
    )
    async def test_garbage_ends_the_patience_and_nothing_else(
        self, here: Surface, frame: str | bytes
    ) -> None:
        async with self.connect(here) as socket:
            with suppress(websockets.ConnectionClosed):
                for _ in range(60):
                    await socket.send(frame)
            assert await self.close_code(socket) == 1008
        assert (await here.http.get(here.url("caller") + "/readyz")).status_code == 200

    async def test_a_token_opens_one_stream(self, here: Surface) -> None:
        attempt = await here.dialled(31)
        async with self.connect(here) as first:
            await first.send(start_frame(attempt))
            await here.until(lambda: self.answered(here, attempt.id))
            async with self.connect(here) as second:
                await second.send(start_frame(attempt))
                assert await self.close_code(second) == 1008

            # Its end, which the conversation waits for as it would for Twilio's last words.
            form = {"CallSid": str(attempt.call_sid), "CallStatus": "completed"}
            ending = asyncio.ensure_future(here.webhook(f"/twilio/status/{attempt.id}", form))
            while not ending.done():
                here.clock.advance(1)
                await asyncio.sleep(0.005)
            assert (await ending).status_code == 204

    @staticmethod
    async def answered(here: Surface, name: str) -> bool:
        stored = await here.assembly.store.attempt(name)
        return stored is not None and stored.state is AttemptState.ANSWERED


@contextmanager
def locked(its: Surface) -> Iterator[None]:
    """Another process writes and does not stop; nobody has the ten seconds to wait for it."""
    its.assembly.store.database._connections[0].execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(its.settings.data_dir / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def full(its: Surface) -> Iterator[None]:
    """The disk holds no page more."""
    writer = its.assembly.store.database._connections[0]
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        writer.execute("PRAGMA max_page_count = 1000000")


class TestStoreDown:
    async def test_a_store_that_cannot_be_written_is_503_everywhere_and_then_all_is_as_before(
        self, tmp_path: Path
    ) -> None:
        async with deployed(tmp_path / "data") as its:
            attempt = await its.dialled(1)
            order = {
                "attemptId": attempt.id,
                "number": "1",
                "callId": attempt.call_id,
                "roundId": attempt.round_id,
                "hospitalId": "default",
                "patientId": attempt.patient_id,
                "script": "morning",
                "notAfter": "2026-11-23T17:00:00Z",
            }
            send = GET_TASK | {
                "method": "SendMessage",
                "params": {
                    "message": {
                        "messageId": attempt.id,
                        "role": "ROLE_USER",
                        "parts": [{"data": order}],
                    }
                },
            }
            form = {"CallSid": str(attempt.call_sid), "CallStatus": "ringing"}
            with locked(its):
                answers = [
                    await its.enter(door("pulse", "/")),
                    await its.enter(door("caller", "/"), json=send),
                    await its.enter(door("caller", "/"), json=send | {"method": "SendStreamingMessage"}),
                    await its.webhook(f"/twilio/status/{attempt.id}", form),
                    await its.http.get(its.url("pulse") + "/readyz"),
                    await its.http.get(its.url("caller") + "/readyz"),
                ]
                for role in ("pulse", "caller"):
                    assert (await its.http.get(its.url(role) + "/healthz")).status_code == 200
            for answer in answers:
                assert answer.status_code == 503, answer.request.url
                assert int(answer.headers["retry-after"]) > 0
                assert "sqlite" not in answer.text.lower()
                error_of(answer)
            assert await its.assembly.store.attempt(attempt.id) == attempt
            assert (await its.http.get(its.url("pulse") + "/readyz")).status_code == 200
            assert (await its.webhook(f"/twilio/status/{attempt.id}", form)).status_code == 204

    async def test_a_full_disk_refuses_the_trigger_and_half_a_round_is_completed_later(
        self, tmp_path: Path
    ) -> None:
        async with deployed(tmp_path / "data") as its:
            await its.assembly.store.put_patients(
                [resident(number, consent=False) for number in range(1, 100)]
            )
            with full(its):
                answer = await its.enter(door("pulse", "/"))
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
                error_of(answer)
            answer = await its.enter(door("pulse", "/"))
            assert (answer.status_code, answer.json()["patientsQueried"]) == (200, 99)
            assert answer.json()["skipped"] == {"no-consent": 99}
