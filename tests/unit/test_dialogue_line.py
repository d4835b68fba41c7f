"""What the line does to a conversation: confusion and silence, barging in, late words, machines, and a break in the middle."""

from __future__ import annotations

import pytest

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind, Triage
from careflow.core.conversation import (
    Await,
    BargedIn,
    Finished,
    Heard,
    HungUp,
    MachineAnswered,
    Pressed,
    Resumed,
    Say,
    Spoken,
    Started,
    StopSpeaking,
)
from careflow.core.dialogue import CheckpointError, Phase, from_json, step, to_json
from dialogue_kit import CLINIC, MARIA, NOON, Talk

WELL = ("Yes, I took them", "no", "No.", "no, thank you")


def test_a_confused_patient_is_asked_again_then_by_keypad_and_stays_unanswered() -> None:
    talk = Talk().identified().hear("the cat is on the roof")
    assert "Please say yes or no" in talk.said
    talk.hear("where is my blue hat")
    assert "press one" in talk.said
    talk.hear("it is raining")
    assert talk.answers == {"morning-medication": "unanswered"}
    assert (AlertKind.WARNING, "medication-unanswered") in talk.alerts
    assert talk.saved


def test_an_unsure_patient_is_recorded_as_unsure() -> None:
    talk = Talk().identified().hear("I don't know", "I'm not sure", "no idea")
    assert talk.answers == {"morning-medication": "unsure"}
    assert (AlertKind.WARNING, "medication-unsure") in talk.alerts


def test_a_patient_hard_to_understand_goes_on_by_keypad() -> None:
    talk = Talk().start().hear("grblx", "fnord").key("1").hear("mumble").key("1942")
    assert talk.dialogue.identity_confirmed
    talk.hear("mrmf", "brmf").key("1").key("2").key("2").key("2")
    assert talk.goodbye().ending is Ending.COMPLETE


def test_nobody_understood_is_not_understood_and_hears_nothing_of_health() -> None:
    talk = Talk().start().hear("grblx", "fnord", "zzz")
    assert talk.goodbye() == Finished(Ending.NOT_UNDERSTOOD)
    assert "medicine" not in talk.everything_said


def test_silence_ends_the_call() -> None:
    talk = Talk().start().wait(3)
    assert talk.goodbye().ending is Ending.NOT_UNDERSTOOD


def test_barging_in_silences_the_prompt_and_waits_for_the_answer() -> None:
    talk = Talk().start()
    mark = talk.dialogue.speaking
    assert talk.feed(BargedIn()) == (StopSpeaking(), Await(mark, 7.0))
    talk.feed(Heard("yes"))
    assert "year you were born" in talk.said


def test_barging_in_does_not_cut_the_emergency_wording_or_the_goodbye() -> None:
    talk = Talk().identified().hear("my chest hurts")
    assert talk.feed(BargedIn()) == ()
    talk.play()
    assert talk.feed(BargedIn()) == ()


def test_a_late_transcript_does_not_answer_the_question_being_spoken() -> None:
    talk = Talk().identified().hear("yes")
    talk.feed(Heard("yes"))
    assert len(talk.answers) == 1


def test_speech_of_which_nothing_was_recognised_is_asked_about_again() -> None:
    talk = Talk().identified().hear("")
    assert "Please say yes or no" in talk.said
    talk.feed(Heard(""))
    assert talk.last == (), "while the prompt is playing it is noise"


def test_noise_does_not_disturb_a_number_being_keyed() -> None:
    talk = Talk().start().hear("yes").key("19").hear("").key("42")
    assert talk.dialogue.identity_confirmed


def test_machine_detection_while_the_patient_holds_is_ignored() -> None:
    talk = Talk().identified().hear("hold on")
    assert talk.feed(MachineAnswered(ready=True)) == ()


def test_a_conversation_that_only_changes_its_language_is_brought_to_its_end() -> None:
    talk = Talk().identified()
    for _ in range(100):
        talk.hear("español", "english") if talk.dialogue.ending is None else None
    assert talk.goodbye().ending is Ending.COMPLETE
    assert set(talk.answers.values()) == {"unanswered"}
    assert talk.result().triage is Triage.YELLOW


def test_a_transcript_delivered_twice_counts_once() -> None:
    talk = Talk().identified().hear("yes")
    talk.play()
    talk.dialogue, _ = step(talk.dialogue, Heard("yes"), talk.now)
    talk.play()
    assert len(talk.answers) <= 2
    talk = Talk().identified().play()
    talk.feed(Heard("yes"))
    talk.feed(BargedIn(), after=0.1)
    talk.feed(Heard("yes"), after=0.1)
    assert len(talk.answers) == 1


