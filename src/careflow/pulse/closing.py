"""Closing a round: after its window's end every call gets its outcome and the summary is written, whoever died before."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, Outcome
from careflow.core.checkins import AlertKind
from careflow.core.next_step import window_over
from careflow.core.patients import SkipReason
from careflow.core.retry import Finish, RetryPolicy, after_attempt
from careflow.core.rounds import Round
from careflow.errors import ProviderError, StoreError
from careflow.ports import CallerAgent, Clock, Store, TaskQueue
from careflow.pulse.calling import finish_call
from careflow.pulse.outbox import close_task
from careflow.pulse.planning import Planner

UNSETTLED = "unsettled"


class Closed(StrEnum):
    """What came of a delivered close task. The first two end the task; the others bring it back later."""

    CLOSED = "closed"  # every call has its outcome and the summary is stored
    LATER = "later"  # the window is not over, and another task is there for its end
    NOT_DUE = "not-due"  # this task came before the window's end
    OPEN = "open"  # a telephone call is still going on, or was until just now
    UNKNOWN = "unknown"  # there is no such round


class Closer:
    """Settles rounds whose window is over.

    An attempt in flight at the window's end is left alone for `grace`: a conversation that began in time may end in its own time.
    After that its end is asked for; after twice the grace the call is given up, and a person is told to phone the patient,
    since nobody can say what became of the attempt.
    """

    def __init__(
        self,
        store: Store,
        queue: TaskQueue,
        caller: CallerAgent,
        clock: Clock,
        planner: Planner,
        *,
        policy: RetryPolicy,
        grace: timedelta,
        batch: int,
    ) -> None:
        self._store = store
        self._queue = queue
        self._caller = caller
        self._clock = clock
        self._planner = planner
        self._policy = policy
        self._grace = grace
        self._batch = batch
        self._log = structlog.get_logger("careflow.pulse")

    async def close(self, hospital_id: str, round_id: str) -> Closed:
        """Settle the round's open calls, and close it when none is left. Safe to repeat, and to run twice at once."""
        round_ = await self._store.round(hospital_id, round_id)
        if round_ is None:
            return Closed.UNKNOWN
        if round_.closed_at is not None:
            return Closed.CLOSED
        now = self._clock.now()
        if now < round_.window_end:
            # As with calls: when the task is there already, it may be the one being delivered.
            added = await self._queue.enqueue([close_task(round_, now)])
            return Closed.LATER if added else Closed.NOT_DUE
        if round_.planned_at is None:
            # Nobody came back to finish the planning: who was due is still put on record, as skipped.
            round_ = await self._planner.plan(round_)
        return await self._settle_and_close(round_)

    async def settle_older_rounds(self) -> int:
        """Have every round closed whose window is over and that is still open; how many close tasks were added."""
        now = self._clock.now()
        late = [one for one in await self._store.unclosed_rounds() if one.window_end <= now]
        return await self._queue.enqueue([close_task(one, now) for one in late]) if late else 0

    async def _settle_and_close(self, round_: Round) -> Closed:
        still_open, after = 0, ""
        while page := await self._store.calls(
            round_.hospital_id, round_.id, after=after, limit=self._batch, open_only=True
        ):
            for call in page:
                still_open += not await self._settle_apart(call)
            after = page[-1].id
        if still_open:
            self._log.info(
                "Round still open", hospitalId=round_.hospital_id, roundId=round_.id, count=still_open
            )
            return Closed.OPEN
        return await self._write_summary(round_)

    async def _write_summary(self, round_: Round) -> Closed:
        outcomes: Counter[str] = Counter()
        counts = await self._store.count_calls(round_.hospital_id, round_.id)
        for (_state, outcome, _reason), count in counts.items():
            if not outcome:
                return Closed.OPEN  # a planner that was slow to see the window end has just added it
            outcomes[outcome] += count
        closed = replace(round_, closed_at=self._clock.now(), outcomes=tuple(sorted(outcomes.items())))
        if not await self._store.update_round(closed):
            stored = await self._store.round(round_.hospital_id, round_.id)
            return Closed.CLOSED if stored is not None and stored.closed_at else Closed.OPEN
        self._log.info(
            "Round closed",
            hospitalId=round_.hospital_id,
            roundId=round_.id,
            outcomes=dict(sorted(outcomes.items())),
        )
        return Closed.CLOSED

    async def _settle_apart(self, call: Call) -> bool:
        """`_settle`; a call that cannot be settled stays open, and keeps none of the others so."""
        try:
            return await self._settle(call)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this one call
            self._log.error(
                "Call cannot be settled",
                hospitalId=call.hospital_id,
                roundId=call.round_id,
                callId=call.id,
                exc_info=error,
            )
            return False

    async def _settle(self, call: Call) -> bool:
        """Give the open call its outcome, if that can be done now; whether it has one."""
        attempt = await self._store.attempt(call.attempt_id) if call.attempt_id else None
        now = self._clock.now()
        if attempt is not None and attempt.state is not AttemptState.ENDED:
            if now < call.not_after + self._grace:
                return False
            attempt = await self._cancelled(attempt)
            if attempt.state is not AttemptState.ENDED:
                if now < call.not_after + 2 * self._grace:
                    return False
                given_up = Finish(outcome=Outcome.UNREACHABLE, reason=UNSETTLED, alert=AlertKind.INTERRUPTED)
                return await finish_call(self._store, call, given_up, attempt, now)
        return await finish_call(self._store, call, await self._end_of(call, attempt, now), attempt, now)

    async def _end_of(self, call: Call, attempt: Attempt | None, now: datetime) -> Finish:
        if attempt is None:
            return window_over()
        patient = await self._store.patient(call.hospital_id, call.patient_id)
        if patient is None:
            return Finish(outcome=Outcome.SKIPPED, reason=SkipReason.INACTIVE.value)
        step = after_attempt(call, attempt, patient, now, self._policy)
        return step if isinstance(step, Finish) else window_over()

    async def _cancelled(self, attempt: Attempt) -> Attempt:
        """The attempt after its end was asked for, as far as it is known by now."""
        try:
            await self._caller.cancel(attempt.id)
        except ProviderError as error:
            self._log.warning(
                "Caller not reached to cancel",
                attemptId=attempt.id,
                roundId=attempt.round_id,
                code=error.code,
            )
        return await self._store.attempt(attempt.id) or attempt
