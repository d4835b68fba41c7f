"""MedicationRequests: taken now or not, the spoken name, the dose, and the rounds of the day (R4 MedicationRequest, Timing)."""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import Any

from careflow.core.patients import Medication
from careflow.fhir.codes import Json, clock_time, codes_of, codings, covers, one_of, truth
from careflow.fhir.notes import Refused

MORNING, NOON, EVENING = "morning", "noon", "evening"
_ALL = frozenset({MORNING, NOON, EVENING})
_TWICE = frozenset({MORNING, EVENING})

_STATUSES = frozenset(
    {"active", "on-hold", "cancelled", "completed", "entered-in-error", "stopped", "draft", "unknown"}
)
_INTENTS = frozenset(
    {
        "proposal",
        "plan",
        "order",
        "original-order",
        "reflex-order",
        "filler-order",
        "instance-order",
        "option",
    }
)
_NOT_ORDERED = frozenset({"proposal", "plan", "option"})
_RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"

# http://hl7.org/fhir/event-timing and http://terminology.hl7.org/CodeSystem/v3-TimingEvent
_WHEN: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("MORN", "MORN.early", "MORN.late", "WAKE", "PHS", "ACM", "CM", "PCM"), frozenset({MORNING})
    ),
    **dict.fromkeys(("NOON", "AFT", "AFT.early", "AFT.late", "ACD", "CD", "PCD"), frozenset({NOON})),
    **dict.fromkeys(
        ("EVE", "EVE.early", "EVE.late", "NIGHT", "HS", "ACV", "CV", "PCV"), frozenset({EVENING})
    ),
    **dict.fromkeys(("AC", "C", "PC"), _ALL),
}
# http://terminology.hl7.org/CodeSystem/v3-GTSAbbreviation
_CODED: dict[str, frozenset[str]] = {
    **dict.fromkeys(("QD", "AM", "MORN"), frozenset({MORNING})),
    **dict.fromkeys(("PM", "BED"), frozenset({EVENING})),
    "BID": _TWICE,
    **dict.fromkeys(("TID", "QID", "Q1H", "Q2H", "Q3H", "Q4H", "Q6H", "Q8H"), _ALL),
}
_HOURS_OF_UNIT = {"s": 1 / 3600, "min": 1 / 60, "h": 1.0, "d": 24.0, "wk": 168.0, "mo": 720.0, "a": 8760.0}


def is_taken(request: Json, now: datetime) -> bool:
    """Whether the request is a current order. Raises Refused for a status or intent that R4 does not have."""
    status = one_of(request, "status", _STATUSES)
    intent = one_of(request, "intent", _INTENTS)
    if status != "active" or intent in _NOT_ORDERED or truth(request, "doNotPerform"):
        return False
    dosages = request.get("dosageInstruction", [])
    return not dosages or any(_is_current(dosage, now) for dosage in dosages)


def medication(request: Json, name: str, now: datetime) -> tuple[Medication, str]:
    """The medicine, and what is unclear about its timing, or ""."""
    dosages = [dosage for dosage in request.get("dosageInstruction", []) if _is_current(dosage, now)]
    as_needed = [truth(d, "asNeededBoolean") or "asNeededCodeableConcept" in d for d in dosages]
    regular = [dosage for dosage, needed in zip(dosages, as_needed, strict=True) if not needed]
    slots = frozenset[str]().union(*(slots_of(dosage) for dosage in regular))
    doses = [text for dosage in dosages if (text := dose_of(dosage))]
    if any(as_needed) and not regular:
        return Medication(name=name, dose="; ".join([*doses, "as needed"])), ""
    unclear = "" if slots else "says no time of day that belongs to a round"
    return Medication(name=name, dose="; ".join(doses), slots=slots), unclear


def slots_of(dosage: Json) -> frozenset[str]:
    """The rounds that the dosage falls in; none when it does not say, or is not taken every day."""
    timing: Json = dosage.get("timing", {})
    repeat: Json = timing.get("repeat", {})
    if times := repeat.get("timeOfDay"):
        return frozenset(_slot_of(clock_time(at, "timing.repeat.timeOfDay")) for at in times)
    if when := repeat.get("when"):
        return frozenset[str]().union(*(_WHEN.get(code, frozenset()) for code in when))
    if coded := codes_of(timing.get("code")) & _CODED.keys():
        return frozenset[str]().union(*(_CODED[code] for code in coded))
    return _slots_of_frequency(repeat)


