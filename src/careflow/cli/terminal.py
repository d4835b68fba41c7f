"""Where the log of a service goes: to standard error for programs, beside the data for a person at a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from io import TextIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from careflow.cli.output import local
from careflow.errors import StoreUnavailable

if TYPE_CHECKING:
    from careflow.ports import Clock
    from careflow.settings import Settings

LOG_FILE = "log.jsonl"
_SERIOUS = frozenset({"WARNING", "ERROR", "CRITICAL"})
_TOLD = frozenset({"Scheduled rounds triggered", "Round closed"})
_IDS = ("roundId", "callId", "attemptId", "callSid", "error", "code")


@contextmanager
def logging_beside(settings: Settings, component: str, clock: Clock) -> Iterator[None]:
    """Log to standard error. When that is a terminal: to `log.jsonl` in the data directory, and tell what a person should know.

    Raises StoreUnavailable when that file cannot be written.
    """
    from careflow.telemetry import configure_logging

    if not sys.stderr.isatty():
        configure_logging(component, level=settings.log_level, clock=clock)
        yield
        return
    with _kept(settings.data_dir) as file:
        told = Told(file, sys.stderr, settings.time_zone)
        configure_logging(component, level=settings.log_level, clock=clock, stream=cast(TextIO, told))
        yield
        configure_logging(component, level=settings.log_level, clock=clock)


def _kept(data_dir: Path) -> TextIO:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return (data_dir / LOG_FILE).open("a", encoding="utf-8")
    except OSError as error:
        raise StoreUnavailable(f"data directory {data_dir} cannot be used: {error.strerror}") from error


class Told(TextIOBase):
    """A log that is kept whole in `file`, and of which `terminal` hears rounds and trouble, a short line each."""

    def __init__(self, file: TextIO, terminal: TextIO, zone: str) -> None:
        self._file = file
        self._terminal = terminal
        self._zone = zone

    def write(self, text: str) -> int:
        """Take a line of the log, or the end of one."""
        self._file.write(text)
        if (line := self._line(text)) is not None:
            print(line, file=self._terminal, flush=True)
        return len(text)

    def flush(self) -> None:
        """Have the file hold what was written."""
        self._file.flush()

    def _line(self, text: str) -> str | None:
        if not text.startswith("{"):
            return None
        entry: dict[str, Any] = json.loads(text)
        if entry["severity"] not in _SERIOUS and entry["message"] not in _TOLD:
            return None
        if entry.get("logger") == "uvicorn.error":
            return None  # of requests that were going on when we were told to stop
        at = local(datetime.fromisoformat(entry["time"]), self._zone)[11:] if "time" in entry else ""
        what = [entry["message"], *(str(entry[key]) for key in _IDS if key in entry)]
        if "callsInitiated" in entry:
            what.append(f"{entry['patientsQueried']} queried, {entry['callsInitiated']} initiated")
        if "outcomes" in entry:
            what.append(", ".join(f"{number} {outcome}" for outcome, number in entry["outcomes"].items()))
        severity = f"{entry['severity'].lower()}: " if entry["severity"] in _SERIOUS else ""
        return f"{at}  {severity}{'; '.join(what)}"
