"""The dialogue against the minds of the lab's simulated patients, words only: each persona reaches its ending."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind
from careflow.core.conversation import Finished, HungUp
from careflow.lab.handset import HangUp, Press, Speak
from careflow.lab.personas import Patient as Mind
from careflow.lab.personas import Persona, Subscriber
from dialogue_kit import Talk

SEEDS = range(12)


def converse(persona: Persona, script: str, seed: int) -> Talk:
    """A whole call; the ear hears every word that was spoken clearly."""
    language = "es" if persona is Persona.SPANISH and seed % 2 else "en"
    who = Subscriber(phone="+12125550123", persona=persona, given_name="Maria", birth_year=1942, seed=seed)
    mind, talk = Mind(who, Random(seed)), Talk(script, language=language).start()
    silent = 0
    for _ in range(60):
        if talk.dialogue.finished:
            break
        said = talk.said
        talk.play()
        if talk.dialogue.finished:
            break
        acts = list(mind.react(said)) if said else list(mind.silence(silent))
        silent = 0 if acts else silent + 1
        talk.last = ()
        for act in acts:
            _do(talk, act)
        if not acts and not talk.dialogue.speaking and talk.dialogue.waiting:
            talk.wait()
    return talk


def _do(talk: Talk, act: object) -> None:
    match act:
        case Speak() if talk.dialogue.ending is None:
            talk.hear("mmrh grrf" if act.unclear else act.text)
        case Press():
            talk.key(act.digits)
        case HangUp() if talk.dialogue.ending is None:
            talk.feed(HungUp())
        case _:
            pass


def endings(persona: Persona) -> Iterator[tuple[Talk, Finished]]:
    for script in ("morning", "noon", "evening"):
        for seed in SEEDS:
            talk = converse(persona, script, seed)
            yield talk, talk.goodbye()


@pytest.mark.parametrize(
    "persona",
    [
        Persona.WELL,
        Persona.CONFUSED,
        Persona.HARD_TO_UNDERSTAND,
        Persona.KEYPAD_ONLY,
        Persona.ASKS_BACK,
        Persona.SPANISH,
        Persona.FORGOT_MEDICINE,
    ],
)
def test_everybody_who_cooperates_completes_the_check_in(persona: Persona) -> None:
    for talk, finished in endings(persona):
        assert finished.ending is Ending.COMPLETE, [turn.text for turn in talk.dialogue.turns]


def test_the_well_raise_nothing() -> None:
    assert [talk.alerts for talk, _ in endings(Persona.WELL) if talk.alerts] == []


def test_a_forgotten_medicine_is_always_noticed() -> None:
    for talk, _ in endings(Persona.FORGOT_MEDICINE):
        if talk.script.name != "noon":
            assert (AlertKind.WARNING, "medication-missed") in talk.alerts, [
                t.text for t in talk.dialogue.turns
            ]


@pytest.mark.parametrize(
    ("persona", "ending"),
    [
        (Persona.RED_FLAG, Ending.ESCALATED),
        (Persona.WRONG_PERSON, Ending.WRONG_PERSON),
        (Persona.HANGS_UP, Ending.HUNG_UP),
        (Persona.OPTS_OUT, Ending.OPTED_OUT),
        (Persona.CALL_LATER, Ending.CALL_LATER),
    ],
)
def test_everybody_else_gets_the_ending_asked_for(persona: Persona, ending: Ending) -> None:
    for talk, finished in endings(persona):
        assert finished.ending is ending, [turn.text for turn in talk.dialogue.turns]
