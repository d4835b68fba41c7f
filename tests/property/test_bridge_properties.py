"""Any order of events on the wire: the goodbye is heard before the hang-up, and no effect overtakes another."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_kit import (
    MORNING,
    QUIET,
    FakeDesk,
    FakeSpeech,
    Questionnaire,
    Telephone,
    attempt,
    spoken_by_patient,
)
from careflow.caller.conversation import Background, Conversation, ConversationConfig
from careflow.caller.conversation_ports import WireClosed
from careflow.caller.hearing import HearingCounts, Utterances
from careflow.caller.media_protocol import MediaStream
from careflow.clock import VirtualClock
from careflow.core.attempts import Ending
from careflow.core.conversation import Event, Finished, Heard, RaiseAlert, Say

SPEECHES = ("YES", "NO", "PAIN", "WELL")
acts = st.tuples(
    st.floats(0.0, 4.0),
    st.one_of(
        st.sampled_from(SPEECHES).map(lambda text: ("speak", text)),
        st.sampled_from("12*#").map(lambda digit: ("press", digit)),
        st.just(("noise", "")),
        st.just(("nonsense", "")),
        st.sampled_from(["machine_start", "machine_end_beep"]).map(lambda verdict: ("verdict", verdict)),
        st.sampled_from(["stop", "close", "break", "cancel"]).map(lambda end: (end, "")),
    ),
)


@dataclass
class Story:
    """What one run left."""

    trace: list[object]
    ends: list[object]
    heard: list[tuple[str, bool]]
    ended_from_outside: bool
    finished_in_time: bool = field(default=True)


class QueueWire:
    """The socket without a network."""

    def __init__(self) -> None:
        self.inbound: asyncio.Queue[str | int] = asyncio.Queue()
        self.phone: Telephone | None = None

    async def receive(self) -> str | None:
        item = await self.inbound.get()
        if isinstance(item, int):
            raise WireClosed(item)
        return item

    async def send(self, text: str) -> None:
        assert self.phone is not None
        self.phone.take(text)

    async def to_bridge(self, text: str) -> None:
        self.inbound.put_nowait(text)


async def tell(story: list[Any], alert_seconds: float, finals: list[tuple[float, ...]]) -> Story:
    clock, trace, wire = VirtualClock(MORNING), [], QueueWire()
    desk, speech = FakeDesk(clock, trace), FakeSpeech(clock)
    desk.alert_seconds = alert_seconds
    speech.final_delays.extend(finals)
    phone = wire.phone = Telephone(clock, wire.to_bridge, trace)
    stream = MediaStream()
    await phone.connect()
    while not wire.inbound.empty():
        stream.receive(await wire.receive())
    background = Background()
    conversation = Conversation(
        attempt(),
        "en",
        Questionnaire(trace),
        stream,
        wire,
        desk=desk,
        watch=desk,
        speech=speech,
        clock=clock,
        config=ConversationConfig(),
        background=background,
    )
    outside = False

    async def act() -> None:
        nonlocal outside
        for delay, (kind, what) in story:
            await clock.sleep(delay)
            outside = outside or kind in ("stop", "close", "break", "cancel")
            match kind:
                case "speak":
                    phone.speaking.extend(spoken_by_patient(what))
                case "noise":
                    phone.speaking.extend([b"\x20" * 160, QUIET, b"\x20" * 160])
                case "press":
                    await phone.send(event="dtmf", dtmf={"track": "inbound_track", "digit": what})
                case "nonsense":
                    await wire.to_bridge("{")
                case "verdict":
                    desk.change(attempt(answered_by=what))
                case "cancel":
                    desk.change(attempt(cancel_requested_at=MORNING))
                case "stop":
                    await phone.send(event="stop", stop={})
                case "close":
                    wire.inbound.put_nowait(1000)
                case "break":
                    wire.inbound.put_nowait(1006)

    running = asyncio.create_task(conversation.run())
    helpers = [asyncio.create_task(phone.live()), asyncio.create_task(act())]
    for _ in range(3000):
        if running.done():
            break
        clock.advance(0.1)
        for _ in range(6):
            await asyncio.sleep(0)
    in_time = running.done()
    for task in (running, *helpers, *background.tasks):
        task.cancel()
    await asyncio.gather(running, *helpers, *background.tasks, return_exceptions=True)
    return Story(trace, desk.ends, phone.heard, outside, in_time)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(acts, max_size=8),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.lists(st.lists(st.floats(0.1, 6.0), max_size=2).map(tuple), max_size=4),
)
def test_whatever_happens_on_the_wire(
    story: list[Any], alert_seconds: float, finals: list[tuple[float, ...]]
) -> None:
    told = asyncio.run(tell(story, alert_seconds, finals))

    assert told.finished_in_time, "the conversation hangs"
    assert len(told.ends) == 1, "it is recorded exactly once"
    finishes = [item for item in told.trace if isinstance(item, Finished)]
    if finishes and finishes[0].ending is not Ending.HUNG_UP:
        last_said = [item for item in told.trace if isinstance(item, Say)][-1]
        assert (last_said.text, True) in told.heard, "the last prompt was heard before the hang-up"
    if not told.ended_from_outside:
        assert told.ends[0] in (
            Ending.COMPLETE,
            Ending.ESCALATED,
            Ending.NOT_UNDERSTOOD,
            Ending.DECLINED,
        )
    assert_in_order(told.trace)


def assert_in_order(trace: list[object]) -> None:
    """Each effect's mark on the world comes before that of every effect that was asked for later."""
    done: list[object] = [item for item in trace if isinstance(item, tuple)]
    place = 0
    for effect in trace:
        match effect:
            case RaiseAlert(kind, code):
                mark: object = ("alert stored", kind, code)
            case Finished(ending):
                mark = ("over", ending)
            case _:
                continue
        assert mark in done[place:], f"{effect} left no mark"
        place = done.index(mark, place) + 1
    for index, item in enumerate(trace):
        if isinstance(item, RaiseAlert):
            stored = trace.index(("alert stored", item.kind, item.code), index)
            between = [other for other in trace[index:stored] if isinstance(other, tuple)]
            assert not [other for other in between if other[0] in ("media", "saved", "over")]


