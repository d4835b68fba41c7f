"""ElevenLabs: text-to-speech behind a cache, and the door to realtime speech-to-text.

Wire facts: reference/elevenlabs sections 1, 3, 7 and 8. Nothing here logs, and no error carries the vendor's message: it can
quote the text.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from contextlib import suppress

import httpx
from pydantic import SecretStr

from careflow.caller.listening import Doorway, ElevenLabsListening
from careflow.caller.speech_cache import AudioCache, speech_key
from careflow.errors import ProviderError
from careflow.ports import Clock

AUDIO_FORMAT = "ulaw_8000"
VOICE_SETTINGS: Mapping[str, object] = {"stability": 0.5, "similarity_boost": 0.75, "speed": 1.0}
_TRIES = 4
_FIRST_BACKOFF_SECONDS = 0.25
_TIMEOUT = httpx.Timeout(20.0, connect=5.0)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ElevenLabsSpeech:
    """The port `Speech` on ElevenLabs, or on the lab: only the base URL differs.

    `voices` is language -> voice id, by the language's first subtag ("es" for "es-MX"). `zero_retention` asks the vendor to
    keep nothing (Enterprise plans only, section 10). `concurrent` bounds the text-to-speech requests in flight, which the plan
    limits (section 8). `stt_chunk_ms` is how much audio goes into one message of speech-to-text.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        base_url: str,
        api_key: SecretStr,
        voices: Mapping[str, str],
        tts_model: str,
        stt_model: str,
        zero_retention: bool,
        cache: AudioCache,
        clock: Clock,
        rng: random.Random,
        concurrent: int = 4,
        stt_chunk_ms: int = 100,
    ) -> None:
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._voices = dict(voices)
        self._tts_model = tts_model
        self._stt_model = stt_model
        self._zero_retention = zero_retention
        self._cache = cache
        self._clock = clock
        self._rng = rng
        self._slots = asyncio.Semaphore(concurrent)
        self._stt_chunk_ms = stt_chunk_ms
        self._spoken: dict[str, asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[bytes]] = set()

    async def say(self, text: str, language: str) -> bytes:
        """The spoken text as raw mu-law 8 kHz; from the cache when these words were spoken before. Raises ProviderError."""
        return await asyncio.shield(self._find(text, language))

    async def listen(self, language: str) -> ElevenLabsListening:
        """Open a realtime speech-to-text session for one call. Raises ProviderError."""
        query = {
            "model_id": self._stt_model,
            "audio_format": AUDIO_FORMAT,
            "commit_strategy": "manual",
            "language_code": _primary(language),
            "include_timestamps": "false",
            "enable_logging": "false" if self._zero_retention else "true",
        }
        scheme, _, rest = f"{self._base_url}/v1/speech-to-text/realtime".partition("://")
        url = httpx.URL(f"{'wss' if scheme == 'https' else 'ws'}://{rest}", params=query)
        return await ElevenLabsListening.open(
            Doorway(str(url), self._api_key), clock=self._clock, rng=self._rng, chunk_ms=self._stt_chunk_ms
        )

    async def close(self) -> None:
        """Give up what is being spoken; what is cached stays. The HTTP client is the caller's to close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _find(self, text: str, language: str) -> asyncio.Future[bytes]:
        """The audio, which is being looked for or spoken; begun unless somebody else asked for the same."""
        language = _primary(language)
        voice = self._voices.get(language)
        if voice is None:
            accepted = ", ".join(sorted(self._voices)) or "none is configured"
            raise ProviderError(
                f"elevenlabs_voices: no voice for language {language!r}; there are: {accepted}",
                code="no-voice",
                permanent=True,
            )
        key = speech_key(
            model=self._tts_model,
            voice=voice,
            settings=VOICE_SETTINGS,
            audio_format=AUDIO_FORMAT,
            language=language,
            text=text,
        )
        if key in self._spoken:
            return self._spoken[key]
        spoken = self._spoken[key] = asyncio.get_running_loop().create_future()
        spoken.add_done_callback(asyncio.Future.exception)  # known, though whoever asked may have gone away
        # The task's name must not say the words; it goes on when whoever asked goes away, so the cache is filled.
        task = asyncio.create_task(self._speak(key, text, language, voice), name=f"speak-{key[:12]}")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._tell(key, task))
        return spoken

    async def _speak(self, key: str, text: str, language: str, voice: str) -> bytes:
        # The folder may be a bucket's: while we wait for it every other conversation must go on.
        cached = await asyncio.to_thread(self._cache.get, key)
        if cached is not None:
            return cached
        audio = await self._requested(text, language, voice)
        with suppress(OSError):  # a full disk costs money at the next call, but must not silence this one
            await asyncio.to_thread(self._cache.put, key, audio)
        return audio

    def _tell(self, key: str, task: asyncio.Task[bytes]) -> None:
        """Give what came of it to everybody who waits for it."""
        self._tasks.discard(task)
        spoken = self._spoken.pop(key)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            spoken.set_result(task.result())
        elif isinstance(error, ProviderError):
            spoken.set_exception(error)
        else:
            given_up = ProviderError("speech was given up", code=type(error).__name__)
            given_up.__cause__ = error
            spoken.set_exception(given_up)

    async def _requested(self, text: str, language: str, voice: str) -> bytes:
        """The audio of the first try that succeeds."""
        for attempt in range(1, _TRIES):
            try:
                return await self._request(text, language, voice)
            except ProviderError as error:
                if error.permanent:
                    raise
            wait = _FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1)
            await self._clock.sleep(wait * self._rng.uniform(0.5, 1.5))
        return await self._request(text, language, voice)

    async def _request(self, text: str, language: str, voice: str) -> bytes:
        """One try. Raises ProviderError."""
        body = {
            "text": text,
            "model_id": self._tts_model,
            "language_code": language,
            "voice_settings": dict(VOICE_SETTINGS),
        }
        query = {
            "output_format": AUDIO_FORMAT,
            "enable_logging": "false" if self._zero_retention else "true",
        }
        async with self._slots:
            try:
                response = await self._http.post(
                    f"{self._base_url}/v1/text-to-speech/{voice}/stream",
                    params=query,
                    json=body,
                    headers={"xi-api-key": self._api_key.get_secret_value()},
                    timeout=_TIMEOUT,
                )
            except httpx.TransportError as error:
                raise ProviderError(
                    "text-to-speech: the connection failed", code=type(error).__name__
                ) from error
        if response.status_code != 200:
            raise _refusal(response.status_code, response.content)
        if not response.content:
            raise ProviderError("text-to-speech: an answer without audio", code="no_audio")
        return response.content


def _refusal(status: int, body: bytes) -> ProviderError:
    """The error for an HTTP answer that is not 200 (section 7: `detail` is an object, a list or a string)."""
    retry = status in (408, 425, 429) or status >= 500
    code = _code(body) or str(status)
    return ProviderError(f"text-to-speech: HTTP {status} ({code})", code=code, permanent=not retry)


def _code(body: bytes) -> str:
    """The vendor's own short code, and never anything longer: a message can quote the text."""
    try:
        detail = httpx.Response(200, content=body).json()["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    if not isinstance(detail, Mapping):
        return ""
    code = detail.get("code") or detail.get("status")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _primary(language: str) -> str:
    return language.partition("-")[0].lower()
