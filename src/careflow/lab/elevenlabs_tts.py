"""The lab's text-to-speech websockets, with one context and with several (reference/elevenlabs sections 4 and 5)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from starlette.datastructures import QueryParams

from careflow.lab.elevenlabs_account import (
    Refusal,
    SpeechAccount,
    check_key,
    check_retention,
    check_speech,
    encode,
)
from careflow.lab.elevenlabs_socket import Gone, Silent, Socket, Unreadable
from careflow.lab.mulaw import RATE_HZ
from careflow.lab.voice import Voice
from careflow.ports import Clock

_CONTEXTS = 5
_SCHEDULE = (120, 160, 250, 290)
_TRY_CHARACTERS = 50
_MODEL_SECONDS = 0.075
_PIECE = RATE_HZ  # a second of sound in a message


class TtsError(Exception):
    """Ends the socket with this code in a message, and close code 1008."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message


@dataclass(slots=True)
class _Context:
    """Text that waits to be spoken."""

    schedule: tuple[int, ...] = _SCHEDULE
    text: str = ""
    generated: int = 0

    def due(self, *, tried: bool) -> bool:
        threshold = self.schedule[min(self.generated, len(self.schedule) - 1)]
        return len(self.text) >= (min(threshold, _TRY_CHARACTERS) if tried else threshold)


class SpeechSocket:
    """One websocket on which text comes in pieces and audio goes out."""

    def __init__(
        self,
        socket: Socket,
        voice_id: str,
        query: QueryParams,
        key: str | None,
        *,
        multi: bool,
        account: SpeechAccount,
        voice: Voice,
        clock: Clock,
    ) -> None:
        self._socket = socket
        self._voice_id = voice_id
        self._query = query
        self._key = key
        self._multi = multi
        self._account = account
        self._voice = voice
        self._clock = clock
        self._format = query.get("output_format", "mp3_44100_128")
        self._auto = query.get("auto_mode") == "true"
        self._contexts: dict[str, _Context] = {}

    async def run(self) -> None:
        """Serve it to its end, whatever the end is."""
        try:
            await self._serve(self._check())
        except (TtsError, Refusal) as error:
            document = {"message": error.message, "error": error.code, "code": 1008}
            try:
                await self._socket.send(document)
            except Gone:
                return
            await self._socket.close(1008, error.code)
        except Gone:
            return

    def _check(self) -> float:
        """The inactivity timeout in seconds. Raises Refusal or TtsError for a bad query."""
        model = self._query.get("model_id", "eleven_multilingual_v2")
        check_speech(self._account, self._voice_id, model, self._format)
        check_retention(self._account, self._query.get("enable_logging", "true"))
        given = self._query.get("inactivity_timeout", "20")
        if not given.isdecimal() or not 1 <= int(given) <= 180:
            raise TtsError("invalid_parameters", f"inactivity_timeout is {given!r}: 1 to 180 is accepted")
        return float(given)

    async def _serve(self, timeout: float) -> None:
        first = True
        while True:
            try:
                message = await self._socket.receive(timeout)
            except Silent:
                raise TtsError("input_timeout_exceeded", f"No text for {timeout:.0f} seconds.") from None
            except Unreadable:
                raise TtsError("invalid_message", "A message is not a JSON object.") from None
            if first:
                self._authorise(message)
                first = False
            if await (self._several(message) if self._multi else self._single(message)):
                await self._socket.close(1000)
                return

    def _authorise(self, message: Mapping[str, object]) -> None:
        key = self._key or message.get("xi-api-key") or message.get("authorization")
        check_key(self._account, str(key).removeprefix("Bearer ") if key else None)

    async def _single(self, message: Mapping[str, object]) -> bool:
        """Take one message; whether it was the last."""
        text = _text(message)
        context = self._contexts.get("")
        if context is None:
            if text != " ":
                raise TtsError("invalid_message", "The first message's text is exactly one space.")
            self._contexts[""] = _context(message)
            return False
        if text == "":
            await self._generate("", context)
            await self._socket.send({"isFinal": True})
            return True
        await self._more("", context, text or "", message)
        return False

    async def _several(self, message: Mapping[str, object]) -> bool:
        if message.get("close_socket") is True:
            for name in list(self._contexts):
                await self._end(name)
            return True
        name = str(message.get("context_id") or message.get("contextId") or "default")
        if message.get("close_context") is True:
            if name in self._contexts:
                await self._end(name)
            return False
        context = self._contexts.get(name)
        if context is None:
            if len(self._contexts) >= _CONTEXTS:
                raise TtsError("max_active_conversations", f"At most {_CONTEXTS} contexts are open at once.")
            context = self._contexts[name] = _context(message)
        await self._more(name, context, _text(message) or "", message)  # "" keeps the socket alive
        return False

    async def _end(self, name: str) -> None:
        await self._generate(name, self._contexts.pop(name))
        await self._socket.send({"isFinal": True, "contextId": name})

    async def _more(self, name: str, context: _Context, text: str, message: Mapping[str, object]) -> None:
        context.text += text
        flushed = message.get("flush") is True or self._auto
        if flushed or context.due(tried=message.get("try_trigger_generation") is True):
            await self._generate(name, context)

    async def _generate(self, name: str, context: _Context) -> None:
        """Speak the waiting text. Only this time counts as concurrent use (section 8)."""
        text, context.text = context.text.strip(), ""
        if not text:
            return
        context.generated += 1
        usage = self._account.usage
        usage.tts_requests += 1
        usage.tts_characters += len(text)
        self._account.tts_running += 1
        try:
            await self._clock.sleep(_MODEL_SECONDS)
        finally:
            self._account.tts_running -= 1
        audio = self._voice.speak(text, voice=self._voice_id)
        alignment: dict[str, object] | None = align(text, audio)
        for at in range(0, len(audio), _PIECE):
            sound = encode(audio[at : at + _PIECE], self._format)
            message: dict[str, object] = {
                "audio": base64.b64encode(sound).decode(),
                "alignment": alignment,
                "normalizedAlignment": alignment,
            }
            if self._multi:
                message["contextId"] = name
            await self._socket.send(message)
            alignment = None


def align(text: str, audio: bytes) -> dict[str, object]:
    """Where each character is in the sound, in milliseconds, spread evenly."""
    total, count = len(audio) * 1000 // RATE_HZ, len(text)
    starts = [index * total // count for index in range(count + 1)]
    return {
        "chars": list(text),
        "charStartTimesMs": starts[:-1],
        "charDurationsMs": [b - a for a, b in pairwise(starts)],
    }


def _text(message: Mapping[str, object]) -> str | None:
    text = message.get("text")
    if text is not None and not isinstance(text, str):
        raise TtsError("invalid_message", "text is a string.")
    return text


def _context(message: Mapping[str, object]) -> _Context:
    config = message.get("generation_config")
    schedule = config.get("chunk_length_schedule") if isinstance(config, Mapping) else None
    if not schedule:
        return _Context()
    if not isinstance(schedule, list) or not all(isinstance(n, int) and 50 <= n <= 500 for n in schedule):
        raise TtsError("invalid_parameters", "chunk_length_schedule has numbers from 50 to 500.")
    return _Context(schedule=tuple(schedule))