def test_a_key_that_bounces_counts_once() -> None:
    talk = Talk().identified().key("1")
    talk.feed(Pressed("1"), after=0.2)
    assert len(talk.answers) == 1


def test_hanging_up_in_the_middle_keeps_what_was_answered() -> None:
    talk = Talk().identified().hear("yes")
    assert talk.feed(HungUp()) == (Finished(Ending.HUNG_UP),)
    assert talk.result().answers[0].value == "yes"
    assert talk.feed(HungUp()) == ()
    assert talk.feed(Heard("my chest hurts")) == ()


def test_hanging_up_during_the_goodbye_keeps_what_was_decided() -> None:
    talk = Talk().identified().hear(*WELL)
    assert talk.feed(HungUp()) == (Finished(Ending.COMPLETE),)
    talk = Talk().identified().hear("my chest hurts")
    assert talk.feed(HungUp()) == (Finished(Ending.ESCALATED),)


def test_a_machine_gets_a_message_without_health_or_name() -> None:
    talk = Talk().start()
    assert talk.feed(MachineAnswered(ready=False))[0] == StopSpeaking()
    talk.feed(MachineAnswered(ready=True))
    assert "Lakeside Clinic" in talk.said
    assert "two one two, five five five, zero one two three" in talk.said
    assert "Maria" not in talk.said
    assert talk.goodbye() == Finished(None, voicemail=True)


def test_a_machine_that_never_beeps_gets_the_message_after_a_while() -> None:
    talk = Talk().start()
    talk.feed(MachineAnswered(ready=False))
    talk.wait()
    assert "Lakeside Clinic" in talk.said
    assert talk.goodbye().voicemail


def test_the_words_of_a_machine_are_recognised() -> None:
    talk = Talk().start().hear("Please leave a message after the tone")
    assert talk.dialogue.phase is Phase.MACHINE
    assert talk.feed(HungUp()) == (Finished(None, voicemail=True),)


def test_detection_before_the_stream_is_remembered() -> None:
    talk = Talk()
    assert talk.feed(MachineAnswered(ready=True)) == ()
    talk.feed(Started())
    assert talk.dialogue.phase is Phase.VOICEMAIL


def test_machine_detection_after_a_person_spoke_is_ignored() -> None:
    talk = Talk().start().hear("yes")
    assert talk.feed(MachineAnswered(ready=True)) == ()


def test_resuming_apologises_and_asks_the_same_question_again() -> None:
    talk = Talk().identified().hear("yes").restored()
    talk.feed(Resumed())
    assert talk.said.startswith("I am sorry, we were cut off")
    assert "any trouble" in talk.said
    assert talk.hear("no", "no", "no").goodbye().ending is Ending.COMPLETE


def test_resuming_before_identity_begins_with_the_name() -> None:
    talk = Talk().start().hear("yes").restored()
    talk.feed(Resumed())
    assert "Am I speaking with Maria?" in talk.said


def test_resuming_in_the_emergency_wording_speaks_it_again() -> None:
    talk = Talk().identified().hear("my chest hurts").restored()
    talk.feed(Resumed())
    assert "nine one one" in talk.said
    assert talk.goodbye().ending is Ending.ESCALATED


def test_a_checkpoint_is_the_whole_state() -> None:
    talk = Talk().identified().hear("I forgot", "no")
    before = talk.dialogue
    assert talk.restored().dialogue == before


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"script":"noon"}', '{"script":"morning"}'])
def test_a_broken_checkpoint_is_refused_without_quoting_it(text: str) -> None:
    talk = Talk()
    with pytest.raises(CheckpointError):
        from_json(text, talk.script, MARIA, **CLINIC)


def test_every_answer_is_saved_and_marks_are_unique() -> None:
    talk = Talk().identified()
    for words in WELL:
        assert talk.hear(words).saved
    marks = [effect.mark for effect in talk.effects if isinstance(effect, Say)]
    assert len(set(marks)) == len(marks)


def test_irrelevant_events_change_nothing() -> None:
    talk = Talk().start()
    before = talk.dialogue
    for event in (Started(), Spoken("p99-x"), Spoken("")):
        assert step(before, event, NOON) == (before, ())


def test_the_checkpoint_is_json_of_one_line() -> None:
    assert "\n" not in to_json(Talk().identified().dialogue)
