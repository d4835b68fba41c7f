"""`careflow up` as a person has it: started, asked, started twice, stopped, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from careflow.clock import VirtualClock, published_time

PATIENCE = 40.0  # real seconds, for anything
PORTS = {f"CAREFLOW_{role}_PORT": "0" for role in ("PULSE", "CALLER", "LAB", "SCHEDULER")}
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("CAREFLOW_")} | PORTS
CAREFLOW = (sys.executable, "-c", "from careflow.cli import main; main()")


class House:
    """A data directory on tomorrow's morning, and the `up` that runs on it."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.data_dir.mkdir(parents=True)
        morning = datetime.now(ZoneInfo("America/New_York")).replace(hour=8, minute=15) + timedelta(days=1)
        VirtualClock(morning.astimezone(UTC), path=self.data_dir / "clock")  # `up` goes on from there
        self.lives = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> Path:
        return self.data_dir.parent / f"up-{self.lives}.json"

    def up(self) -> dict[str, Any]:
        """Start it; what it says when it is ready."""
        self.lives += 1
        errors = self.output.with_suffix(".log")
        with self.output.open("wb") as out, errors.open("wb") as err:
            words = (*CAREFLOW, "up", "--speed", "60", "--json", "--data-dir", str(self.data_dir))
            self.process = subprocess.Popen(words, stdout=out, stderr=err, env=ENVIRONMENT)
        until(lambda: self.output.read_text().endswith("}\n") or self.process.poll() is not None)  # type: ignore[union-attr]
        assert self.process.poll() is None, errors.read_text()
        return json.loads(self.output.read_text())

    def end(self, number: signal.Signals) -> int:
        """Send the signal; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def careflow(self, *words: str) -> tuple[int, Any, str]:
        """Exit code, the one JSON document on standard output, standard error."""
        done = subprocess.run(
            [*CAREFLOW, *words, "--json", "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=ENVIRONMENT,
        )
        return done.returncode, json.loads(done.stdout), done.stderr

    def dialled(self) -> int:
        """How many calls the lab's books know."""
        books = self.data_dir / "lab" / "books.jsonl"
        return books.read_text().count('"created"') if books.exists() else 0


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    if house.process is not None and house.process.poll() is None:
        house.process.kill()
        house.process.wait()


@pytest.mark.timeout(150)
def test_up_is_asked_doubled_stopped_killed_and_goes_on(house: House) -> None:
    ready = house.up()
    assert ready["ready"] is True
    assert {"lab", "caller", "pulse"} <= ready["services"].keys()

    # Commands find Pulse on its free port by themselves.
    assert house.careflow("roster", "import", "--sample")[1]["created"] == 45
    status, planned, _ = house.careflow("rounds", "run", "--hour", "8")
    assert (status, planned["patientsQueried"], planned["callsInitiated"]) == (0, 45, 42)

    # A second one on the directory is told who is there, and disturbs nothing.
    status, refused, said = house.careflow("up", "--speed", "60")
    assert status == 1
    assert refused["error"]["code"] == "StoreInUse"
    assert f"process {house.process.pid}" in said  # type: ignore[union-attr]
    assert "stop that process" in said
    until(lambda: house.dialled() >= 3)

    # Ctrl-C: in good order and soon, and nothing is left that points nowhere.
    asked = time.monotonic()
    assert house.end(signal.SIGINT) == 0
    assert time.monotonic() - asked < 15
    assert json.loads(house.output.read_text()) == ready
    assert not list(house.data_dir.glob("*.url"))
    stopped_at, dialled = published_time(house.data_dir / "clock"), house.dialled()

    # The next start continues; so does the one after a kill.
    house.up()
    until(lambda: house.dialled() >= dialled + 3)
    assert house.end(signal.SIGKILL) == -signal.SIGKILL
    dialled = house.dialled()
    house.up()
    assert house.careflow("rounds", "run", "--hour", "8")[:2] == (0, planned)
    until(lambda: house.dialled() >= dialled + 3)
    status, shown, _ = house.careflow("rounds", "show", planned["roundId"])
    assert sum(shown["standing"].values()) == 45
    now = published_time(house.data_dir / "clock")
    assert stopped_at is not None
    assert now is not None
    assert now > stopped_at
    assert house.end(signal.SIGTERM) == 0


def test_without_up_a_command_says_to_start_it(house: House) -> None:
    house.careflow("roster", "import", "--sample")
    (house.data_dir / "pulse.url").write_text("http://127.0.0.1:9\n")  # left behind by a kill
    status, refused, said = house.careflow("rounds", "run", "--hour", "8")
    assert status == 1
    assert refused["error"]["message"] in said
    assert "http://127.0.0.1:9" in said
    assert "careflow up" in said


def test_a_service_alone_does_not_start_in_a_time_that_is_still_to_come(house: House) -> None:
    status, refused, _ = house.careflow("serve", "pulse")
    assert (status, refused["error"]["code"]) == (1, "SettingsError")
    assert "careflow up" in refused["error"]["message"]