def _slots_of_frequency(repeat: Json) -> frozenset[str]:
    period, unit = repeat.get("period"), repeat.get("periodUnit")
    if (
        not isinstance(period, int | float)
        or isinstance(period, bool)
        or period <= 0
        or unit not in _HOURS_OF_UNIT
    ):
        return frozenset()
    frequency = repeat.get("frequency", 1)
    if not isinstance(frequency, int) or isinstance(frequency, bool) or "dayOfWeek" in repeat:
        return frozenset()
    a_day = frequency * 24 / (period * _HOURS_OF_UNIT[unit])
    if a_day > 2:
        return _ALL
    if a_day > 1:
        return _TWICE
    return frozenset({MORNING}) if a_day == 1 else frozenset()


def _slot_of(at: time) -> str:
    if time(4) <= at < time(11):
        return MORNING
    return NOON if time(11) <= at < time(17) else EVENING


def _is_current(dosage: Json, now: datetime) -> bool:
    return covers(dosage.get("timing", {}).get("repeat", {}).get("boundsPeriod"), now)


def dose_of(dosage: Json) -> str:
    """How much is taken at a time, in words; "" when the dosage does not say in what unit."""
    for rate in dosage.get("doseAndRate", []):
        quantity: dict[str, Any] = rate.get("doseQuantity", {})
        value, unit = quantity.get("value"), quantity.get("unit") or quantity.get("code")
        if isinstance(value, int | float) and isinstance(unit, str):
            return f"{value:g} {unit}"
    return ""


_STRENGTH = re.compile(r"\s*\b[\d.,]+\s*(?:MG|MCG|G|ML|UNT|MEQ|ACTUAT|HR|%)(?:\b|/|\s|$).*", re.IGNORECASE)
_LEADING = re.compile(
    r"^\s*(?:NDA\d+\s+|Abuse-Deterrent\s+)?(?:[\d.]+\s*(?:HR|ML|ACTUAT)\s+)?", re.IGNORECASE
)


def name_of(concept: Json) -> str:
    """What the medicine is called aloud: the text, else a coding's display without strength and form; "" when it has neither."""
    if isinstance(text := concept.get("text"), str) and text.strip():
        return text.strip()
    ranked = sorted(codings(concept), key=lambda coding: coding[0] != _RXNORM)
    display = next((display for _, _, display in ranked if display), "")
    parts = [_plain(_STRENGTH.sub("", _LEADING.sub("", part))) for part in display.split(" / ")]
    return " and ".join(dict.fromkeys(part for part in parts if part)) or display.strip()


def _plain(name: str) -> str:
    """Without the capitals that tell look-alikes apart in print ("amLODIPine") and confuse a voice."""
    words = (word.lower() if re.search(r"[a-z][A-Z]|[A-Z]{2}[a-z]", word) else word for word in name.split())
    return " ".join(words)


def merged(medications: list[Medication]) -> tuple[Medication, ...]:
    """One entry a medicine, ordered by name: two requests for the same one are one to the patient."""
    by_name: dict[str, Medication] = {}
    for one in sorted(medications, key=lambda m: (m.name.casefold(), not m.slots, m.dose)):
        before = by_name.get(one.name.casefold())
        by_name[one.name.casefold()] = (
            one
            if before is None
            else Medication(name=before.name, dose=before.dose or one.dose, slots=before.slots | one.slots)
        )
    return tuple(by_name.values())


def named(request: Json, contained_or_known: Json | None) -> str:
    """The request's medicine by name. Raises Refused when nobody could say it aloud."""
    concept = request.get("medicationCodeableConcept")
    if concept is None and contained_or_known is not None:
        concept = contained_or_known.get("code")
    name = name_of(concept) if concept else ""
    name = name or str(request.get("medicationReference", {}).get("display", "")).strip()
    if not name:
        raise Refused("medication[x]", "names no medicine: no text, no display, no Medication in this import")
    return name
