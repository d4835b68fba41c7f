"""The audio cache and text-to-speech: said once, kept whole, asked for again only when it can help."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from careflow.caller.speech_cache import AudioCache, speech_key
from careflow.clock import VirtualClock
from careflow.errors import ProviderError
from careflow.lab.elevenlabs_account import SpeechAccount, SpeechFaults
from careflow.lab.voice import Ear, Voice
from speech_lab import VOICES, SpeechLab, speech_lab

TEXT = "Good morning. Did you take your medicine today?"
PARTS = {
    "model": "m",
    "voice": "v",
    "settings": {"speed": 1.0},
    "audio_format": "f",
    "language": "en",
    "text": "t",
}


@pytest.fixture
async def lab() -> AsyncIterator[SpeechLab]:
    async with speech_lab() as running:
        yield running


def words(audio: bytes) -> str:
    ear = Ear()
    ear.feed(audio)
    return " ".join(utterance.text for utterance in ear.finish() if utterance.complete)


def only_file(directory: Path) -> Path:
    (path,) = (path for path in directory.rglob("*") if path.is_file())
    return path


class TestAudioCache:
    def test_gives_back_what_was_put(self, tmp_path: Path) -> None:
        AudioCache(tmp_path).put(speech_key(**PARTS), b"\xff\x01" * 80)
        assert AudioCache(tmp_path).get(speech_key(**PARTS)) == b"\xff\x01" * 80

    @pytest.mark.parametrize("part", list(PARTS))
    def test_whatever_changes_the_sound_changes_the_key(self, part: str) -> None:
        changed = {**PARTS, part: {"speed": 1.1} if part == "settings" else "other"}
        assert speech_key(**changed) != speech_key(**PARTS)

    @pytest.mark.parametrize(
        "damage", [b"", b"careflow", lambda c: c[:-1], lambda c: c[:-1] + b"\0", lambda c: c + b"\0"]
    )
    def test_a_damaged_file_is_absent_and_can_be_put_again(self, tmp_path: Path, damage: object) -> None:
        cache, key = AudioCache(tmp_path), speech_key(**PARTS)
        cache.put(key, b"\xff\x01" * 80)
        path = only_file(tmp_path)
        path.write_bytes(damage(path.read_bytes()) if callable(damage) else damage)
        assert cache.get(key) is None
        cache.put(key, b"\xff\x01" * 80)
        assert cache.get(key) == b"\xff\x01" * 80

    def test_a_kill_between_write_and_rename_leaves_no_entry(self, tmp_path: Path) -> None:
        program = f"""
            import os, signal
            from pathlib import Path
            from careflow.caller.speech_cache import AudioCache
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            AudioCache(Path({str(tmp_path)!r})).put("{speech_key(**PARTS)}", b"sound")
        """
        source = str(Path(__file__).parents[2] / "src")
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], env={**os.environ, "PYTHONPATH": source}
        )
        assert ended.returncode == -signal.SIGKILL
        assert only_file(tmp_path).name.startswith(".new-")
        assert AudioCache(tmp_path).get(speech_key(**PARTS)) is None

    def test_a_failed_write_leaves_nothing_behind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            AudioCache(tmp_path).put(speech_key(**PARTS), b"sound")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class TestSay:
    async def test_speaks_and_then_repeats_from_the_cache(self, lab: SpeechLab, tmp_path: Path) -> None:
        first = await lab.speech(tmp_path).say(TEXT, "en-US")
        again = await lab.speech(tmp_path).say(TEXT, "en")
        assert words(first) == TEXT
        assert again == first
        assert lab.account.usage.tts_requests == 1

    async def test_a_slow_folder_holds_up_no_other_conversation(
        self, lab: SpeechLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Several Callers share one in a bucket, where each file is asked for over the network."""
        await lab.speech(tmp_path).say(TEXT, "en")
        others = threading.Event()
        get = AudioCache.get

        def slow(cache: AudioCache, key: str) -> bytes | None:
            assert others.wait(5), "the event loop waits for the folder"
            return get(cache, key)

        monkeypatch.setattr(AudioCache, "get", slow)
        asyncio.get_running_loop().call_later(0.02, others.set)
        assert words(await lab.speech(tmp_path).say(TEXT, "en")) == TEXT
        assert lab.account.usage.tts_requests == 1

    async def test_the_same_words_at_once_are_asked_for_once(self, lab: SpeechLab, tmp_path: Path) -> None:
        speech = lab.speech(tmp_path)
        spoken = await asyncio.gather(*(speech.say(TEXT, "en") for _ in range(8)))
        assert len(set(spoken)) == 1
        assert lab.account.usage.tts_requests == 1

    async def test_one_listener_going_away_does_not_silence_the_others(
        self, lab: SpeechLab, tmp_path: Path
    ) -> None:
        speech = lab.speech(tmp_path)
        leaving, staying = (asyncio.create_task(speech.say(TEXT, "en")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert words(await staying) == TEXT

    async def test_a_damaged_file_is_spoken_again(self, lab: SpeechLab, tmp_path: Path) -> None:
        audio = await lab.speech(tmp_path).say(TEXT, "en")
        path = only_file(tmp_path)
        path.write_bytes(path.read_bytes()[:-160])
        assert await lab.speech(tmp_path).say(TEXT, "en") == audio
        assert lab.account.usage.tts_requests == 2

    async def test_a_full_disk_does_not_silence_the_call(self, lab: SpeechLab, tmp_path: Path) -> None:
        in_the_way = tmp_path / "audio"
        in_the_way.write_text("not a folder")
        assert words(await lab.speech(in_the_way).say(TEXT, "en")) == TEXT

    @pytest.mark.parametrize("fault", ["http_429", "http_500", "cut_audio"])
    async def test_passing_trouble_is_tried_again(self, lab: SpeechLab, tmp_path: Path, fault: str) -> None:
        lab.faults = replace(SpeechFaults(), **{fault: 1.0})
        saying = asyncio.create_task(lab.speech(tmp_path).say(TEXT, "en"))
        began = lab.clock.now()
        while (lab.clock.now() - began).total_seconds() < 0.2:
            await asyncio.sleep(0)
        lab.faults = SpeechFaults()
        assert words(await saying) == TEXT

    @pytest.mark.parametrize(
        ("fault", "code"), [("http_500", "internal_server_error"), ("cut_audio", "RemoteProtocolError")]
    )
    async def test_lasting_trouble_is_given_up_after_four_tries(
        self, lab: SpeechLab, tmp_path: Path, fault: str, code: str
    ) -> None:
        lab.faults = replace(SpeechFaults(), **{fault: 1.0})
        requests: list[httpx.Request] = []
        lab.http.event_hooks["request"].append(_recorder(requests))
        with pytest.raises(ProviderError) as failed:
            await lab.speech(tmp_path).say(TEXT, "en")
        assert (failed.value.code, failed.value.permanent, len(requests)) == (code, False, 4)

    async def test_a_wrong_key_is_permanent_and_tried_once(self, lab: SpeechLab, tmp_path: Path) -> None:
        requests: list[httpx.Request] = []
        lab.http.event_hooks["request"].append(_recorder(requests))
        with pytest.raises(ProviderError) as failed:
            await lab.speech(tmp_path, key="wrong").say(TEXT, "en")
        assert (failed.value.code, failed.value.permanent, len(requests)) == ("invalid_api_key", True, 1)

    async def test_what_is_being_spoken_is_given_up_at_the_end(self, lab: SpeechLab, tmp_path: Path) -> None:
        lab.faults = replace(SpeechFaults(), http_429=1.0)
        speech = lab.speech(tmp_path)
        saying = asyncio.create_task(speech.say(TEXT, "en"))
        await asyncio.sleep(0)
        await speech.close()
        with pytest.raises(ProviderError, match="given up"):
            await saying

    async def test_an_error_never_quotes_the_text_or_the_key(self, lab: SpeechLab, tmp_path: Path) -> None:
        speech = lab.speech(tmp_path)
        with pytest.raises(ProviderError) as failed:
            await speech.say(TEXT * 1000, "en")
        assert failed.value.code == "max_character_limit_exceeded"
        assert "medicine" not in str(failed.value)
        assert "lab-key" not in repr(vars(speech))

    async def test_requests_in_flight_stay_within_the_plan(self, lab: SpeechLab, tmp_path: Path) -> None:
        lab.account.tts_limit = 2
        speech = lab.speech(tmp_path, concurrent=2)
        spoken = await asyncio.gather(*(speech.say(f"number {n}", "en") for n in range(8)))
        assert [words(audio) for audio in spoken] == [f"number {n}" for n in range(8)]
        assert lab.account.tts_running == 0

    async def test_a_language_without_a_voice_is_refused_by_name(
        self, lab: SpeechLab, tmp_path: Path
    ) -> None:
        with pytest.raises(ProviderError, match=r"'fr'.*en, es") as failed:
            await lab.speech(tmp_path).say(TEXT, "fr")
        assert failed.value.permanent

    @pytest.mark.parametrize(("zero_retention", "logging"), [(True, "false"), (False, "true")])
    async def test_asks_for_mu_law_and_for_retention_as_set(
        self, lab: SpeechLab, tmp_path: Path, zero_retention: bool, logging: str
    ) -> None:
        requests: list[httpx.Request] = []
        lab.http.event_hooks["request"].append(_recorder(requests))
        await lab.speech(tmp_path, zero_retention=zero_retention).say(TEXT, "es")
        assert dict(requests[0].url.params) == {"output_format": "ulaw_8000", "enable_logging": logging}
        assert requests[0].url.path == f"/v1/text-to-speech/{VOICES['es']}/stream"
        assert json.loads(requests[0].content)["language_code"] == "es"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"detail":{"code":"voice_not_found","message":"secret words"}}', "voice_not_found"),
        (b'{"detail":{"status":"old_word"}}', "old_word"),
        (b'{"detail":{"code":"Secret Words"}}', "400"),
        (b'{"detail":[{"loc":["body"],"msg":"secret words"}]}', "400"),
        (b'{"detail":"secret words"}', "400"),
        (b"[]", "400"),
        (b"<html>", "400"),
    ],
)
async def test_every_shape_of_error_document_is_understood(tmp_path: Path, body: bytes, code: str) -> None:
    clock, answers = VirtualClock(datetime(2026, 11, 23, tzinfo=UTC)), httpx.Response(400, content=body)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answers)) as http:
        lab = SpeechLab("http://lab", clock, SpeechAccount(api_key=""), Voice(), http, SpeechFaults())
        with pytest.raises(ProviderError) as failed:
            await lab.speech(tmp_path).say(TEXT, "en")
    assert failed.value.code == code
    assert "secret" not in str(failed.value).lower()


def _recorder(requests: list[httpx.Request]) -> object:
    async def record(request: httpx.Request) -> None:
        requests.append(request)

    return record
