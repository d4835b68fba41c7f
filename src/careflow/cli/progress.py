"""What long work says while it goes on: on standard error, so that standard output stays a document."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status

from careflow.cli.output import local

if TYPE_CHECKING:
    from careflow.core.rounds import Round
    from careflow.ports import Store

SPACED_SECONDS = (
    2.0  # real ones, between two lines about the present where there is no terminal to show it in place
)
POLL_SECONDS = 0.25
ORDER = ("calling", "waiting", "completed", "declined", "opted-out", "unreachable", "cancelled", "skipped")


class Progress:
    """Lines for what happened, and the present standing: in place on a terminal, elsewhere a line every two seconds at most."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
        self._clock = clock
        self._status: Status | None = None
        self._said = ""
        self._said_at = float("-inf")

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def happened(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, soft_wrap=True)

    def stands(self, text: str) -> None:
        """How far it is now."""
        if self._status is not None:
            self._status.update(text)
        elif text != self._said and self._clock() - self._said_at >= SPACED_SECONDS:
            self._said, self._said_at = text, self._clock()
            self.happened(text)


async def followed(
    store: Store,
    hospital_id: str,
    round_id: str,
    now: Callable[[], datetime],
    progress: Progress,
    stop: asyncio.Event,
) -> Round | None:
    """The round when it is closed, its standing and its alerts told until then; None when `stop` is set before."""
    seen: set[str] = set()
    while not stop.is_set():
        round_ = await store.round(hospital_id, round_id)
        if round_ is None:
            return None
        zone = round_.time_zone
        for alert in await store.alerts(hospital_id, round_id=round_id):
            if alert.id not in seen:
                seen.add(alert.id)
                progress.happened(
                    f"  {_of_day(alert.raised_at, zone)}  ALERT {alert.kind}: {alert.code} (call {alert.call_id})"
                )
        progress.stands(f"  {_of_day(now(), zone)}  {await _standing(store, hospital_id, round_id)}")
        if round_.closed_at is not None:
            return round_
        await asyncio.sleep(POLL_SECONDS)
    return None


async def _standing(store: Store, hospital_id: str, round_id: str) -> str:
    standing = Counter[str]()
    for (state, outcome, _), number in (await store.count_calls(hospital_id, round_id)).items():
        standing[outcome or state] += number
    return ", ".join(f"{standing[word]} {word}" for word in ORDER if standing[word]) or "nobody is due"


def _of_day(moment: datetime, zone: str) -> str:
    return local(moment, zone)[11:]
