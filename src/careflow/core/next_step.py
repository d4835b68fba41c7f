"""What Pulse does next with a call it holds: one pure decision, made again after every crash.

The position is the call and its current attempt as they are stored. `call.attempt_id` is set before the Caller is asked and
given up when the attempt's end has been applied, so the four positions are told apart without any memory:

- no attempt id: nothing was asked for; a new attempt may be ordered.
- an attempt id and no stored attempt: the order may or may not have reached the Caller; the same id is ordered again.
- a stored attempt that has not ended: it is followed, whatever the hour.
- an ended attempt: what follows from it is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, Outcome, attempt_id, end, wait_again
from careflow.core.checkins import AlertKind
from careflow.core.patients import Patient, SkipReason, bar
from careflow.core.retry import Finish, RetryPolicy, TryAgain, after_attempt, counts
from careflow.core.slots import first_dialable

WINDOW_OVER = "window-over"
LINE_BUSY = "line-busy"
CALL_OVER = "call-over"
LINE_BUSY_WAIT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """The attempt is in flight: re-attach to it."""

    attempt_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Ask the Caller for this attempt; `call` is what must be stored first."""

    call: Call
    attempt_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Not now, and no attempt was spent: wait until `at`."""

    at: datetime
    reason: str


Step = Follow | Order | Later | TryAgain | Finish


def next_step(
    call: Call,
    attempt: Attempt | None,
    patient: Patient,
    *,
    do_not_call: bool,
    now: datetime,
    policy: RetryPolicy,
) -> Step:
    """The step for a claimed `call`; `attempt` is the stored one of `call.attempt_id`, if any."""
    if attempt is not None:
        if attempt.state is not AttemptState.ENDED:
            return Follow(attempt_id=attempt.id, number=attempt.number)
        return after_attempt(call, attempt, patient, now, policy)
    refusal = may_dial(call, patient, do_not_call=do_not_call, now=now)
    if refusal is not None:
        return refusal
    if call.attempt_id is not None:
        return Order(call=call, attempt_id=call.attempt_id, number=call.attempts)
    number = call.attempts + 1
    wanted = attempt_id(call, number)
    return Order(call=replace(call, attempts=number, attempt_id=wanted), attempt_id=wanted, number=number)


def may_dial(call: Call, patient: Patient, *, do_not_call: bool, now: datetime) -> Finish | Later | None:
    """None when the patient may be dialled at `now`; otherwise the end of the call or the moment to wait for."""
    if now >= call.not_after:
        return window_over()
    barred = bar(patient, do_not_call=do_not_call, now=now)
    if barred is not None:
        return Finish(outcome=Outcome.SKIPPED, reason=barred.value)
    at = first_dialable(patient, now, call.not_after)
    if at is None:
        return _hours_over(call)
    return None if at == now else Later(at=at, reason=SkipReason.OUTSIDE_HOURS.value)


def after_refusal(call: Call, refused: str, patient: Patient, now: datetime) -> Finish | Later:
    """What follows when the Caller did not begin the attempt. Nothing was dialled, so no attempt is spent."""
    if refused == LINE_BUSY:
        at = first_dialable(patient, now + LINE_BUSY_WAIT, call.not_after)
        if at is not None:
            return Later(at=at, reason=LINE_BUSY)
        return Finish(outcome=Outcome.UNREACHABLE, reason=LINE_BUSY, alert=AlertKind.UNREACHABLE)
    if now >= call.not_after:
        return window_over()
    if refused == SkipReason.OUTSIDE_HOURS:
        at = first_dialable(patient, now, call.not_after)
        if at is None:
            return _hours_over(call)
        # The Caller's clock says no where ours says yes: let a little time pass, or the two would argue in a loop.
        return Later(at=max(at, now + LINE_BUSY_WAIT), reason=refused)
    return Finish(outcome=Outcome.SKIPPED, reason=refused)


def window_over() -> Finish:
    """The end of a call whose round's window passed: nobody was reached, and a person must know."""
    return Finish(outcome=Outcome.UNREACHABLE, reason=WINDOW_OVER, alert=AlertKind.UNREACHABLE)


def taken(call: Call, step: Later | TryAgain | Finish, attempt: Attempt | None, now: datetime) -> Call:
    """The call after the step. `attempt` is the ended one that the step follows from, or None when none was spent."""
    counted = call.counted + (attempt is not None and counts(attempt))
    match step:
        case Finish():
            return replace(end(call, now, step.outcome, step.reason), counted=counted)
        case TryAgain():
            return replace(wait_again(call, step.at), counted=counted, attempt_id=None)
        case Later():
            return wait_again(call, step.at)


def _hours_over(call: Call) -> Finish:
    reason = SkipReason.OUTSIDE_HOURS.value
    if call.counted == 0:
        return Finish(outcome=Outcome.SKIPPED, reason=reason)
    return Finish(outcome=Outcome.UNREACHABLE, reason=reason, alert=AlertKind.UNREACHABLE)
