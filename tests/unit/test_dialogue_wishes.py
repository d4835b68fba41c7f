"""Whoever picks up and whatever is asked for: somebody else, later, never again, a person, a question back."""

from __future__ import annotations

import pytest

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind
from careflow.core.conversation import Await, Finished, Heard
from dialogue_kit import Talk

WELL = ("Yes, I took them", "no", "No.", "no, thank you")


def test_the_wrong_year_is_asked_twice_and_then_nothing_is_told() -> None:
    talk = Talk().start().hear("yes", "nineteen fifty", "nineteen fifty one")
    assert talk.goodbye().ending is Ending.NOT_UNDERSTOOD
    assert not talk.dialogue.identity_confirmed
    assert "medicine" not in talk.everything_said


def test_two_years_at_once_are_no_answer() -> None:
    talk = Talk().start().hear("yes", "nineteen forty one or nineteen forty two")
    assert not talk.dialogue.identity_confirmed


def test_the_year_may_be_said_in_spanish_in_an_english_call() -> None:
    assert Talk().start().hear("sí", "mil novecientos cuarenta y dos").dialogue.identity_confirmed


@pytest.mark.parametrize("words", ["wrong number", "there's no one here by that name", "número equivocado"])
def test_a_wrong_number_is_apologised_for(words: str) -> None:
    assert Talk().start().hear(words).goodbye() == Finished(Ending.WRONG_PERSON)


def test_somebody_else_may_fetch_the_patient() -> None:
    talk = Talk().start().hear("no", "yes, one moment")
    assert "I will wait" in talk.said
    talk.play()
    assert talk.last == (Await(talk.dialogue.waiting, 30.0),)
    talk.hear("Hello?")
    assert "Maria" in talk.said
    assert not talk.dialogue.identity_confirmed


def test_a_patient_who_is_out_is_phoned_later() -> None:
    assert Talk().start().hear("she's not home").goodbye().ending is Ending.CALL_LATER
    assert Talk().start().hear("no", "no").goodbye().ending is Ending.CALL_LATER


def test_call_me_later_is_honoured_at_any_question() -> None:
    assert Talk().start().hear("call me later").goodbye().ending is Ending.CALL_LATER
    assert Talk().identified().hear("I'm busy now").goodbye().ending is Ending.CALL_LATER


def test_an_opt_out_of_the_patient_is_repeated_back_and_bars_both() -> None:
    talk = Talk().identified().hear("stop calling me")
    assert "asked us to stop calling" in talk.said
    assert talk.goodbye() == Finished(Ending.OPTED_OUT, opted_out_patient=True, opted_out_number=True)


def test_an_opt_out_of_somebody_unknown_bars_the_number_only() -> None:
    talk = Talk().start().hear("take me off your list")
    assert talk.goodbye() == Finished(Ending.OPTED_OUT, opted_out_number=True)


def test_an_opt_out_during_the_goodbye_is_honoured_and_the_check_in_stays_complete() -> None:
    talk = Talk().identified().hear(*WELL)
    talk.feed(Heard("and stop calling me"))
    assert talk.goodbye() == Finished(Ending.COMPLETE, opted_out_patient=True, opted_out_number=True)


def test_an_opt_out_while_call_later_is_said_is_final() -> None:
    talk = Talk().start().hear("call me later")
    talk.feed(Heard("no, never call me again"))
    assert talk.goodbye().ending is Ending.OPTED_OUT


def test_the_star_key_asks_before_it_stops_for_good() -> None:
    talk = Talk().identified().key("*")
    assert "for good" in talk.said
    assert talk.key("1").goodbye().ending is Ending.OPTED_OUT
    talk = Talk().identified().key("*").key("2")
    assert "medicines" in talk.said
    talk = Talk().identified().key("*").wait(2)
    assert "medicines" in talk.said


def test_nine_repeats_and_zero_asks_for_a_person() -> None:
    talk = Talk().identified().key("9")
    assert "lisinopril" in talk.said
    talk.key("0")
    assert talk.alerts == [(AlertKind.CALLBACK, "person")]
    assert "call you back" in talk.said
    assert "lisinopril" in talk.said


def test_a_patient_who_asks_back_is_answered_and_then_asked_again() -> None:
    talk = Talk().start().hear("who is this?")
    assert "automated call from Lakeside Clinic" in talk.said
    talk.hear("yes", "1942", "why are you asking me that?")
    assert "care team" in talk.said
    talk.hear("what did you say?")
    assert "lisinopril" in talk.said
    talk.hear("can I talk to a nurse?", *WELL)
    assert talk.alerts == [(AlertKind.CALLBACK, "person")]
    assert talk.goodbye().ending is Ending.COMPLETE


def test_endless_questions_back_count_as_no_answer() -> None:
    talk = Talk().start()
    for _ in range(12):
        talk.hear("what?") if not talk.dialogue.ending else None
    assert talk.goodbye().ending is Ending.NOT_UNDERSTOOD


def test_a_refusal_is_accepted() -> None:
    assert Talk().identified().hear("I don't want to talk to a machine").goodbye().ending is Ending.DECLINED
    assert Talk().start().hear("goodbye").goodbye().ending is Ending.DECLINED
