"""What a roster says of one patient: when to phone, whether to phone at all, and the medicines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest

from careflow.core.patients import Medication
from careflow.fhir.notes import RosterReading
from careflow.fhir.people import PREFERENCES, TIMEZONE
from careflow.fhir.standing import FLAG_SYSTEM, PROGRAMME_SYSTEM
from fhir_kit import Json, bundle, concept, consent, noted, only, order, patient, read


@pytest.fixture
def take(tmp_path: Path) -> Any:
    """Import these resources as one Bundle."""

    def import_bundle(*resources: Json, **defaults: Any) -> RosterReading:
        path = tmp_path / "bundle.json"
        path.write_text(json.dumps(bundle(*resources)))
        return read(path, **defaults)

    return import_bundle


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
