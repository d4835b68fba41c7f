"""Two hospitals on one deployment, from their own scheduler jobs to their patients' ears and their nurses' lists."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from careflow.app import assembled, bind
from careflow.cli import build
from careflow.cli.context import NotFound
from careflow.clock import Pace, VirtualClock
from careflow.core.patients import Patient
from careflow.core.rounds import Execution, Round
from careflow.hosting import running
from careflow.lab.personas import Persona, Subscriber
from careflow.ports import Store
from careflow.settings import load_settings

EIGHT_IN_NEW_YORK = datetime(2026, 11, 23, 13, 14, 50, tzinfo=UTC)  # ten seconds before the first job
NAMES = {"general": "General Hospital", "lakeside": "Lakeside Clinic"}
NUMBERS = {"general": "+12125550102", "lakeside": "+13125550102"}
ZONES = {"general": "America/New_York", "lakeside": "America/Chicago"}
SHARED_NUMBER = "+12125550142"  # p2 is a patient of both
ROUNDS = {"general": "local-general-20261123-08", "lakeside": "local-lakeside-20261123-08"}

PROFILES = {
    "hospitals": [
        {
            "id": one,
            "name": NAMES[one],
            "phone": NUMBERS[one],
            "fromNumber": NUMBERS[one],
            "timeZone": ZONES[one],
        }
        for one in NAMES
    ]
}


def roster() -> list[Patient]:
    """The same ids in both: p1 is two people, p2 has one telephone in both rosters."""
    return [
        Patient(
            id=patient_id,
            hospital_id=hospital_id,
            given_name="Rosa",
            family_name="Example",
            birth_date=datetime(1950, 3, 14, tzinfo=UTC).date(),
            phone=phone or f"{NUMBERS[hospital_id][:5]}5550141",
            time_zone=ZONES[hospital_id],
            consent=True,
            hours=frozenset({8}),
        )
        for hospital_id in NAMES
        for patient_id, phone in (("p1", ""), ("p2", SHARED_NUMBER))
    ]


@dataclass
class Morning:
    """What two hospitals' morning left behind."""

    directory: Path
    profiles: Path
    rounds_after_first: Sequence[Round]  # of the second hospital, when the first's round was over
    books: Sequence[Mapping[str, Any]]
    executions: Mapping[str, Sequence[Execution]]


async def live_through(folder: Path) -> Morning:
    profiles = folder / "hospitals.json"
    profiles.write_text(json.dumps(PROFILES))
    ports = {f"{role}_port": 0 for role in ("pulse", "caller", "lab", "scheduler")}
    settings = load_settings(data_dir=folder / "data", hospitals=profiles, twilio_account_sid="", **ports)
    clock = VirtualClock(EIGHT_IN_NEW_YORK)
    leaping = asyncio.Event()

    def pace() -> Pace:
        return Pace(speed=1e6, step=10.0) if leaping.is_set() else Pace(speed=60.0, step=0.12)

    settings, sockets = bind(settings, ("lab", "caller", "pulse", "scheduler"))
    async with AsyncExitStack() as stack:
        assembly = await stack.enter_async_context(assembled(settings, sockets, clock))
        store, lab = assembly.store, assembly.lab
        assert lab is not None
        await store.put_patients(roster())
        lab.exchange.set_subscribers(
            [
                Subscriber(
                    phone=one.phone or "",
                    persona=Persona.RED_FLAG if one.phone == SHARED_NUMBER else Persona.WELL,
                    given_name="Rosa",
                    birth_year=1950,
                )
                for one in roster()
            ]
        )
        ticking = asyncio.create_task(clock.run(pace))
        stack.callback(ticking.cancel)
        await stack.enter_async_context(running(assembly.services))
        await over(store, "general")
        after_first = await store.rounds("lakeside")
        leaping.set()
        while clock.now() < EIGHT_IN_NEW_YORK + timedelta(hours=1):  # a quarter past eight in Chicago
            await asyncio.sleep(0.002)
        leaping.clear()
        await over(store, "lakeside")
        return Morning(
            directory=settings.data_dir,
            profiles=profiles,
            rounds_after_first=after_first,
            books=[call.to_json() for call in lab.exchange.network.books.calls.values()],
            executions={one: await store.executions(one) for one in NAMES},
        )


