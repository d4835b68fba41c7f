"""The telephone's doors of a served deployment: signed webhooks and the media socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
import websockets
from twilio.request_validator import RequestValidator

from careflow.core.attempts import Attempt, AttemptState, Disposition
from doors import SECRET, error_of
from surface import Surface, deployed

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Surface]:
    async with deployed(tmp_path_factory.mktemp("surface") / "data", body_seconds=0.3) as surface:
        yield surface


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
