"""The roster's border: what is taken, what is refused, and that a patient is whole or not there."""

from __future__ import annotations

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from careflow.core.patients import Medication, Patient
from careflow.fhir import files
from careflow.fhir.notes import RosterReading
from careflow.fhir.people import TIMEZONE
from fhir_kit import Json, bundle, consent, noted, only, order, patient, read


@pytest.fixture
def take(tmp_path: Path) -> Any:
    """Import these resources as one Bundle."""

    def import_bundle(*resources: Json, **defaults: Any) -> RosterReading:
        path = tmp_path / "bundle.json"
        path.write_text(json.dumps(bundle(*resources)))
        return read(path, **defaults)

    return import_bundle


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
