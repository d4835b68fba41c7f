"""The people of a trial: a roster, who picks up the telephones, and what must appear in no log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time

from careflow.core.patients import Medication, Patient
from careflow.lab.personas import Persona, Subscriber

HOSPITAL = "default"
START = datetime(2026, 11, 24, 13, 14, 50, tzinfo=UTC)  # a quarter past eight in New York, less ten seconds
ZONE = "America/New_York"

# They pick up and see the conversation through: they must be dialled once and never again.
TALKERS = frozenset(
    {Persona.WELL, Persona.FORGOT_MEDICINE, Persona.RED_FLAG, Persona.SPANISH, Persona.KEYPAD_ONLY}
)
# Nobody picks up: up to three attempts.
ABSENT = frozenset({Persona.NOT_ANSWERING, Persona.BUSY, Persona.VOICEMAIL})

_DUE = (
    Persona.WELL,
    Persona.RED_FLAG,
    Persona.NOT_ANSWERING,
    Persona.SPANISH,
    Persona.WELL,
    Persona.BUSY,
    Persona.FORGOT_MEDICINE,
    Persona.KEYPAD_ONLY,
    Persona.VOICEMAIL,
    Persona.WELL,
    Persona.RED_FLAG,
    Persona.HANGS_UP,
    Persona.WELL,
    Persona.WRONG_PERSON,
    Persona.WELL,
    Persona.OPTS_OUT,
    Persona.INVALID_NUMBER,
    Persona.RED_FLAG,
    Persona.WELL,
    Persona.SPANISH,
    Persona.KEYPAD_ONLY,
    Persona.WELL,
    Persona.WELL,
    Persona.RED_FLAG,
)
SAID = "Yes, my nephew Bartholomew brought the tablets."  # words that no log line may repeat


@dataclass(frozen=True, slots=True)
class People:
    """Who is due, who must not be dialled (with the reason that the round gives), and who has which telephone."""

    due: Sequence[Patient]
    barred: Sequence[tuple[Patient, str]]
    subscribers: Sequence[Subscriber]
    _personas: Mapping[str, Persona] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_personas", {one.phone: one.persona for one in self.subscribers})

    @property
    def everybody(self) -> list[Patient]:
        return [*self.due, *(patient for patient, _ in self.barred)]

    def persona(self, patient: Patient) -> Persona:
        return self._personas[str(patient.phone)]


# Everybody's names begin like this, and every number is one of those that are reserved for fiction.
PRIVATE = re.compile(
    r"zephyr|quillfeather|bartholomew|nephew|(?<![0-9a-f])(?:\+?1|%2B1)?[2-9]\d\d55501\d\d(?![0-9a-f])",
    re.IGNORECASE,
)


def people() -> People:
    """Twenty-four due with every persona that matters, one who shares a telephone with the first, and seven who are barred."""
    due = [_patient(place, persona) for place, persona in enumerate(_DUE)]
    due[4] = _changed(due[4], time_zone="America/Chicago")  # due an hour later
    due[6] = _changed(due[6], hours=frozenset(), times=(time(8, 40),))
    due[9] = _changed(due[9], calling_from=time(9, 0))
    # Due in the same instant and next in the queue: only the number's guard keeps their calls apart.
    shares = _changed(due[0], id=due[0].id + "b")
    subscribers = [
        Subscriber(
            phone=str(patient.phone),
            persona=persona,
            given_name=patient.given_name,
            birth_year=1950,
            language=patient.language,
            seed=place,
            answers={"medicine": SAID} if persona is Persona.WELL else {},
        )
        for place, (patient, persona) in enumerate(zip(due, _DUE, strict=True))
    ]
    bars: list[tuple[dict[str, object], str]] = [
        ({"consent": False}, "no-consent"),
        ({"opted_out": True}, "opted-out"),
        ({"deceased": True}, "deceased"),
        ({"paused_until": datetime.max.replace(tzinfo=UTC)}, "paused"),
        ({"phone": None}, "no-number"),
        ({"time_zone": "America/Los_Angeles"}, "outside-calling-hours"),
        ({"calling_from": time(12, 0)}, "outside-calling-hours"),
    ]
    barred = [
        (_changed(_patient(40 + place, Persona.WELL), **change), reason)
        for place, (change, reason) in enumerate(bars)
    ]
    # Should one of them be dialled all the same, somebody picks up.
    subscribers += [
        Subscriber(phone=one.phone, persona=Persona.WELL, given_name=one.given_name, birth_year=1950)
        for one, _ in barred
        if one.phone
    ]
    return People([*due, shares], barred, subscribers)


def _patient(place: int, persona: Persona) -> Patient:
    letters = chr(ord("a") + place // 26) + chr(ord("a") + place % 26)
    return Patient(
        id=f"p{place:03d}",
        hospital_id=HOSPITAL,
        given_name=f"Zephyr{letters}",
        family_name=f"Quillfeather{letters}",
        birth_date=date(1950, 3, 1),
        phone=f"+121255501{place:02d}",
        language="es" if persona is Persona.SPANISH else "en",
        time_zone=ZONE,
        consent=True,
        hours=frozenset({8}),
        medications=(Medication(name="metoprolol", dose="50 mg", slots=frozenset({"morning"})),),
        critical_symptoms=("chest-pain",),
    )


def _changed(patient: Patient, **changes: object) -> Patient:
    return replace(patient, **changes)  # type: ignore[arg-type]
