"""One call, held: claim it, decide, follow the attempt, apply what follows. Every position survives the holder's death."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, CallState, Outcome, wait_again
from careflow.core.checkins import Alert
from careflow.core.next_step import (
    CALL_OVER,
    Follow,
    Later,
    Order,
    after_refusal,
    next_step,
    taken,
)
from careflow.core.patients import SkipReason
from careflow.core.retry import Finish, RetryPolicy, TryAgain
from careflow.errors import CareflowError, ProviderError, StoreUnavailable
from careflow.ports import AttemptOrder, AttemptView, CallerAgent, Clock, Store, TaskQueue
from careflow.pulse.outbox import call_task
from careflow.telemetry import log_alert

CALLER_WAIT = timedelta(seconds=60)


class Handled(StrEnum):
    """What came of a delivered call task. The first two are durable and end the task; the others bring it back later."""

    ENDED = "ended"  # the call has its outcome
    WAITING = "waiting"  # the call waits for another moment, and another task is there for it
    NOT_DUE = "not-due"  # this task came before its call is due
    HELD = "held"  # somebody else holds the call, or changed it under our hands
    UNKNOWN = "unknown"  # there is no such call
    LEFT = "left"  # this process is to stop: the call is given back as it stands


class _Changed(CareflowError):
    """Somebody else changed the call since it was read; what is stored is right, what we hold is not."""


class _Leaving(CareflowError):
    """This process is to stop; the attempt goes on without us."""


class CallHandler:
    """Carries calls from their task to their outcome or their next attempt."""

    def __init__(
        self,
        store: Store,
        queue: TaskQueue,
        caller: CallerAgent,
        clock: Clock,
        *,
        ids: Callable[[], str],
        policy: RetryPolicy,
        lease: timedelta,
    ) -> None:
        self._store = store
        self._queue = queue
        self._caller = caller
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._lease = lease
        self._leaving = asyncio.Event()
        self._log = structlog.get_logger("careflow.pulse")

    async def leave(self) -> None:
        """Give every call back at once, so that another process may go on with it, and take none any more."""
        self._leaving.set()

    async def handle(self, hospital_id: str, call_id: str, *, task_name: str = "") -> Handled:
        """Do what the call needs now; returns when that is durable. `task_name` is the delivered task's, "" when unknown.

        When the Caller cannot be reached the call waits in the ledger and has a new task: a queue gives a task up after so
        many failures, and an outage may outlast them. Raises StoreUnavailable when nothing can be written; then the
        lease runs out by itself.
        """
        if self._leaving.is_set():
            return Handled.LEFT
        owner = self._ids()  # of this delivery: two deliveries in one process must exclude each other too
        now = self._clock.now()
        call = await self._store.claim_call(
            hospital_id, call_id, owner=owner, now=now, lease_until=now + self._lease
        )
        try:
            if call is None:
                return await self._not_claimed(hospital_id, call_id, task_name, now)
            return await self._hold(call, owner)
        except _Changed:
            return Handled.HELD
        except _Leaving:
            await self._store.renew_lease(hospital_id, call_id, owner=owner, lease_until=self._clock.now())
            return Handled.LEFT

    async def _not_claimed(self, hospital_id: str, call_id: str, task_name: str, now: datetime) -> Handled:
        call = await self._store.call(hospital_id, call_id)
        if call is None:
            return Handled.UNKNOWN
        if call.state is CallState.ENDED:
            return Handled.ENDED
        # The crash between "wait again" and its new task is repaired here. When the task was there already it may be the
        # very one being delivered, and ending it would lose the call; one of an earlier spell of the call may go.
        current = call_task(call)
        if await self._queue.enqueue([current]) or (task_name and task_name != current.name):
            return Handled.WAITING
        return Handled.NOT_DUE if call.state is CallState.WAITING and call.due_at > now else Handled.HELD

    async def _hold(self, call: Call, owner: str) -> Handled:
        patient = await self._store.patient(call.hospital_id, call.patient_id)
        if patient is None:
            gone = Finish(outcome=Outcome.SKIPPED, reason=SkipReason.INACTIVE.value)
            return await self._finish(call, gone, None)
        while True:
            attempt = await self._store.attempt(call.attempt_id) if call.attempt_id else None
            barred = await self._store.on_do_not_call(call.hospital_id, patient.id, patient.phone)
            now = self._clock.now()
            step = next_step(call, attempt, patient, do_not_call=barred, now=now, policy=self._policy)
            match step:
                case Finish():
                    return await self._finish(call, step, attempt)
                case TryAgain() | Later():
                    return await self._wait(call, step, attempt)
                case Order():
                    if step.call != call:
                        call = await _stored(self._store, step.call)  # before the Caller hears of it
                case Follow():
                    pass
            try:
                view = await self._follow(call, owner, step.attempt_id, step.number)
            except ProviderError as error:
                self._log.warning("Caller not reached", **_ids_of(call), code=error.code)
                later = Later(at=self._clock.now() + CALLER_WAIT, reason="caller-unavailable")
                return await self._wait(call, later, None)
            if view.refused == CALL_OVER:
                raise _Changed
            if view.refused:
                after = after_refusal(call, view.refused, patient, self._clock.now())
                if isinstance(after, Finish):
                    return await self._finish(call, after, None)
                return await self._wait(call, after, None)
            # The stored attempt decides, not the view of it: the loop reads it.

    async def _wait(self, call: Call, step: TryAgain | Later, attempt: Attempt | None) -> Handled:
        waiting = await _stored(self._store, taken(call, step, attempt, self._clock.now()))
        await self._queue.enqueue([call_task(waiting)])
        self._log.info(
            "Call waits",
            **_ids_of(waiting),
            reason=step.reason,
            dueAt=waiting.due_at.isoformat(),
            attempts=waiting.attempts,
        )
        return Handled.WAITING

    async def _finish(self, call: Call, step: Finish, attempt: Attempt | None) -> Handled:
        ended = await finish_call(self._store, call, step, attempt, self._clock.now())
        return Handled.ENDED if ended else Handled.HELD

    async def _follow(self, call: Call, owner: str, attempt_id: str, number: int) -> AttemptView:
        """The attempt's last view, while the lease is renewed. Raises ProviderError when the Caller cannot be reached."""
        round_ = await self._store.round(call.hospital_id, call.round_id)
        if round_ is None:
            raise LookupError(f"round {call.round_id} is gone")
        order = AttemptOrder(
            attempt_id=attempt_id,
            number=number,
            call_id=call.id,
            round_id=call.round_id,
            hospital_id=call.hospital_id,
            patient_id=call.patient_id,
            script=round_.script,
            not_after=call.not_after,
        )
        following = asyncio.ensure_future(self._last_view(order))
        renewing = asyncio.ensure_future(self._renew(call, owner))
        leaving = asyncio.ensure_future(self._leaving.wait())
        everything = (following, renewing, leaving)
        try:
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                return following.result()
            if leaving.done():
                raise _Leaving
            renewing.result()
            raise _Changed
        finally:
            for each in everything:
                each.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    async def _last_view(self, order: AttemptOrder) -> AttemptView:
        async with aclosing(self._caller.follow(order)) as views:  # type: ignore[type-var]
            async for view in views:
                if view.refused or (view.ended and await self._has_ended(order.attempt_id)):
                    return view
        raise ProviderError(
            f"attempt {order.attempt_id}: the Caller's stream ended and the attempt did not",
            code="stream-ended",
            ambiguous=True,
        )

    async def _has_ended(self, attempt_id: str) -> bool:
        attempt = await self._store.attempt(attempt_id)
        return attempt is not None and attempt.state is AttemptState.ENDED

    async def _renew(self, call: Call, owner: str) -> None:
        """Keep the lease; returns when it is lost."""
        while True:
            await self._clock.sleep(self._lease.total_seconds() / 3)
            try:
                if not await self._store.renew_lease(
                    call.hospital_id,
                    call.id,
                    owner=owner,
                    lease_until=self._clock.now() + self._lease,
                ):
                    return
            except StoreUnavailable:
                continue  # two more tries before the lease is over; and nobody else can take it from this store


