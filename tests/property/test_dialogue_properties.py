"""Whatever comes in, in whatever order, as often as it likes: what the conversation must never do."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind
from careflow.core.conversation import (
    Await,
    BargedIn,
    DeafNow,
    Effect,
    Event,
    Finished,
    Heard,
    HungUp,
    MachineAnswered,
    Pressed,
    RaiseAlert,
    Resumed,
    Save,
    Say,
    Spoken,
    Started,
    StopSpeaking,
    Waited,
)
from careflow.core.dialogue import Dialogue, begin, check_in, from_json, step, to_json
from careflow.core.triage import Triage
from careflow.scripts import load_scripts
from dialogue_kit import ATTEMPT, CLINIC, MARIA, NOON

SCRIPTS = load_scripts()
PRIVATE = (
    "lisinopril",
    "metformin",
    "medic",
    "pain",
    "swelling",
    "dolor",
    "chest",
    "nurse to know",
    "breath",
)
PHRASES = (
    "yes", "no", "Yes. Yes. Yes.", "nineteen forty two", "1950", "I don't know", "what?", "who is this?", "eight", "",
    "my chest hurts", "no chest pain", "me falta el aire", "stop calling me", "call me later", "wrong number",
    "she's not home", "hold on", "hello?", "can I talk to a nurse", "the cat is on the roof", "my ankles are swollen",
    "español", "english", "bye", "leave a message after the tone", "(music)", "I forgot", "no quiero hablar",
)  # fmt: skip

# "current" stands for the mark that the dialogue is waiting for; the others are late, foreign or empty.
CURRENT = "current"
heard = st.sampled_from(PHRASES).map(Heard)
events = st.one_of(
    st.just(Spoken(CURRENT)),
    st.just(Spoken(CURRENT)),
    heard,
    heard,
    st.sampled_from("0123456789*#").map(Pressed),
    st.just(Waited(CURRENT)),
    st.sampled_from(
        [Started(), Resumed(), BargedIn(), DeafNow(), Spoken("p1-greeting"), Waited("p2-x"), Spoken("")]
    ),
    st.booleans().map(MachineAnswered),
    st.text(max_size=30).map(Heard),
    st.just(HungUp()) | st.just("restore"),
)


class Run:
    """A dialogue under any events, with what every step must hold checked as it goes."""

    def __init__(self, script: str, language: str = "en") -> None:
        self.script, self.patient = SCRIPTS[script], MARIA
        self.dialogue: Dialogue = begin(self.script, self.patient, **CLINIC)
        self.now = NOON
        self.effects: list[Effect] = []

    def feed(self, event: Event) -> tuple[Effect, ...]:
        match event:
            case Spoken("current"):
                event = Spoken(self.dialogue.speaking)
            case Waited("current"):
                event = Waited(self.dialogue.waiting)
            case _:
                pass
        before = self.dialogue
        self.now += timedelta(seconds=2.5)
        self.dialogue, effects = step(before, event, self.now)
        self._check(before, event, effects)
        self.effects += effects
        return effects

    def restore(self) -> None:
        if not self.dialogue.finished:
            self.dialogue = from_json(to_json(self.dialogue), self.script, self.patient, **CLINIC)

    def _check(self, before: Dialogue, event: Event, effects: tuple[Effect, ...]) -> None:
        if before.finished:
            assert effects == ()
        red = [n for n, e in enumerate(effects) if isinstance(e, RaiseAlert) and e.kind is AlertKind.RED_FLAG]
        says = [n for n, e in enumerate(effects) if isinstance(e, Say)]
        for effect in effects:
            if (
                isinstance(effect, Say)
                and not self.dialogue.identity_confirmed
                and "nine one one" not in effect.text
            ):
                assert not any(word in effect.text.lower() for word in PRIVATE), effect.text
        if red and says:
            assert max(red) < min(says)
        if len(self.dialogue.answers) > len(before.answers):
            assert Save() in effects
        if any(isinstance(effect, Finished) for effect in effects):
            hung_up = isinstance(event, HungUp)
            heard_out = isinstance(event, Spoken) and ("goodbye" in event.mark or "voicemail" in event.mark)
            assert hung_up or heard_out
            assert isinstance(effects[-1], Finished)
        if before.speaking and says:
            assert StopSpeaking() in effects[: says[0]] or isinstance(event, Resumed | Spoken)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["morning", "noon", "evening"]), st.lists(events, max_size=60))
def test_no_sequence_of_events_breaks_what_must_hold(script: str, sequence: list[Event | str]) -> None:
    run = Run(script)
    run.feed(Started())
    for event in sequence:
        if isinstance(event, str):
            run.restore()
            run.feed(Resumed())
        else:
            run.feed(event)
    finished = [effect for effect in run.effects if isinstance(effect, Finished)]
    assert len(finished) == (1 if run.dialogue.finished else 0)
    result = check_in(run.dialogue, attempt=ATTEMPT, ended_at=run.now)
    red = any(isinstance(e, RaiseAlert) and e.kind is AlertKind.RED_FLAG for e in run.effects)
    assert (result.triage is Triage.RED) == red
    marks = [effect.mark for effect in run.effects if isinstance(effect, Say)]
    assert len(marks) == len(set(marks))
    alerts = [effect for effect in run.effects if isinstance(effect, RaiseAlert)]
    assert len(alerts) == len(set(alerts))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["morning", "noon", "evening"]), st.lists(events, max_size=40))
def test_silence_always_ends_it_within_bounds(script: str, sequence: list[Event | str]) -> None:
    run = Run(script)
    run.feed(Started())
    for event in sequence:
        if not isinstance(event, str):
            run.feed(event)
    waited = 0
    while not run.dialogue.finished:
        if run.dialogue.speaking:
            run.feed(Spoken(CURRENT))
        else:
            assert run.dialogue.waiting, f"nothing can happen any more in phase {run.dialogue.phase}"
            run.feed(Waited(CURRENT))
            waited += 1
        assert waited <= 25


@settings(max_examples=100, deadline=None)
@given(st.lists(heard, min_size=400, max_size=400))
def test_endless_talk_comes_to_an_end(sequence: list[Event]) -> None:
    run = Run("morning")
    run.feed(Started())
    for event in sequence:
        if run.dialogue.speaking:
            run.feed(Spoken(CURRENT))
        run.feed(event)
    for _ in range(6):
        run.feed(Spoken(CURRENT))
        run.feed(Waited(CURRENT))
    assert run.dialogue.finished


@settings(max_examples=200, deadline=None)
@given(
    st.lists(events, max_size=40),
    st.sampled_from(["my chest hurts", "no puedo respirar", "I want to die", "yes but I can't breathe"]),
)
def test_a_red_flag_is_raised_in_any_state_where_somebody_may_speak(
    sequence: list[Event | str], words: str
) -> None:
    run = Run("noon")
    run.feed(Started())
    for event in sequence:
        if not isinstance(event, str):
            run.feed(event)
    silent = run.dialogue.finished or run.dialogue.phase in ("machine", "voicemail")
    before = set(run.dialogue.alerts)
    run.feed(Heard(words))
    reds = {alert for alert in run.dialogue.alerts if alert[0] is AlertKind.RED_FLAG}
    assert silent or reds - before or reds
    if not silent:
        assert run.dialogue.ending is Ending.ESCALATED


@settings(max_examples=150, deadline=None)
@given(st.lists(events, max_size=30))
def test_a_restored_dialogue_goes_on_exactly_like_the_first(sequence: list[Event | str]) -> None:
    first, second = Run("evening"), Run("evening")
    first.feed(Started())
    second.feed(Started())
    for event in sequence:
        if isinstance(event, str):
            continue
        second.restore()
        assert first.feed(event) == second.feed(event)
    awaits = [effect for effect in first.effects if isinstance(effect, Await)]
    assert all(effect.seconds > 0 for effect in awaits)
