"""The dialogue of an attempt, as the conversation's runner wants it: new, or from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from careflow.core import dialogue
from careflow.core.attempts import Attempt
from careflow.core.checkins import CheckIn
from careflow.core.conversation import Effect, Event
from careflow.core.hospitals import Hospitals
from careflow.core.patients import Patient
from careflow.core.script import Script


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedTalks:
    """`bridge.Talks` over the scripts, by name, and the hospitals that they speak for."""

    scripts: Mapping[str, Script]
    hospitals: Hospitals

    def __call__(self, attempt: Attempt, patient: Patient) -> ScriptedTalk:
        """Raises KeyError for a script or a hospital that is not there, CheckpointError for a checkpoint that cannot be read."""
        script = self.scripts[attempt.script]
        hospital = self.hospitals[attempt.hospital_id]
        clinic = {"clinic_name": hospital.name, "clinic_phone": hospital.phone}
        if attempt.checkpoint:
            return ScriptedTalk(dialogue.from_json(attempt.checkpoint, script, patient, **clinic))
        return ScriptedTalk(dialogue.begin(script, patient, **clinic))


class ScriptedTalk:
    """`conversation_ports.Talk`: holds where the dialogue stands between two events."""

    def __init__(self, state: dialogue.Dialogue) -> None:
        self._state = state

    def step(self, event: Event, now: datetime) -> Sequence[Effect]:
        self._state, effects = dialogue.step(self._state, event, now)
        return effects

    def checkpoint(self) -> str:
        return dialogue.to_json(self._state)

    def check_in(self, attempt: Attempt, ended_at: datetime) -> CheckIn:
        return dialogue.check_in(self._state, attempt=attempt, ended_at=ended_at)