moments = st.lists(
    st.tuples(
        st.floats(0.0, 2.0),
        st.one_of(
            st.sampled_from(["prompt", "start", "barge", "end", "commit", "give up"]).map(lambda k: (k, "")),
            st.sampled_from(SPEECHES).map(lambda text: ("final", text)),
        ),
    ),
    max_size=40,
)


@given(moments)
def test_words_answer_only_the_question_they_were_said_to(moments: list[Any]) -> None:
    """A model of what is allowed: an answer that is not late needs a speech of its own, begun after the present prompt."""
    utterances, now, question = Utterances(timedelta(seconds=8), HearingCounts()), MORNING, 0
    speaking: int | None = None
    ended: list[Any] = []
    free = 0  # speeches begun under the present prompt whose words or whose absence were not told yet
    for delay, (kind, text) in moments:
        now += timedelta(seconds=delay)
        told: list[Event] = []
        match kind:
            case "prompt":
                utterances.new_prompt()
                question, free = question + 1, 0
            case "start" if speaking is None:
                utterances.started()
                speaking, free = question, free + 1
            case "barge":
                utterances.barged_in()
            case "end":
                utterance = utterances.ended()
                if utterance is not None:
                    ended.append(utterance)
                speaking = None
            case "commit":
                for utterance in ended:
                    utterance.committed_at = utterance.committed_at or now
            case "give up" if ended:
                told = utterances.give_up(ended[0])
            case "final":
                told = utterances.final(text, now)
        answers = [event for event in told if isinstance(event, Heard) and not event.late and event.text]
        assert len(answers) <= free
        free -= len(answers)
