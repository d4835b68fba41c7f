"""The lab's people come from the roster, whenever the store can be asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from careflow import peopling
from careflow.clock import VirtualClock
from careflow.errors import StoreUnavailable
from careflow.peopling import ROSTER_POLL_SECONDS, keep_lab_peopled
from firestore_day import PHONE, patient


class Roster:
    """A store with one patient, that cannot be asked the first so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0

    async def hospitals(self) -> list[str]:
        self.asked += 1
        if self.asked <= self.failures:
            raise StoreUnavailable("away")
        return ["h1"]

    async def roster_revision(self, hospital_id: str) -> int:
        return 1

    async def patients(self, hospital_id: str, *, after: str = "") -> list[Any]:
        return [] if after else [patient()]


class Exchange:
    def __init__(self) -> None:
        self.subscribers: dict[str, Any] = {}

    def set_subscribers(self, subscribers: list[Any]) -> None:
        self.subscribers = {one.phone: one for one in subscribers}


async def test_a_store_that_is_away_for_a_while_does_not_end_the_lab(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peopling, "REAL_POLL_SECONDS", 0.0)
    clock, store, exchange = VirtualClock(datetime(2026, 11, 24, tzinfo=UTC)), Roster(2), Exchange()
    lab: Any = SimpleNamespace(exchange=exchange)
    keeping = asyncio.create_task(keep_lab_peopled(store, lab, clock, seed=1))  # type: ignore[arg-type]
    for _ in range(4):
        for _ in range(5):
            await asyncio.sleep(0)
        clock.advance(ROSTER_POLL_SECONDS)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not keeping.done()
    assert store.asked >= 3
    assert list(exchange.subscribers) == [PHONE]
    keeping.cancel()
