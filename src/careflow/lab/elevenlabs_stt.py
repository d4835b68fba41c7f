"""The lab's realtime speech-to-text: the words come out of the audio that came in, and out of nothing else.

Wire and behaviour: reference/elevenlabs section 6.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.datastructures import QueryParams

from careflow.lab.elevenlabs_account import FORMATS, STT_MODELS, SpeechAccount, SpeechFaults, decode
from careflow.lab.elevenlabs_socket import Gone, Silent, Socket, Unreadable
from careflow.lab.mulaw import RATE_HZ, is_speech
from careflow.lab.voice import Ear
from careflow.ports import Clock

_COMMIT_SPACING_SECONDS = 1.0
_AUTO_COMMIT_SECONDS = 90
_IDLE_SECONDS = 15.0  # "closed normally after some seconds without audio" (6.4); the number is ours
_ANSWER_SECONDS = (0.25, 0.38)
_LATE_SECONDS = (3.0, 8.0)
_PREVIOUS_TEXT_LIMIT = 50


class SttError(Exception):
    """Ends the session with a message of this type (6.3)."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.text = text


class Dropped(Exception):
    """The fault `disconnect`: the socket breaks without a word."""


@dataclass(frozen=True, slots=True)
class Options:
    """The query of a session, checked."""

    model_id: str
    audio_format: str
    commit_strategy: str
    language_code: str | None
    vad_silence_seconds: float
    timestamps: bool
    language_detection: bool
    enable_logging: bool

    @classmethod
    def parse(cls, query: QueryParams, account: SpeechAccount) -> Options:
        """Raises SttError naming the parameter, its value and what is accepted (6.1)."""

        def one_of(name: str, accepted: Mapping[str, object] | frozenset[str], default: str) -> str:
            value = query.get(name, default)
            if value not in accepted:
                raise SttError(
                    "invalid_request", f"{name} is {value!r}: {', '.join(sorted(accepted))} are accepted"
                )
            return value

        def boolean(name: str, default: str) -> bool:
            return one_of(name, frozenset({"true", "false"}), default) == "true"

        def number(name: str, default: float, lowest: float, highest: float) -> float:
            try:
                value = float(query.get(name, default))
            except ValueError:
                value = float("nan")
            if not lowest <= value <= highest:
                raise SttError(
                    "invalid_request", f"{name} is {query.get(name)!r}: {lowest} to {highest} is accepted"
                )
            return value

        language = query.get("language_code")
        if language is not None and not (
            language.isascii() and language.isalpha() and len(language) in (2, 3)
        ):
            raise SttError("invalid_request", f"language_code is {language!r}: ISO 639-1 or -3 is accepted")
        number("vad_threshold", 0.4, 0.1, 0.9)
        number("min_speech_duration_ms", 100, 50, 2000)
        number("min_silence_duration_ms", 100, 50, 2000)
        options = cls(
            model_id=one_of("model_id", STT_MODELS, ""),
            audio_format=one_of("audio_format", FORMATS, "pcm_16000"),
            commit_strategy=one_of("commit_strategy", frozenset({"manual", "vad"}), "manual"),
            language_code=language,
            vad_silence_seconds=number("vad_silence_threshold_secs", 1.5, 0.3, 3.0),
            timestamps=boolean("include_timestamps", "false"),
            language_detection=boolean("include_language_detection", "false"),
            enable_logging=boolean("enable_logging", "true"),
        )
        if not options.enable_logging and not account.enterprise:
            raise SttError("invalid_request", "enable_logging=false is for Enterprise")
        return options


