"""ElevenLabs: text-to-speech over streaming HTTP behind a cache, and the door to realtime speech-to-text.

Wire facts: reference elevenlabs sections 1, 3, 7 and 8. Nothing here logs, and no error carries the vendor's message: it can
quote the text.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

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
        self._productions: dict[str, _Production] = {}

    async def say(self, text: str, language: str) -> bytes:
        """The spoken text as raw mu-law 8 kHz; from the cache when these words were spoken before. Raises ProviderError."""
        cached, production = self._find(text, language)
        if production is None:
            return cached
        await production.ended()
        return production.audio()

    async def say_stream(self, text: str, language: str) -> AsyncIterator[bytes]:
        """The same, in pieces of any size as they arrive. Raises ProviderError, also after some pieces were given."""
        cached, production = self._find(text, language)
        if production is None:
            yield cached
            return
        async for piece in production.pieces():
            yield piece

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
        tasks = [production.task for production in self._productions.values() if production.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _find(self, text: str, language: str) -> tuple[bytes, _Production | None]:
        """The cached audio, or the production of it, which is begun unless somebody else asked for the same."""
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
        production = self._productions.get(key)
        if production is None:
            cached = self._cache.get(key)
            if cached is not None:
                return cached, None
            production = self._productions[key] = _Production()
            # The task's name must not say the words; it goes on when whoever asked goes away, so the cache is filled.
            production.task = asyncio.create_task(
                self._produce(production, key, text, language, voice), name=f"speak-{key[:12]}"
            )
        return b"", production

    async def _produce(self, production: _Production, key: str, text: str, language: str, voice: str) -> None:
        try:
            for attempt in range(1, _TRIES + 1):
                try:
                    await self._request(production, text, language, voice)
                    break
                except ProviderError as error:
                    if error.permanent or attempt == _TRIES:
                        raise
                wait = _FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1)
                await self._clock.sleep(wait * self._rng.uniform(0.5, 1.5))
                production.start_over()
            with suppress(OSError):  # a full disk costs money at the next call, but must not silence this one
                await asyncio.to_thread(self._cache.put, key, production.audio())
            production.end(None)
        except ProviderError as error:
            production.end(error)
        except BaseException as error:
            production.end(ProviderError("speech was given up", code=type(error).__name__))
            raise
        finally:
            del self._productions[key]

    async def _request(self, production: _Production, text: str, language: str, voice: str) -> None:
        """One try, its audio put into the production. Raises ProviderError."""
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
                async with self._http.stream(
                    "POST",
                    f"{self._base_url}/v1/text-to-speech/{voice}/stream",
                    params=query,
                    json=body,
                    headers={"xi-api-key": self._api_key.get_secret_value()},
                    timeout=_TIMEOUT,
                ) as response:
                    if response.status_code != 200:
                        raise _refusal(response.status_code, await response.aread())
                    async for piece in response.aiter_bytes():
                        production.add(piece)
            except httpx.TransportError as error:
                raise ProviderError(
                    "text-to-speech: the connection failed", code=type(error).__name__
                ) from error
        if not production.audio():
            raise ProviderError("text-to-speech: an answer without audio", code="no_audio")


@dataclass(slots=True, eq=False)
class _Production:
    """One text being spoken by the vendor, for any number of listeners. A try that fails is started over.

    A listener that was already given pieces of a failed try cannot go on with the next: the vendor may say it differently.
    """

    task: asyncio.Task[None] | None = None
    _try: int = 1
    _pieces: list[bytes] = field(default_factory=list)
    _over: bool = False
    _error: ProviderError | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._tell()

    def start_over(self) -> None:
        self._try += 1
        self._pieces = []
        self._tell()

    def end(self, error: ProviderError | None) -> None:
        self._over, self._error = True, error
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def audio(self) -> bytes:
        return b"".join(self._pieces)

    async def ended(self) -> None:
        """Wait for the end; raises what went wrong."""
        while not self._over:
            await self._changed.wait()
        if self._error:
            raise self._error

    async def pieces(self) -> AsyncIterator[bytes]:
        given, own_try = 0, self._try
        while True:
            if given and self._try != own_try:
                raise ProviderError("text-to-speech broke off in the middle", code="broken_off")
            own_try = self._try
            if given < len(self._pieces):
                given += 1
                yield self._pieces[given - 1]
            elif self._over:
                if self._error:
                    raise self._error
                return
            else:
                await self._changed.wait()


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
