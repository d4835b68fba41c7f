"""How simulated patients understand prompts and answer them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest

from careflow.core.script import Script
from careflow.lab.fleet import assign_personas
from careflow.lab.handset import Act, AnsweringMachine, Handset, HangUp, Press, Speak
from careflow.lab.mulaw import FRAME_BYTES, SILENCE
from careflow.lab.personas import BadSubscriber, Patient, Persona, Subscriber
from careflow.lab.questions import Topic, understand
from careflow.lab.voice import Ear, Voice
from careflow.scripts.loader import load_scripts
from lab_bench import someone

FILL = {
    "given_name": "Maria",
    "clinic_name": "Riverside Hospital",
    "callback_number": "five five five, zero one zero zero",
    "medications": "aspirin and metformin",
    "critical_symptoms": "chest pain or fainting",
    "warning_symptoms": "swelling or dizziness",
}
TOPICS = {
    "name": Topic.IDENTITY,
    "available": Topic.AVAILABLE,
    "year": Topic.BIRTH_YEAR,
    "morning-medication": Topic.MEDICINE,
    "evening-medication": Topic.MEDICINE,
    "medication-trouble": Topic.SYMPTOM,
    "critical-symptoms": Topic.CRITICAL,
    "warning-symptoms": Topic.SYMPTOM,
    "pain": Topic.PAIN,
    "anything-else": Topic.OPEN,
}


def fill(text: str) -> str:
    for name, value in FILL.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def wordings() -> list[tuple[str, str, str, str]]:
    """(question id, language, ask/reask/keypad, text) of every question that a patient may be asked."""
    scripts: Mapping[str, Script] = load_scripts()
    found = {}
    for script in scripts.values():
        for question in (*script.frame.values(), *script.questions):
            if question.id not in TOPICS:
                continue
            for language, wording in question.wordings.items():
                for form in ("ask", "reask", "keypad"):
                    text = getattr(wording, form)
                    if text:
                        found[question.id, language, form] = fill(text)
    return [(*key, text) for key, text in found.items()]


@pytest.mark.parametrize(("question", "language", "form", "text"), wordings())
def test_every_wording_of_the_scripts_is_understood(
    question: str, language: str, form: str, text: str
) -> None:
    prompt = understand(text)
    assert prompt is not None
    assert prompt.topic is TOPICS[question]
    assert prompt.spanish is (language == "es")
    assert prompt.keypad or form != "keypad"


def test_the_question_after_a_greeting_and_the_offer_of_another_language_counts() -> None:
    prompt = understand(
        "Hello. This is an automated call from Riverside Hospital. Para español, diga español u oprima ocho. "
        "Am I speaking with Maria?"
    )
    assert prompt is not None
    assert (prompt.topic, prompt.keypad, prompt.spanish, prompt.offers_spanish) == (
        Topic.IDENTITY,
        False,
        False,
        True,
    )


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("Thank you, Maria. That is all for now. Goodbye.", Topic.GOODBYE),
        ("Gracias. Adiós.", Topic.GOODBYE),
        ("If this is an emergency, please hang up now and call nine one one.", Topic.EMERGENCY),
        ("Si es una emergencia, cuelgue ahora y llame al nueve uno uno.", Topic.EMERGENCY),
        ("Do you own a bicycle?", Topic.GENERIC),
    ],
)
def test_statements_are_told_from_questions(text: str, topic: Topic) -> None:
    prompt = understand(text)
    assert prompt is not None
    assert prompt.topic is topic


@pytest.mark.parametrize(
    "text", ["", "Thank you. I will wait.", "This is an automated call from Riverside Hospital."]
)
def test_what_asks_nothing_gets_no_answer(text: str) -> None:
    assert understand(text) is None


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("Press one for yes, or two for no.", "1", "2"),
        ("For yes, press 3. For no, press 4.", "3", "4"),
        ("Si usted es Maria, oprima uno. Si no, oprima dos.", "1", "2"),
        ("If not, press two. If it is so, press one.", "1", "2"),
    ],
)
def test_keys_are_taken_from_the_instruction(text: str, yes: str, no: str) -> None:
    prompt = understand(text)
    assert prompt is not None
    assert (prompt.yes_key, prompt.no_key) == (yes, no)


# --- minds -----------------------------------------------------------------------------------------------------

NAME, YEAR = "Am I speaking with Maria?", "Please tell me the year you were born."
MEDICINE = "Have you taken your morning medicines today? They are aspirin."
CRITICAL, ELSE = (
    "Do you have any of these now: chest pain?",
    "Is there anything else you want the nurse to know?",
)


def mind(persona: Persona, seed: int = 1, **changes: object) -> Patient:
    return Patient(someone(persona, **changes), Random(seed))


def said(acts: object) -> str:
    assert isinstance(acts, list)
    return " ".join(act.text for act in acts if isinstance(act, Speak))


def test_a_well_patient_answers_everything() -> None:
    patient = mind(Persona.WELL)
    assert said(patient.react(NAME)).startswith("Yes")
    assert "1948" in said(patient.react(YEAR))
    assert said(patient.react(MEDICINE)).startswith("Yes")
    assert said(patient.react(CRITICAL)).startswith("No")
    assert said(patient.react(ELSE)).startswith("No")


def test_one_who_forgot_says_so() -> None:
    assert said(mind(Persona.FORGOT_MEDICINE).react(MEDICINE)).startswith("No")


def test_a_red_flag_is_confirmed() -> None:
    assert said(mind(Persona.RED_FLAG).react(CRITICAL)).startswith("Yes")


def test_a_confused_patient_answers_the_third_time() -> None:
    patient = mind(Persona.CONFUSED)
    answers = [said(patient.react(MEDICINE)) for _ in range(3)]
    assert [answer.startswith("Yes") for answer in answers] == [False, False, True]


def test_one_who_is_hard_to_understand_slurs_until_keys_are_offered() -> None:
    patient = mind(Persona.HARD_TO_UNDERSTAND)
    assert [act.unclear for act in patient.react(MEDICINE) if isinstance(act, Speak)] == [True]
    assert patient.react("If you took them, press one. If not, press two.") == [Press("1")]


def test_a_keypad_patient_is_silent_until_keys_are_offered() -> None:
    patient = mind(Persona.KEYPAD_ONLY)
    assert patient.react(CRITICAL) == []
    assert patient.react("If you have chest pain, press one. If not, press two.") == [Press("2")]
    assert patient.react("Please key in the four digits of the year you were born.") == [Press("1948")]
    pain = patient.react("Key in your pain from zero to ten, then press pound.")
    assert isinstance(pain[0], Press)
    assert pain[0].digits.endswith("#")


def test_the_wrong_person_says_so() -> None:
    assert "wrong number" in said(mind(Persona.WRONG_PERSON).react(NAME))


def test_one_who_hangs_up_does_so_in_the_middle() -> None:
    patient = mind(Persona.HANGS_UP)
    acts: list[Act] = []
    for prompt in (NAME, YEAR, MEDICINE, CRITICAL):
        acts += patient.react(prompt)
    assert isinstance(acts[0], Speak)
    assert isinstance(acts[-1], HangUp)


def test_one_who_opts_out_wants_no_more_calls() -> None:
    patient = mind(Persona.OPTS_OUT)
    words = " ".join(said(patient.react(prompt)) for prompt in (NAME, YEAR, MEDICINE))
    assert "stop calling" in words or "not call me again" in words


def test_one_who_asks_back_answers_when_asked_again() -> None:
    patient = mind(Persona.ASKS_BACK)
    assert said(patient.react(MEDICINE)).endswith("?")
    assert said(patient.react(MEDICINE)).startswith("Yes")


def test_a_spanish_speaker_takes_the_offer_and_then_answers_in_spanish() -> None:
    patient = mind(Persona.SPANISH, language="es")
    assert said(patient.react("Para español, diga español u oprima ocho. " + NAME)) == "Español."
    assert "inglés" in said(patient.react(NAME))
    assert said(patient.react("¿Hablo con Maria?")).startswith("Sí")


def test_one_without_time_asks_to_be_called_later() -> None:
    words = said(mind(Persona.CALL_LATER).react(NAME))
    assert "call me" in words


def test_own_answers_replace_the_personas() -> None:
    assert said(mind(Persona.WELL, answers={"pain": "Eight."}).react("How strong is your pain?")) == "Eight."


def test_a_goodbye_is_returned_and_the_agent_given_time_to_hang_up() -> None:
    acts = mind(Persona.WELL).react("Thank you. Goodbye.")
    assert isinstance(acts[0], Speak)
    assert isinstance(acts[1], HangUp)
    assert acts[1].after >= 5


# --- handsets --------------------------------------------------------------------------------------------------


def play(handset: Handset | AnsweringMachine, audio: bytes, seconds: float = 6.0) -> list[bytes]:
    """Play the audio and then silence; the frames that come back from the end of the audio on."""
    for at in range(0, len(audio), FRAME_BYTES):
        handset.step(audio[at : at + FRAME_BYTES])
    return [handset.step(SILENCE) for _ in range(round(seconds * 50))]


def words_of(frames: list[bytes]) -> str:
    ear = Ear()
    for frame in frames:
        ear.feed(frame)
    return " ".join(utterance.text for utterance in ear.finish())


@pytest.mark.parametrize("seed", range(8))
def test_a_person_answers_after_a_human_pause_from_the_sound_alone(seed: int) -> None:
    voice = Voice()
    handset = Handset(mind(Persona.WELL), voice, Random(seed), voice_name="m")
    back = play(handset, voice.speak(NAME))
    first = next(place for place, frame in enumerate(back) if frame != SILENCE)
    assert 0.6 <= first / 50 <= 1.7
    assert words_of(back).startswith("Yes")


def test_a_question_whose_sound_was_lost_is_not_answered() -> None:
    voice = Voice()
    handset = Handset(mind(Persona.WELL), voice, Random(1), voice_name="m")
    assert words_of(play(handset, b"\x7e" * 160 * 50, seconds=4)) == ""


def test_nobody_answers_into_a_sentence_that_goes_on() -> None:
    voice = Voice()
    handset = Handset(mind(Persona.WELL), voice, Random(2), voice_name="m")  # answers after 1.6 seconds
    pause = play(handset, voice.speak(NAME), seconds=1.2)
    assert all(frame == SILENCE for frame in pause)
    rest = voice.speak(YEAR)
    during = [handset.step(rest[at : at + FRAME_BYTES]) for at in range(0, len(rest), FRAME_BYTES)]
    assert all(frame == SILENCE for frame in during)
    assert "1948" in words_of(play(handset, b""))


def test_long_silence_makes_a_person_say_hello_and_at_last_hang_up() -> None:
    handset = Handset(mind(Persona.WELL), Voice(), Random(1), voice_name="m")
    assert words_of(play(handset, b"", seconds=10)) == "Hello?"
    play(handset, b"", seconds=60)
    assert handset.hung_up


def test_keys_are_pressed_one_after_the_other() -> None:
    voice = Voice()
    handset = Handset(mind(Persona.KEYPAD_ONLY), voice, Random(1), voice_name="m")
    play(handset, voice.speak("Please key in the four digits of the year you were born."))
    assert handset.pressed == ["1", "9", "4", "8"]


def test_a_machine_greets_beeps_records_and_hangs_up() -> None:
    voice = Voice()
    machine = AnsweringMachine(voice.speak("Please leave a message."))
    greeting = [machine.step(SILENCE) for _ in range(50 * 5)]
    assert words_of(greeting) == "Please leave a message."
    assert machine.machine_ready()
    play(machine, voice.speak("We will try again."), seconds=15)
    assert [note.text for note in machine.notes] == ["We will try again."]
    assert machine.hung_up


def test_a_machine_waits_for_the_message_of_one_who_was_silent_during_a_long_greeting() -> None:
    voice = Voice()
    machine = AnsweringMachine(voice.speak("Nobody can take your call now. " * 8))
    while not machine.machine_ready():
        machine.step(SILENCE)
    play(machine, b"", seconds=5)
    assert not machine.hung_up
    play(machine, b"", seconds=6)
    assert machine.hung_up


# --- the fleet -------------------------------------------------------------------------------------------------

ROSTER = [(f"+121255501{n:02}", f"P{n}", 1930 + n, "es" if n % 9 == 0 else "en") for n in range(42)]


@pytest.mark.parametrize("seed", range(5))
def test_a_roster_of_42_holds_every_persona_and_is_mostly_well(seed: int) -> None:
    fleet = assign_personas(ROSTER, seed)
    count = Counter(one.persona for one in fleet)
    assert set(count) == set(Persona)
    assert count[Persona.WELL] + count[Persona.SPANISH] > len(fleet) / 2
    assert [one.phone for one in fleet] == [phone for phone, *_ in ROSTER]
    assert sum(one.answers_on_attempt == 2 for one in fleet) == 1


def test_the_same_seed_gives_the_same_fleet() -> None:
    assert assign_personas(ROSTER, 3) == assign_personas(ROSTER, 3)
    assert assign_personas(ROSTER, 3) != assign_personas(ROSTER, 4)


def test_english_only_rosters_of_20_hold_every_persona_too() -> None:
    roster = [(phone, name, year, "en") for phone, name, year, _ in ROSTER[:20]]
    assert {one.persona for one in assign_personas(roster, 1)} == set(Persona)


def test_no_patients_make_no_fleet() -> None:
    assert assign_personas([], 1) == []


def test_a_subscriber_survives_json() -> None:
    one = someone(Persona.SPANISH, language="es", answers={"pain": "Ocho."}, answers_on_attempt=2)
    assert Subscriber.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    "change",
    [
        {"persona": "rude"},
        {"birthYear": "1948"},
        {"answers": {"weather": "x"}},
        {"extra": 1},
        {"answersOnAttempt": 0},
    ],
)
def test_a_bad_subscriber_is_refused_by_field(change: dict[str, object]) -> None:
    with pytest.raises(BadSubscriber, match=next(iter(change))):
        Subscriber.from_json(someone().to_json() | change)
