"""Our voice on the wire: pace, marks, and what a stop leaves."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest

from bridge_kit import MORNING
from careflow.caller.playback import Playback, PlaybackConfig
from careflow.clock import VirtualClock

SECOND = b"a" * 8000


class Stage:
    """A playback, what it sent, and what it reported."""

    def __init__(self) -> None:
        self.clock = VirtualClock(MORNING)
        self.sent: list[dict[str, object]] = []
        self.spoken: list[str] = []
        self.slow_send: asyncio.Event | None = None
        self.playback = Playback(
            "MZ1",
            self._send,
            self.clock,
            PlaybackConfig(),
            spoken=self.spoken.append,
            first_byte=lambda: None,
        )

    async def _send(self, text: str) -> None:
        if self.slow_send is not None:
            await self.slow_send.wait()
        self.sent.append(json.loads(text))

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            await self._settle()
            self.clock.advance(0.1)
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    @property
    def events(self) -> list[object]:
        return [frame["event"] for frame in self.sent]

    @property
    def audio_seconds(self) -> float:
        payloads = [frame["media"]["payload"] for frame in self.sent if "media" in frame]  # type: ignore[index]
        return sum(len(base64.b64decode(payload)) for payload in payloads) / 8000

    @property
    def marks(self) -> list[str]:
        return [frame["mark"]["name"] for frame in self.sent if "mark" in frame]  # type: ignore[index]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    task = asyncio.create_task(stage.playback.run())
    yield stage
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_audio_runs_at_most_a_little_ahead_of_the_clock(stage: Stage) -> None:
    stage.playback.play("m", SECOND * 2)
    await stage.pass_time(0)
    assert stage.audio_seconds == pytest.approx(0.6)
    await stage.pass_time(1.0)
    assert 1.4 <= stage.audio_seconds <= 1.6
    await stage.pass_time(1.0)
    assert stage.events[-1] == "mark"
    assert stage.audio_seconds == 2


async def test_a_prompt_is_spoken_only_when_its_mark_returns(stage: Stage) -> None:
    stage.playback.play("m", SECOND)
    await stage.pass_time(3)
    assert stage.spoken == []
    stage.playback.mark_returned(stage.marks[0])
    assert stage.spoken == ["m"]


async def test_a_mark_that_returns_because_of_a_stop_is_not_spoken(stage: Stage) -> None:
    stage.playback.play("m", SECOND)
    await stage.pass_time(1)
    await stage.playback.stop()
    stage.playback.mark_returned(stage.marks[0])
    await stage.pass_time(20)
    assert stage.spoken == []


async def test_nothing_of_a_stopped_prompt_follows_the_clear(stage: Stage) -> None:
    stage.playback.play("m", SECOND * 3)
    stage.playback.play("n", SECOND)
    await stage.pass_time(0.5)
    await stage.playback.stop()
    await stage.pass_time(10)
    assert stage.events[-1] == "clear"
    assert not stage.playback.playing


async def test_a_stop_while_a_chunk_is_being_sent_comes_after_it(stage: Stage) -> None:
    stage.slow_send = asyncio.Event()
    stage.playback.play("m", SECOND)
    await stage.pass_time(0.2)
    stopping = asyncio.create_task(stage.playback.stop())
    await stage.pass_time(0.2)
    stage.slow_send.set()
    await stopping
    await stage.pass_time(3)
    assert stage.events == ["media", "clear"]


async def test_a_stop_with_nothing_on_air_sends_nothing(stage: Stage) -> None:
    await stage.playback.stop()
    await stage.pass_time(1)
    assert stage.sent == []


async def test_the_next_prompt_begins_at_once_after_a_stop(stage: Stage) -> None:
    stage.playback.play("m", SECOND * 30)
    await stage.pass_time(1)
    await stage.playback.stop()
    stage.playback.play("n", SECOND)
    await stage.pass_time(0.3)
    assert stage.events[-1] == "media"
    assert stage.events.count("clear") == 1


async def test_the_same_mark_said_twice_is_told_apart(stage: Stage) -> None:
    stage.playback.play("m", SECOND)
    await stage.pass_time(1)
    await stage.playback.stop()
    stage.playback.play("m", SECOND)
    await stage.pass_time(2)
    stage.playback.mark_returned(stage.marks[0])
    assert stage.spoken == []
    stage.playback.mark_returned(stage.marks[1])
    assert stage.spoken == ["m"]


async def test_a_mark_that_never_returns_counts_as_spoken_after_its_audio_and_five_seconds(
    stage: Stage,
) -> None:
    stage.playback.play("m", SECOND * 2)
    await stage.pass_time(6.5)
    assert stage.spoken == []
    await stage.pass_time(1.0)
    assert stage.spoken == ["m"]