async def over(store: Store, hospital_id: str) -> None:
    """Return when every patient of the hospital's morning has an outcome."""
    async with asyncio.timeout(60):
        while True:
            counts = await store.count_calls(hospital_id, ROUNDS[hospital_id])
            if sum(counts.values()) == 2 and all(outcome for _, outcome, _ in counts):
                return
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Morning:
    return asyncio.run(live_through(tmp_path_factory.mktemp("hospitals")))


class Commands:
    """`careflow` on the morning's data, as its JSON."""

    def __init__(self, morning: Morning, capsys: pytest.CaptureFixture[str]) -> None:
        self._directory = str(morning.directory)
        self._capsys = capsys

    def __call__(self, *words: str) -> Any:
        build()([*words, "--data-dir", self._directory, "--json"], result_action="return_value")
        return json.loads(self._capsys.readouterr().out)


@pytest.fixture
def careflow(
    morning: Morning, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Commands:
    monkeypatch.setenv("CAREFLOW_HOSPITALS", str(morning.profiles))
    return Commands(morning, capsys)


def of(hospital_id: str, books: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [call for call in books if call["from"] == NUMBERS[hospital_id]]


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("hospital_id", "other"), [("general", "lakeside"), ("lakeside", "general")])
class TestEachHospital:
    def test_its_own_job_triggered_its_round_and_no_other(
        self, morning: Morning, hospital_id: str, other: str
    ) -> None:
        (execution,) = morning.executions[hospital_id]
        assert execution.job_name == f"careflow-morning-rounds-{hospital_id}"
        assert execution.round_id == ROUNDS[hospital_id]
        assert (execution.patients_queried, execution.calls_initiated) == (2, 2)
        fired = EIGHT_IN_NEW_YORK + timedelta(seconds=10, hours=0 if hospital_id == "general" else 1)
        assert timedelta(0) <= execution.received_at - fired < timedelta(minutes=2)
        assert morning.rounds_after_first == []

    def test_its_patients_heard_its_name_from_its_number(
        self, morning: Morning, hospital_id: str, other: str
    ) -> None:
        mine = of(hospital_id, morning.books)
        assert len(mine) == 2
        assert len(of(hospital_id, morning.books)) + len(of(other, morning.books)) == len(morning.books)
        for call in mine:
            heard = " ".join(turn["text"] for turn in call["transcript"] if turn["who"] == "agent").lower()
            assert NAMES[hospital_id].lower() in heard
            assert NAMES[other].lower() not in heard

    def test_its_nurses_see_its_rounds_calls_and_alerts_only(
        self, careflow: Commands, hospital_id: str, other: str
    ) -> None:
        here = ("--hospital", hospital_id)
        assert [one["id"] for one in careflow("rounds", "list", *here)["rounds"]] == [ROUNDS[hospital_id]]
        calls = careflow("calls", "list", *here)["calls"]
        assert [(call["hospitalId"], call["outcome"]) for call in calls] == [(hospital_id, "completed")] * 2
        (alert,) = careflow("alerts", "list", *here)["alerts"]
        assert (alert["hospitalId"], alert["patientId"], alert["kind"]) == (hospital_id, "p2", "red-flag")
        assert alert["callId"] in {call["id"] for call in calls}

    def test_a_patients_contacts_are_those_of_this_hospital(
        self, careflow: Commands, hospital_id: str, other: str
    ) -> None:
        shown = careflow("roster", "show", "p2", "--hospital", hospital_id)
        assert shown["patient"]["hospitalId"] == hospital_id
        assert [one["roundId"] for one in shown["interactions"]] == [ROUNDS[hospital_id]]

    def test_another_hospitals_ids_lead_nowhere(
        self, careflow: Commands, hospital_id: str, other: str
    ) -> None:
        (alert,) = careflow("alerts", "list", "--hospital", other)["alerts"]
        for words in (
            ("rounds", "show", ROUNDS[other]),
            ("calls", "list", ROUNDS[other]),
            ("calls", "show", alert["callId"]),
            ("alerts", "list", "--round", ROUNDS[other]),
            ("alerts", "ack", alert["id"]),
        ):
            with pytest.raises(NotFound):
                careflow(*words, "--hospital", hospital_id)
        (still,) = careflow("alerts", "list", "--hospital", other)["alerts"]
        assert still["acknowledgedAt"] is None
