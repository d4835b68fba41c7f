"""Durable call lifecycles, ours: `python -m bench.lifecycle_ours DIRECTORY COUNT IN_FLIGHT [EMULATOR]` prints its seconds.

In SQLite; with EMULATOR (host:port) in Firestore there.

Each goes through `CallHandler.handle`, as a delivered call task does, with everything that reads and writes on the way. Only the
Caller is put in place of the real one: it stores the intent to dial and, at once, the end. Five commits each:

1. the claim, under a lease; 2. the attempt that is about to be ordered; 3. the intent to dial, with the checks of invariants 1
and 4; 4. the attempt's end with its interaction; 5. the call's outcome.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

from bench.roster import EIGHT_FIFTEEN, HOSPITAL, HOUR, patients
from careflow.clock import VirtualClock
from careflow.core import attempts
from careflow.core.attempts import Attempt, Disposition, Ending
from careflow.core.checkins import Interaction
from careflow.core.patients import Patient, SkipReason, bar
from careflow.core.retry import RetryPolicy
from careflow.core.rounds import Trigger
from careflow.core.slots import within_calling_hours
from careflow.ports import AttemptOrder, AttemptView, Began, Clock, Store
from careflow.pulse.calling import CallHandler, Handled
from careflow.pulse.planning import Planner
from careflow.settings import Settings
from careflow.store.sqlite import SqliteStore
from careflow.tasks.embedded import EmbeddedQueue
from careflow.tasks.pacing import Answer
from careflow.telemetry import configure_logging

WARM_UP = 20


class NoOpCaller:
    """`ports.CallerAgent` without a telephone: every attempt is answered and complete in the moment in which it begins."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def follow(self, order: AttemptOrder) -> AsyncIterator[AttemptView]:
        now = self._clock.now()
        patient = await self._store.patient(order.hospital_id, order.patient_id)
        assert patient is not None
        assert patient.phone is not None
        intent = Attempt(
            id=order.attempt_id,
            hospital_id=order.hospital_id,
            round_id=order.round_id,
            call_id=order.call_id,
            patient_id=order.patient_id,
            number=order.number,
            phone=patient.phone,
            script=order.script,
            stream_token=uuid.uuid4().hex,
            intended_at=now,
            not_after=order.not_after,
        )
        began = await self._store.begin_attempt(intent, self._guard)
        assert began.result is Began.BEGUN, began
        over = attempts.end(intent, now, Disposition.ANSWERED, ending=Ending.COMPLETE)
        await self._store.end_attempt(over, interaction=_interaction(over))
        yield AttemptView(attempt_id=over.id, state=over.state.value, ended=True)

    async def cancel(self, attempt_id: str) -> bool:
        return False

    def _guard(self, patient: Patient, barred: bool) -> str | None:
        now = self._clock.now()
        reason = bar(patient, do_not_call=barred, now=now)
        if reason is None and not within_calling_hours(patient, now):
            reason = SkipReason.OUTSIDE_HOURS
        return reason and reason.value


def _interaction(over: Attempt) -> Interaction:
    assert over.ended_at is not None
    return Interaction(
        id=over.id,
        hospital_id=over.hospital_id,
        round_id=over.round_id,
        call_id=over.call_id,
        patient_id=over.patient_id,
        started_at=over.intended_at,
        ended_at=over.ended_at,
        disposition=Disposition.ANSWERED.value,
        ending=Ending.COMPLETE.value,
    )


async def run(data_dir: Path, count: int, in_flight: int, emulator: str = "") -> float:
    """Seconds from the first claim to the last outcome."""
    tasks = await SqliteStore.open(data_dir)
    store: Store = tasks
    if emulator:
        from careflow.store.firestore import FirestoreStore

        store = await FirestoreStore.open(project=f"bench-{uuid.uuid4().hex[:12]}", emulator=emulator)
    try:
        clock = VirtualClock(EIGHT_FIFTEEN)
        queue = EmbeddedQueue(
            tasks.database, clock, _undelivered, calls_per_second=1, calls_in_flight=1, random=lambda: 0.5
        )
        await store.put_patients(list(patients(count + WARM_UP)))
        planner = Planner(store, queue, clock, hospitals=Settings().served, batch=1000)
        round_ = await planner.run(
            Trigger(
                schedule_hour=HOUR,
                time_zone="America/New_York",
                trigger_type="scheduled",
                source="bench",
                environment="bench",
                hospital_id=HOSPITAL,
            )
        )
        clock.advance(timedelta(hours=3, minutes=30).total_seconds())  # everybody is due, in every zone
        calls = await store.calls(HOSPITAL, round_.id, limit=count + WARM_UP)
        handler = CallHandler(
            store,
            queue,
            NoOpCaller(store, clock),
            clock,
            ids=lambda: uuid.uuid4().hex,
            policy=RetryPolicy(),
            lease=timedelta(seconds=60),
        )

        async def carry(ids: Iterator[str]) -> None:
            for call_id in ids:
                handled = await handler.handle(HOSPITAL, call_id)
                assert handled is Handled.ENDED, handled

        await carry(call.id for call in calls[:WARM_UP])
        rest = (call.id for call in calls[WARM_UP:])
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(carry(rest))
        seconds = time.perf_counter() - began
        counts = await store.count_calls(HOSPITAL, round_.id)
        assert counts == {("ended", "completed", "complete"): count + WARM_UP}, counts
        return seconds
    finally:
        await store.close()
        if store is not tasks:
            await tasks.close()


async def _undelivered(_task: object, _number: int) -> Answer:
    raise AssertionError("the dispatcher is not running")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with (folder / "log").open("w") as log:
        configure_logging("bench", stream=log)  # our log lines are part of what a lifecycle costs
        print(asyncio.run(run(folder, int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])))
