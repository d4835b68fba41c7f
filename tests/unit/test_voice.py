"""The lab's voice: what is said is heard, from the sound alone, and damage to the sound is damage to the words."""

from __future__ import annotations

import io
import random
import re
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.lab.mulaw import (
    FRAME_BYTES,
    SILENCE,
    decode_byte,
    encode_sample,
    from_pcm16,
    is_speech,
    level,
    to_pcm16,
)
from careflow.lab.recording import record
from careflow.lab.voice import Ear, Utterance, Voice, mumble

VOICE = Voice()
SENTENCES = (
    "yes",
    "Did you take your medicine after breakfast today?",
    "Sí, la tomé después del desayuno. ¿Y mañana también?",
    "I have 3 tablets left, and my chest hurts!",
    "Żółć 日本 👍🏽 é",
)


def frames(audio: bytes) -> list[bytes]:
    return [audio[at : at + FRAME_BYTES] for at in range(0, len(audio), FRAME_BYTES)]


def heard(*chunks: bytes) -> list[Utterance]:
    ear = Ear()
    for chunk in chunks:
        ear.feed(chunk)
    return ear.finish()


class TestRoundTrip:
    @pytest.mark.parametrize("text", SENTENCES)
    def test_what_is_said_is_heard(self, text: str) -> None:
        assert heard(VOICE.speak(text)) == [Utterance(text, complete=True)]

    @given(st.text(st.characters(codec="utf-8"), max_size=60))
    @settings(max_examples=60, deadline=None)
    def test_any_text_survives_but_for_its_white_space(self, text: str) -> None:
        words = " ".join(text.replace("\0", " ").split())
        assert heard(VOICE.speak(text)) == ([Utterance(words, complete=True)] if words else [])

    @given(st.data())
    @settings(max_examples=40, deadline=None)
    def test_chunks_may_be_cut_anywhere_and_frames_need_no_alignment(self, data: st.DataObject) -> None:
        text = data.draw(st.sampled_from(SENTENCES))
        noise = data.draw(st.binary(max_size=500))
        stream = noise + VOICE.speak(text) + SILENCE * 2 + VOICE.speak("thank you") + noise
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
        chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert heard(*chunks) == [Utterance(text, complete=True), Utterance("thank you", complete=True)]

    def test_the_same_words_twice_are_two_utterances(self) -> None:
        assert heard(VOICE.speak("no"), VOICE.speak("no")) == [Utterance("no", complete=True)] * 2

    def test_silence_and_noise_say_nothing(self) -> None:
        assert heard(SILENCE * 100, random.Random(1).randbytes(16000)) == []


class TestDamage:
    @given(st.sampled_from(SENTENCES), st.data())
    @settings(max_examples=80, deadline=None)
    def test_a_dropped_doubled_or_swapped_frame_is_never_heard_as_whole(
        self, text: str, data: st.DataObject
    ) -> None:
        parts = frames(VOICE.speak(text))
        at = data.draw(st.integers(0, len(parts) - 2))
        damage = data.draw(st.sampled_from(("drop", "drop last", "double", "double last", "swap", "flip")))
        match damage:
            case "drop":
                del parts[at]
            case "drop last":
                del parts[-1]
            case "double":
                parts.insert(at, parts[at])
            case "double last":
                parts.append(parts[-1])
            case "swap":
                parts[at], parts[at + 1] = parts[at + 1], parts[at]
            case "flip":
                parts[at] = bytes([parts[at][0] ^ 1]) + parts[at][1:]
        utterances = heard(*parts)
        assert not any(utterance.complete for utterance in utterances)
        assert text not in {utterance.text for utterance in utterances}

    def test_words_away_from_the_damage_survive(self) -> None:
        parts = frames(VOICE.speak("one two three four five six"))
        del parts[len(parts) // 2]
        (utterance,) = heard(*parts)
        assert re.fullmatch("one two .*five six", utterance.text)

    def test_transcoding_loses_the_words(self) -> None:
        audio = VOICE.speak("yes I did")
        quieter = bytes(encode_sample(decode_byte(byte) * 9 // 10) for byte in audio)
        assert not any(utterance.text for utterance in heard(quieter))

    def test_an_utterance_cut_short_gives_its_words_so_far(self) -> None:
        audio = VOICE.speak("my chest hurts badly")
        (utterance,) = heard(audio[: len(audio) * 2 // 3], SILENCE * 40)
        assert not utterance.complete
        assert utterance.text
        assert "my chest hurts badly".startswith(utterance.text)

    def test_hearing_goes_on_in_the_middle_without_losing_a_word(self) -> None:
        text = "the quick brown fox jumps over it"
        audio = VOICE.speak(text)
        for cut in range(0, len(audio), 480):
            ear = Ear()
            ear.feed(audio[:cut])
            first = ear.finish()
            ear.feed(audio[cut:] + SILENCE)
            assert " ".join(u.text for u in first + ear.finish()) == text

    def test_partial_gives_whole_words_only(self) -> None:
        audio, ear = VOICE.speak("good morning doctor"), Ear()
        seen = []
        for frame in frames(audio):
            ear.feed(frame)
            if ear.partial() not in seen:
                seen.append(ear.partial())
        assert seen == ["", "good", "good morning", "good morning doctor"]

    def test_mumbling_loses_words_for_every_seed(self) -> None:
        for seed in range(30):
            for text in SENTENCES[:4]:
                utterances = heard(mumble(VOICE.speak(text), random.Random(seed)), SILENCE * 40)
                assert not any(utterance.complete for utterance in utterances)


class TestSound:
    def test_takes_natural_time_in_whole_frames(self) -> None:
        audio = VOICE.speak(SENTENCES[1])
        assert len(audio) % FRAME_BYTES == 0
        assert 10 < len(SENTENCES[1]) / (len(audio) / 8000) < 18

    def test_is_audible_while_silence_is_not(self) -> None:
        assert level(VOICE.speak(SENTENCES[1])) > 30 > 1 > level(SILENCE)
        assert is_speech(VOICE.speak("aha")[320:480])
        assert not is_speech(SILENCE)

    def test_voices_differ_and_each_is_always_the_same(self) -> None:
        sounds = {name: VOICE.speak("hello", voice=name) for name in ("agent", "a", "b", "c", "d", "e", "f")}
        assert len(set(sounds.values())) > 2
        assert Voice().speak("hello", voice="a") == sounds["a"]

    def test_a_recording_opens_as_stereo_with_the_agent_on_the_left(self) -> None:
        agent, patient = VOICE.speak("hello"), SILENCE * 50 + VOICE.speak("hi", voice="p")
        with wave.open(io.BytesIO(record(agent, patient))) as file:
            assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
            pcm = file.readframes(file.getnframes())
        left = b"".join(pcm[at : at + 2] for at in range(0, len(pcm), 4))
        right = b"".join(pcm[at + 2 : at + 4] for at in range(0, len(pcm), 4))
        assert left[: 2 * len(agent)] == to_pcm16(agent)
        assert not any(left[2 * len(agent) :])
        assert right == to_pcm16(patient)

    def test_mu_law_bytes_survive_linear_samples(self) -> None:
        every = bytes(byte for byte in range(256) if byte != 0x7F)  # 0x7f is the second zero
        assert from_pcm16(to_pcm16(every)) == every
