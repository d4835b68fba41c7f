"""FHIR resources of one patient, each part of which a test may change, and the reading of a roster of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from careflow.core.patients import Patient
from careflow.fhir.notes import RosterDefaults, RosterReading
from careflow.fhir.people import TIMEZONE
from careflow.fhir.roster import import_paths
from careflow.fhir.standing import CONSENT_SYSTEM

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
Json = dict[str, Any]


def patient(**changes: Any) -> Json:
    base: Json = {
        "resourceType": "Patient",
        "id": "p1",
        "name": [{"use": "official", "family": "Secretname", "given": ["Hush"]}],
        "birthDate": "1950-02-03",
        "telecom": [{"system": "phone", "value": "(212) 555-0123"}],
        "communication": [{"language": {"coding": [{"code": "en-US"}]}}],
        "extension": [{"url": TIMEZONE, "valueCode": "America/Chicago"}],
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def concept(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def consent(kind: str = "permit", **changes: Any) -> Json:
    return {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "scope": {"text": "calls"},
        "category": [concept(CONSENT_SYSTEM, "automated-calls")],
        "patient": {"reference": "Patient/p1"},
        "policyRule": {"text": "calls"},
        "dateTime": "2026-11-01",
        "provision": {"type": kind},
        **changes,
    }


def order(name: str = "aspirin", timing: Json | None = None, **changes: Any) -> Json:
    dosage = {"timing": timing} if timing else {}
    base = {
        "resourceType": "MedicationRequest",
        "id": "m1",
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": name},
        "subject": {"reference": "Patient/p1"},
        "dosageInstruction": [dosage] if dosage else [],
    }
    return {name: value for name, value in {**base, **changes}.items() if value not in (None, [])}


def bundle(*resources: Json, kind: str = "collection") -> Json:
    return {"resourceType": "Bundle", "type": kind, "entry": [{"resource": one} for one in resources]}


def read(path: Path, **defaults: Any) -> RosterReading:
    return import_paths(
        [path],
        hospital_id="h1",
        defaults=RosterDefaults(**{"time_zone": "America/New_York", **defaults}),
        now=NOW,
    )


def only(reading: RosterReading) -> Patient:
    assert len(reading.patients) == 1, [str(note) for note in reading.notes]
    return reading.patients[0]


def noted(reading: RosterReading) -> list[tuple[str, bool]]:
    return [(note.field, note.refused) for note in reading.notes]
