"""A telephone for the dialogue's tests: it plays every prompt to its end and lets the patient answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from careflow.core.attempts import Attempt
from careflow.core.checkins import AlertKind, CheckIn
from careflow.core.conversation import (
    Effect,
    Event,
    Finished,
    Heard,
    Pressed,
    RaiseAlert,
    Save,
    Say,
    Spoken,
    Started,
    Waited,
)
from careflow.core.dialogue import Dialogue, begin, check_in, from_json, step, to_json
from careflow.core.patients import Medication, Patient
from careflow.scripts import load_scripts

SCRIPTS = load_scripts()
CLINIC = {"clinic_name": "Lakeside Clinic", "clinic_phone": "+12125550123"}
NOON = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
MARIA = Patient(
    id="patient-1",
    hospital_id="lakeside",
    given_name="Maria",
    family_name="Test",
    birth_date=date(1942, 3, 4),
    time_zone="America/New_York",
    medications=(
        Medication(name="lisinopril 10 MG Oral Tablet"),
        Medication(name="metformin 500 MG Oral Tablet"),
    ),
)
ATTEMPT = Attempt(
    id="attempt-1",
    hospital_id="lakeside",
    round_id="round-1",
    call_id="call-1",
    patient_id="patient-1",
    number=1,
    phone="+12125550123",
    script="morning",
    stream_token="token",
    intended_at=NOON,
    not_after=NOON,
)


class Talk:
    """One conversation. `hear`, `key` and `wait` first play the current prompt to its end, as a polite patient would."""

    def __init__(self, script: str = "morning", patient: Patient = MARIA, **changes: object) -> None:
        self.patient = replace(patient, **changes)  # type: ignore[arg-type]
        self.script = SCRIPTS[script]
        self.dialogue: Dialogue = begin(self.script, self.patient, **CLINIC)
        self.now = NOON
        self.effects: list[Effect] = []
        self.last: tuple[Effect, ...] = ()

    def feed(self, event: Event, *, after: float = 3) -> tuple[Effect, ...]:
        self.now += timedelta(seconds=after)
        self.dialogue, self.last = step(self.dialogue, event, self.now)
        self.effects += self.last
        return self.last

    def start(self) -> Talk:
        self.feed(Started())
        return self

    def play(self) -> Talk:
        """Play what is being spoken to its end."""
        if self.dialogue.speaking:
            self.feed(Spoken(self.dialogue.speaking))
        return self

    def hear(self, *texts: str) -> Talk:
        for text in texts:
            self.play().feed(Heard(text))
        return self

    def key(self, digits: str) -> Talk:
        self.play()
        for digit in digits:
            self.feed(Pressed(digit))
        return self

    def wait(self, times: int = 1) -> Talk:
        for _ in range(times):
            self.play().feed(Waited(self.dialogue.waiting))
        return self

    def identified(self) -> Talk:
        return self.start().hear("Yes", "nineteen forty two")

    def goodbye(self) -> Finished:
        """Play to the end; the Finished that came."""
        for _ in range(3):
            self.play()
        done = [effect for effect in self.effects if isinstance(effect, Finished)]
        assert len(done) == 1, f"finished {len(done)} times"
        return done[0]

    def restored(self) -> Talk:
        """The same conversation in another process."""
        self.dialogue = from_json(to_json(self.dialogue), self.script, self.patient, **CLINIC)
        return self

    @property
    def said(self) -> str:
        """What the last event made us say."""
        return " ".join(effect.text for effect in self.last if isinstance(effect, Say))

    @property
    def everything_said(self) -> str:
        return " ".join(effect.text for effect in self.effects if isinstance(effect, Say))

    @property
    def alerts(self) -> list[tuple[AlertKind, str]]:
        return [(effect.kind, effect.code) for effect in self.effects if isinstance(effect, RaiseAlert)]

    @property
    def answers(self) -> dict[str, str]:
        return {answer.question_id: answer.value for answer in self.dialogue.answers}

    @property
    def saved(self) -> bool:
        """Whether the last event was followed by a checkpoint."""
        return Save() in self.last

    def result(self) -> CheckIn:
        return check_in(self.dialogue, attempt=ATTEMPT, ended_at=self.now)
