"""Every failure of Twilio and ElevenLabs as one line that can be counted, wherever in the Caller it is dealt with.

The line has the vendor's code and what was asked, and none of the vendor's words: they can quote the patient.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import structlog

from careflow.core.attempts import Attempt
from careflow.errors import ProviderError
from careflow.ports import Listening, Phone, PhoneCall, Speech, Transcript


@contextmanager
def _counted(message: str, operation: str, attempt_id: str = "") -> Iterator[None]:
    """Log a ProviderError that passes through, and let it pass."""
    try:
        yield
    except ProviderError as error:
        structlog.get_logger("careflow.caller").warning(
            message,
            operation=operation,
            code=error.code,
            permanent=error.permanent,
            attemptId=attempt_id,
        )
        raise


class CountedPhone:
    """A `ports.Phone` whose failures are logged as "Telephone error"."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone

    async def dial(self, attempt: Attempt) -> str:
        with _counted("Telephone error", "dial", attempt.id):
            return await self._phone.dial(attempt)

    async def hang_up(self, call_sid: str) -> None:
        with _counted("Telephone error", "hang-up"):
            await self._phone.hang_up(call_sid)

    async def fetch(self, call_sid: str) -> PhoneCall | None:
        with _counted("Telephone error", "fetch"):
            return await self._phone.fetch(call_sid)

    async def calls_to(self, number: str) -> Sequence[PhoneCall]:
        with _counted("Telephone error", "list"):
            return await self._phone.calls_to(number)


class CountedSpeech:
    """A `ports.Speech` whose failures, and those of its listening sessions, are logged as "Speech error"."""

    def __init__(self, speech: Speech) -> None:
        self._speech = speech

    async def say(self, text: str, language: str) -> bytes:
        with _counted("Speech error", "say"):
            return await self._speech.say(text, language)

    async def listen(self, language: str) -> Listening:
        with _counted("Speech error", "listen"):
            return CountedListening(await self._speech.listen(language))


class CountedListening:
    """A `ports.Listening` whose breaking off is logged."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening

    async def send(self, audio: bytes) -> None:
        await self._listening.send(audio)

    async def commit(self) -> None:
        await self._listening.commit()

    async def transcripts(self) -> AsyncIterator[Transcript]:
        with _counted("Speech error", "transcripts"):
            async for transcript in self._listening.transcripts():
                yield transcript

    async def close(self) -> None:
        await self._listening.close()
