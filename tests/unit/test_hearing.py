"""One call's ear: a change of language in the middle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from bridge_kit import MORNING, FakeListening, FakeSpeech, spoken_by_patient
from careflow.caller.hearing import Hearing, HearingConfig, HearingCounts, Utterances
from careflow.caller.media_protocol import Media
from careflow.clock import Pace, VirtualClock
from careflow.core.conversation import DeafNow, Event, Heard
from careflow.ports import Listening

SILENCE = b"\xff" * 160


class Interpreter(FakeSpeech):
    """Notes the language of every session."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.languages: list[str] = []

    async def listen(self, language: str) -> Listening:
        self.languages.append(language)
        return await super().listen(language)


class Ear:
    """A hearing that is fed in virtual time."""

    def __init__(self) -> None:
        self.clock = VirtualClock(MORNING)
        self.speech = Interpreter(self.clock)
        self.told: list[Event] = []
        self.hearing = Hearing(
            self.speech,
            "en",
            self.clock,
            HearingConfig(),
            prompt_playing=lambda: False,
            tell=self.told.append,
        )
        self._chunk = 0

    async def hears(self, text: str) -> None:
        """The patient says it, then is silent for a second."""
        for audio in [*spoken_by_patient(text), *[SILENCE] * 50]:
            self._chunk += 1
            self.hearing.frame(Media(chunk=self._chunk, timestamp_ms=20 * self._chunk, audio=audio))
            await self.clock.sleep(0.02)


@asynccontextmanager
async def listening() -> AsyncIterator[Ear]:
    ear = Ear()
    ticking = asyncio.create_task(ear.clock.run(lambda: Pace(speed=1000, step=0.02), tick=0))
    running = asyncio.create_task(ear.hearing.run())
    try:
        yield ear
    finally:
        for task in (running, ticking):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_after_a_change_of_language_the_next_session_listens_in_the_new_one() -> None:
    async with listening() as ear:
        await ear.hears("español")
        ear.hearing.listen_in("es")
        ear.hearing.new_prompt()
        await ear.hears("sí")
        await ear.clock.sleep(1)
        assert ear.speech.languages == ["en", "es"]
        assert ear.told == [Heard("español"), Heard("sí")]


async def test_the_same_language_again_keeps_the_session() -> None:
    async with listening() as ear:
        ear.hearing.listen_in("en")
        await ear.hears("yes")
        await ear.clock.sleep(1)
        assert ear.speech.languages == ["en"]


async def test_words_that_the_old_session_still_owed_do_not_take_the_new_answer_s_place() -> None:
    async with listening() as ear:
        ear.speech.final_delays.append(())  # the first words never come
        await ear.hears("español")
        ear.hearing.listen_in("es")
        ear.hearing.new_prompt()
        await ear.hears("sí")
        await ear.clock.sleep(1)
        assert ear.told == [Heard("sí")]


async def test_the_old_session_s_end_does_not_count_as_deafness() -> None:
    async with listening() as ear:
        await ear.hears("español")
        ear.hearing.listen_in("es")
        await ear.hears("sí")
        assert isinstance(ear.speech.listenings[0], FakeListening)
        assert ear.speech.closed == 1
        assert DeafNow() not in ear.told


def test_half_a_sentence_that_is_never_understood_is_no_missed_answer() -> None:
    """The question is asked again anyway, and with each miss the patient has one try less."""
    utterances = Utterances(timedelta(seconds=8), HearingCounts())
    utterances.started()
    half = utterances.ended(is_cut=True)
    assert half is not None
    assert utterances.pending, "its words are waited for: a red flag may be in them"
    assert utterances.give_up(half) == []
