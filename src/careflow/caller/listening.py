"""One call's realtime speech-to-text session with ElevenLabs (reference/elevenlabs section 6).

Our own endpointing says when to commit (6.4). What was sent and has not come back as words is kept on a tape, and when the socket
breaks the session is opened once more and the tape played again.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from careflow.caller.mulaw import BYTES_PER_MS, RATE_HZ, silence
from careflow.caller.tape import Tape
from careflow.errors import ProviderError
from careflow.ports import Clock, Transcript

_KEEP_MS = 10_000
_WARM_UP_MS = 2_000  # nothing is transcribed before a session has had about two seconds of audio (6.4)
# Commits less than about a second apart are refused (6.3), and the network may bring two closer together.
_COMMIT_SPACING_SECONDS = 1.25
_RECONNECT_SECONDS = (0.1, 0.5)
_OPEN_TIMEOUT_SECONDS = 10.0

# What the vendor's error types (6.3) mean for us. Any other type is ignored.
_FATAL = frozenset(
    {
        "auth_error",
        "quota_exceeded",
        "unaccepted_terms",
        "unaccepted_terms_error",
        "input_error",
        "invalid_request",
        "chunk_size_exceeded",
    }
)
_GIVE_UP = frozenset({"rate_limited"})  # the caller goes on by keypad
_RECONNECT = frozenset(
    {
        "resource_exhausted",
        "queue_overflow",
        "insufficient_audio_activity",
        "session_time_limit_exceeded",
        "transcriber_error",
        "error",
    }
)


@dataclass(frozen=True, slots=True)
class Doorway:
    """Where a session is opened and with which key; the key is in neither `repr` nor any log."""

    url: str
    api_key: SecretStr

    async def enter(self) -> ClientConnection:
        """A new connection. Raises ProviderError."""
        try:
            return await connect(
                self.url,
                additional_headers={"xi-api-key": self.api_key.get_secret_value()},
                compression=None,  # base64 of speech does not shrink
                open_timeout=_OPEN_TIMEOUT_SECONDS,
                close_timeout=1.0,
                logger=_silent_logger(),
            )
        except InvalidStatus as error:
            status = error.response.status_code
            raise ProviderError(
                f"speech-to-text: HTTP {status} at the upgrade",
                code=str(status),
                permanent=status < 500 and status not in (408, 425, 429),
            ) from error
        except (OSError, InvalidHandshake, TimeoutError, ConnectionClosed) as error:
            raise ProviderError("speech-to-text: no connection", code=type(error).__name__) from error


class ElevenLabsListening:
    """The port `Listening`. Made by `open`."""

    def __init__(self, doorway: Doorway, *, clock: Clock, rng: random.Random, chunk_ms: int) -> None:
        self._doorway = doorway
        self._clock = clock
        self._rng = rng
        self._chunk_bytes = chunk_ms * BYTES_PER_MS
        self._tape = Tape(chunk_bytes=self._chunk_bytes, keep_bytes=_KEEP_MS * BYTES_PER_MS)
        self._more = asyncio.Event()
        self._heard: asyncio.Queue[Transcript | ProviderError | None] = asyncio.Queue()
        self._committed_at: datetime | None = None
        self._may_reconnect = True
        self._last_partial = ""
        self._last_final: str | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, doorway: Doorway, *, clock: Clock, rng: random.Random, chunk_ms: int = 100
    ) -> ElevenLabsListening:
        """Connect, and begin to listen. Raises ProviderError when the vendor cannot be reached or refuses."""
        listening = cls(doorway, clock=clock, rng=rng, chunk_ms=chunk_ms)
        try:
            socket = await doorway.enter()
        except ProviderError as error:
            if error.permanent:
                raise
            socket = await listening._reconnect()
        listening._task = asyncio.create_task(listening._run(socket), name="listening")
        return listening

    async def send(self, audio: bytes) -> None:
        """Give it audio. Returns at once; after the session failed it does nothing."""
        self._tape.append(audio)
        if self._tape.ready():
            self._more.set()

    async def commit(self) -> None:
        """Ask for the final words of what was sent since the last commit; nothing happens when nothing was sent.

        The question goes out at least a second after the one before.
        """
        if self._tape.commit():
            self._more.set()

    async def transcripts(self) -> AsyncIterator[Transcript]:
        """What is heard. A partial is given only when it has words that the one before had not, so it may stay away."""
        while (heard := await self._heard.get()) is not None:
            if isinstance(heard, ProviderError):
                self._heard.put_nowait(heard)  # whoever asks again gets the same answer
                raise heard
            yield heard
        self._heard.put_nowait(None)

    async def close(self) -> None:
        """End the session; may be called again."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._heard.put_nowait(None)

    async def _run(self, socket: ClientConnection) -> None:
        """Keep a session up until the vendor's trouble is final."""
        try:
            while True:
                trouble = await self._session(socket)
                if trouble.permanent or trouble.code in _GIVE_UP or not self._may_reconnect:
                    raise trouble
                self._tape.rewind()
                self._last_partial = ""
                socket = await self._reconnect()
        except ProviderError as error:
            self._heard.put_nowait(error)
        except Exception as error:  # whatever it is, whoever waits for transcripts must not wait for ever
            self._heard.put_nowait(ProviderError("speech-to-text failed", code=type(error).__name__))
            raise

    async def _reconnect(self) -> ClientConnection:
        self._may_reconnect = False
        await self._clock.sleep(self._rng.uniform(*_RECONNECT_SECONDS))
        return await self._doorway.enter()

    async def _session(self, socket: ClientConnection) -> ProviderError:
        """Send and receive on this socket until it fails; why it failed."""
        player = asyncio.create_task(self._play(socket), name="listening-play")
        try:
            return await self._receive(socket)
        finally:
            player.cancel()
            await asyncio.gather(player, return_exceptions=True)
            await socket.close()

    async def _play(self, socket: ClientConnection) -> None:
        """Send what is on the tape; ends when the socket does, and leaves it to the receiver to say why."""
        with suppress(ConnectionClosed):
            for _ in range(0, _WARM_UP_MS * BYTES_PER_MS, self._chunk_bytes):
                await socket.send(_message(silence(self._chunk_bytes // BYTES_PER_MS)))
            while True:
                chunk = self._tape.read()
                if chunk is None:
                    self._more.clear()
                    await self._more.wait()
                elif chunk.is_commit:
                    await self._space_commits()
                    await socket.send(_message(b"", commit=True))
                else:
                    await socket.send(_message(chunk.audio))

    async def _space_commits(self) -> None:
        if self._committed_at is not None:
            since = (self._clock.now() - self._committed_at).total_seconds()
            if since < _COMMIT_SPACING_SECONDS:
                await self._clock.sleep(_COMMIT_SPACING_SECONDS - since)
        self._committed_at = self._clock.now()

    async def _receive(self, socket: ClientConnection) -> ProviderError:
        """Read until the socket or the vendor ends the session; why it ended."""
        try:
            async for message in socket:
                trouble = self._understand(message)
                if trouble:
                    return trouble
        except ConnectionClosed:
            pass
        return ProviderError("speech-to-text: the socket closed", code=f"closed_{socket.close_code}")

    def _understand(self, message: str | bytes) -> ProviderError | None:
        """Take in one message; the error it stands for, if it ends the session. What is not known is ignored (6.3)."""
        try:
            document = json.loads(message)
            kind = document["message_type"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if not isinstance(kind, str):
            return None
        text = document.get("text")
        if kind == "partial_transcript" and isinstance(text, str):
            self._hear_partial(text)
        elif kind == "committed_transcript" and isinstance(text, str):
            self._hear_final(text)
        elif kind in _FATAL or kind in _GIVE_UP or kind in _RECONNECT:
            return ProviderError(f"speech-to-text: {kind}", code=kind, permanent=kind in _FATAL)
        return None

    def _hear_partial(self, text: str) -> None:
        # They come once a second whether or not anything was said, and once more with the words just committed (6.4).
        if text and text not in (self._last_partial, self._last_final):
            self._last_partial = text
            self._heard.put_nowait(Transcript(text, final=False))

    def _hear_final(self, text: str) -> None:
        asked = self._tape.answered()
        if not asked and text == self._last_final:
            return  # the same answer a second time must not answer the next question
        self._may_reconnect = self._may_reconnect or asked
        self._last_partial, self._last_final = "", text
        self._heard.put_nowait(Transcript(text, final=True))


def _message(audio: bytes, *, commit: bool = False) -> str:
    return json.dumps(
        {
            "message_type": "input_audio_chunk",
            "audio_base_64": base64.b64encode(audio).decode(),
            "commit": commit,
            "sample_rate": RATE_HZ,
        }
    )


def _silent_logger() -> logging.Logger:
    """A logger that says nothing: at DEBUG the library would write down the key and the patient's words."""
    logger = logging.Logger("careflow.listening", level=logging.CRITICAL)  # noqa: LOG001 - no other part shall reach it
    logger.addHandler(logging.NullHandler())
    return logger
