"""One dialling of the telephone: its states, its end, and the allowed moves between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from careflow.errors import IllegalMove


class AttemptState(StrEnum):
    """Where a crash can leave an attempt."""

    INTENDED = "intended"  # we were about to dial: the provider may or may not know of it
    DIALLED = "dialled"  # the provider gave a call SID
    RINGING = "ringing"
    ANSWERED = "answered"  # somebody or something picked up
    ENDED = "ended"  # over, with a disposition


class Disposition(StrEnum):
    """How the telephone call ended."""

    ANSWERED = "answered"  # a person picked up; `Ending` says how the conversation went
    NO_ANSWER = "no-answer"
    BUSY = "busy"
    VOICEMAIL = "voicemail"
    REFUSED = "refused"  # the network or the phone declined the call
    FAILED = "failed"  # could not be put through; `Attempt.failure` says why
    CANCELLED = "cancelled"  # we were told to stop


class Ending(StrEnum):
    """How the conversation of an answered attempt ended."""

    COMPLETE = "complete"  # every question was asked and answered, or given up after its re-asks
    ESCALATED = "escalated"  # a red flag: the alert was raised and the emergency wording spoken
    HUNG_UP = "hung-up"  # the patient hung up in the middle
    INTERRUPTED = "interrupted"  # our side or a provider failed in the middle
    WRONG_PERSON = "wrong-person"
    CALL_LATER = "call-later"  # the patient asked to be phoned later
    OPTED_OUT = "opted-out"
    DECLINED = "declined"  # the patient will not talk today
    NOT_UNDERSTOOD = "not-understood"  # nobody could be understood, by voice or by keypad


MOVES: dict[AttemptState, frozenset[AttemptState]] = {
    AttemptState.INTENDED: frozenset(
        {AttemptState.DIALLED, AttemptState.RINGING, AttemptState.ANSWERED, AttemptState.ENDED}
    ),
    AttemptState.DIALLED: frozenset({AttemptState.RINGING, AttemptState.ANSWERED, AttemptState.ENDED}),
    AttemptState.RINGING: frozenset({AttemptState.ANSWERED, AttemptState.ENDED}),
    AttemptState.ANSWERED: frozenset({AttemptState.ENDED}),
    AttemptState.ENDED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One dialling, from the recorded intent to its end.

    `number` counts a call's attempts from 1. `not_after` is the last instant at which dialling may begin (UTC).
    `call_sid` is the provider's id once known. `stream_token` is the unguessable value the media socket must present.
    `failure` is the provider's code or a short word of ours. `checkpoint` is the dialogue's state as JSON, written after
    every answer, so that a conversation can go on in another process. Until `held_until` the process that holds the conversation
    tells its end, and the others wait for it. `version` counts the stored changes; the store compares it.
    """

    id: str
    hospital_id: str
    round_id: str
    call_id: str
    patient_id: str
    number: int
    phone: str
    script: str
    stream_token: str
    intended_at: datetime
    not_after: datetime
    state: AttemptState = AttemptState.INTENDED
    call_sid: str | None = None
    dialled_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    answered_by: str | None = None
    cancel_requested_at: datetime | None = None
    disposition: Disposition | None = None
    ending: Ending | None = None
    failure: str = ""
    checkpoint: str = ""
    held_until: datetime | None = None
    version: int = 0


def move(attempt: Attempt, to: AttemptState, now: datetime, **changes: object) -> Attempt:
    """The attempt after the move; `changes` are further fields. Raises IllegalMove for a move not in the table."""
    if to not in MOVES[attempt.state]:
        raise IllegalMove(f"attempt {attempt.id}: {attempt.state} -> {to} is not an allowed move")
    stamp = {
        AttemptState.DIALLED: "dialled_at",
        AttemptState.ANSWERED: "answered_at",
        AttemptState.ENDED: "ended_at",
    }.get(to)
    if stamp is not None:
        changes[stamp] = now
    return replace(attempt, state=to, **changes)  # type: ignore[arg-type]


def end(
    attempt: Attempt,
    now: datetime,
    disposition: Disposition,
    *,
    ending: Ending | None = None,
    failure: str = "",
) -> Attempt:
    """The attempt, ended. Raises IllegalMove when it had ended: a disposition never changes."""
    return move(attempt, AttemptState.ENDED, now, disposition=disposition, ending=ending, failure=failure)
