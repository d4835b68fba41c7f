"""The check-in scripts: those that ship are sound, and a mistake in one is refused with its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import careflow.scripts
from careflow.core.script import (
    LANGUAGES,
    PromptContext,
    QuestionKind,
    ScriptError,
    placeholders,
    spoken_medicine,
)
from careflow.core.triage import watch_for
from careflow.scripts import load_scripts
from dialogue_kit import CLINIC, MARIA

PACKAGED = Path(careflow.scripts.__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in PACKAGED.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    return tmp_path


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_three_scripts_ask_three_to_five_questions() -> None:
    scripts = load_scripts()
    assert list(scripts) == ["morning", "noon", "evening"]
    for script in scripts.values():
        assert 3 <= len(script.questions) <= 5
        assert "critical-symptoms" in [question.id for question in script.questions]


def test_every_prompt_can_be_filled_and_spoken() -> None:
    for script in load_scripts().values():
        context = PromptContext(script, MARIA, watch_for(MARIA), **CLINIC)
        for language in LANGUAGES:
            texts = list(script.prompts[language].values())
            for question in (*script.frame.values(), *script.questions):
                wording = question.wordings[language]
                texts += [wording.ask, wording.reask, wording.keypad]
            for text in texts:
                spoken = context.fill(text, language)
                assert "{" not in spoken
                assert not any(char.isdigit() for char in spoken), "numbers are written as words"


def test_every_question_about_medicines_or_symptoms_says_what_silence_means() -> None:
    for script in load_scripts().values():
        for question in script.questions:
            if question.id.endswith(("-medication", "-symptoms")):
                assert any(rule.holds("unanswered") for rule in question.rules), question.id


def test_a_bare_no_in_a_rule_means_no_although_yaml_reads_false(folder: Path) -> None:
    change(folder / "noon.yaml", "{when: yes,", "{when: no,")
    rule = load_scripts(folder)["noon"].questions[0].rules[0]
    assert rule.holds("no")
    assert not rule.holds("yes")


MISTAKES = [
    ("common.yaml", "waits:", "wait:", "common.yaml: wait: ", "an unknown field"),
    ("common.yaml", "voice: 7", "voice: soon", "common.yaml: waits.voice: 'soon'", "not a number"),
    (
        "common.yaml",
        '    goodbye: "Adiós."\n',
        "",
        "common.yaml: prompts.es.goodbye: is missing",
        "a language lacks a prompt",
    ),
    ("common.yaml", '"Goodbye."', '""', "common.yaml: prompts.en.goodbye: ''", "an empty prompt"),
    ("common.yaml", '"Goodbye."', "7", "common.yaml: prompts.en.goodbye: 7", "not text"),
    (
        "common.yaml",
        "{clinic_name}.",
        "{clinic}.",
        "prompts.en.greeting: {clinic} is not accepted",
        "an unknown placeholder",
    ),
    (
        "common.yaml",
        "{clinic_name}.",
        "{medications}.",
        "before identity is confirmed",
        "health before identity",
    ),
    ("common.yaml", "{clinic_name}.", "{clinic_name.", "whole {placeholders}", "a broken placeholder"),
    (
        "common.yaml",
        "kind: year",
        "kind: yes_no",
        "common.yaml: frame.year.kind: 'yes_no'",
        "the frame's kinds are fixed",
    ),
    (
        "morning.yaml",
        "name: morning",
        "name: noon",
        "morning.yaml: name: 'noon' is not accepted, but \"morning\"",
        "wrong file",
    ),
    ("morning.yaml", 'version: "1"', "version: 1", "morning.yaml: version: 1", "a version is text"),
    (
        "morning.yaml",
        "id: medication-trouble",
        "id: morning-medication",
        "questions[1].id: 'morning-medication'",
        "twice",
    ),
    (
        "morning.yaml",
        "kind: yes_no",
        "kind: maybe",
        "questions[0].kind: 'maybe' is not accepted, but one of 'yes_no'",
        "kind",
    ),
    ("morning.yaml", "needs: medications", "needs: money", "questions[0].needs: 'money'", "an unknown need"),
    (
        "morning.yaml",
        "about_symptoms: true",
        "about_symptoms: 3",
        "questions[1].about_symptoms: 3",
        "not a truth value",
    ),
    ("morning.yaml", "when: no", "when: nay", "questions[0].rules[0].when: 'nay'", "an unknown answer"),
    (
        "morning.yaml",
        "alert: warning",
        "alert: shout",
        "questions[0].rules[0].alert: 'shout'",
        "an unknown alert",
    ),
    (
        "morning.yaml",
        "code: medication-missed",
        'code: ""',
        "questions[0].rules[0].code: ''",
        "an empty code",
    ),
    ("noon.yaml", "minimum: 0", "minimum: -1", "questions[2].minimum: -1", "below zero"),
    ("noon.yaml", "maximum: 10", "maximun: 10", "questions[2].maximun: 'maximun'", "misspelt"),
    ("noon.yaml", "kind: number", "kind: free", "only a number question has bounds", "bounds on words"),
    ("noon.yaml", '">= 7"', '"> 7"', "rules[0].when: '> 7'", "an unknown bound"),
    ("noon.yaml", "questions:", "questions: []\nx:", "noon.yaml: x: ", "no questions"),
    ("noon.yaml", "name: noon", "name: [noon", "noon.yaml: is not YAML", "broken YAML"),
]


@pytest.mark.parametrize(("file", "old", "new", "message", "remark"), MISTAKES)
def test_a_mistake_is_refused_with_its_file_field_and_value(
    folder: Path, file: str, old: str, new: str, message: str, remark: str
) -> None:
    change(folder / file, old, new)
    with pytest.raises(ScriptError) as refused:
        load_scripts(folder)
    assert message in str(refused.value), remark


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "noon.yaml").unlink()
    with pytest.raises(ScriptError, match=r"noon\.yaml: cannot be read"):
        load_scripts(folder)


def test_bounds_hold_at_their_edge() -> None:
    pain = next(q for q in load_scripts()["noon"].questions if q.kind is QuestionKind.NUMBER)
    rule = pain.rules[0]
    assert [rule.holds(value) for value in ("6", "7", "10", "unanswered")] == [False, True, True, False]


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("lisinopril 10 MG Oral Tablet", "lisinopril"),
        ("24 HR metoprolol succinate 50 MG Extended Release Oral Tablet", "metoprolol succinate"),
        ("Acetaminophen 300 MG / Hydrocodone Bitartrate 5 MG Oral Tablet", "Acetaminophen"),
        ("insulin glargine [Lantus]", "insulin glargine"),
        ("0.4 ML Enoxaparin sodium 100 MG/ML Prefilled Syringe", "Enoxaparin sodium"),
        ("Warfarin", "Warfarin"),
    ],
)
def test_a_medicine_is_spoken_without_strength_and_form(name: str, spoken: str) -> None:
    assert spoken_medicine(name) == spoken


def test_the_yaml_has_no_placeholder_that_is_not_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "dialogue.md"
    text = page.read_text(encoding="utf-8")
    for file in PACKAGED.glob("*.yaml"):
        for name in placeholders(str(yaml.safe_load(file.read_text(encoding="utf-8")))):
            if name.isidentifier():
                assert f"{{{name}}}" in text
