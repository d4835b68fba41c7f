"""`careflow demo`: a hospital's morning, as a newcomer sees it; and the commands that look at what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from careflow.cli import build


@dataclass(frozen=True)
class Demo:
    directory: Path
    result: dict[str, Any]

    def careflow(self, *words: str) -> Any:
        """The JSON answer of a command on the demo's data directory."""
        done = run(*words, "--data-dir", str(self.directory), "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from careflow.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=170,
        env={key: value for key, value in os.environ.items() if not key.startswith("CAREFLOW_")},
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    directory = tmp_path_factory.mktemp("demo") / "data"
    done = run("demo", "--json", "--data-dir", str(directory))
    assert done.returncode == 0, done.stderr
    return Demo(directory, json.loads(done.stdout))


@pytest.mark.timeout(200)
class TestMorning:
    def test_45_are_queried_42_called_and_3_skipped_for_different_reasons(self, demo: Demo) -> None:
        assert demo.result["patientsQueried"] == 45
        assert demo.result["callsInitiated"] == 42
        assert sorted(demo.result["skipped"].values()) == [1, 1, 1]

    def test_every_patient_is_accounted_for_in_one_outcome(self, demo: Demo) -> None:
        outcomes = demo.result["outcomes"]
        assert sum(outcomes.values()) == 45
        assert outcomes["skipped"] == 3
        assert outcomes["completed"] >= 30
        assert outcomes["opted-out"] == 1

    def test_the_red_flag_was_told_while_the_patient_was_on_the_line(self, demo: Demo) -> None:
        alerts = demo.careflow("alerts", "list", "--all")["alerts"]
        red = [alert for alert in alerts if alert["kind"] == "red-flag"]
        assert red
        for alert in red:
            shown = demo.careflow("calls", "show", alert["callId"])
            attempt = next(one for one in shown["attempts"] if one["id"] == alert["attemptId"])
            assert attempt["answeredAt"] < alert["raisedAt"] < attempt["endedAt"]
            assert attempt["ending"] == "escalated"

    def test_every_attempt_left_an_interaction(self, demo: Demo) -> None:
        calls = demo.careflow("calls", "list", demo.result["roundId"])["calls"]
        assert sum(call["attempts"] for call in calls) == demo.result["attempts"]
        seen = 0
        for patient in demo.careflow("roster", "list")["patients"][:5]:
            shown = demo.careflow("roster", "show", patient["id"])
            mine = [call for call in calls if call["patientId"] == patient["id"]]
            assert len(shown["interactions"]) == sum(call["attempts"] for call in mine)
            seen += len(shown["interactions"])
        assert seen

    def test_a_conversation_can_be_read_and_heard(self, demo: Demo, tmp_path: Path) -> None:
        calls = demo.careflow("calls", "list")["calls"]
        held = next(call for call in calls if call["reason"] == "complete")
        sound = tmp_path / "call.wav"
        shown = demo.careflow("calls", "show", held["id"], "--transcript", "--audio", str(sound))
        turns = shown["checkIns"][-1]["turns"]
        assert {turn["speaker"] for turn in turns} == {"agent", "patient"}
        with wave.open(BytesIO(sound.read_bytes())) as recording:
            assert recording.getnchannels() == 2
            assert recording.getnframes() > 8000 * 10

    def test_the_log_holds_the_seed_s_line_and_nobody_s_name_or_number(self, demo: Demo) -> None:
        log = (demo.directory / "log.jsonl").read_text()
        lines = [json.loads(line) for line in log.splitlines()]
        told = next(line for line in lines if line["message"] == "Scheduled rounds triggered")
        assert (told["scheduleHour"], told["patientsQueried"], told["callsInitiated"]) == (8, 45, 42)
        for patient in demo.careflow("roster", "list")["patients"]:
            for secret in (patient["familyName"], patient["phone"]):
                assert secret is None or secret not in log

    def test_the_round_is_closed_with_its_trigger_on_record(self, demo: Demo) -> None:
        shown = demo.careflow("rounds", "show", demo.result["roundId"])
        assert shown["round"]["closedAt"]
        assert [execution["source"] for execution in shown["executions"]] == ["careflow-demo"]

    def test_an_alert_is_acknowledged_once(self, demo: Demo) -> None:
        alert = demo.careflow("alerts", "list")["alerts"][0]["id"]
        first = demo.careflow("alerts", "ack", alert, "--by", "nurse-1")
        again = demo.careflow("alerts", "ack", alert, "--by", "nurse-2")
        assert (first["changed"], again["changed"]) == (True, False)


def test_the_demo_wants_a_directory_of_its_own(tmp_path: Path) -> None:
    refused = run("demo", "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    assert "exists" in refused.stderr


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "words",
    [
        ("rounds", "show", "no-such-round"),
        ("calls", "list", "no-such-round"),
        ("calls", "show", "no-such-call"),
        ("alerts", "list", "--round", "no-such-round"),
        ("alerts", "ack", "no-such-alert"),
        ("roster", "show", "no-such-patient"),
    ],
)
def test_what_is_not_there_is_named(demo: Demo, words: tuple[str, ...]) -> None:
    refused = run(*words, "--data-dir", str(demo.directory), "--json")
    assert refused.returncode == 1
    assert words[-1] in json.loads(refused.stdout)["error"]["message"]
    assert "Traceback" not in refused.stderr


def test_every_command_has_json(capsys: pytest.CaptureFixture[str]) -> None:
    app = build()
    leaves = [("demo",), ("up",), ("serve",)]
    leaves += [
        (group, command)
        for group in ("roster", "rounds", "calls", "alerts", "jobs")
        for command in app[group]
        if not command.startswith("-")
    ]
    assert len(leaves) > 18
    for words in leaves:
        app([*words, "--help"], result_action="return_value")
        assert "--json" in capsys.readouterr().out, words
