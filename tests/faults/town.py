"""The people of a whole day: two hospitals in two time zones, three rounds each, as many patients as wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from random import Random

from careflow.core.hospitals import Hospital
from careflow.core.patients import Medication, Patient
from careflow.lab.personas import Persona, Subscriber
from faults.people import SAID, People

ROUND_HOURS = (8, 12, 20)
SLOTS = {8: "morning", 12: "noon", 20: "evening"}
DAY = date(2026, 11, 24)
DAWN = datetime(2026, 11, 24, 12, 50, tzinfo=UTC)  # ten to eight in New York
HOSPITALS = (
    Hospital(
        id="general",
        name="General Hospital",
        phone="+1 212 555 0101",
        from_number="+12125550102",
        time_zone="America/New_York",
        round_hours=ROUND_HOURS,
    ),
    Hospital(
        id="lakeside",
        name="Lakeside Clinic",
        phone="+1 312 555 0101",
        from_number="+13125550102",
        time_zone="America/Chicago",
        round_hours=ROUND_HOURS,
    ),
)
# Of 1,000: most are short, since speech costs the machine most; a few in a hundred are whole conversations.
MIX: Mapping[Persona, int] = {
    Persona.INVALID_NUMBER: 680,
    Persona.BUSY: 100,
    Persona.OPTS_OUT: 55,
    Persona.WRONG_PERSON: 55,
    Persona.NOT_ANSWERING: 40,
    Persona.HANGS_UP: 20,
    Persona.CALL_LATER: 10,
    Persona.VOICEMAIL: 10,
    Persona.WELL: 15,
    Persona.RED_FLAG: 7,
    Persona.FORGOT_MEDICINE: 4,
    Persona.SPANISH: 4,
}
# What they say bars them from the rounds after it.
_ONCE = frozenset({Persona.OPTS_OUT, Persona.WRONG_PERSON})
_BARS: Sequence[tuple[Mapping[str, object], str]] = (
    ({"consent": False}, "no-consent"),
    ({"opted_out": True}, "opted-out"),
    ({"deceased": True}, "deceased"),
    ({"active": False}, "inactive"),
    ({"paused_until": datetime.max.replace(tzinfo=UTC)}, "paused"),
    ({"phone": None}, "no-number"),
)
_WEST = {"general": "America/Chicago", "lakeside": "America/Denver"}
_NOT_FOR_PATIENTS = (212, 312, 900, 976)  # the hospitals', and numbers that cost extra
_OWN_TIMES = {8: time(9, 40), 12: time(14, 5), 20: time(20, 10)}


@dataclass(frozen=True, slots=True)
class Town:
    """Everybody, and for each round (hospital id, hour) the people it is about."""

    patients: Sequence[Patient]
    subscribers: Sequence[Subscriber]
    rounds: Mapping[tuple[str, int], People]

    @property
    def calls(self) -> int:
        """How many calls the day has, the barred ones not counted."""
        return sum(len(one.due) for one in self.rounds.values())


def town(size: int, rng: Random) -> Town:
    """So many patients, half of each hospital's; the same ids in both. About one in a hundred shares a telephone with
    somebody of the other hospital.
    """
    numbers = _numbers(size)
    chosen: list[tuple[Patient, Persona, str]] = []
    for place in range(size):
        hospital = HOSPITALS[place % 2]
        persona = rng.choices(list(MIX), list(MIX.values()))[0]
        patient = _patient(place, hospital, persona, numbers[place], rng)
        if place % 2 and chosen[-1][1] not in _ONCE and rng.random() < 0.02 and not chosen[-1][2]:
            persona = chosen[-1][1]
            patient = replace(patient, phone=chosen[-1][0].phone, language=chosen[-1][0].language)
        reason = ""
        if rng.random() < 0.05:
            changes, reason = rng.choice(_BARS)
            patient = replace(patient, **changes)  # type: ignore[arg-type]
        chosen.append((patient, persona, reason))
    subscribers = {
        patient.phone: Subscriber(
            phone=patient.phone,
            persona=persona,
            given_name=patient.given_name,
            birth_year=1950,
            language=patient.language,
            seed=place,
            answers={"medicine": SAID} if persona is Persona.WELL else {},
        )
        for place, (patient, persona, _) in enumerate(chosen)
        if patient.phone
    }
    people = {}
    for hospital in HOSPITALS:
        for hour in ROUND_HOURS:
            here = [
                (patient, reason)
                for patient, _, reason in chosen
                if patient.hospital_id == hospital.id and _is_due(patient, hour)
            ]
            due = [patient for patient, reason in here if not reason]
            barred = [(patient, reason) for patient, reason in here if reason]
            people[hospital.id, hour] = People(due, barred, list(subscribers.values()))
    return Town([patient for patient, _, _ in chosen], list(subscribers.values()), people)


def _is_due(patient: Patient, hour: int) -> bool:
    return hour in patient.hours or _OWN_TIMES[hour] in patient.times


def _patient(place: int, hospital: Hospital, persona: Persona, phone: str, rng: Random) -> Patient:
    count = 1 if persona in _ONCE else rng.choices((1, 2, 3), (88, 8, 4))[0]
    hours = frozenset(rng.sample(ROUND_HOURS, count))
    has_own_times = rng.random() < 0.05
    # Further west it is earlier: the call is due later in the round's window, well before its end.
    zone = _WEST[hospital.id] if rng.random() < 0.05 and not has_own_times else hospital.time_zone
    letters = "".join(chr(ord("a") + place // 26**power % 26) for power in range(3))
    return Patient(
        id=f"p{place // 2:05d}",
        hospital_id=hospital.id,
        given_name=f"Zephyr{letters}",
        family_name=f"Quillfeather{letters}",
        birth_date=date(1950, 3, 1),
        phone=phone,
        language="es" if persona is Persona.SPANISH else "en",
        time_zone=zone,
        consent=True,
        hours=frozenset() if has_own_times else hours,
        times=tuple(sorted(_OWN_TIMES[hour] for hour in hours)) if has_own_times else (),
        medications=(Medication(name="metoprolol", dose="50 mg", slots=frozenset(SLOTS.values())),),
        critical_symptoms=("chest-pain",),
    )


def _numbers(count: int) -> list[str]:
    """Numbers reserved for fiction: a hundred in each area code, none of a hospital's."""
    areas = [area for area in range(201, 990) if area % 100 != 11 and area not in _NOT_FOR_PATIENTS]
    numbers = [f"+1{area}55501{last:02d}" for last in range(100) for area in areas]
    if count > len(numbers):
        raise ValueError(f"{count} patients: there are numbers for {len(numbers)}")
    return numbers[:count]
