"""The shipped sample is what its README says: 45 patients match the morning round, 42 are called, 3 are skipped for 3 reasons."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from careflow.core.calls import Call, CallState
from careflow.core.patients import Patient
from careflow.core.rounds import Trigger, plan, round_for
from careflow.fhir.notes import RosterDefaults, RosterReading
from careflow.fhir.roster import import_paths
from careflow.sample import roster_path

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)  # 08:15 in New York, a Monday
TRIGGER = Trigger(
    schedule_hour=8,
    time_zone="America/New_York",
    trigger_type="morning",
    source="cloud-scheduler",
    environment="local",
    hospital_id="default",
)


@pytest.fixture(scope="module")
def reading() -> RosterReading:
    defaults = RosterDefaults(time_zone="America/New_York")
    return import_paths([roster_path()], hospital_id="default", defaults=defaults, now=NOW)


def planned(patients: list[Patient], now: datetime) -> list[Call]:
    round_ = round_for(TRIGGER, now, (8, 12, 20))
    calls = [plan(round_, patient, now, do_not_call=False) for patient in patients]
    return [call for call in calls if call is not None]


@pytest.mark.parametrize(
    "now",
    [
        NOW,
        NOW + timedelta(days=4),
        datetime(2027, 7, 6, 12, 15, tzinfo=UTC),  # summer time
        datetime(2027, 3, 15, 12, 15, tzinfo=UTC),  # the Monday after the clocks changed
    ],
)
def test_of_45_patients_42_are_due_in_the_morning_and_3_are_skipped(
    reading: RosterReading, now: datetime
) -> None:
    calls = planned(reading.patients, now)
    assert len(calls) == 45
    waiting = [call for call in calls if call.state is CallState.WAITING]
    assert len(waiting) == 42
    assert all(now <= call.due_at < call.not_after for call in waiting)
    assert Counter(call.reason for call in calls if call.state is CallState.ENDED) == {
        "no-consent": 1,
        "opted-out": 1,
        "no-number": 1,
    }


def test_nothing_but_the_undialable_number_needs_a_note(reading: RosterReading) -> None:
    assert [note.field for note in reading.notes] == ["telecom[0].value", "telecom"]
    assert reading.ignored == {}


def test_every_number_is_reserved_for_fiction_and_has_one_owner(reading: RosterReading) -> None:
    numbers = [patient.phone for patient in reading.patients if patient.phone]
    assert len(set(numbers)) == 44
    assert all(re.fullmatch(r"\+1[2-9]\d\d55501\d\d", number) for number in numbers)
    shown = re.findall(r'"system":"phone","value":"([^"]*)"', roster_path().read_text())
    assert len(shown) == 45
    assert all(re.fullmatch(r"(\+1 \d{3} )?555[ -]01\d\d", number) for number in shown)


def test_it_is_as_varied_as_its_readme_says(reading: RosterReading) -> None:
    patients = reading.patients
    assert Counter(patient.language for patient in patients) == {"en": 39, "es": 6}
    assert Counter(patient.time_zone.split("/")[1] for patient in patients) == {
        "New_York": 36,
        "Chicago": 4,
        "Los_Angeles": 3,
        "Denver": 2,
    }
    assert sum(bool(patient.times) for patient in patients) == 6
    assert all("morning" in slot_names(patient) for patient in patients)
    assert sum(bool(patient.critical_symptoms) for patient in patients) > 20


def slot_names(patient: Patient) -> set[str]:
    return {slot for medication in patient.medications for slot in medication.slots}


def test_the_file_is_small_and_in_the_shape_that_the_tool_writes() -> None:
    content = roster_path().read_text(encoding="utf-8")
    assert len(content) < 500_000
    bundle = json.loads(content)
    assert bundle["type"] == "transaction"
    for entry in bundle["entry"]:
        resource = entry["resource"]
        assert entry["fullUrl"] == f"urn:uuid:{resource['id']}"
        assert entry["request"] == {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}
    patients = [
        entry["resource"] for entry in bundle["entry"] if entry["request"]["url"].startswith("Patient/")
    ]
    assert len(patients) == 45
    assert [one["id"] for one in patients] == sorted(one["id"] for one in patients)
    assert {one["meta"]["security"][0]["code"] for one in patients} == {"HTEST"}
    assert not {"address", "identifier", "photo", "contact"} & {field for one in patients for field in one}


def test_the_readme_gives_the_command_of_the_tool() -> None:
    readme = (roster_path().parent / "README.md").read_text(encoding="utf-8")
    tool = Path(__file__).parents[2] / "tools" / "make_sample_roster.py"
    command = next(
        line.strip() for line in tool.read_text().splitlines() if line.strip().startswith("synthea ")
    )
    assert command in readme
    assert "-s 20261123" in command
