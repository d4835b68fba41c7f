"""A reader of the seed at a terminal: a copy of the project to work in, a shell, and a `careflow up` of the reader's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time as real_time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx

from careflow.clock import VirtualClock
from careflow.core.patients import Patient
from careflow.core.slots import local_instant
from careflow.lab.personas import Persona, Subscriber
from careflow.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[3]
ZONE = ZoneInfo("America/New_York")
PATIENCE = 60.0  # real seconds until `make run` serves
_INHERITED = ("CAREFLOW_", "CLOUDSDK_", "TF_", "GOOGLE_", "VIRTUAL_ENV", "PYTHONPATH", "MAKE", "MFLAGS")
_PEOPLE = {"p1": Persona.WELL, "p2": Persona.NOT_ANSWERING}  # the second keeps the round open past the cut


def bare_environment() -> dict[str, str]:
    """This process's, without what belongs to the project or to anybody's cloud."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_INHERITED)}


@dataclass(frozen=True)
class Terminal:
    """A shell in a copy of the project, with an environment and nothing else that the seed does not say."""

    project: Path
    environment: Mapping[str, str] = field(default_factory=bare_environment)

    @classmethod
    def open(cls, folder: Path) -> Terminal:
        project = folder / "project"
        leave_out = shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__")
        for part in ("scheduler", "careflow-agents"):
            shutil.copytree(ROOT / part, project / part, ignore=leave_out)
        (project / ".venv").symlink_to(sys.prefix)
        return cls(project)

    def having(self, **more: str) -> Terminal:
        return Terminal(self.project, {**self.environment, **more})

    def start(self, block: str, where: str = ".") -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", block],
            cwd=self.project / where,
            env=dict(self.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, block: str, where: str = ".", typed: str = "", code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Paste the block in the directory `where`, type `typed`; it must end with `code`."""
        process = self.start(block, where)
        said, complained = process.communicate(typed, timeout=90)
        assert process.returncode == code, f"{block}\n--> {process.returncode}\n{said}{complained}"
        return subprocess.CompletedProcess(block, process.returncode, said, complained)


@dataclass(frozen=True)
class Machine:
    """A terminal beside a running `make run`."""

    terminal: Terminal

    def url(self, service: str) -> str:
        return (self.terminal.project / "careflow-data" / f"{service}.url").read_text().strip()


@contextmanager
def machine(folder: Path, hour: int, make_run: str) -> Iterator[Machine]:
    """`make_run` pasted at twenty past `hour` in New York tomorrow, two patients on the roster; ports are free ones.

    It is production, in the seed's project; time runs up to fifty times as fast.
    """
    terminal = Terminal.open(folder)
    data = terminal.project / "careflow-data"
    data.mkdir()
    asyncio.run(_people(data, hour))
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).astimezone(ZONE).date()
    VirtualClock(local_instant(tomorrow, time(hour, 20), ZONE), path=data / "clock")
    ports = {f"CAREFLOW_{name}_PORT": "0" for name in ("PULSE", "CALLER", "LAB", "SCHEDULER", "CONSOLE")}
    served = terminal.having(
        **ports,
        UP="--speed 50",
        CAREFLOW_PROJECT="careflow-478811",
        CAREFLOW_SCHEDULER_ACCOUNT="careflow-scheduler@careflow-478811.iam.gserviceaccount.com",
        CAREFLOW_ENVIRONMENT="prod",
        CAREFLOW_RETRY_SPACING="700",
        CAREFLOW_MAX_ATTEMPTS="2",
    )
    log = folder / "make-run.log"
    running = served.start(f"exec >{log} 2>&1\n{make_run}")
    it = Machine(served)
    try:
        limit = real_time.monotonic() + PATIENCE
        while not (data / "scheduler.url").exists():
            assert running.poll() is None, log.read_text()
            assert real_time.monotonic() < limit, log.read_text()
            real_time.sleep(0.05)
        people = [
            Subscriber(phone=_phone(patient), persona=persona, given_name="Quintessa", birth_year=1950)
            for patient, persona in _PEOPLE.items()
        ]
        put = httpx.put(
            it.url("lab") + "/lab/subscribers", json=[one.to_json() for one in people], trust_env=False
        )
        assert put.status_code == 200, put.text
        yield it
    finally:
        os.killpg(running.pid, signal.SIGKILL)  # the session that `start` made
        running.communicate()


def _phone(patient: str) -> str:
    return f"+1212555011{list(_PEOPLE).index(patient)}"


async def _people(data: Path, hour: int) -> None:
    store = await SqliteStore.open(data)
    try:
        await store.put_patients(
            [
                Patient(
                    id=patient,
                    hospital_id="default",
                    given_name="Quintessa",
                    family_name="Exampleton",
                    phone=_phone(patient),
                    time_zone=str(ZONE),
                    consent=True,
                    hours=frozenset({hour}),
                )
                for patient in _PEOPLE
            ]
        )
    finally:
        await store.close()
