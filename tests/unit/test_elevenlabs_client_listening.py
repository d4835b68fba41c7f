"""Realtime speech-to-text: the words come back whatever the vendor does, or the call learns that they will not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from careflow.caller.listening import Doorway, ElevenLabsListening
from careflow.caller.tape import Tape
from careflow.clock import SystemClock
from careflow.errors import ProviderError
from careflow.lab.elevenlabs_account import SpeechFaults
from careflow.lab.mulaw import SILENCE
from speech_lab import SpeechLab, speech_lab

WORDS = "Yes, I took it after breakfast."


@pytest.fixture
async def lab() -> AsyncIterator[SpeechLab]:
    async with speech_lab() as running:
        yield running


@pytest.fixture
async def listening(lab: SpeechLab, tmp_path: Path) -> AsyncIterator[ElevenLabsListening]:
    opened = await lab.speech(tmp_path).listen("en-US")
    yield opened
    await opened.close()


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[Doorway]:
    """Every time a connection was asked for."""
    doors: list[Doorway] = []
    enter = Doorway.enter

    async def counted(door: Doorway) -> object:
        doors.append(door)
        return await enter(door)

    monkeypatch.setattr(Doorway, "enter", counted)
    return doors


async def say(listening: ElevenLabsListening, audio: bytes) -> None:
    for at in range(0, len(audio), 160):
        await listening.send(audio[at : at + 160])


async def answer(lab: SpeechLab, listening: ElevenLabsListening, text: str = WORDS) -> None:
    await say(listening, lab.voice.speak(text, voice="patient") + SILENCE * 30)
    await listening.commit()


async def final(listening: ElevenLabsListening) -> str:
    async with asyncio.timeout(5):
        async for transcript in listening.transcripts():
            if transcript.final:
                return transcript.text
    raise AssertionError("the session ended without final words")


async def failure(listening: ElevenLabsListening) -> ProviderError:
    with pytest.raises(ProviderError) as failed:
        await final(listening)
    return failed.value


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class TestHearing:
    @pytest.mark.parametrize("text", ["no", WORDS, "Sí, la tomé después del desayuno."])
    async def test_gives_the_words_of_the_audio(
        self, lab: SpeechLab, listening: ElevenLabsListening, text: str
    ) -> None:
        await answer(lab, listening, text)
        assert await final(listening) == text

    async def test_two_answers_right_after_each_other_both_come(self, tmp_path: Path) -> None:
        # Slower, because the lab sees the spacing of the commits only as exactly as they arrive.
        async with speech_lab(speed=10) as lab:
            listening = await lab.speech(tmp_path).listen("en")
            await answer(lab, listening, "yes")
            await answer(lab, listening, "no")
            assert [await final(listening), await final(listening)] == ["yes", "no"]
            assert lab.account.usage.stt_sessions == 1
            await listening.close()

    async def test_partials_come_with_words_only_and_each_once(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        await say(listening, SILENCE * 150 + lab.voice.speak(WORDS, voice="patient") + SILENCE * 150)
        await listening.commit()
        await until(lambda: lab.account.usage.stt_commits == 1)
        await say(listening, SILENCE * 200)
        seen = []
        async for transcript in listening.transcripts():
            seen.append(transcript)
            if transcript.final:
                break
        await asyncio.sleep(0.05)
        assert listening._heard.empty()  # neither the echo nor silence is a partial
        partials = [transcript.text for transcript in seen if not transcript.final]
        assert partials
        assert all(WORDS.startswith(text) and text for text in partials)
        assert len(set(partials)) == len(partials)

    async def test_a_commit_without_audio_asks_nothing(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        await listening.commit()
        await answer(lab, listening)
        assert await final(listening) == WORDS
        assert lab.account.usage.stt_commits == 1

    async def test_closing_ends_the_transcripts_and_the_session(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        await until(lambda: lab.account.stt_running == 1)
        await listening.close()
        await listening.close()
        assert [transcript async for transcript in listening.transcripts()] == []
        await until(lambda: lab.account.stt_running == 0)

    async def test_neither_key_nor_words_are_logged(
        self, lab: SpeechLab, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        # The server side of these tests logs as well, and is not ours.
        logging.getLogger("websockets.server").setLevel(logging.WARNING)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        listening = await lab.speech(tmp_path).listen("en")
        await answer(lab, listening)
        await final(listening)
        await listening.close()
        said = caplog.text + repr(vars(listening))
        assert lab.account.api_key not in said
        assert "breakfast" not in caplog.text


class TestUnpleasantVendor:
    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            ("late_transcript", WORDS),
            ("duplicate_transcript", WORDS),
            ("tripled_words", " ".join([WORDS] * 3)),
            ("empty_transcript", ""),
            ("unknown_message", WORDS),
        ],
    )
    async def test_what_comes_is_passed_on(
        self, lab: SpeechLab, listening: ElevenLabsListening, fault: str, words: str
    ) -> None:
        lab.faults = replace(SpeechFaults(), **{fault: 1.0})
        await answer(lab, listening)
        assert await final(listening) == words

    async def test_a_transcript_that_comes_twice_does_not_answer_the_next_question(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        lab.faults = SpeechFaults(duplicate_transcript=1.0)
        await answer(lab, listening, "yes")
        assert await final(listening) == "yes"
        await asyncio.sleep(0.05)
        await answer(lab, listening, "no")
        assert await final(listening) == "no"

    async def test_the_same_answer_to_two_questions_is_heard_twice(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        for _ in range(2):
            await answer(lab, listening, "yes")
            assert await final(listening) == "yes"

    async def test_a_socket_that_breaks_in_the_middle_of_an_answer_loses_no_word(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        audio = lab.voice.speak(WORDS, voice="patient")
        await until(lambda: lab.account.usage.stt_audio_seconds >= 2)
        lab.faults = SpeechFaults(disconnect=1.0)
        await say(listening, SILENCE * 25 + audio[:16000])
        await until(lambda: lab.account.stt_running == 0)
        lab.faults = SpeechFaults()
        await say(listening, audio[16000:] + SILENCE * 30)
        await listening.commit()
        assert await final(listening) == WORDS
        assert lab.account.usage.stt_sessions == 2

    async def test_a_transcriber_that_fails_at_the_commit_is_asked_again(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        lab.faults = SpeechFaults(transcriber_error=1.0)
        await answer(lab, listening)
        await until(lambda: lab.account.usage.stt_commits == 1)
        lab.faults = SpeechFaults()
        assert await final(listening) == WORDS

    async def test_an_answered_question_is_not_asked_again_after_a_reconnect(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        await answer(lab, listening, "yes")
        assert await final(listening) == "yes"
        lab.faults = SpeechFaults(transcriber_error=1.0)
        await answer(lab, listening, "no")
        await until(lambda: lab.account.usage.stt_commits == 2)
        lab.faults = SpeechFaults()
        assert await final(listening) == "no"

    async def test_each_session_that_worked_earns_another_reconnect(
        self, lab: SpeechLab, listening: ElevenLabsListening
    ) -> None:
        for number in range(3):
            await answer(lab, listening)
            assert await final(listening) == WORDS
            lab.faults = SpeechFaults(session_seconds=0.0)
            await say(listening, SILENCE * 5)
            await until(lambda number=number: lab.account.stt_running == 0)
            lab.faults = SpeechFaults()
        await until(lambda: lab.account.stt_running == 1)

    async def test_lasting_trouble_ends_after_one_reconnect(
        self, lab: SpeechLab, entered: list[Doorway], listening: ElevenLabsListening
    ) -> None:
        lab.faults = SpeechFaults(transcriber_error=1.0)
        await answer(lab, listening)
        error = await failure(listening)
        assert (error.code, error.permanent, len(entered)) == ("transcriber_error", False, 2)
        await listening.send(SILENCE)  # the bridge may not have noticed yet
        assert (await failure(listening)).code == "transcriber_error"

    async def test_a_refused_session_is_not_hammered(
        self, lab: SpeechLab, entered: list[Doorway], tmp_path: Path
    ) -> None:
        lab.account.stt_limit = 0
        listening = await lab.speech(tmp_path).listen("en")
        error = await failure(listening)
        await listening.close()
        assert (error.code, error.permanent, len(entered)) == ("rate_limited", False, 1)

    async def test_credits_that_are_used_up_are_fatal(
        self, lab: SpeechLab, entered: list[Doorway], tmp_path: Path
    ) -> None:
        lab.faults = SpeechFaults(quota_exceeded=1.0)
        listening = await lab.speech(tmp_path).listen("en")
        error = await failure(listening)
        await listening.close()
        assert (error.code, error.permanent, len(entered)) == ("quota_exceeded", True, 1)

    async def test_a_wrong_key_is_fatal(self, lab: SpeechLab, tmp_path: Path) -> None:
        listening = await lab.speech(tmp_path, key="wrong").listen("en")
        error = await failure(listening)
        await listening.close()
        assert (error.code, error.permanent) == ("auth_error", True)

    async def test_no_capacity_is_tried_once_more(
        self, lab: SpeechLab, entered: list[Doorway], tmp_path: Path
    ) -> None:
        lab.faults = SpeechFaults(resource_exhausted=1.0)
        listening = await lab.speech(tmp_path).listen("en")
        error = await failure(listening)
        await listening.close()
        assert (error.code, len(entered)) == ("resource_exhausted", 2)

    async def test_nobody_there_is_a_provider_error(
        self, lab: SpeechLab, entered: list[Doorway], tmp_path: Path
    ) -> None:
        lab.url = "http://127.0.0.1:9"
        with pytest.raises(ProviderError) as failed:
            await lab.speech(tmp_path).listen("en")
        assert (failed.value.permanent, len(entered)) == (False, 2)

    async def test_a_refused_upgrade_is_permanent(
        self, lab: SpeechLab, entered: list[Doorway], tmp_path: Path
    ) -> None:
        lab.url += "/not-here"
        with pytest.raises(ProviderError) as failed:
            await lab.speech(tmp_path).listen("en")
        assert (failed.value.permanent, len(entered)) == (True, 1)


@pytest.mark.parametrize(
    "message",
    ["[" * 50_000, "no JSON", b"\xff", "[]", "null", "{}", '{"message_type": ["x"]}', '{"message_type": {}}'],
    ids=lambda message: str(message[:20]),
)
def test_a_message_that_cannot_be_understood_is_passed_over(message: str | bytes) -> None:
    listening = ElevenLabsListening(
        Doorway("ws://127.0.0.1:9", SecretStr("key")), clock=SystemClock(), rng=Random(1), chunk_ms=100
    )
    assert listening._understand(message) is None


class TestTape:
    def played(self, tape: Tape) -> list[bytes]:
        chunks = []
        while (chunk := tape.read()) is not None:
            chunks.append(chunk.audio)
        return chunks

    def test_hands_out_full_chunks_and_the_rest_before_a_commit(self) -> None:
        tape = Tape(chunk_bytes=4, keep_bytes=100)
        tape.append(b"abcdef")
        assert self.played(tape) == [b"abcd"]
        assert tape.commit()
        assert self.played(tape) == [b"ef", b""]

    def test_rewinds_to_what_was_not_answered(self) -> None:
        tape = Tape(chunk_bytes=4, keep_bytes=100)
        tape.append(b"abcd")
        tape.commit()
        tape.append(b"efgh")
        tape.commit()
        self.played(tape)
        assert tape.answered()
        tape.rewind()
        assert self.played(tape) == [b"efgh", b""]

    def test_an_answer_that_nobody_asked_for_lets_nothing_go(self) -> None:
        tape = Tape(chunk_bytes=4, keep_bytes=100)
        tape.append(b"abcd")
        tape.commit()
        assert not tape.answered()
        assert self.played(tape) == [b"abcd", b""]

    @given(
        st.lists(
            st.one_of(st.binary(max_size=9), st.sampled_from(["commit", "read", "rewind", "answered"])),
            max_size=60,
        )
    )
    def test_another_reading_gives_the_newest_audio_in_order_and_within_its_bound(
        self, steps: list[bytes | str]
    ) -> None:
        tape, given_audio = Tape(chunk_bytes=4, keep_bytes=20), b""
        for step in steps:
            match step:
                case "commit":
                    tape.commit()
                case "read":
                    tape.read()
                case "rewind":
                    tape.rewind()
                case "answered":
                    tape.answered()
                case bytes():
                    given_audio += step
                    tape.append(step)
        tape.commit()
        tape.rewind()
        audio = b"".join(self.played(tape))
        assert given_audio.endswith(audio)
        assert len(audio) <= 20

    @given(st.lists(st.binary(min_size=1, max_size=9), max_size=20))
    def test_every_byte_is_read_once(self, pieces: list[bytes]) -> None:
        tape, read = Tape(chunk_bytes=4, keep_bytes=1000), b""
        for piece in pieces:
            tape.append(piece)
            read += b"".join(self.played(tape))
        tape.commit()
        assert read + b"".join(self.played(tape)) == b"".join(pieces)
