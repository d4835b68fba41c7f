"""Planning a round: streamed in batches, each step safe to repeat, so a crash anywhere is finished by the next delivery."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import datetime

import structlog

from careflow.core.calls import Call, CallState, Outcome
from careflow.core.hospitals import Hospitals
from careflow.core.rounds import Round, Trigger, plan, round_for, unplanned
from careflow.ports import Candidate, Clock, Store, TaskQueue
from careflow.pulse.outbox import call_task, close_task, ensure_call_tasks


class Planner:
    """Opens rounds and fills them. Two planners of one round may run at once: the ledger ends up the same."""

    def __init__(
        self, store: Store, queue: TaskQueue, clock: Clock, *, hospitals: Hospitals, batch: int
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._hospitals = hospitals
        self._batch = batch
        self._log = structlog.get_logger("careflow.pulse")

    async def run(self, trigger: Trigger) -> Round:
        """The trigger's round, planned. Raises StoreUnavailable; then nothing is lost and the trigger can come again."""
        hours = self._hospitals[trigger.hospital_id].round_hours
        wanted = round_for(trigger, self._clock.now(), hours)
        return await self.plan(await self._store.open_round(wanted))

    async def plan(self, round_: Round) -> Round:
        """The round with a call for every patient due, as stored.

        A planned round is left alone, unless the roster has changed and the window is not over: then patients who
        came to be due are added. A closed round is never changed.

        1. The close task is made first: even a round whose planning is never finished is settled in the end.
        2. Calls are created batch by batch, tasks after their calls: a task never lacks its call.
        3. If any call was there before, some tasks may never have been made, and every open call's task is ensured.
        4. The counts are taken from the ledger and stored as the answer to this and every later delivery.
        """
        if round_.closed_at is not None:
            return round_
        revision = await self._store.roster_revision(round_.hospital_id)
        now = self._clock.now()
        if round_.planned_at is not None and (
            round_.planned_revision == revision or now >= round_.window_end
        ):
            return round_
        await self._queue.enqueue([close_task(round_, now)])
        if not await self._create_calls(round_):
            await ensure_call_tasks(self._store, self._queue, round_, self._batch)
        return await self._record(round_, revision)

    async def _create_calls(self, round_: Round) -> bool:
        """Create what is missing; whether every call of the round was new."""
        all_new, after = True, ""
        while page := await self._store.candidates(
            round_.hospital_id, round_.schedule_hour, after=after, limit=self._batch
        ):
            now = self._clock.now()  # anew for each batch: a window that ends meanwhile must be seen
            planned = (self._planned(round_, one, now) for one in page)
            calls = [call for call in planned if call is not None]
            if calls and await self._store.create_calls(calls) < len(calls):
                all_new = False  # what is stored may be due at another moment than what was planned just now
            else:
                await self._queue.enqueue(
                    [call_task(call) for call in calls if call.state is CallState.WAITING]
                )
            after = page[-1].patient.id
            await asyncio.sleep(0)
        return all_new

    def _planned(self, round_: Round, candidate: Candidate, now: datetime) -> Call | None:
        """The candidate's call. One record that is not usable must not keep a whole hospital's round from happening."""
        patient = candidate.patient
        try:
            return plan(round_, patient, now, do_not_call=candidate.do_not_call)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this one record
            self._log.error(
                "Patient cannot be planned",
                hospitalId=round_.hospital_id,
                roundId=round_.id,
                patientId=patient.id,
                exc_info=error,
            )
            return unplanned(round_, patient.id, now)

    async def _record(self, round_: Round, revision: int) -> Round:
        while True:
            total, skipped = await self._count(round_)
            planned = replace(round_, planned_at=self._clock.now(), planned_revision=revision)
            if round_.planned_at is None or total != round_.patients_queried:
                planned = replace(
                    planned,
                    patients_queried=total,
                    calls_initiated=total - skipped.total(),
                    skipped=tuple(sorted(skipped.items())),
                )
            written = await self._store.update_round(planned)
            stored = await self._store.round(round_.hospital_id, round_.id)
            if stored is None:
                raise LookupError(f"round {round_.id} is gone")
            # Another planner, or the close, was first: what it wrote is the answer, if it knew the roster as we do.
            if written or stored.closed_at is not None or stored.planned_revision >= revision:
                return stored
            round_ = stored

    async def _count(self, round_: Round) -> tuple[int, Counter[str]]:
        counts = await self._store.count_calls(round_.hospital_id, round_.id)
        skipped: Counter[str] = Counter()
        for (_state, outcome, reason), count in counts.items():
            if outcome == Outcome.SKIPPED:
                skipped[reason] += count
        return sum(counts.values()), skipped
