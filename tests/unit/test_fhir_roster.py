"""The roster's border: what is taken, what is refused, and that a patient is whole or not there."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from careflow.core.patients import Medication, Patient
from careflow.fhir import files
from careflow.fhir.notes import RosterDefaults, RosterReading
from careflow.fhir.people import PREFERENCES, TIMEZONE
from careflow.fhir.roster import import_paths
from careflow.fhir.standing import CONSENT_SYSTEM, FLAG_SYSTEM, PROGRAMME_SYSTEM

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


@pytest.fixture
def take(tmp_path: Path) -> Any:
    """Import these resources as one Bundle."""

    def import_bundle(*resources: Json, **defaults: Any) -> RosterReading:
        path = tmp_path / "bundle.json"
        path.write_text(json.dumps(bundle(*resources)))
        return read(path, **defaults)

    return import_bundle


def only(reading: RosterReading) -> Patient:
    assert len(reading.patients) == 1, [str(note) for note in reading.notes]
    return reading.patients[0]


def noted(reading: RosterReading) -> list[tuple[str, bool]]:
    return [(note.field, note.refused) for note in reading.notes]


def test_a_complete_patient_needs_no_note(take: Any) -> None:
    timing = {"repeat": {"when": ["ACM"]}}
    dosage = {"timing": timing, "doseAndRate": [{"doseQuantity": {"value": 1, "unit": "tablet"}}]}
    condition = {
        "resourceType": "Condition",
        "id": "x",
        "clinicalStatus": {"coding": [{"code": "active"}]},
        "code": {
            "coding": [
                {
                    "system": "http://snomed.info/sct",
                    "code": "84114007",
                    "display": "Heart failure (disorder)",
                }
            ]
        },
        "subject": {"reference": "Patient/p1"},
    }
    reading = take(patient(), consent(), order(dosageInstruction=[dosage]), condition)
    assert reading.notes == []
    assert only(reading) == Patient(
        id="p1",
        hospital_id="h1",
        given_name="Hush",
        family_name="Secretname",
        birth_date=date(1950, 2, 3),
        phone="+12125550123",
        time_zone="America/Chicago",
        consent=True,
        hours=frozenset({8}),
        medications=(Medication(name="aspirin", dose="1 tablet", slots=frozenset({"morning"})),),
        conditions=("Heart failure",),
        critical_symptoms=("breathing-trouble",),
        warning_symptoms=("fatigue", "swelling", "weight-gain"),
    )


class TestDefaults:
    def test_what_is_missing_is_defaulted_with_a_note_each(self, take: Any) -> None:
        reading = take(patient(birthDate=None, telecom=None, communication=None, extension=None))
        taken = only(reading)
        assert (taken.birth_date, taken.phone, taken.language, taken.consent) == (None, None, "en", False)
        assert taken.time_zone == "America/New_York"
        assert taken.hours == {8}
        fields = [
            "telecom",
            "birthDate",
            "communication.language",
            "extension(timezone)",
            "Consent(automated-calls)",
        ]
        assert noted(reading) == [(field, False) for field in fields]

    def test_consent_can_be_taken_as_given_but_only_where_none_is_recorded(self, take: Any) -> None:
        assert only(take(patient(), consent=True)).consent
        assert not only(take(patient(), consent("deny"), consent=True)).consent

    @pytest.mark.parametrize("text", ["1950", "1950-02"])
    def test_a_partial_birth_date_is_left_open(self, take: Any, text: str) -> None:
        assert only(take(patient(birthDate=text))).birth_date is None


class TestNumbers:
    @pytest.mark.parametrize(
        ("telecom", "expected"),
        [
            ([("212-555-0101", {}), ("212-555-0102", {"rank": 1})], "+12125550102"),
            ([("212-555-0101", {"use": "work"}), ("212-555-0102", {"use": "mobile"})], "+12125550102"),
            ([("212-555-0101", {"use": "old"}), ("212-555-0102", {"use": "work"})], "+12125550102"),
            ([("212-555-0101", {"period": {"end": "2020"}}), ("212-555-0102", {})], "+12125550102"),
            ([("911", {}), ("212-555-0102", {})], "+12125550102"),
            ([("212-555-0101 ext. 7", {}), ("+1 617 555 0102", {})], "+16175550102"),
            ([("555-0101", {})], None),
            ([("unknown", {})], None),
            ([("212-555-0101", {"system": "fax"})], None),
            ([("+1 900 555 0101", {})], None),
        ],
    )
    def test_the_preferred_number_that_can_be_dialled_is_taken(
        self, take: Any, telecom: list[tuple[str, Json]], expected: str | None
    ) -> None:
        points = [{"system": "phone", "value": value, **more} for value, more in telecom]
        assert only(take(patient(telecom=points))).phone == expected


class TestLanguage:
    @pytest.mark.parametrize(
        ("spoken", "expected"),
        [
            ([("en", False), ("es-MX", True)], "es"),
            ([("ES", False)], "es"),
            ([("fr", True), ("es", False)], "en"),
        ],
    )
    def test_the_preferred_language_counts(
        self, take: Any, spoken: list[tuple[str, bool]], expected: str
    ) -> None:
        communication = [
            {"language": {"coding": [{"code": code}]}, "preferred": first} for code, first in spoken
        ]
        assert only(take(patient(communication=communication))).language == expected


def wishes(**parts: Any) -> list[Json]:
    inner = [
        {
            "url": url,
            (
                "valueInteger" if url == "hour" else "valueDateTime" if url == "pausedUntil" else "valueTime"
            ): value,
        }
        for url, values in parts.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return [{"url": TIMEZONE, "valueCode": "America/Chicago"}, {"url": PREFERENCES, "extension": inner}]


class TestSchedule:
    def test_the_patients_wishes_replace_the_rounds_of_the_medicines(self, take: Any) -> None:
        extension = wishes(
            hour=[12], time=["18:30:00", "09:30:00"], callingFrom="09:00:00", callingUntil="20:00:00"
        )
        taken = only(take(patient(extension=extension), order(timing={"repeat": {"when": ["EVE"]}})))
        assert (taken.hours, taken.times) == ({12}, (time(9, 30), time(18, 30)))
        assert (taken.calling_from, taken.calling_until) == (time(9), time(20))

    def test_own_times_alone_leave_no_round(self, take: Any) -> None:
        taken = only(
            take(patient(extension=wishes(time="09:30:00")), order(timing={"repeat": {"when": ["EVE"]}}))
        )
        assert (taken.hours, taken.times) == (frozenset(), (time(9, 30),))

    def test_calling_hours_alone_leave_the_rounds_of_the_medicines(self, take: Any) -> None:
        extension = wishes(callingFrom="09:00:00", pausedUntil="2026-12-01")
        taken = only(take(patient(extension=extension), order(timing={"repeat": {"when": ["EVE"]}})))
        assert taken.hours == {8, 20}
        assert taken.paused_until == datetime(2026, 12, 2, tzinfo=UTC)

    @pytest.mark.parametrize(
        "parts",
        [
            {"hour": 24},
            {"hour": -1},
            {"time": "25:00:00"},
            {"callingFrom": "21:00:00"},
            {"callingFrom": "10:00:00", "callingUntil": "09:00:00"},
            {"weekday": "09:00:00"},
        ],
    )
    def test_wishes_that_make_no_sense_refuse_the_patient(self, take: Any, parts: Json) -> None:
        reading = take(patient(extension=wishes(**parts)))
        assert reading.patients == []
        assert reading.notes[-1].refused


class TestStanding:
    @pytest.mark.parametrize(
        ("consents", "expected"),
        [
            ([consent()], True),
            ([consent("deny")], False),
            ([consent(), consent("deny", id="c2", dateTime="2026-11-02")], False),
            ([consent("deny"), consent(id="c2", dateTime="2026-11-02")], True),
            ([consent(), consent("deny", id="c2")], False),  # on the same day the refusal counts
            ([consent(status="rejected")], False),
            ([consent(status="draft")], False),
            ([consent(provision={"type": "permit", "period": {"end": "2026-11-22"}})], False),
            ([consent(provision={"type": "permit", "period": {"end": "2026-11-23"}})], True),
            ([consent(category=[{"text": "research"}])], False),
        ],
    )
    def test_the_latest_consent_to_automated_calls_counts(
        self, take: Any, consents: list[Json], expected: bool
    ) -> None:
        assert only(take(patient(), *consents)).consent is expected

    def test_a_flag_opts_out_or_pauses_while_it_is_in_force(self, take: Any) -> None:
        def flag(code: str, **changes: Any) -> Json:
            return {
                "resourceType": "Flag",
                "id": code,
                "status": "active",
                "code": concept(FLAG_SYSTEM, code),
                "subject": {"reference": "Patient/p1"},
                **changes,
            }

        assert only(take(patient(), flag("opted-out"))).opted_out
        assert not only(take(patient(), flag("opted-out", status="inactive"))).opted_out
        paused = only(take(patient(), flag("paused", period={"end": "2026-12-24"})))
        assert paused.paused_until == datetime(2026, 12, 25, tzinfo=UTC)
        assert not paused.opted_out
        assert only(take(patient(), flag("paused"))).paused_until == datetime.max.replace(tzinfo=UTC)

    @pytest.mark.parametrize(
        ("status", "end", "active", "paused"),
        [
            ("active", None, True, False),
            ("active", "2026-11-01", False, False),
            ("completed", None, False, False),
            ("revoked", None, False, False),
            ("on-hold", None, True, True),
            ("draft", None, True, False),
        ],
    )
    def test_the_programmes_care_plan_says_whether_the_patient_is_in_it(
        self, take: Any, status: str, end: str | None, active: bool, paused: bool
    ) -> None:
        plan = {
            "resourceType": "CarePlan",
            "id": "cp",
            "status": status,
            "intent": "plan",
            "category": [concept(PROGRAMME_SYSTEM, "follow-up-calls")],
            "subject": {"reference": "Patient/p1"},
            "period": {"start": "2026-10-01", **({"end": end} if end else {})},
        }
        taken = only(take(patient(), plan))
        assert (taken.active, taken.paused_until is not None) == (active, paused)
        plan["category"] = [{"text": "diabetes"}]
        assert only(take(patient(), plan)).active

    @pytest.mark.parametrize("died", [{"deceasedBoolean": True}, {"deceasedDateTime": "2026-11-20"}])
    def test_the_dead_and_the_inactive_are_marked(self, take: Any, died: Json) -> None:
        assert only(take(patient(**died))).deceased
        assert not only(take(patient(active=False))).active

    def test_an_appointment_today_is_worth_a_note(self, take: Any) -> None:
        def appointment(start: str) -> Json:
            actor = {"actor": {"reference": "Patient/p1"}, "status": "accepted"}
            return {
                "resourceType": "Appointment",
                "id": "a",
                "status": "booked",
                "start": start,
                "participant": [actor],
            }

        today = take(patient(), consent(), appointment("2026-11-23T15:00:00-06:00"))
        assert noted(today) == [("Appointment.start", False)]
        assert noted(take(patient(), consent(), appointment("2026-11-24T09:00:00-06:00"))) == []


class TestMedicines:
    @pytest.mark.parametrize(
        ("timing", "slots"),
        [
            ({"repeat": {"timeOfDay": ["07:30:00", "12:00:00"]}}, {"morning", "noon"}),
            ({"repeat": {"timeOfDay": ["22:00:00"]}}, {"evening"}),
            ({"repeat": {"when": ["CV"]}}, {"evening"}),
            ({"repeat": {"when": ["PC"]}}, {"morning", "noon", "evening"}),
            ({"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}, {"morning"}),
            ({"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}}, {"morning", "evening"}),
            ({"repeat": {"frequency": 1, "period": 8, "periodUnit": "h"}}, {"morning", "noon", "evening"}),
            ({"repeat": {"frequency": 1, "period": 12, "periodUnit": "h"}}, {"morning", "evening"}),
            ({"repeat": {"frequency": 14, "period": 1, "periodUnit": "wk"}}, {"morning", "evening"}),
            ({"code": {"coding": [{"code": "TID"}]}}, {"morning", "noon", "evening"}),
        ],
    )
    def test_timing_says_which_rounds_a_medicine_belongs_to(
        self, take: Any, timing: Json, slots: set[str]
    ) -> None:
        reading = take(patient(), consent(), order(timing=timing))
        assert only(reading).medications[0].slots == slots
        assert reading.notes == []

    @pytest.mark.parametrize(
        "timing",
        [
            None,
            {"repeat": {"frequency": 1, "period": 1, "periodUnit": "wk"}},
            {"repeat": {"dayOfWeek": ["mon"]}},
        ],
    )
    def test_a_medicine_without_a_daily_time_is_kept_with_a_note(
        self, take: Any, timing: Json | None
    ) -> None:
        reading = take(patient(), consent(), order(timing=timing))
        assert only(reading).medications == (Medication(name="aspirin"),)
        assert noted(reading) == [("dosageInstruction.timing", False)]

    def test_as_needed_belongs_to_no_round(self, take: Any) -> None:
        daily = {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}}
        dosage = {"timing": daily, "asNeededBoolean": True}
        reading = take(patient(), consent(), order(dosageInstruction=[dosage]))
        assert only(reading).medications == (Medication(name="aspirin", dose="as needed"),)
        assert reading.notes == []

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": "stopped"},
            {"status": "on-hold"},
            {"intent": "proposal"},
            {"doNotPerform": True},
            {"dosageInstruction": [{"timing": {"repeat": {"boundsPeriod": {"end": "2026-11-01"}}}}]},
        ],
    )
    def test_what_is_not_taken_now_is_not_asked_about(self, take: Any, changes: Json) -> None:
        assert only(take(patient(), order(**changes))).medications == ()

    @pytest.mark.parametrize(
        ("display", "spoken"),
        [
            ("Hydrochlorothiazide 25 MG Oral Tablet", "Hydrochlorothiazide"),
            ("24 HR metoprolol succinate 100 MG Extended Release Oral Tablet", "metoprolol succinate"),
            (
                "amLODIPine 5 MG / benazepril hydrochloride 10 MG Oral Capsule",
                "amlodipine and benazepril hydrochloride",
            ),
            ("NDA020503 200 ACTUAT albuterol 0.09 MG/ACTUAT Metered Dose Inhaler", "albuterol"),
            ("Vitamin B12 5 MG/ML Injectable Solution", "Vitamin B12"),
            ("Aspirin", "Aspirin"),
        ],
    )
    def test_a_medicine_is_called_by_its_name_alone(self, take: Any, display: str, spoken: str) -> None:
        coded = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "display": display}]}
        assert only(take(patient(), order(medicationCodeableConcept=coded))).medications[0].name == spoken

    def test_it_is_found_where_the_request_refers_to(self, take: Any) -> None:
        shelf = {"resourceType": "Medication", "id": "x", "code": {"text": "warfarin"}}
        referring = order(medicationCodeableConcept=None, medicationReference={"reference": "Medication/x"})
        assert only(take(patient(), referring, shelf)).medications[0].name == "warfarin"
        inside = order(
            medicationCodeableConcept=None, medicationReference={"reference": "#x"}, contained=[shelf]
        )
        assert only(take(patient(), inside)).medications[0].name == "warfarin"
        assert take(patient(), referring).patients == []

    def test_two_orders_of_one_medicine_are_one(self, take: Any) -> None:
        morning, night = {"repeat": {"when": ["MORN"]}}, {"repeat": {"when": ["HS"]}}
        taken = only(take(patient(), order(timing=morning), order("Aspirin", timing=night, id="m2")))
        assert [m.slots for m in taken.medications] == [{"morning", "evening"}]


class TestNeverHalfAPatient:
    """Whatever is refused of a patient leaves the whole patient out, and says where."""

    REFUSED: list[tuple[str, list[Json]]] = [  # noqa: RUF012 - a table
        ("name", [patient(name=None)]),
        ("name", [patient(name=[{"use": "old", "family": "A", "given": ["B"]}])]),
        ("name", [patient(name="Hush Secretname")]),
        ("birthDate", [patient(birthDate="03/02/1950")]),
        ("birthDate", [patient(birthDate="2950-02-03")]),
        ("active", [patient(active="true")]),
        ("deceasedBoolean", [patient(deceasedBoolean="no")]),
        ("careProvider", [patient(careProvider=[])]),  # DSTU2
        ("extension(timezone)", [patient(extension=[{"url": TIMEZONE, "valueCode": "EST5EDT/x"}])]),
        ("extension(timezone)", [patient(extension=[{"url": TIMEZONE, "valueCode": "../../etc"}])]),
        ("dosageInstruction", [patient(), {**order(), "dosageInstruction": None}]),
        ("dosageInstruction.timing", [patient(), order(dosageInstruction=[{"timing": None}])]),
        ("status", [patient(), order(status="taking")]),
        ("intent", [patient(), order(intent="filler")]),
        ("medication", [patient(), {**order(), "medication": {"concept": {"text": "x"}}}]),  # R5
        ("medication[x]", [patient(), order(medicationCodeableConcept={"coding": [{"code": "1"}]})]),
        ("provision.type", [patient(), consent(provision={"type": 5, "x": 1})]),
        ("type", [patient(), consent(provision={})]),
        ("status", [patient(), consent(status="given")]),
        ("dateTime", [patient(), consent(dateTime="2026-13")]),
    ]

    @pytest.mark.parametrize(("field", "resources"), REFUSED)
    def test_it_is_left_out_whole(self, take: Any, field: str, resources: list[Json]) -> None:
        reading = take(*resources, patient(id="p2"))
        assert [one.id for one in reading.patients] == ["p2"]
        refused = [note for note in reading.notes if note.refused]
        assert len(refused) == 1
        assert refused[0].done == "the patient was left out"
        if field not in ("dateTime", "provision.type"):
            assert refused[0].field == field

    def test_a_bad_second_version_takes_the_first_one_with_it(self, take: Any) -> None:
        assert take(patient(), patient(name=None)).patients == []

    def test_no_note_shows_a_name_a_number_or_a_value(self, take: Any) -> None:
        for _, resources in self.REFUSED:
            reading = take(*resources)
            shown = "\n".join(str(note) for note in reading.notes)
            assert not {"Secretname", "Hush", "5550123", "555-0123", "03/02", "2950"} & set(shown.split())
            assert "Secretname" not in shown
            assert "555" not in shown


class TestReferences:
    @pytest.mark.parametrize("kind", ["transaction", "collection", "searchset", "batch"])
    def test_a_bundles_full_urls_are_followed(self, tmp_path: Path, kind: str) -> None:
        urn = "urn:uuid:0b9f6f1e-6f1d-4c8e-9a0a-1f2e3d4c5b6a"
        nameless = patient(id=None)
        entries = [
            {
                "fullUrl": "urn:uuid:1b9f6f1e-6f1d-4c8e-9a0a-1f2e3d4c5b6a",
                "resource": {**consent(), "patient": {"reference": urn}},
            },
            {"fullUrl": urn, "resource": nameless, "request": {"method": "POST", "url": "Patient"}},
        ]
        path = tmp_path / "b.json"
        path.write_text(json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}))
        taken = only(read(path))
        assert (taken.id, taken.consent) == (urn.removeprefix("urn:uuid:"), True)

    @pytest.mark.parametrize(
        "reference", ["Patient/p1", "https://ehr.example/fhir/Patient/p1", "Patient/p1/_history/3"]
    )
    def test_relative_absolute_and_versioned_references_are_followed(self, take: Any, reference: str) -> None:
        assert only(take(patient(), consent(patient={"reference": reference}))).consent

    def test_what_belongs_to_nobody_here_is_said_once(self, take: Any) -> None:
        strangers = [order(id=f"m{n}", subject={"reference": "Patient/stranger"}) for n in range(3)]
        reading = take(patient(), consent(), *strangers, order(subject={"display": "Hush"}))
        assert [note.reference for note in reading.notes] == ["MedicationRequest/m1", "Patient/stranger"]
        assert len(reading.patients) == 1

    def test_what_rounds_have_no_use_for_is_counted(self, take: Any) -> None:
        reading = take(patient(), consent(), {"resourceType": "Observation"}, {"resourceType": "Observation"})
        assert reading.ignored == {"Observation": 2}


def ndjson(*resources: Json) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in resources)


class TestFiles:
    def test_a_folder_of_anything_is_one_roster(self, tmp_path: Path) -> None:
        deep = tmp_path / "export" / "deep"
        deep.mkdir(parents=True)
        (tmp_path / "export" / "Patient.ndjson").write_bytes(ndjson(patient(), patient(id="p2")) + b"\n\n")
        (deep / "Consent.ndjson.gz").write_bytes(gzip.compress(ndjson(consent())))
        (deep / "one.json").write_text(json.dumps(patient(id="p3")))
        (deep / "b.json.gz").write_bytes(gzip.compress(json.dumps(bundle(patient(id="p4"))).encode()))
        (deep / "readme.txt").write_text("not FHIR")
        (deep / "circle").symlink_to(tmp_path / "export")
        reading = read(tmp_path)
        assert [(one.id, one.consent) for one in reading.patients] == [
            ("p1", True),
            ("p2", False),
            ("p3", False),
            ("p4", False),
        ]
        assert not [note for note in reading.notes if "second time" in note.problem]

    def test_of_a_patient_in_two_files_the_last_counts(self, tmp_path: Path) -> None:
        (tmp_path / "1.json").write_text(json.dumps(patient()))
        (tmp_path / "2.json").write_text(json.dumps(patient(birthDate="1960-01-01")))
        reading = read(tmp_path, consent=True)
        assert only(reading).birth_date == date(1960, 1, 1)
        assert any(
            note.problem == "comes a second time" and note.file.endswith("2.json") for note in reading.notes
        )

    @pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"", b"[" * 100_000, b"null"])
    def test_a_broken_document_leaves_the_others_alone(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "bad.json").write_bytes(content)
        (tmp_path / "good.json").write_text(json.dumps(bundle(patient(), consent())))
        reading = read(tmp_path)
        assert only(reading).id == "p1"
        assert [note.problem for note in reading.notes] == ["it is not a JSON object"]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("Consent.ndjson", ndjson(consent()) + b'{"resourceType": "Con'),
            ("Consent.ndjson.gz", gzip.compress(ndjson(consent()) * 500)[:-40]),
            ("Consent.ndjson.gz", b"this is no gzip"),
            ("b.json", json.dumps({**bundle(), "entry": [{"fullUrl": "urn:uuid:1"}]}).encode()),
        ],
    )
    def test_a_broken_export_imports_nobody(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / "Patient.ndjson").write_bytes(ndjson(patient()))
        (tmp_path / name).write_bytes(content)
        reading = read(tmp_path)
        assert reading.patients == []
        assert {note.reference for note in reading.notes if note.refused} == {"", "Patient/p1"}

    def test_a_file_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        reading = read(tmp_path / "nothing.json")
        assert [note.problem for note in reading.notes] == ["there is no such file or folder"]

    def test_json_that_is_not_fhir_is_skipped_with_a_note(self, tmp_path: Path) -> None:
        (tmp_path / "package.json").write_text('{"name": "x"}')
        (tmp_path / "odd.json").write_text('{"resourceType": "Bundle", "type": "transaction-response"}')
        assert len(read(tmp_path).notes) == 2

    def test_a_file_that_is_too_large_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "LARGEST_BYTES", 1000)
        (tmp_path / "big.json").write_text(json.dumps(bundle(*[patient(id=f"p{n}") for n in range(9)])))
        (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(b" " * 1_000_000))
        reading = read(tmp_path)
        assert reading.patients == []
        assert [note.problem for note in reading.notes] == ["it is larger than 1,000 bytes"] * 2

    def test_an_import_is_the_same_every_time(self, tmp_path: Path) -> None:
        (tmp_path / "a.ndjson").write_bytes(ndjson(patient(), patient(id="p0"), order(), consent()))
        assert read(tmp_path) == read(tmp_path)
