"""Patients as rounds see them, and who may be phoned at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time
from enum import StrEnum


class SkipReason(StrEnum):
    """Why a patient who matched a round is not dialled. Stored with the call."""

    INACTIVE = "inactive"  # no longer in the programme
    DECEASED = "deceased"
    OPTED_OUT = "opted-out"  # asked not to be phoned, by roster or on the telephone
    NO_CONSENT = "no-consent"  # no recorded consent to automated calls
    PAUSED = "paused"  # calls are suspended until a date, or until further notice
    NO_NUMBER = "no-number"  # no number that can be dialled
    OUTSIDE_HOURS = "outside-calling-hours"  # no permitted moment left in the round's window
    UNUSABLE = (
        "unusable-record"  # the stored record cannot be planned with, e.g. a zone that is not known any more
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Medication:
    """One current MedicationRequest (FHIR R4), reduced to what a script says.

    `slots` are the rounds it belongs to: any of "morning", "noon", "evening"; empty when the timing is unknown.
    """

    name: str
    dose: str = ""
    slots: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A patient of one hospital's roster.

    `phone` is E.164 or None when there is no dialable number. `hours` are the rounds' schedule hours (8, 12, 20) the
    patient takes part in, `times` are the patient's own local times; together they are `schedulePreferences`.
    `calling_from` and `calling_until` bound dialling in the patient's own `time_zone` (IANA name), start included, end not.
    `paused_until` is an aware UTC datetime, `datetime.max` (UTC) for "until further notice", None when not paused.
    `critical_symptoms` and `warning_symptoms` are the patient's own, as symptom codes of `core.triage` or plain phrases.
    """

    id: str
    hospital_id: str
    given_name: str
    family_name: str
    birth_date: date | None = None
    phone: str | None = None
    language: str = "en"
    time_zone: str
    active: bool = True
    consent: bool = False
    opted_out: bool = False
    deceased: bool = False
    paused_until: datetime | None = None
    hours: frozenset[int] = frozenset()
    times: tuple[time, ...] = ()
    calling_from: time = time(8, 0)
    calling_until: time = time(21, 0)
    medications: tuple[Medication, ...] = ()
    conditions: tuple[str, ...] = ()
    critical_symptoms: tuple[str, ...] = ()
    warning_symptoms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DoNotCall:
    """Somebody on the telephone asked us to stop. Permanent; bars the number, and the patient when it was the patient.

    `patient_id` is None when the speaker was not the patient (a wrong number that must never be dialled again).
    """

    hospital_id: str
    phone: str
    patient_id: str | None
    attempt_id: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterRevision:
    """How often a hospital's patients have changed. There is one for every hospital that has patients or rounds."""

    hospital_id: str
    revision: int


def bar(patient: Patient, *, do_not_call: bool, now: datetime) -> SkipReason | None:
    """Why this patient may not be phoned at `now`, or None. The hour of the day is `core.slots`' matter.

    `do_not_call` says whether an entry of the do-not-call list holds the patient or the number.
    """
    if patient.deceased:
        return SkipReason.DECEASED
    if not patient.active:
        return SkipReason.INACTIVE
    if patient.opted_out or do_not_call:
        return SkipReason.OPTED_OUT
    if not patient.consent:
        return SkipReason.NO_CONSENT
    if patient.paused_until is not None and now < patient.paused_until:
        return SkipReason.PAUSED
    if patient.phone is None:
        return SkipReason.NO_NUMBER
    return None
