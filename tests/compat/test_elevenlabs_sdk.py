"""The lab's ElevenLabs, used by the vendor's own client (elevenlabs for Python)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from elevenlabs.client import AsyncElevenLabs, ElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.realtime import AudioFormat, CommitStrategy, RealtimeEvents, ScribeRealtime
from websockets.exceptions import ConnectionClosed

from careflow.lab.mulaw import SILENCE, from_pcm16
from careflow.lab.voice import Ear
from speech_lab import ENGLISH, KEY, SpeechLab, speech_lab

TEXT = "Good morning. Did you take your medicine today?"


@pytest.fixture
async def lab() -> AsyncIterator[SpeechLab]:
    async with speech_lab() as running:
        yield running


def words(audio: bytes) -> str:
    ear = Ear()
    ear.feed(audio)
    return " ".join(utterance.text for utterance in ear.finish() if utterance.complete)


def committed(messages: list[dict[str, object]]) -> object:
    return next(message["text"] for message in messages if message["message_type"] == "committed_transcript")


def client(lab: SpeechLab, key: str = KEY) -> AsyncElevenLabs:
    return AsyncElevenLabs(api_key=key, base_url=lab.url)


class TestTextToSpeech:
    async def test_convert_speaks_in_mu_law(self, lab: SpeechLab) -> None:
        pieces = client(lab).text_to_speech.convert(
            ENGLISH, text=TEXT, model_id="eleven_flash_v2_5", output_format="ulaw_8000"
        )
        assert words(b"".join([piece async for piece in pieces])) == TEXT

    async def test_stream_speaks_in_pieces_that_are_not_frames(self, lab: SpeechLab) -> None:
        stream = client(lab).text_to_speech.stream(
            ENGLISH, text=TEXT, model_id="eleven_flash_v2_5", output_format="ulaw_8000"
        )
        pieces = [piece async for piece in stream]
        assert words(b"".join(pieces)) == TEXT
        assert any(len(piece) % 160 for piece in pieces)

    async def test_linear_samples_carry_the_words_too(self, lab: SpeechLab) -> None:
        pieces = client(lab).text_to_speech.convert(
            ENGLISH, text=TEXT, model_id="eleven_flash_v2_5", output_format="pcm_8000"
        )
        assert words(from_pcm16(b"".join([piece async for piece in pieces]))) == TEXT

    async def test_timestamps_cover_every_character(self, lab: SpeechLab) -> None:
        answer = await client(lab).text_to_speech.convert_with_timestamps(
            ENGLISH, text=TEXT, model_id="eleven_flash_v2_5", output_format="ulaw_8000"
        )
        assert words(base64.b64decode(answer.audio_base_64)) == TEXT
        assert answer.alignment
        assert answer.alignment.characters == list(TEXT)

    async def test_the_default_mp3_is_refused_with_what_is_accepted(self, lab: SpeechLab) -> None:
        with pytest.raises(ApiError) as refused:
            _ = [
                piece
                async for piece in client(lab).text_to_speech.convert(
                    ENGLISH, text=TEXT, model_id="eleven_flash_v2_5"
                )
            ]
        assert refused.value.status_code == 400
        assert "ulaw_8000" in refused.value.body["detail"]["message"]

    @pytest.mark.parametrize(
        ("voice", "model", "key", "status", "code"),
        [
            ("nobody", "eleven_flash_v2_5", KEY, 404, "voice_not_found"),
            (ENGLISH, "eleven_unheard_of", KEY, 400, "invalid_parameters"),
            (ENGLISH, "eleven_flash_v2_5", "wrong", 401, "invalid_api_key"),
        ],
    )
    async def test_bad_requests_are_refused_as_the_vendor_does(
        self, lab: SpeechLab, voice: str, model: str, key: str, status: int, code: str
    ) -> None:
        stream = client(lab, key).text_to_speech.stream(
            voice, text=TEXT, model_id=model, output_format="ulaw_8000"
        )
        with pytest.raises(ApiError) as refused:
            _ = [piece async for piece in stream]
        assert (refused.value.status_code, refused.value.body["detail"]["code"]) == (status, code)

    async def test_the_websocket_speaks_text_that_comes_in_pieces(self, lab: SpeechLab) -> None:
        def speak() -> list[bytes]:
            speech = ElevenLabs(api_key=KEY, base_url=lab.url).text_to_speech
            speech._ws_base_url = lab.url.replace("http", "ws", 1)  # the SDK insists on TLS otherwise
            pieces = speech.convert_realtime(
                ENGLISH,
                text=iter(["Good ", "morning. "]),
                model_id="eleven_flash_v2_5",
                output_format="ulaw_8000",
            )
            return list(pieces)

        assert words(b"".join(await asyncio.to_thread(speak))) == "Good morning."

    async def test_voices_and_models_are_listed(self, lab: SpeechLab) -> None:
        voices = await client(lab).voices.get_all()
        models = await client(lab).models.list()
        assert ENGLISH in {voice.voice_id for voice in voices.voices}
        assert "eleven_flash_v2_5" in {model.model_id for model in models}


class TestRealtimeSpeechToText:
    async def listen(
        self, lab: SpeechLab, audio: bytes, *, key: str = KEY, timestamps: bool = False
    ) -> list[dict[str, object]]:
        """Stream the audio, commit, and give every message up to the committed transcript or the socket's end."""
        scribe = ScribeRealtime(api_key=key, base_url=lab.url.replace("http", "ws", 1))
        connection = await scribe.connect(
            {
                "model_id": "scribe_v2_realtime",
                "audio_format": AudioFormat.ULAW_8000,
                "sample_rate": 8000,
                "commit_strategy": CommitStrategy.MANUAL,
                "include_timestamps": timestamps,
            }
        )
        seen: list[dict[str, object]] = []
        over = asyncio.Event()
        last = (
            RealtimeEvents.COMMITTED_TRANSCRIPT_WITH_TIMESTAMPS
            if timestamps
            else RealtimeEvents.COMMITTED_TRANSCRIPT
        )
        for event in (
            RealtimeEvents.SESSION_STARTED,
            RealtimeEvents.PARTIAL_TRANSCRIPT,
            RealtimeEvents.AUTH_ERROR,
        ):
            connection.on(event, seen.append)
        connection.on(last, lambda message: (seen.append(message), over.set()))
        connection.on(RealtimeEvents.CLOSE, lambda _: over.set())
        with suppress(ConnectionClosed):  # the lab may have closed already
            for at in range(0, len(audio), 800):
                await connection.send({"audio_base_64": base64.b64encode(audio[at : at + 800]).decode()})
            await connection.commit()
        async with asyncio.timeout(5):
            await over.wait()
        await connection.close()
        return seen

    async def test_hears_the_words_in_the_audio(self, lab: SpeechLab) -> None:
        audio = SILENCE * 100 + lab.voice.speak("Yes, I took it.", voice="patient") + SILENCE * 30
        messages = await self.listen(lab, audio)
        assert messages[0]["message_type"] == "session_started"
        assert messages[0]["config"]["audio_format"] == "ulaw_8000"
        assert committed(messages) == "Yes, I took it."

    async def test_partials_come_every_second_even_in_silence(self, lab: SpeechLab) -> None:
        messages = await self.listen(lab, SILENCE * 250)
        partials = [
            message["text"] for message in messages if message["message_type"] == "partial_transcript"
        ]
        assert partials[:4] == ["", "", "", ""]  # of five seconds, the first of which was too early

    async def test_a_frame_that_was_lost_breaks_the_words(self, lab: SpeechLab) -> None:
        spoken = lab.voice.speak("Yes, I took it.", voice="patient")
        half = len(spoken) // 320 * 160
        messages = await self.listen(lab, SILENCE * 100 + spoken[:half] + spoken[half + 160 :] + SILENCE * 40)
        assert committed(messages) != "Yes, I took it."

    async def test_the_first_two_seconds_are_not_transcribed(self, lab: SpeechLab) -> None:
        messages = await self.listen(lab, lab.voice.speak("no", voice="patient"))
        assert committed(messages) == ""

    async def test_timestamps_are_given_when_asked_for(self, lab: SpeechLab) -> None:
        messages = await self.listen(lab, SILENCE * 100 + lab.voice.speak("not today"), timestamps=True)
        timed = next(message for message in messages if "words" in message)
        assert [word["text"] for word in timed["words"]] == ["not", "today"]

    async def test_a_wrong_key_is_an_auth_error(self, lab: SpeechLab) -> None:
        messages = await self.listen(lab, b"", key="wrong")
        assert [message["message_type"] for message in messages] == ["auth_error"]


async def test_the_subscription_tells_what_was_used(lab: SpeechLab) -> None:
    before = await client(lab).user.subscription.get()
    spoken = client(lab).text_to_speech.convert(
        ENGLISH, text=TEXT, model_id="eleven_flash_v2_5", output_format="ulaw_8000"
    )
    assert [piece async for piece in spoken]
    after = await client(lab).user.subscription.get()
    assert after.character_count == before.character_count + len(TEXT)
    assert after.character_limit > after.character_count
