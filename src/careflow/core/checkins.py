"""What a conversation leaves behind: check-in, alerts, interaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Triage(StrEnum):
    """How worrying a check-in is."""

    GREEN = "green"  # nothing to do
    YELLOW = "yellow"  # a nurse should look today
    RED = "red"  # a nurse was told at once


class AlertKind(StrEnum):
    """What an alert is about."""

    RED_FLAG = "red-flag"  # a critical symptom, told while the patient was on the line
    WARNING = "warning"  # a warning symptom, a missed medicine, an answer nobody understood
    CALLBACK = "callback"  # the patient asked for a person, or asked something we do not answer
    UNREACHABLE = "unreachable"  # the round could not reach the patient
    INTERRUPTED = "interrupted"  # our side failed in the middle of the conversation: phone the patient
    WRONG_NUMBER = "wrong-number"  # somebody else answered: correct the number


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One thing said in a conversation. `speaker` is "agent" or "patient"; `via` "voice" or "keypad"."""

    speaker: str
    text: str
    at: datetime
    via: str = "voice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was understood for one question. `value` is "yes", "no", "unsure", a number as text, "unanswered" or free words."""

    question_id: str
    value: str
    text: str = ""
    asked: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckIn:
    """The structured result of one answered attempt; its id is the attempt's."""

    id: str
    hospital_id: str
    round_id: str
    call_id: str
    patient_id: str
    script: str
    script_version: str
    language: str
    identity_confirmed: bool
    triage: Triage
    answers: tuple[Answer, ...] = ()
    symptoms: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something a person must see. The id is made of its cause, so the same cause never raises two.

    `code` is a short machine word (a symptom code, a question id, an outcome reason); no free words of the patient.
    """

    id: str
    hospital_id: str
    round_id: str
    call_id: str
    attempt_id: str
    patient_id: str
    kind: AlertKind
    code: str
    raised_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """One telephone contact in the patient's record; its id is the attempt's."""

    id: str
    hospital_id: str
    round_id: str
    call_id: str
    patient_id: str
    started_at: datetime
    ended_at: datetime
    disposition: str
    ending: str = ""
    triage: str = ""
    answered_seconds: int = 0
