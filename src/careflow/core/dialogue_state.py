# ruff: noqa: SIM905 - long lists of words read better as text than as quoted items
"""Where a conversation stands: an immutable record, and its checkpoint as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind, Answer, Turn
from careflow.core.patients import Patient
from careflow.core.script import LANGUAGES, PromptContext, Question, Script
from careflow.core.triage import watch_for
from careflow.errors import CareflowError


class CheckpointError(CareflowError):
    """The dialogue's checkpoint is not usable."""


class Phase(StrEnum):
    """What the dialogue is doing. docs/dialogue.md draws the moves."""

    IDLE = "idle"  # nobody is on the line yet
    NAME = "name"  # is this the patient?
    AVAILABLE = "available"  # it is not; can the patient come?
    HOLDING = "holding"  # waiting for somebody; `back` says what is asked then
    YEAR = "year"  # the patient's year of birth
    ASKING = "asking"  # the script's own question number `index`
    STOP = "stop"  # was the star key meant? `back` says where it was pressed
    MACHINE = "machine"  # an answering machine is greeting
    VOICEMAIL = "voicemail"  # our message is being left
    EMERGENCY = "emergency"  # a red flag was raised; the emergency wording is being spoken
    CLOSING = "closing"  # `ending` is decided; the goodbye is being spoken
    OVER = "over"


PHASES_WITH_QUESTION = frozenset({Phase.NAME, Phase.AVAILABLE, Phase.YEAR, Phase.STOP, Phase.ASKING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """The state of one conversation. Made by `begin` or `from_json`, moved only by `step`.

    `misses` counts how often the present question was not answered, `asides` how often something else was asked
    back. `speaking` is the mark of the prompt being played, `waiting` that of the running `Await`; "" for none.
    `deaf` means that only the keypad is left. `alerts` are those raised so far, as (kind, code).
    """

    context: PromptContext
    language: str
    phase: Phase = Phase.IDLE
    back: Phase = Phase.NAME
    index: int = 0
    misses: int = 0
    asides: int = 0
    unsure: bool = False
    keys: str = ""
    deaf: bool = False
    machine: str = ""
    confirmed: bool = False
    speaking: str = ""
    waiting: str = ""
    spoken: int = 0
    last_input: str = ""
    last_input_at: datetime | None = None
    answers: tuple[Answer, ...] = ()
    alerts: tuple[tuple[AlertKind, str], ...] = ()
    symptoms: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    ending: Ending | None = None
    closing: str = ""
    opted_out_patient: bool = False
    opted_out_number: bool = False
    started_at: datetime | None = None

    @property
    def identity_confirmed(self) -> bool:
        """Whether the speaker is known to be the patient; before that nothing is said about health."""
        return self.confirmed

    @property
    def finished(self) -> bool:
        """Whether `Finished` was given; nothing comes after it."""
        return self.phase is Phase.OVER

    def questions(self) -> tuple[Question, ...]:
        """The script's questions that concern this patient."""
        has_medications = bool(self.context.medications())
        return tuple(q for q in self.context.script.questions if q.needs != "medications" or has_medications)

    def question(self) -> Question | None:
        """The question that an answer would be about now, or None."""
        if self.phase is Phase.ASKING:
            return self.questions()[self.index]
        return self.context.script.frame[self.phase] if self.phase in PHASES_WITH_QUESTION else None


def begin(script: Script, patient: Patient, *, clinic_name: str, clinic_phone: str) -> Dialogue:
    """The dialogue before anybody picked up, in the patient's language (English when we do not speak it)."""
    context = PromptContext(script, patient, watch_for(patient), clinic_name, clinic_phone)
    language = patient.language[:2].lower()
    return Dialogue(context=context, language=language if language in LANGUAGES else "en")


_PLAIN = (
    "language misses asides unsure keys deaf machine confirmed speaking waiting spoken last_input symptoms closing "
    "opted_out_patient opted_out_number"
).split()


def to_json(dialogue: Dialogue) -> str:
    """The checkpoint. It holds what was said: it belongs in the store and nowhere else."""
    question = dialogue.question() if dialogue.phase is Phase.ASKING else None
    asked = dialogue.questions()
    at = question or (asked[dialogue.index] if dialogue.index < len(asked) else None)
    record: dict[str, Any] = {name: getattr(dialogue, name) for name in _PLAIN}
    record |= {
        "script": dialogue.context.script.name,
        "version": dialogue.context.script.version,
        "phase": dialogue.phase.value,
        "back": dialogue.back.value,
        "question": at.id if at else "",
        "lastInputAt": _text(dialogue.last_input_at),
        "answers": [asdict(answer) for answer in dialogue.answers],
        "alerts": [[kind.value, code] for kind, code in dialogue.alerts],
        "turns": [asdict(turn) | {"at": _text(turn.at)} for turn in dialogue.turns],
        "ending": dialogue.ending.value if dialogue.ending else None,
        "startedAt": _text(dialogue.started_at),
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def from_json(
    text: str, script: Script, patient: Patient, *, clinic_name: str, clinic_phone: str
) -> Dialogue:
    """The dialogue of a checkpoint. Feed it `Resumed` next.

    Raises CheckpointError when the text is no checkpoint, or one of another script, or stands at a question that this
    script no longer has. The message holds nothing that was said.
    """
    fresh = begin(script, patient, clinic_name=clinic_name, clinic_phone=clinic_phone)
    try:
        record = json.loads(text)
        if record["script"] != script.name:
            raise CheckpointError(
                f"checkpoint: script: {record['script']!r} is not accepted, but {script.name!r}"
            )
        ids = [question.id for question in fresh.questions()]
        plain = {name: record[name] for name in _PLAIN} | {"symptoms": tuple(record["symptoms"])}
        return Dialogue(
            context=fresh.context,
            phase=Phase(record["phase"]),
            back=Phase(record["back"]),
            index=ids.index(record["question"]) if record["question"] else len(ids),
            last_input_at=_instant(record["lastInputAt"]),
            answers=tuple(Answer(**answer) for answer in record["answers"]),
            alerts=tuple((AlertKind(kind), code) for kind, code in record["alerts"]),
            turns=tuple(Turn(**(turn | {"at": _instant(turn["at"])})) for turn in record["turns"]),
            ending=Ending(record["ending"]) if record["ending"] else None,
            started_at=_instant(record["startedAt"]),
            **plain,
        )
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        # The cause would quote what the patient said.
        raise CheckpointError from None


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
