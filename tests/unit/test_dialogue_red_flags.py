"""A red flag counts whenever it is said: before identity, over a prompt, in the goodbye, on a line that ends."""

from __future__ import annotations

import pytest

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind, Triage
from careflow.core.conversation import (
    Finished,
    Heard,
    HungUp,
    MachineAnswered,
    RaiseAlert,
    Save,
    Say,
    StopSpeaking,
)
from dialogue_kit import Talk

WELL = ("Yes, I took them", "no", "No.", "no, thank you")


def test_a_red_flag_raises_its_alert_before_the_next_word_and_ends_with_the_emergency_wording() -> None:
    talk = Talk().identified().hear("Yes, but my chest feels tight")
    assert talk.last[0] == RaiseAlert(AlertKind.RED_FLAG, "chest-pain")
    assert talk.last[1] == Save()
    assert isinstance(talk.last[2], Say)
    assert "nine one one" in talk.said
    assert talk.goodbye().ending is Ending.ESCALATED
    assert talk.result().triage is Triage.RED
    assert talk.result().symptoms == ("chest-pain",)


def test_a_red_flag_spoken_over_a_prompt_silences_it_after_the_alert() -> None:
    talk = Talk().identified()
    talk.feed(Heard("I can't breathe"))
    assert [type(effect) for effect in talk.last] == [RaiseAlert, Save, StopSpeaking, Say]


def test_a_yes_to_the_critical_question_is_a_red_flag() -> None:
    talk = Talk("noon").identified().hear("yes")
    assert talk.alerts == [(AlertKind.RED_FLAG, "critical-symptom")]
    assert talk.answers == {"critical-symptoms": "yes"}
    assert talk.goodbye().ending is Ending.ESCALATED


@pytest.mark.parametrize("before", [(), ("yes",), ("yes", "nineteen forty two")])
def test_a_red_flag_counts_before_identity_is_confirmed(before: tuple[str, ...]) -> None:
    talk = Talk().start().hear(*before).hear("my chest hurts")
    assert (AlertKind.RED_FLAG, "chest-pain") in talk.alerts
    assert talk.goodbye().ending is Ending.ESCALATED


def test_a_red_flag_during_the_goodbye_still_escalates() -> None:
    talk = Talk().identified().hear(*WELL)
    talk.feed(Heard("wait, I have chest pain"))
    assert talk.goodbye().ending is Ending.ESCALATED


@pytest.mark.parametrize(
    "words", ["I feel fine", "I'm okay", "all right", "good", "I am well", "I have been good", "estoy bien"]
)
def test_feeling_fine_is_no_yes_to_the_critical_question(words: str) -> None:
    talk = Talk("noon").identified().hear(words)
    assert talk.alerts == []
    assert "Please say yes or no" in talk.said


def test_another_red_flag_during_the_emergency_wording_is_raised_without_interrupting_it() -> None:
    talk = Talk().identified().hear("my chest hurts")
    talk.feed(Heard("and I can't breathe"))
    assert talk.last == (RaiseAlert(AlertKind.RED_FLAG, "breathing-trouble"), Save())
    assert talk.feed(Heard("my chest hurts so much")) == ()


def test_a_red_flag_beside_an_opt_out_honours_both() -> None:
    talk = Talk().identified().hear("my chest hurts and stop calling me")
    assert talk.goodbye() == Finished(Ending.ESCALATED, opted_out_patient=True, opted_out_number=True)


def test_late_words_answer_nothing_but_their_red_flag_counts() -> None:
    talk = Talk().identified().play()
    talk.feed(Heard("no", late=True))
    assert talk.answers == {}
    talk.feed(Heard("my chest hurts", late=True))
    assert talk.alerts == [(AlertKind.RED_FLAG, "chest-pain")]


@pytest.mark.parametrize("ready", [False, True])
def test_a_red_flag_counts_though_detection_took_the_patient_for_a_machine(ready: bool) -> None:
    talk = Talk().start()
    talk.feed(MachineAnswered(ready=ready))
    talk.feed(Heard("please, my chest hurts"))
    assert talk.alerts == [(AlertKind.RED_FLAG, "chest-pain")]
    assert talk.goodbye() == Finished(Ending.ESCALATED)


def test_a_greeting_that_names_911_is_no_red_flag() -> None:
    talk = Talk().start()
    talk.feed(MachineAnswered(ready=False))
    talk.feed(Heard("If this is an emergency please hang up and call 911"))
    assert talk.alerts == []
    talk.wait()
    assert talk.goodbye().voicemail


def test_a_red_flag_stands_though_the_line_ends_and_a_machine_was_suspected_from_the_start() -> None:
    talk = Talk()
    talk.feed(MachineAnswered(ready=True))
    talk.start()
    talk.feed(Heard("I can't breathe"))
    assert talk.feed(HungUp()) == (Finished(Ending.ESCALATED),)
