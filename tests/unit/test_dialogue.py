"""The conversation with every kind of patient, from the first hello to the hang-up."""

from __future__ import annotations

from datetime import date

import pytest

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind, Triage
from careflow.core.conversation import (
    Await,
    BargedIn,
    DeafNow,
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
)
from careflow.core.dialogue import (
    CheckpointError,
    Phase,
    from_json,
    prompts,
    step,
    to_json,
    voicemail_message,
)
from careflow.core.patients import Medication
from dialogue_kit import CLINIC, MARIA, NOON, Talk

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


def test_late_words_answer_nothing_but_their_red_flag_counts() -> None:
    talk = Talk().identified().play()
    talk.feed(Heard("no", late=True))
    assert talk.answers == {}
    talk.feed(Heard("my chest hurts", late=True))
    assert talk.alerts == [(AlertKind.RED_FLAG, "chest-pain")]


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


def test_the_checkpoint_is_json_of_one_line() -> None:
    assert "\n" not in to_json(Talk().identified().dialogue)


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
