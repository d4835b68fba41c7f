"""What follows an attempt: the call's outcome, or another attempt later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending
from careflow.core.calls import Call, Outcome
from careflow.core.checkins import AlertKind
from careflow.core.patients import Patient
from careflow.core.slots import first_dialable

NEVER_CREATED = "never-created"  # the intent was recorded, the provider has no such call
PERMANENT = frozenset({"invalid-number", "not-permitted"})  # dialling again cannot help


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Limits on attempts. `later` is how long "call me later" waits when the patient names no time."""

    max_attempts: int = 3
    spacing: timedelta = timedelta(minutes=15)
    later: timedelta = timedelta(minutes=30)
    recreate_after: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The call is over. `alert` is the kind a person must see, if any."""

    outcome: Outcome
    reason: str
    alert: AlertKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain:
    """Another attempt at `at`."""

    at: datetime
    reason: str


_FINAL_ENDINGS: dict[Ending, Finish] = {
    Ending.COMPLETE: Finish(outcome=Outcome.COMPLETED, reason="complete"),
    Ending.ESCALATED: Finish(outcome=Outcome.COMPLETED, reason="escalated"),
    Ending.OPTED_OUT: Finish(outcome=Outcome.OPTED_OUT, reason="opted-out"),
    Ending.DECLINED: Finish(outcome=Outcome.DECLINED, reason="declined"),
    Ending.WRONG_PERSON: Finish(
        outcome=Outcome.UNREACHABLE, reason="wrong-person", alert=AlertKind.WRONG_NUMBER
    ),
    # Invariant 2: nobody is phoned twice because our side failed, so a nurse takes over instead.
    Ending.INTERRUPTED: Finish(
        outcome=Outcome.UNREACHABLE, reason="interrupted", alert=AlertKind.INTERRUPTED
    ),
}


def counts(attempt: Attempt) -> bool:
    """Whether the ended attempt counts against the limit: not when no telephone can have rung for it."""
    return attempt.failure != NEVER_CREATED


def after_attempt(
    call: Call, attempt: Attempt, patient: Patient, now: datetime, policy: RetryPolicy
) -> Finish | TryAgain:
    """What follows the ended `attempt`. Any further attempt lies in the window and in the patient's calling hours."""
    if attempt.state is not AttemptState.ENDED or attempt.disposition is None:
        raise ValueError(f"attempt {attempt.id} has not ended: {attempt.state}")
    if attempt.disposition is Disposition.CANCELLED:
        # It was not the patient who wished it: a person must know that the patient was not reached.
        reason = attempt.failure or "cancelled"
        return Finish(outcome=Outcome.CANCELLED, reason=reason, alert=AlertKind.UNREACHABLE)
    if attempt.ending in _FINAL_ENDINGS:
        return _FINAL_ENDINGS[attempt.ending]
    reason = attempt.ending or attempt.failure or attempt.disposition
    if attempt.failure in PERMANENT:
        return Finish(outcome=Outcome.UNREACHABLE, reason=attempt.failure, alert=AlertKind.WRONG_NUMBER)
    counted = call.counted + counts(attempt)
    # A provider that loses every create must not be asked for ever, even though nobody's telephone rang.
    if counted < policy.max_attempts and call.attempts < 3 * policy.max_attempts:
        delay = policy.spacing
        if not counts(attempt):
            delay = policy.recreate_after
        elif attempt.ending is Ending.CALL_LATER:
            delay = policy.later
        at = first_dialable(patient, now + delay, call.not_after)
        if at is not None:
            return TryAgain(at=at, reason=str(reason))
    return Finish(outcome=Outcome.UNREACHABLE, reason=str(reason), alert=AlertKind.UNREACHABLE)
