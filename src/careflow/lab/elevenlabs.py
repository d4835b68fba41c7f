"""The lab's ElevenLabs: text-to-speech over HTTP here, its websockets and speech-to-text in the files beside.

Wire and errors: reference/elevenlabs sections 3, 7 and 8.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from careflow.lab.elevenlabs_account import (
    TTS_MODELS,
    Refusal,
    SpeechAccount,
    SpeechFaults,
    check_key,
    check_retention,
    check_speech,
    encode,
    invalid,
    subscription,
)
from careflow.lab.elevenlabs_socket import Socket
from careflow.lab.elevenlabs_stt import Session
from careflow.lab.elevenlabs_tts import SpeechSocket
from careflow.lab.mulaw import RATE_HZ
from careflow.lab.voice import Voice
from careflow.ports import Clock

_MODEL_SECONDS = 0.075
_FASTER_THAN_SPEECH = 20  # how many seconds of sound are made in one
_PIECES_BYTES = (900, 4100)  # chunk boundaries are arbitrary, so ours never fall on frames on purpose
_MEDIA_TYPES = {"ulaw_8000": "audio/basic", "pcm_8000": "audio/pcm", "pcm_16000": "audio/pcm"}


class _VoiceSettings(BaseModel):
    stability: float | None = Field(None, ge=0, le=1)
    similarity_boost: float | None = Field(None, ge=0, le=1)
    style: float | None = Field(None, ge=0, le=1)
    use_speaker_boost: bool | None = None
    speed: float | None = Field(None, ge=0.7, le=1.2)


class _SpeechRequest(BaseModel):
    text: str
    model_id: str = "eleven_multilingual_v2"
    language_code: str | None = None
    voice_settings: _VoiceSettings | None = None
    seed: Annotated[int, Field(ge=0, le=4294967295)] | None = None
    previous_text: str | None = None
    next_text: str | None = None
    previous_request_ids: Annotated[list[str], Field(max_length=3)] | None = None
    next_request_ids: Annotated[list[str], Field(max_length=3)] | None = None
    apply_text_normalization: str | None = Field(None, pattern="^(auto|on|off)$")


def elevenlabs_routes(
    clock: Clock,
    voice: Voice,
    faults: Callable[[], SpeechFaults],
    *,
    account: SpeechAccount,
    rng: random.Random,
) -> list[BaseRoute]:
    """The routes under /v1, to be mounted at the lab's root. `faults` is asked anew on every occasion."""
    service = _Service(clock, voice, faults, account, rng)
    speech = "/v1/text-to-speech/{voice_id}"
    return [
        Route(speech, service.handler(service.speech), methods=["POST"]),
        Route(f"{speech}/stream", service.handler(service.speech), methods=["POST"]),
        Route(f"{speech}/with-timestamps", service.handler(service.timed_speech), methods=["POST"]),
        Route(f"{speech}/stream/with-timestamps", service.handler(service.timed_speech), methods=["POST"]),
        Route("/v1/voices", service.handler(service.voices), methods=["GET"]),
        Route("/v1/user/subscription", service.handler(service.subscription), methods=["GET"]),
        Route("/v1/models", service.handler(service.models), methods=["GET"]),
        WebSocketRoute(f"{speech}/stream-input", service.stream_input),
        WebSocketRoute(f"{speech}/multi-stream-input", service.multi_stream_input),
        WebSocketRoute("/v1/speech-to-text/realtime", service.realtime),
    ]


