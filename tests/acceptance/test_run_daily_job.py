"""`scheduler/run_daily_job.py` against a real `careflow up`: it passes when the round goes on after the cut, and only then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import pytest

from careflow.auth.issuer import LocalIssuer
from careflow.clock import VirtualClock
from careflow.core.patients import Patient
from careflow.core.slots import local_instant
from careflow.lab.personas import Persona, Subscriber
from careflow.settings import Settings
from careflow.store.sqlite import SqliteStore

SCRIPT = Path(__file__).parents[2] / "scheduler" / "run_daily_job.py"
CAREFLOW = Path(sys.executable).with_name("careflow")
ZONE = "America/New_York"
PEOPLE = 4
SPEED = "15"  # a conversation takes some four seconds
PORTS = ("PULSE", "CALLER", "LAB", "SCHEDULER", "CONSOLE")

pytestmark = pytest.mark.timeout(100)


def environment() -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("CAREFLOW_")}
    return mine | {f"CAREFLOW_{name}_PORT": "0" for name in PORTS}


@dataclass(frozen=True)
class Running:
    url: str
    data_dir: Path
    process: subprocess.Popen[str]

    def script(self, *words: str) -> subprocess.CompletedProcess[str]:
        return script("--url", self.url, "--data-dir", str(self.data_dir), *words)


def script(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=60, env=environment()
    )


async def _people(data_dir: Path) -> None:
    store = await SqliteStore.open(data_dir)
    try:
        await store.put_patients(
            [
                Patient(
                    id=f"p{number}",
                    hospital_id="default",
                    given_name="Quintessa",
                    family_name="Exampleton",
                    phone=f"+1212555010{number}",
                    time_zone=ZONE,
                    consent=True,
                    hours=frozenset({8}),
                )
                for number in range(PEOPLE)
            ]
        )
    finally:
        await store.close()


@contextmanager
def up(data_dir: Path) -> Iterator[Running]:
    """Everything on free ports, at twenty past eight in New York tomorrow, and people at home who are well."""
    import asyncio

    data_dir.mkdir()
    asyncio.run(_people(data_dir))
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).astimezone(ZoneInfo(ZONE)).date()
    VirtualClock(local_instant(tomorrow, time(8, 20), ZoneInfo(ZONE)), path=data_dir / "clock")
    log = (data_dir.parent / "up.log").open("w")
    process = subprocess.Popen(
        [CAREFLOW, "up", "--speed", SPEED, "--data-dir", data_dir, "--json"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line == "}\n":
                break
        services = json.loads(said)["services"]
        well = [
            Subscriber(
                phone=f"+1212555010{number}", persona=Persona.WELL, given_name="Quintessa", birth_year=1950
            )
            for number in range(PEOPLE)
        ]
        put = httpx.put(
            services["lab"] + "/lab/subscribers", json=[one.to_json() for one in well], trust_env=False
        )
        assert put.status_code == 200, put.text
        yield Running(services["pulse"], data_dir, process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        log.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with up(tmp_path_factory.mktemp("up") / "data") as it:
        yield it


def test_the_round_goes_on_after_the_cut_and_then_there_is_nothing_left_to_show(running: Running) -> None:
    done = running.script("--hour", "8", "--after", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"connection cut after 1 s with {PEOPLE} calls open" in done.stdout
    assert f"0 of {PEOPLE} calls open ({PEOPLE} completed)" in done.stdout.splitlines()[-1]
    again = running.script("--hour", "8", "--after", "1")
    assert again.returncode == 1
    assert "no call was open when the connection was to be cut" in again.stderr


def test_a_token_of_somebody_else_is_refused_and_said(running: Running) -> None:
    issuer = LocalIssuer(running.data_dir / "issuer")
    settings = Settings(data_dir=running.data_dir)
    stranger = issuer.mint(settings.queue_account, running.url, datetime.now(UTC) + timedelta(days=1))
    done = script("--url", running.url, "--token", stranger, "--hour", "8")
    assert done.returncode == 1
    assert done.stderr.startswith("failed: Pulse refused with 40")


def test_a_pulse_that_dies_with_its_client_is_found_out(tmp_path: Path) -> None:
    with up(tmp_path / "data") as it:
        words = [sys.executable, SCRIPT, "--url", it.url, "--data-dir", it.data_dir, "--hour", "8"]
        following = subprocess.Popen(
            [*map(str, words), "--after", "0.3", "--patience", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert following.stdout is not None
        for line in following.stdout:
            if "connection cut" in line:
                it.process.kill()
                break
        _, said = following.communicate(timeout=30)
    assert following.returncode == 1
    assert f"the round stands still for 2 s after the cut: {PEOPLE} of {PEOPLE} calls open" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--url", "http://127.0.0.1:9", "--token", "t"), "is `careflow up` running?"),
        (("--url", "https://careflow-agent.test"), "--token"),
        (("--data-dir", "no/such/directory"), "--data-dir"),
    ],
)
def test_errors_say_what_to_do(words: tuple[str, ...], says: str) -> None:
    done = script("--hour", "8", *words)
    assert done.returncode == 1
    assert done.stderr.startswith("failed: ")
    assert says in done.stderr


@pytest.mark.parametrize("words", [("--hour", "9"), ("--hour", "8", "--after", "0"), ()])
def test_what_cannot_be_meant_is_refused_with_what_can(words: tuple[str, ...]) -> None:
    done = script(*words)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_the_seed_s_command_works_with_any_python(tmp_path: Path) -> None:
    """`python3 run_daily_job.py` finds the project's packages by itself when the project is installed beside it."""
    home = tmp_path / "project"
    (home / "scheduler").mkdir(parents=True)
    (home / "scheduler" / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
    (home / ".venv").symlink_to(sys.prefix)
    bare = [sys.executable, "-S", SCRIPT.name, "--hour", "8", "--url", "https://careflow-agent.test"]
    done = subprocess.run(
        bare, capture_output=True, text=True, timeout=30, cwd=home / "scheduler", env=environment()
    )
    assert "failed: https://careflow-agent.test is not on this machine" in done.stderr
    (home / ".venv").unlink()
    lone = subprocess.run(
        bare, capture_output=True, text=True, timeout=30, cwd=home / "scheduler", env=environment()
    )
    assert lone.returncode == 1
    assert "is not installed here: `make up`" in lone.stderr
