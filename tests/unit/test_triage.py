"""Symptoms in speech: what is affirmed, what is denied, and what is in doubt and so counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from careflow.core.checkins import AlertKind, Answer, Triage
from careflow.core.symptoms import Level, mentions
from careflow.core.triage import affirmed, assess, watch_for
from dialogue_kit import MARIA

RED = [
    ("my chest is killing me", "chest-pain", "no word for pain at all"),
    ("there's an elephant sitting on my chest", "chest-pain", "how people say it"),
    ("I wouldn't say no chest pain", "chest-pain", "two negations deny nothing clearly"),
    ("I can't see out of my right eye", "stroke-signs", "sudden loss of sight"),
    ("de repente no puedo ver bien", "stroke-signs", "sudden loss of sight"),
    ("I have chest pain", "chest-pain", "plain"),
    ("my chest hurts", "chest-pain", "verb"),
    ("my chest feels tight", "chest-pain", "tight"),
    ("there's a pressure in my chest", "chest-pain", "other order"),
    ("My chest. It hurts.", "chest-pain", "cut in two by the transcript"),
    ("Yes. My chest hurts. Yes. My chest hurts.", "chest-pain", "repeated"),
    ("I don't have any pain but my chest feels tight", "chest-pain", "denied, then told"),
    ("I can't say I don't have chest pain", "chest-pain", "double negation is doubt"),
    ("I don't think I have chest pain", "chest-pain", "hedged denial is doubt"),
    ("I'm not sure if it's chest pain", "chest-pain", "doubt"),
    ("it's not that my chest doesn't hurt", "chest-pain", "one negation inside, one outside"),
    ("not only chest pain", "chest-pain", "not a denial"),
    ("No, my chest hurts", "chest-pain", "the no answers something else"),
    ("no my chest hurts", "chest-pain", "the same without the comma"),
    ("I didn't sleep because of chest pain", "chest-pain", "the negation governs the sleep"),
    ("no chest pain except at night", "chest-pain", "an exception"),
    ("no chest pain but a little yesterday", "chest-pain", "taken back"),
    ("chest pain no dizziness", "chest-pain", "the no belongs to the dizziness"),
    ("no chest pain and shortness of breath", "breathing-trouble", "'and' may begin anew"),
    ("stop calling me, my chest hurts", "chest-pain", "beside another wish"),
    ("I can't breathe", "breathing-trouble", "the negation is the symptom"),
    ("I can't uh breathe", "breathing-trouble", "with a hesitation"),
    ("I cant breathe", "breathing-trouble", "apostrophe lost"),
    ("I'm short of breath", "breathing-trouble", "plain"),
    ("it's hard to breathe", "breathing-trouble", "plain"),
    ("my face is drooping", "stroke-signs", "plain"),
    ("my left arm is numb", "stroke-signs", "plain"),
    ("I passed out this morning", "fainting", "plain"),
    ("it won't stop bleeding", "severe-bleeding", "the negation is the symptom"),
    ("I don't want to live anymore", "suicidal-thoughts", "the negation is the symptom"),
    ("I want to kill myself", "suicidal-thoughts", "plain"),
    ("my tongue is swollen", "allergic-swelling", "plain"),
    ("I need an ambulance", "emergency", "plain"),
    ("I took too many pills", "overdose", "plain"),
    ("me duele el pecho", "chest-pain", "Spanish"),
    ("tengo dolor en el pecho", "chest-pain", "Spanish noun"),
    ("No, me duele el pecho", "chest-pain", "Spanish, the no answers something else"),
    ("no puedo decir que no tengo dolor de pecho", "chest-pain", "Spanish double negation"),
    ("no puedo respirar", "breathing-trouble", "Spanish, the negation is the symptom"),
    ("me falta el aire", "breathing-trouble", "Spanish idiom"),
    ("tengo la cara torcida", "stroke-signs", "Spanish"),
    ("me desmayé", "fainting", "Spanish accent"),
    ("no quiero vivir", "suicidal-thoughts", "Spanish, the negation is the symptom"),
    ("tengo la lengua hinchada", "allergic-swelling", "Spanish"),
]

NOT_RED = [
    ("no chest pain", "plain"),
    ("No chest pain. No chest pain. No chest pain.", "triplicated"),
    ("I don't have any chest pain", "verb"),
    ("I dont have chest pain", "apostrophe lost"),
    ("My chest doesn't hurt", "negation inside"),
    ("my chest is not tight", "negation inside"),
    ("I have never had chest pain", "never"),
    ("No, I've got no chest pain, no shortness of breath, nothing", "a list of denials"),
    ("no chest pain, trouble breathing, or fainting", "one denial for a list"),
    ("I don't have chest pain or trouble breathing", "or"),
    ("no chest pain no trouble breathing no swelling", "no commas"),
    ("I don't have a cough or chest pain", "an unknown or harmless first item"),
    ("I don't have no chest pain", "negative concord"),
    ("Chest pain? No.", "asked back and denied"),
    ("I'm not having trouble breathing", "progressive"),
    ("I'm not short of breath", "adjective"),
    ("I don't want to die", "a denial"),
    ("no tengo dolor en el pecho", "Spanish"),
    ("no me duele el pecho", "Spanish verb"),
    ("no tengo dolor de pecho ni falta de aire", "Spanish list"),
    ("sin dolor de pecho", "Spanish without"),
    ("I can't talk right now", "busy, no stroke"),
    ("I fell asleep", "no fall"),
    ("I feel fine", "nothing"),
    ("my ankles are swollen", "only a warning"),
    ("I'm calling about my bill", "nothing"),
]


@pytest.mark.parametrize(("text", "code", "remark"), RED)
def test_a_critical_symptom_that_is_not_clearly_denied_counts(text: str, code: str, remark: str) -> None:
    assert code in affirmed(mentions(text), Level.CRITICAL), remark


@pytest.mark.parametrize(("text", "remark"), NOT_RED)
def test_a_clear_denial_is_no_red_flag(text: str, remark: str) -> None:
    assert affirmed(mentions(text), Level.CRITICAL) == (), remark


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("my ankles are swollen", "swelling"),
        ("I gained five pounds", "weight-gain"),
        ("I feel dizzy", "dizziness"),
        ("I have a fever", "fever"),
        ("estoy mareada", "dizziness"),
        ("tengo los pies hinchados", "swelling"),
        ("tengo fiebre", "fever"),
        ("I threw up", "nausea"),
        ("my back hurts", "pain"),
    ],
)
def test_a_warning_symptom_is_a_warning(text: str, code: str) -> None:
    assert affirmed(mentions(text), Level.WARNING) == (code,)


def test_a_code_of_the_care_plan_raises_the_level_of_a_general_symptom() -> None:
    watch = watch_for(replace(MARIA, critical_symptoms=("swelling",)))
    assert affirmed(watch.mentions("my legs are swollen"), Level.CRITICAL) == ("swelling",)


def test_a_plain_phrase_of_the_care_plan_is_listened_for() -> None:
    watch = watch_for(replace(MARIA, critical_symptoms=("cloudy dialysis fluid",)))
    assert affirmed(watch.mentions("the dialysis fluid looks cloudy"), Level.CRITICAL) == (
        "cloudy-dialysis-fluid",
    )
    assert affirmed(watch.mentions("no cloudy dialysis fluid"), Level.CRITICAL) == ()


def test_a_care_plan_cannot_make_chest_pain_a_mere_warning() -> None:
    watch = watch_for(replace(MARIA, warning_symptoms=("chest-pain",)))
    assert affirmed(watch.mentions("my chest hurts"), Level.CRITICAL) == ("chest-pain",)


def test_triage_follows_the_worst_alert_and_unclear_answers() -> None:
    yes = Answer(question_id="q", value="yes")
    assert assess([yes], []) is Triage.GREEN
    assert assess([yes], [(AlertKind.WARNING, "x")]) is Triage.YELLOW
    assert assess([yes], [(AlertKind.WARNING, "x"), (AlertKind.RED_FLAG, "y")]) is Triage.RED
    assert assess([Answer(question_id="q", value="unanswered")], []) is Triage.YELLOW
    assert assess([Answer(question_id="q", value="unsure")], []) is Triage.YELLOW
