"""The real dialogue behind the bridge: a whole check-in by keypad, cut in the middle and resumed."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from bridge_kit import MORNING, attempt
from careflow.caller.talks import ScriptedTalk, ScriptedTalks
from careflow.core.conversation import (
    Await,
    Event,
    Finished,
    Heard,
    Pressed,
    RaiseAlert,
    Resumed,
    Say,
    Spoken,
    Started,
)
from careflow.core.dialogue import CheckpointError
from careflow.core.patients import Patient
from careflow.scripts.loader import load_scripts
from careflow.settings import Settings

PATIENT = Patient(
    id="p1",
    hospital_id="h1",
    given_name="Ada",
    family_name="Example",
    birth_date=date(1950, 4, 1),
    time_zone="UTC",
)


@pytest.fixture(scope="module")
def talks() -> ScriptedTalks:
    return ScriptedTalks(scripts=load_scripts(), hospitals=Settings(clinic_name="Riverside").served)


def drive(
    talk: ScriptedTalk, first: Event, answer: str, *, most: int = 60
) -> tuple[list[str], Finished | None]:
    """What is said when every prompt is heard to its end and every question gets this answer (a year gets the year)."""
    said: list[str] = []
    events: list[Event] = [first]
    now = MORNING
    while events and most:
        most -= 1
        last = None
        now += timedelta(seconds=5)  # a key that comes again at once is an echo
        for effect in talk.step(events.pop(0), now):
            match effect:
                case Finished():
                    return said, effect
                case Say(mark, text):
                    said.append(text)
                    last = mark
                case Await(mark) if "year" in mark:
                    events += [Pressed(digit) for digit in "1950"]
                case Await() if not events:
                    events.append(Pressed(answer))
        if last is not None:
            events = [Spoken(last)]
    return said, None


def test_a_check_in_by_keypad_runs_to_its_end(talks: ScriptedTalks) -> None:
    talk = talks(attempt(), PATIENT)
    said, finished = drive(talk, Started(), "1")
    assert finished is not None
    result = talk.check_in(attempt(), MORNING)
    assert result.identity_confirmed
    assert result.id == "call1-1"
    assert len(said) > 3


def test_a_resumed_conversation_knows_what_was_answered(talks: ScriptedTalks) -> None:
    talk = talks(attempt(), PATIENT)
    _, finished = drive(talk, Started(), "1", most=11)
    before = talk.check_in(attempt(), MORNING)
    assert finished is None
    assert before.answers
    again = talks(attempt(checkpoint=talk.checkpoint()), PATIENT)
    assert again.check_in(attempt(), MORNING).answers == before.answers
    assert any(isinstance(effect, Say) for effect in again.step(Resumed(), MORNING))


def test_late_words_raise_a_red_flag_but_answer_nothing(talks: ScriptedTalks) -> None:
    talk = talks(attempt(), PATIENT)
    first = [effect for effect in talk.step(Started(), MORNING) if isinstance(effect, Say)][-1]
    talk.step(Spoken(first.mark), MORNING)
    assert talk.step(Heard("yes", late=True), MORNING) == ()
    effects = talk.step(Heard("I have chest pain", late=True), MORNING)
    assert isinstance(effects[0], RaiseAlert)
    assert talk.check_in(attempt(), MORNING).answers == ()


def test_an_unknown_script_and_a_broken_checkpoint_are_said_so(talks: ScriptedTalks) -> None:
    with pytest.raises(KeyError):
        talks(attempt(script="midnight"), PATIENT)
    with pytest.raises(CheckpointError):
        talks(attempt(checkpoint="{"), PATIENT)


def test_hanging_up_early_still_leaves_a_check_in(talks: ScriptedTalks) -> None:
    talk = talks(attempt(), PATIENT)
    assert not talk.check_in(attempt(), MORNING).identity_confirmed