async def finish_call(store: Store, call: Call, step: Finish, attempt: Attempt | None, now: datetime) -> bool:
    """Give the call its outcome; False when somebody else changed it, or an order thought lost turned up.

    1. An attempt that was ordered and is not stored may still be on its way: the call is put back to waiting, which
       bars the Caller from beginning it, and only then is it looked for once more.
    2. The alert goes first: its id is made of its cause, so a crash before step 3 does not raise it twice.
    3. The outcome.
    """
    log = structlog.get_logger("careflow.pulse")
    try:
        if call.attempt_id is not None and attempt is None and call.state is CallState.CALLING:
            call = await _stored(store, wait_again(call, max(now, call.due_at)))
            if await store.attempt(call.attempt_id or "") is not None:
                return False
        if step.alert is not None:
            alert = Alert(
                id=f"{call.id}-{step.alert.value}",
                hospital_id=call.hospital_id,
                round_id=call.round_id,
                call_id=call.id,
                attempt_id=call.attempt_id or "",
                patient_id=call.patient_id,
                kind=step.alert,
                code=step.reason,
                raised_at=now,
            )
            if await store.add_alert(alert):
                log_alert(log, alert)
        await _stored(store, taken(call, step, attempt, now))
    except _Changed:
        return False
    log.info(
        "Call ended",
        **_ids_of(call),
        outcome=step.outcome.value,
        reason=step.reason,
        attempts=call.attempts,
    )
    return True


async def _stored(store: Store, call: Call) -> Call:
    if not await store.update_call(call):
        raise _Changed
    return replace(call, version=call.version + 1)


def _ids_of(call: Call) -> dict[str, str]:
    return {
        "hospitalId": call.hospital_id,
        "roundId": call.round_id,
        "callId": call.id,
        "attemptId": call.attempt_id or "",
    }
