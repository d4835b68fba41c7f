"""At start, and again and again: what the ledger says is open gets its tasks, whatever the queue remembers or gave up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from careflow.core.calls import Call
from careflow.core.rounds import Round
from careflow.errors import StoreError
from careflow.ports import Clock, Store, TaskQueue
from careflow.pulse.outbox import close_task, ensure_call_tasks, ensure_left_tasks
from careflow.pulse.overdue import Overdue
from careflow.pulse.planning import Planner

EVERY = timedelta(minutes=5)
"""How long a call may go without a task after the queue gave its task up, e.g. in an outage that its retries did not outlast."""


class Recovery:
    """Rebuilds tasks from the store. Adding a task that is there adds nothing, so it may run at any time.

    In a large round most of the calls that nobody has taken wait for their turn, as their tasks do. To look at all of them every
    time would cost more than to make them. So one sweep looks at `most` of a round, as many as the queue may begin before
    the next, which goes on where this one ended: each has its turn, and the queue never runs dry.
    """

    def __init__(
        self,
        store: Store,
        queue: TaskQueue,
        clock: Clock,
        planner: Planner,
        overdue: Overdue,
        *,
        batch: int,
        most: int,
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._planner = planner
        self._overdue = overdue
        self._batch = batch
        self._most = most
        self._looked: dict[str, Call] = {}  # by round, the last call of a sweep that did not come to the end
        self._log = structlog.get_logger("careflow.pulse")

    async def recover(self, *, overdue_only: bool = False) -> Sequence[Round]:
        """For every round that is not closed: finish its planning, then ensure its close task and its open calls' tasks.

        With `overdue_only` only those of calls that nobody has taken for `EVERY`, of each round `most` at a time. Rounds whose
        window is over only get their close task; closing settles their calls. The rounds. Raises StoreUnavailable.
        """
        rounds = await self._store.unclosed_rounds()
        now = self._clock.now()
        if rounds:
            await self._queue.enqueue([close_task(round_, now) for round_ in rounds])
        for round_ in rounds:
            if round_.window_end <= now:
                continue
            if round_.planned_at is None:
                await self._planner.plan(round_)
                added = 0
            elif overdue_only:
                added = await self._ensure_left(round_, now - EVERY)
            else:
                added = await ensure_call_tasks(self._store, self._queue, round_, self._batch)
            if added:
                self._log.info(
                    "Tasks recovered", hospitalId=round_.hospital_id, roundId=round_.id, count=added
                )
        return rounds

    async def _ensure_left(self, round_: Round, since: datetime) -> int:
        added, last = await ensure_left_tasks(
            self._store,
            self._queue,
            round_,
            self._batch,
            since=since,
            after=self._looked.pop(round_.id, None),
            most=self._most,
        )
        if last is not None:
            self._looked[round_.id] = last
        return added

    async def sweep(self, *, overdue_only: bool = True) -> int:
        """`recover`, then say what is overdue; how many lines that took. Safe to repeat, and to run twice at once.

        Its last line is the sign of life that infra/monitoring waits for.
        """
        began = self._clock.now()
        rounds = await self.recover(overdue_only=overdue_only)
        count = await self._overdue.report(rounds)
        seconds = round((self._clock.now() - began).total_seconds(), 3)
        self._log.info("Sweep done", count=count, seconds=seconds)
        return count

    async def run(self, *, pause_seconds: float = 5.0) -> None:
        """`sweep` wholly now, then every `EVERY` what is overdue, until cancelled; after a pause when the store is down."""
        started = False
        while True:
            pause = EVERY.total_seconds()
            try:
                await self.sweep(overdue_only=started)
                started = True
            except StoreError as error:
                self._log.warning("Recovery waits for the store", exc_info=error)
                pause = pause_seconds
            except Exception as error:  # noqa: BLE001 - what fails for one round now may succeed at the next pass
                self._log.error("Recovery failed", exc_info=error)
            await self._clock.sleep(pause)