class Session:
    """One realtime session on an accepted socket."""

    def __init__(
        self,
        socket: Socket,
        query: QueryParams,
        key: str | None,
        *,
        account: SpeechAccount,
        clock: Clock,
        faults: Callable[[], SpeechFaults],
        rng: random.Random,
    ) -> None:
        self._socket = socket
        self._query = query
        self._key = key
        self._account = account
        self._clock = clock
        self._faults = faults
        self._rng = rng
        self._ear = Ear()
        self._words: list[str] = []  # of the utterances that ended since the last commit
        self._samples = 0
        self._uncommitted = 0
        self._speech_seen = False
        self._silent_samples = 0
        self._messages = 0
        self._started_at = clock.now()
        self._committed_at: datetime | None = None
        self._answers: asyncio.Queue[tuple[float, list[dict[str, object]]]] = asyncio.Queue()

    async def run(self) -> None:
        """Serve the session to its end, whatever the end is."""
        self._account.stt_running += 1
        answering: asyncio.Task[None] | None = None
        try:
            options = await self._begin()
            answering = asyncio.create_task(self._answer())
            await self._listen(options)
        except SttError as error:
            try:
                await self._socket.send({"message_type": error.kind, "error": error.text})
            except Gone:
                return
            await self._socket.close(1008, error.kind)
        except Silent:
            await self._socket.close(1000, "no audio")
        except Dropped:
            await self._socket.close(1011)
        except Gone:
            return
        finally:
            self._account.stt_running -= 1
            if answering:
                answering.cancel()

    def _happens(self, chance: float) -> bool:
        # No draw for an impossible fault: switching one on does not change when the others happen.
        return chance > 0 and self._rng.random() < chance

    async def _begin(self) -> Options:
        account, faults = self._account, self._faults()
        if self._key != account.api_key:
            raise SttError("auth_error", "You must be authenticated to use this endpoint.")
        options = Options.parse(self._query, account)
        if self._happens(faults.quota_exceeded):
            raise SttError("quota_exceeded", "You have no credits left.")
        if self._happens(faults.rate_limited) or account.stt_running > account.stt_limit:
            raise SttError("rate_limited", "Too many realtime sessions.")
        if self._happens(faults.resource_exhausted):
            raise SttError("resource_exhausted", "No capacity.")
        account.usage.stt_sessions += 1
        self._started_at = self._clock.now()
        await self._socket.send(
            {
                "message_type": "session_started",
                "session_id": f"{self._rng.getrandbits(128):032x}",
                "config": {
                    "sample_rate": FORMATS[options.audio_format],
                    "audio_format": options.audio_format,
                    "language_code": options.language_code,
                    "commit_strategy": options.commit_strategy,
                    "vad_silence_threshold_secs": options.vad_silence_seconds,
                    "model_id": options.model_id,
                    "enable_logging": options.enable_logging,
                    "include_timestamps": options.timestamps,
                    "include_language_detection": options.language_detection,
                },
            }
        )
        return options

    async def _listen(self, options: Options) -> None:
        while True:
            try:
                message = await self._socket.receive(_IDLE_SECONDS)
            except Unreadable:
                raise SttError("input_error", "A message is not a JSON object.") from None
            audio, commit = self._parse(message, options)
            limit = self._faults().session_seconds
            if limit is not None and self._elapsed() >= limit:
                raise SttError("session_time_limit_exceeded", "The session is too long.")
            if audio:
                await self._hear(decode(audio, options.audio_format), options)
            if commit:
                await self._commit(options)

    def _elapsed(self) -> float:
        return (self._clock.now() - self._started_at).total_seconds()

    def _parse(self, message: Mapping[str, object], options: Options) -> tuple[bytes, bool]:
        """Audio and commit of one message (6.2). Raises SttError."""
        if message.get("message_type") != "input_audio_chunk":
            raise SttError(
                "invalid_request", f"message_type {message.get('message_type')!r} is not input_audio_chunk"
            )
        encoded, commit = message.get("audio_base_64"), message.get("commit")
        rate, previous = message.get("sample_rate"), message.get("previous_text")
        if not isinstance(encoded, str) or not isinstance(commit, bool) or not isinstance(rate, int):
            raise SttError("input_error", "audio_base_64, commit and sample_rate are required")
        if rate != FORMATS[options.audio_format]:
            raise SttError("input_error", f"sample_rate {rate} does not fit {options.audio_format}")
        if previous is not None and (self._messages or len(str(previous)) > _PREVIOUS_TEXT_LIMIT):
            raise SttError("input_error", "previous_text is for the first chunk only, and short")
        try:
            audio = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise SttError("input_error", "audio_base_64 is not base64") from None
        if len(audio) > self._account.largest_chunk_bytes:
            raise SttError("chunk_size_exceeded", f"{len(audio)} bytes are too many for one chunk")
        self._messages += 1
        return audio, commit

    async def _hear(self, audio: bytes, options: Options) -> None:
        self._account.usage.stt_audio_seconds += len(audio) / RATE_HZ
        second = self._samples // RATE_HZ
        self._samples += len(audio)
        self._uncommitted += len(audio)
        if self._samples / RATE_HZ - self._elapsed() > self._account.overflow_seconds:
            raise SttError("queue_overflow", "Audio comes faster than real time.")
        self._ear.feed(audio)
        self._words += [utterance.text for utterance in self._ear.take() if utterance.text]
        if self._samples // RATE_HZ > second:
            await self._every_second()
        speech = is_speech(audio)
        self._silent_samples = 0 if speech else self._silent_samples + len(audio)
        self._speech_seen = self._speech_seen or speech
        pause = self._silent_samples >= options.vad_silence_seconds * RATE_HZ
        vad = options.commit_strategy == "vad" and self._speech_seen and pause
        if vad or self._uncommitted >= _AUTO_COMMIT_SECONDS * RATE_HZ:
            await self._commit(options)

    async def _every_second(self) -> None:
        faults = self._faults()
        if self._happens(faults.disconnect):
            raise Dropped
        if self._happens(faults.unknown_message):
            await self._socket.send({"message_type": "ambience_report", "ambience": {"dogs": 1}})
        if self._warm():
            # Also when nothing has changed, and in silence (6.4).
            text = " ".join(word for word in (*self._words, self._ear.partial()) if word)
            await self._socket.send({"message_type": "partial_transcript", "text": text})

    def _warm(self) -> bool:
        return self._samples >= self._account.warm_up_seconds * RATE_HZ

    async def _commit(self, options: Options) -> None:
        now, faults = self._clock.now(), self._faults()
        if self._committed_at and (now - self._committed_at).total_seconds() < _COMMIT_SPACING_SECONDS:
            raise SttError("commit_throttled", "Commits are too frequent.")
        self._committed_at = now
        self._account.usage.stt_commits += 1
        if self._happens(faults.transcriber_error):
            raise SttError("transcriber_error", "The transcriber failed.")
        words = self._words + [utterance.text for utterance in self._ear.finish() if utterance.text]
        seconds = self._uncommitted / RATE_HZ
        self._words, self._uncommitted, self._speech_seen = [], 0, False
        lost = not self._warm() or self._happens(faults.empty_transcript)
        text = "" if lost else " ".join(words)
        if self._happens(faults.tripled_words):
            text = " ".join([text] * 3)
        messages: list[dict[str, object]] = [{"message_type": "committed_transcript", "text": text}]
        if options.timestamps or options.language_detection:
            messages.append(_timed(text, seconds, options))
        if self._happens(faults.duplicate_transcript):
            messages += messages
        messages.append({"message_type": "partial_transcript", "text": text})  # the echo (6.4)
        delay = self._rng.uniform(
            *(_LATE_SECONDS if self._happens(faults.late_transcript) else _ANSWER_SECONDS)
        )
        self._answers.put_nowait((delay, messages))

    async def _answer(self) -> None:
        """Send the transcripts in order, each when its time has come."""
        while True:
            delay, messages = await self._answers.get()
            await self._clock.sleep(delay)
            try:
                for message in messages:
                    await self._socket.send(message)
            except Gone:
                return


def _timed(text: str, seconds: float, options: Options) -> dict[str, object]:
    """The second message of a commit; its times are only roughly right."""
    words = text.split()
    each = seconds / max(1, len(words))
    timed = [
        {"text": word, "start": i * each, "end": (i + 1) * each, "type": "word", "logprob": -0.1}
        for i, word in enumerate(words)
    ]
    return {
        "message_type": "committed_transcript_with_timestamps",
        "text": text,
        "language_code": options.language_code or "en",
        "words": timed if options.timestamps else None,
    }
