"""A call: one patient in one round. Its states, outcomes and the allowed moves between them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from careflow.errors import IllegalMove


class CallState(StrEnum):
    """Where a call stands in the ledger."""

    WAITING = "waiting"  # due at `due_at`; a task is or will be made for it
    CALLING = "calling"  # claimed under a lease: an attempt is in flight or about to be
    ENDED = "ended"  # has its outcome


class Outcome(StrEnum):
    """The one recorded result of a patient in a round (invariant 3)."""

    COMPLETED = "completed"
    UNREACHABLE = "unreachable"
    DECLINED = "declined"
    OPTED_OUT = "opted-out"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


MOVES: dict[CallState, frozenset[CallState]] = {
    CallState.WAITING: frozenset({CallState.CALLING, CallState.ENDED}),
    CallState.CALLING: frozenset({CallState.WAITING, CallState.CALLING, CallState.ENDED}),
    CallState.ENDED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A row of the ledger, unique on (round, patient).

    `attempts` is how many attempts were begun; `counted` how many of them count against the limit (one that the provider never
    created does not). `attempt_id` is the current or last attempt. `reason` explains the outcome: a SkipReason, a
    Disposition, an Ending or a provider code. `not_after` is the end of the round's window. `version` as in Attempt.
    """

    id: str
    hospital_id: str
    round_id: str
    patient_id: str
    due_at: datetime
    not_after: datetime
    state: CallState = CallState.WAITING
    outcome: Outcome | None = None
    reason: str = ""
    attempts: int = 0
    counted: int = 0
    attempt_id: str | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None
    created_at: datetime
    ended_at: datetime | None = None
    version: int = 0


def call_id(round_id: str, patient_id: str) -> str:
    """The call's id: a hash, so that it names nobody and spreads evenly (reference/google-cloud section 1)."""
    return hashlib.sha256(f"{round_id}|{patient_id}".encode()).hexdigest()[:24]


def attempt_id(call: Call, number: int) -> str:
    """The id of the call's attempt `number`; also the A2A messageId and task id, so a repeat finds the same attempt."""
    return f"{call.id}-{number}"


def move(call: Call, to: CallState, **changes: object) -> Call:
    """The call after the move. Raises IllegalMove for a move not in the table."""
    if to not in MOVES[call.state]:
        raise IllegalMove(f"call {call.id}: {call.state} -> {to} is not an allowed move")
    return replace(call, state=to, **changes)  # type: ignore[arg-type]


def end(call: Call, now: datetime, outcome: Outcome, reason: str = "") -> Call:
    """The call with its outcome, its lease given up."""
    return move(
        call,
        CallState.ENDED,
        outcome=outcome,
        reason=reason,
        ended_at=now,
        lease_owner=None,
        lease_until=None,
    )


def wait_again(call: Call, due_at: datetime) -> Call:
    """The call, waiting for its next attempt at `due_at`."""
    return move(call, CallState.WAITING, due_at=due_at, lease_owner=None, lease_until=None)


def claimable(call: Call, owner: str, now: datetime) -> bool:
    """Whether `owner` may take the call at `now` (ports.Store.claim_call)."""
    match call.state:
        case CallState.WAITING:
            return call.due_at <= now
        case CallState.CALLING:
            return call.lease_owner in (owner, None) or call.lease_until is None or call.lease_until <= now
        case CallState.ENDED:
            return False


def left_at(call: Call) -> datetime:
    """The moment from which the open call is left to anybody: its lease's end, or else when it is due."""
    return call.lease_until or call.due_at


def keeping_renewal(call: Call, stored: Call) -> Call:
    """The call as it is to be stored: its lease not shorter than its owner has made it since the call was read."""
    if call.lease_until and stored.lease_until and stored.lease_owner == call.lease_owner:
        return replace(call, lease_until=max(call.lease_until, stored.lease_until))
    return call