class _Service:
    def __init__(
        self,
        clock: Clock,
        voice: Voice,
        faults: Callable[[], SpeechFaults],
        account: SpeechAccount,
        rng: random.Random,
    ) -> None:
        self._clock = clock
        self._voice = voice
        self._faults = faults
        self._account = account
        self._rng = rng

    def handler(
        self, answer: Callable[[Request, str], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that checks the key first and turns refusals into the vendor's error documents."""

        async def endpoint(request: Request) -> Response:
            request_id = f"{self._rng.getrandbits(80):020x}"
            try:
                check_key(self._account, request.headers.get("xi-api-key"))
                return await answer(request, request_id)
            except Refusal as refusal:
                return refusal.response(request_id)
            except ValidationError as error:
                return _unprocessable(error)

        return endpoint

    async def speech(self, request: Request, request_id: str) -> Response:
        wanted, audio_format = await self._accept(request)
        audio = encode(self._voice.speak(wanted.text, voice=request.path_params["voice_id"]), audio_format)
        cut = self._happens(self._faults().cut_audio)
        return _HeldResponse(
            self._pieces(audio, cut=cut),
            release=self._release,
            media_type=_MEDIA_TYPES[audio_format],
            headers=self._headers(request_id),
        )

    async def timed_speech(self, request: Request, request_id: str) -> Response:
        """One JSON object; streamed, one a line (here: a single line)."""
        wanted, audio_format = await self._accept(request)
        try:
            await self._clock.sleep(_MODEL_SECONDS)
        finally:
            self._release()
        audio = self._voice.speak(wanted.text, voice=request.path_params["voice_id"])
        count, total = len(wanted.text), len(audio) / RATE_HZ
        alignment = {
            "characters": list(wanted.text),
            "character_start_times_seconds": [i * total / count for i in range(count)],
            "character_end_times_seconds": [(i + 1) * total / count for i in range(count)],
        }
        document = {
            "audio_base64": base64.b64encode(encode(audio, audio_format)).decode(),
            "alignment": alignment,
            "normalized_alignment": alignment,
        }
        return Response(
            json.dumps(document) + "\n", media_type="application/json", headers=self._headers(request_id)
        )

    async def voices(self, request: Request, request_id: str) -> Response:
        found = [
            {"voice_id": voice_id, "name": name, "category": "premade"}
            for voice_id, name in self._account.voices.items()
        ]
        return JSONResponse({"voices": found}, headers={"request-id": request_id})

    async def subscription(self, request: Request, request_id: str) -> Response:
        return JSONResponse(subscription(self._account), headers={"request-id": request_id})

    async def models(self, request: Request, request_id: str) -> Response:
        found = [
            {
                "model_id": model,
                "name": model,
                "can_do_text_to_speech": True,
                "maximum_text_length_per_request": limit,
            }
            for model, limit in TTS_MODELS.items()
        ]
        return JSONResponse(found, headers={"request-id": request_id})

    async def stream_input(self, websocket: WebSocket) -> None:
        await self._speak(websocket, multi=False)

    async def multi_stream_input(self, websocket: WebSocket) -> None:
        await self._speak(websocket, multi=True)

    async def _speak(self, websocket: WebSocket, *, multi: bool) -> None:
        async with Socket(websocket, self._clock) as socket:
            await SpeechSocket(
                socket,
                websocket.path_params["voice_id"],
                websocket.query_params,
                websocket.headers.get("xi-api-key"),
                multi=multi,
                account=self._account,
                voice=self._voice,
                clock=self._clock,
            ).run()

    async def realtime(self, websocket: WebSocket) -> None:
        async with Socket(websocket, self._clock) as socket:
            await Session(
                socket,
                websocket.query_params,
                websocket.headers.get("xi-api-key"),
                account=self._account,
                clock=self._clock,
                faults=self._faults,
                rng=self._rng,
            ).run()

    async def _accept(self, request: Request) -> tuple[_SpeechRequest, str]:
        """The request and its format, checked and counted as running. Raises Refusal or ValidationError."""
        wanted = _SpeechRequest.model_validate_json(await request.body())
        audio_format = request.query_params.get("output_format", "mp3_44100_128")
        check_speech(self._account, request.path_params["voice_id"], wanted.model_id, audio_format)
        check_retention(self._account, request.query_params.get("enable_logging", "true"))
        if not wanted.text.strip():
            raise invalid("text", "text is empty")
        limit = TTS_MODELS[wanted.model_id]
        if len(wanted.text) > limit:
            # As the real one may, it quotes the text: a client must not log it.
            raise invalid(
                "text",
                f"{len(wanted.text)} characters, {limit} are accepted: {wanted.text[:40]!r}",
                code="max_character_limit_exceeded",
            )
        self._limit()
        self._account.tts_running += 1
        self._account.usage.tts_requests += 1
        self._account.usage.tts_characters += len(wanted.text)
        return wanted, audio_format

    def _limit(self) -> None:
        faults, account = self._faults(), self._account
        if self._happens(faults.quota_exceeded):
            raise Refusal(401, "authentication_error", "quota_exceeded", "You have no credits left.")
        busy = self._happens(faults.http_429)
        if account.tts_running >= account.tts_limit or (busy and self._rng.random() < 0.5):
            raise Refusal(
                429,
                "rate_limit_error",
                "concurrent_limit_exceeded",
                "Too many concurrent requests.",
                legacy="too_many_concurrent_requests",
            )
        if busy:
            raise Refusal(
                429, "rate_limit_error", "rate_limit_exceeded", "We are busy.", legacy="system_busy"
            )
        if self._happens(faults.http_500):
            raise Refusal(500, "internal_error", "internal_server_error", "Something went wrong.")

    async def _pieces(self, audio: bytes, *, cut: bool) -> AsyncIterator[bytes]:
        await self._clock.sleep(_MODEL_SECONDS)
        end = len(audio) // 2 if cut else len(audio)
        at = 0
        while at < end:
            size = min(end - at, self._rng.randint(*_PIECES_BYTES))
            yield audio[at : at + size]
            at += size
            await self._clock.sleep(size / RATE_HZ / _FASTER_THAN_SPEECH)
        if cut:
            raise _Cut

    def _headers(self, request_id: str) -> dict[str, str]:
        return {
            "request-id": request_id,
            "current-concurrent-requests": str(self._account.tts_running),
            "maximum-concurrent-requests": str(self._account.tts_limit),
        }

    def _release(self) -> None:
        self._account.tts_running -= 1

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._rng.random() < chance


class _Cut(Exception):
    """The fault `cut_audio`."""


class _HeldResponse(StreamingResponse):
    """A streamed answer that gives its slot back when it is over, also when nobody reads it to the end."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        *,
        release: Callable[[], None],
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _Cut:
            return  # the server closes a connection whose answer has no end
        finally:
            self._release()


def _unprocessable(error: ValidationError) -> JSONResponse:
    """A 422 in its list form."""
    found = [
        {"loc": ["body", *problem["loc"]], "msg": problem["msg"], "type": problem["type"]}
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    return JSONResponse({"detail": found}, 422)
