"""`core.dialogue` as the bridge holds it: one dialogue with its script and patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from careflow.core import dialogue
from careflow.core.attempts import Attempt
from careflow.core.checkins import CheckIn
from careflow.core.conversation import Effect, Event
from careflow.core.patients import Patient
from careflow.core.script import Script


class DialogueTalk:
    """A dialogue that steps in place."""

    def __init__(self, start: dialogue.Dialogue) -> None:
        self._dialogue = start

    def step(self, event: Event, now: datetime) -> Sequence[Effect]:
        self._dialogue, effects = dialogue.step(self._dialogue, event, now)
        return effects

    def checkpoint(self) -> str:
        return dialogue.to_json(self._dialogue)

    def check_in(self, attempt: Attempt, ended_at: datetime) -> CheckIn | None:
        return dialogue.check_in(self._dialogue, attempt=attempt, ended_at=ended_at)


def talks(
    scripts: Mapping[str, Script], *, clinic_name: str, clinic_phone: str
) -> Callable[[Attempt, Patient], DialogueTalk]:
    """Gives an attempt its dialogue: new, or from its checkpoint. Raises KeyError for an unknown script."""

    def talk(attempt: Attempt, patient: Patient) -> DialogueTalk:
        script = scripts[attempt.script]
        if attempt.checkpoint:
            return DialogueTalk(
                dialogue.from_json(
                    attempt.checkpoint, script, patient, clinic_name=clinic_name, clinic_phone=clinic_phone
                )
            )
        return DialogueTalk(
            dialogue.begin(script, patient, clinic_name=clinic_name, clinic_phone=clinic_phone)
        )

    return talk
