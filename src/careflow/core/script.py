"""A check-in script: what is asked, in which words, and what an answer leads to. Written by clinicians, read from YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from careflow.core.checkins import AlertKind
from careflow.core.numbers_spoken import digits_spoken
from careflow.core.patients import Patient
from careflow.core.symptoms import GENERAL, Symptom
from careflow.core.triage import Watch
from careflow.errors import CareflowError

LANGUAGES = ("en", "es")
PLACEHOLDERS = frozenset(
    {"given_name", "clinic_name", "callback_number", "medications", "critical_symptoms", "warning_symptoms"}
)
PRIVATE = frozenset(
    {"medications", "critical_symptoms", "warning_symptoms"}
)  # only after identity is confirmed
PROMPTS = {  # the frame's prompts -> whether they are spoken before identity is confirmed
    "greeting": True,  # who is calling, and that it is automated
    "other_language": True,  # in this language: how to switch to it
    "available_wait": True,
    "hold": True,
    "hello_again": True,  # after our side broke
    "who_before": True,
    "who": False,
    "callback": True,
    "voicemail": True,
    "emergency": True,
    "closing_complete": False,
    "closing_noted": False,
    "closing_call_later": True,
    "closing_wrong_person": True,
    "closing_opted_out": True,
    "closing_declined": True,
    "closing_not_understood": True,
    "goodbye": True,
}
FRAME_QUESTIONS = (
    "name",
    "available",
    "year",
    "stop",
)  # asked around the script's own questions; say nothing of health


class ScriptError(CareflowError):
    """A check-in script is not usable."""


class QuestionKind(StrEnum):
    """What sort of answer a question wants."""

    YES_NO = "yes_no"
    NUMBER = "number"
    YEAR = "year"  # of birth, four digits; only in the identity check
    FREE = "free"  # the patient's own words


@dataclass(frozen=True, slots=True)
class Wording:
    """One question in one language: first, asked again, and for the keypad."""

    ask: str
    reask: str
    keypad: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What an answer leads to. `when` is "yes", "no", "unsure", "unanswered", "words", or a bound such as ">= 8".

    `code` is the alert's code; `say` (by language, may be empty) is spoken before the next question.
    """

    when: str
    alert: AlertKind
    code: str
    say: Mapping[str, str]

    def holds(self, value: str) -> bool:
        """Whether the rule is about an answer of this value (see `Answer.value`)."""
        if self.when == value:
            return True
        bound = BOUND.fullmatch(self.when)
        if bound is None or not re.fullmatch(r"\d+(\.\d+)?", value):
            return False
        limit, given = Decimal(bound[2]), Decimal(value)
        return given >= limit if bound[1] == ">=" else given <= limit


BOUND = re.compile(r"(>=|<=) ?(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question. `needs` names a list of the patient's without which it is not asked ("" for always).

    `about_symptoms`: naming a symptom answers it with yes, denying one with no. `minimum` and `maximum` bound a number.
    `also_yes` and `also_no` are further phrases by language.
    """

    id: str
    kind: QuestionKind
    wordings: Mapping[str, Wording]
    rules: tuple[Rule, ...] = ()
    minimum: Decimal = Decimal(0)
    maximum: Decimal = Decimal(999)
    needs: str = ""
    about_symptoms: bool = False
    also_yes: Mapping[str, tuple[str, ...]]
    also_no: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long an answer is waited for, in seconds. `keys` is the pause after which a keyed number counts as complete."""

    voice: float
    keypad: float
    keys: float
    hold: float
    machine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """`name` is "morning", "noon" or "evening". `prompts` are by language, then by the names in PROMPTS.

    `frame` are the questions of FRAME_QUESTIONS by name, `questions` the script's own in their order.
    """

    name: str
    version: str
    prompts: Mapping[str, Mapping[str, str]]
    frame: Mapping[str, Question]
    questions: tuple[Question, ...]
    waits: Waits


@dataclass(frozen=True, slots=True)
class PromptContext:
    """What the placeholders of a prompt stand for in one call."""

    script: Script
    patient: Patient
    watch: Watch
    clinic_name: str
    clinic_phone: str

    def fill(self, text: str, language: str) -> str:
        """The prompt with its placeholders replaced, ready to be spoken."""
        return text.format_map({name: self._value(name, language) for name in placeholders(text)})

    def medications(self) -> tuple[str, ...]:
        """Spoken names of the medicines that belong to this script's time of day; of unknown timing in every script."""
        due = [m.name for m in self.patient.medications if not m.slots or self.script.name in m.slots]
        return tuple(dict.fromkeys(filter(None, map(spoken_medicine, due))))

    def _value(self, name: str, language: str) -> str:
        match name:
            case "given_name":
                return self.patient.given_name
            case "clinic_name":
                return self.clinic_name
            case "callback_number":
                return digits_spoken(self.clinic_phone, language)
            case "medications":
                return _joined(self.medications(), language, _AND)
            case "critical_symptoms":
                return _symptoms(
                    self.watch.critical, ("chest-pain", "breathing-trouble", "fainting"), language
                )
            case _:
                return _symptoms(self.watch.warning, ("swelling", "dizziness", "fever"), language)


_AND = {"en": "and", "es": "y"}
_OR = {"en": "or", "es": "o"}
_MOST = 4  # more items than this nobody can follow on the telephone


def _joined(items: tuple[str, ...], language: str, conjunction: Mapping[str, str]) -> str:
    if len(items) > _MOST:
        more = {"en": "your other medicines", "es": "sus otras medicinas"}[language]
        items = (*items[: _MOST - 1], more)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction[language]} {items[-1]}"


def _symptoms(own: tuple[Symptom, ...], general: tuple[str, ...], language: str) -> str:
    """The patient's own symptoms in words (all of them: leaving one out could cost its answer), else the general ones."""
    chosen = own or tuple(symptom for code in general for symptom in GENERAL if symptom.code == code)
    names = tuple(symptom.spoken[language] for symptom in chosen)
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {_OR[language]} {names[-1]}"


def spoken_medicine(name: str) -> str:
    """A medicine's name without strength and form: "24 HR metoprolol 50 MG Oral Tablet" -> "metoprolol"."""
    name = re.sub(r"\[[^\]]*\]|\([^)]*\)", " ", name)
    name = re.sub(r"^\s*[\d.]+\s*(?:HR|ML|MG)\b", " ", name, flags=re.IGNORECASE)
    name = re.split(
        r"\s\d|\b(?:Oral|Tablet|Capsule|Injection|Solution|Injectable)\b",
        name,
        maxsplit=1,
        flags=re.IGNORECASE,
    )[0]
    return " ".join(name.replace("/", " and ").split()).strip(" ,;")


def placeholders(text: str) -> frozenset[str]:
    """The names in braces in a prompt."""
    return frozenset(re.findall(r"\{([^{}]*)\}", text))
