"""A machine for the doctor to look at: a deployment in this process, and the command line beside it, by one virtual clock."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from structlog.testing import capture_logs

from careflow.app import Assembly, assembled, bind
from careflow.cli import build
from careflow.cli.whereabouts import announced
from careflow.clock import Pace, VirtualClock
from careflow.hosting import running, url_of
from careflow.settings import load_settings
from surface import resident

MORNING_JOB = "careflow-morning-rounds"


def tomorrow_morning() -> datetime:
    """08:05 in New York, always ahead of this machine: before the job's slot, and within a round's grace."""
    day = datetime.now(UTC).date() + timedelta(days=1)
    return datetime.combine(day, time(8, 5), ZoneInfo("America/New_York")).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Told:
    """What the doctor said: its exit code, its words, and as a document."""

    status: int
    text: str
    document: dict[str, Any]

    def findings(self, level: str = "", check: str = "") -> list[dict[str, Any]]:
        return [
            {**finding, "check": one["check"]}
            for one in self.document.get("checks", [])
            for finding in one["findings"]
            if (not level or finding["level"] == level) and (not check or one["check"] == check)
        ]

    def failure(self, check: str, subject: str = "") -> dict[str, Any]:
        """The first failure of the check, about the subject if one is named."""
        failed = [one for one in self.findings("fail", check) if not subject or one["subject"] == subject]
        assert failed, f"{check} did not fail: {self.text}"
        return failed[0]

    @property
    def failed(self) -> set[str]:
        return {one["check"] for one in self.findings("fail")}


@dataclass(slots=True)
class Machine:
    """A data directory, a clock, and what runs on it."""

    data_dir: Path
    clock: VirtualClock
    assembly: Assembly | None = None
    speed: float = 1.0

    async def careflow(self, *words: str) -> tuple[int, str]:
        """A command as it would be typed, in a thread of its own; its exit code and what it printed."""
        return await asyncio.to_thread(_run, words)

    async def doctor(self, *words: str) -> Told:
        given = ("--data-dir", str(self.data_dir), *words)
        status, text = await self.careflow("doctor", *given, "--json")
        return Told(status, text, json.loads(text))

    async def jobs(self, *words: str) -> Any:
        status, text = await self.careflow("jobs", *words, "--data-dir", str(self.data_dir), "--json")
        assert status == 0, text
        return json.loads(text)

    async def carry_out(self, fix: Sequence[str]) -> None:
        """The lines that the doctor printed, those for `careflow jobs`; each must succeed."""
        commands = [line for line in fix if line.startswith("careflow jobs ")]
        assert commands, fix
        for line in commands:
            status, text = await self.careflow(*shlex.split(line)[1:])
            assert status == 0, f"{line}: {text}"

    async def ran(self, job: str = MORNING_JOB, *, fresh: bool = True) -> dict[str, Any]:
        """Run the job (unless a fix has just done so) and wait for its end; the job then."""
        before = await self.jobs("describe", job)
        if fresh:
            await self.jobs("run", job)
        async with asyncio.timeout(30):
            while True:
                attempts = (await self.jobs("history", job))["attempts"]
                after = await self.jobs("describe", job)
                newer = not fresh or after.get("lastAttemptTime") != before.get("lastAttemptTime")
                if attempts and attempts[0]["result"] != "under way" and newer:
                    return dict(after)
                await asyncio.sleep(0.02)


def _run(words: Sequence[str]) -> tuple[int, str]:
    # Not capsys: a thread's output and the services' log would mix.
    before, sys.stdout = sys.stdout, (out := StringIO())
    status = 0
    try:
        build()(list(words), result_action="return_value", exit_on_error=False, print_error=False)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout = before
    return status, out.getvalue()


@asynccontextmanager
async def machine(
    folder: Path, *, roles: Sequence[str] = ("lab", "caller", "pulse", "scheduler"), **settings: Any
) -> AsyncIterator[Machine]:
    """These services, as `careflow up` runs them, with two patients."""
    data_dir = folder / "data"
    data_dir.mkdir(parents=True, exist_ok=True)
    one = Machine(data_dir, VirtualClock(tomorrow_morning(), path=data_dir / "clock"))
    ticking = asyncio.create_task(one.clock.run(lambda: Pace(one.speed, 0.2)))
    try:
        with capture_logs():  # they would go where the commands' answers go
            async with serving(one, roles, **settings) as assembly:
                two = [resident(number, hours=frozenset({8, 12, 20})) for number in (1, 2)]
                await assembly.store.put_patients(two)
                yield one
    finally:
        ticking.cancel()


@asynccontextmanager
async def serving(one: Machine, roles: Sequence[str], **settings: Any) -> AsyncIterator[Assembly]:
    """Services of the machine, until the end of the block."""
    ports = {f"{role}_port": 0 for role in ("pulse", "caller", "lab", "scheduler", "tasks")}
    bound, sockets = bind(load_settings(data_dir=one.data_dir, **ports | settings), roles)
    async with assembled(bound, sockets, one.clock) as assembly, running(assembly.services):
        with announced(one.data_dir, {service.name: url_of(service.socket) for service in assembly.services}):
            one.assembly = assembly
            yield assembly
