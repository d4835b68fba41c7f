"""The conversation with a patient who answers: identity, each question, the keypad, and the goodbye."""

from __future__ import annotations

from datetime import date

import pytest

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind, Triage
from careflow.core.conversation import Await, DeafNow, Finished, StopSpeaking
from careflow.core.dialogue import prompts, voicemail_message
from careflow.core.patients import Medication
from dialogue_kit import CLINIC, Talk

WELL = ("Yes, I took them", "no", "No.", "no, thank you")


def test_a_well_patient_answers_everything_and_hears_the_goodbye() -> None:
    talk = Talk().identified().hear(*WELL)
    assert not any(isinstance(effect, Finished) for effect in talk.effects)
    assert talk.goodbye() == Finished(Ending.COMPLETE)
    assert talk.result().triage is Triage.GREEN
    assert set(talk.answers.values()) == {"yes", "no"}
    assert talk.alerts == []


def test_the_greeting_names_the_clinic_and_offers_spanish() -> None:
    talk = Talk().start()
    assert "automated call from Lakeside Clinic" in talk.said
    assert "español" in talk.said
    assert "Maria" in talk.said
    assert "lisinopril" not in talk.said


def test_medicines_are_named_after_identity_without_their_strength() -> None:
    talk = Talk().identified()
    assert "lisinopril and metformin" in talk.said


def test_only_the_medicines_of_the_time_of_day_are_named() -> None:
    evening = Medication(name="warfarin", slots=frozenset({"evening"}))
    morning = Medication(name="digoxin", slots=frozenset({"morning"}))
    talk = Talk(medications=(evening, morning)).identified()
    assert "digoxin" in talk.said
    assert "warfarin" not in talk.said


def test_a_patient_without_medicines_is_not_asked_about_them() -> None:
    talk = Talk(medications=()).identified()
    assert "chest pain" in talk.said


def test_a_patient_without_birth_date_is_confirmed_by_name() -> None:
    talk = Talk(birth_date=None).start().hear("yes")
    assert talk.dialogue.identity_confirmed


@pytest.mark.parametrize("words", ["This is Maria", "It's Maria", "Speaking", "this is she", "soy María"])
def test_people_confirm_their_name_in_many_ways(words: str) -> None:
    assert "year you were born" in Talk().start().hear(words).said


@pytest.mark.parametrize("words", ["This is her daughter", "this is not Maria", "it's not Maria", "Maria?"])
def test_somebody_else_is_not_taken_for_the_patient(words: str) -> None:
    assert not Talk(birth_date=None).start().hear(words).dialogue.identity_confirmed


def test_a_forgotten_medicine_is_a_warning_for_the_nurse() -> None:
    talk = Talk().identified().hear("Oh, I forgot")
    assert (AlertKind.WARNING, "medication-missed") in talk.alerts
    assert "let the nurse know" in talk.said
    talk.hear("no", "no", "no").goodbye()
    assert talk.result().triage is Triage.YELLOW
    assert "A nurse will look at your answers" in talk.everything_said


def test_the_patients_own_critical_symptom_is_asked_for_and_heard() -> None:
    talk = Talk("noon", critical_symptoms=("swelling", "cloudy dialysis fluid")).identified()
    assert "swelling or cloudy dialysis fluid" in talk.said
    talk.hear("my ankles are swollen")
    assert talk.alerts == [(AlertKind.RED_FLAG, "swelling")]


def test_no_but_a_symptom_is_a_yes() -> None:
    talk = Talk("noon").identified().hear("no", "no, but my ankles are swollen")
    assert talk.answers["warning-symptoms"] == "yes"
    assert talk.alerts == [(AlertKind.WARNING, "swelling")]


def test_strong_pain_is_a_warning_and_little_pain_is_not() -> None:
    strong = Talk("noon").identified().hear("no", "no", "an eight out of ten")
    assert (AlertKind.WARNING, "severe-pain") in strong.alerts
    little = Talk("noon").identified().hear("no", "no", "my pain is about two")
    assert little.alerts == []
    assert little.answers["pain"] == "2"


def test_no_pain_is_zero_and_eleven_is_asked_again() -> None:
    talk = Talk("noon").identified().hear("no", "no", "eleven")
    assert "from zero to ten" in talk.said
    talk.hear("no pain")
    assert talk.answers["pain"] == "0"


def test_something_else_becomes_a_callback_with_the_patients_words() -> None:
    talk = Talk().identified().hear(*WELL[:3], "yes")
    assert "in a few words" in talk.said
    talk.hear("I need a refill for my blood pressure pills")
    assert (AlertKind.CALLBACK, "anything-else") in talk.alerts
    assert "refill" in talk.answers["anything-else"]


def test_a_keypad_patient_completes_the_noon_script_by_keys_alone() -> None:
    talk = Talk("noon").start().key("1").key("1942").key("2").key("2").key("3").wait().key("2")
    assert talk.goodbye().ending is Ending.COMPLETE
    assert talk.answers["pain"] == "3"
    assert {turn.via for turn in talk.result().turns if turn.speaker == "patient"} == {"keypad"}


def test_ten_and_pound_need_no_pause() -> None:
    talk = Talk("noon").identified().hear("no", "no").key("10")
    assert talk.answers["pain"] == "10"
    talk = Talk("noon").identified().hear("no", "no").key("1#")
    assert talk.answers["pain"] == "1"


def test_deaf_switches_to_the_keypad_at_once() -> None:
    talk = Talk().start()
    talk.feed(DeafNow())
    assert talk.last[0] == StopSpeaking()
    assert "press one" in talk.said
    talk.play()
    assert talk.last == (Await(talk.dialogue.waiting, 10.0),)


def test_a_spanish_speaker_is_served_in_spanish() -> None:
    talk = Talk(language="es").start()
    assert "¿Hablo con Maria?" in talk.said
    talk.hear("Sí, soy yo", "mil novecientos cuarenta y dos", "sí", "no", "no", "no, gracias")
    assert talk.goodbye().ending is Ending.COMPLETE
    assert talk.result().language == "es"


def test_saying_espanol_or_pressing_eight_switches_the_language() -> None:
    assert "¿Hablo con Maria?" in Talk().start().hear("español").said
    assert "¿Hablo con Maria?" in Talk().start().key("8").said


def test_an_unknown_language_falls_back_to_english() -> None:
    assert "Am I speaking" in Talk(language="fr").start().said


def test_prompts_lists_what_is_the_same_for_every_patient() -> None:
    texts = prompts(Talk().script, **CLINIC)
    assert ("Goodbye.", "en") in texts
    assert ("Hola. Esta es una llamada automática de Lakeside Clinic.", "es") in texts
    assert not any("{" in text for text, _ in texts)


def test_the_voicemail_message_is_the_same_that_is_spoken() -> None:
    talk = Talk(birth_date=date(1950, 1, 1))
    assert "Lakeside Clinic" in voicemail_message(talk.script, talk.patient, **CLINIC)


def test_a_conversation_with_a_well_patient_takes_less_than_a_minute_of_speech() -> None:
    for script, answers in (
        ("morning", WELL),
        ("noon", ("no", "no", "two", "no")),
        ("evening", ("yes", "no", "no", "no")),
    ):
        talk = Talk(script).identified().hear(*answers)
        assert talk.goodbye().ending is Ending.COMPLETE
        assert 80 <= len(talk.everything_said.split()) <= 150  # at 150 words a minute
