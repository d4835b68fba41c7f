"""Synthetic patients, as many as wanted, all due in one morning round; and the moment at which it is triggered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time
from itertools import islice

from careflow.core.patients import Medication, Patient
from careflow.ports import Store

HOSPITAL = "default"
HOUR = 8
EIGHT_FIFTEEN = datetime(2026, 10, 16, 12, 15, tzinfo=UTC)  # 08:15 in New York
ZONES = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles")
PAGE = 5000


def patients(count: int) -> Iterator[Patient]:
    """Patients who may be phoned. Every tenth has a time of their own; the zones take turns.

    There are 80,000 fictitious numbers (+1 NPA 555 01xx); beyond that, patients share them.
    """
    for number in range(count):
        yield Patient(
            id=f"patient-{number:08d}",
            hospital_id=HOSPITAL,
            given_name="Pat",
            family_name=f"Example {number}",
            phone=f"+1{200 + number // 100 % 800}55501{number % 100:02d}",
            time_zone=ZONES[number % len(ZONES)],
            consent=True,
            hours=frozenset({HOUR, 20}),
            times=(time(9, 30),) if number % 10 == 0 else (),
            medications=(Medication(name="metformin", dose="500 mg", slots=frozenset({"morning"})),),
            conditions=("type 2 diabetes",),
            critical_symptoms=("chest-pain", "short-of-breath"),
        )


async def fill(store: Store, count: int) -> None:
    """Put `count` patients into the store, page by page."""
    rest = patients(count)
    while page := list(islice(rest, PAGE)):
        await store.put_patients(page)
