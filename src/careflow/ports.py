"""Every interface that the core's shells need. Each docstring is the contract its implementations are tested against.

All instants are aware UTC datetimes. Conditional writes answer False (or None) when another was first; that is not an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from careflow.core.attempts import Attempt
from careflow.core.calls import Call
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient, RosterRevision
from careflow.core.rounds import Execution, Round


class Clock(Protocol):
    """Time. The system's, or a virtual one that runs faster; nothing else in the package reads a clock."""

    def now(self) -> datetime:
        """The present instant, aware, UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when `seconds` of this clock's time have passed; at once for zero or less."""
        ...


# --- store -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A patient that a round may concern, and whether the do-not-call list holds the patient or the number."""

    patient: Patient
    do_not_call: bool


@dataclass(frozen=True, slots=True)
class PutCounts:
    """What an import changed."""

    created: int
    updated: int
    unchanged: int


class Began(StrEnum):
    """What came of asking to begin an attempt."""

    BEGUN = "begun"  # the intent is stored: the asker, and nobody else, may dial
    EXISTS = "exists"  # this attempt was begun before; `attempt` is what is stored
    LINE_BUSY = "line-busy"  # the patient or the number has another attempt in flight
    REFUSED = "refused"  # the guard said no; `reason` is its answer
    CALL_OVER = "call-over"  # the call has ended, or is not the round's, or this is not its current attempt


@dataclass(frozen=True, slots=True)
class BeginResult:
    result: Began
    attempt: Attempt | None = None
    reason: str = ""


Guard = Callable[[Patient, bool], str | None]
"""Evaluated inside the transaction of `begin_attempt` on (patient as stored now, on the do-not-call list): None, or why not."""


Record = (
    Patient | DoNotCall | RosterRevision | Round | Execution | Call | Attempt | CheckIn | Interaction | Alert
)
"""Everything a store keeps, and all that has to be carried from one to another."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of some records: how many are stored exactly so, how many are there but not so, how many are not there."""

    same: int = 0
    other: int = 0
    absent: int = 0


class Archive(Protocol):
    """All records of a store, as they are: for carrying them to another one (docs/moving.md).

    Every hospital's, and without the rules by which records otherwise come about. So nothing but moving uses it.
    """

    async def records(self, kind: type[R], *, after: R | None = None, limit: int = 1000) -> Sequence[R]:
        """A page of the records of one kind, in an order of the store's own that only depends on their keys.

        `after` is the last record of the page before; that it has changed since, or is gone, does not matter.
        """
        ...

    async def compare(self, kind: type[R], records: Sequence[R]) -> Comparison:
        """Whether records of these keys are stored, and exactly so."""
        ...

    async def restore(self, kind: type[R], records: Sequence[R]) -> int:
        """Store those that are not there, every field as it is; how many those were. Stored ones stay as they are.

        Each record is stored whole or not at all. An attempt comes after its call. Raises StoreError when one does not fit
        beside what is there (its line is held, its call SID is another's); some of the others may be stored then.
        """
        ...


class Store(Archive, Protocol):
    """The ledger and the roster. Every query but an Archive's is scoped by `hospital_id`. Every write is durable when it returns.

    `update_*` methods compare `version` with the stored one, store the record with version + 1 and answer whether they did.
    Lists are ordered as said; pages are asked for with `after` (exclusive) and `limit`.
    A record of another hospital is never seen, not even by its id, and `update_*` answers False for it.
    Raises StoreUnavailable when nothing can be written now; then nothing was changed.
    """

    # patients and the do-not-call list

    async def put_patients(self, patients: Sequence[Patient]) -> PutCounts:
        """Create or replace each patient, all or none, as many as one write takes (`store.parts`); ValueError for more.

        Raises the roster revision when anything changed.

        `opted_out` is sticky: once stored true it stays true whatever the roster says later.
        """
        ...

    async def patient(self, hospital_id: str, patient_id: str) -> Patient | None: ...

    async def patients(self, hospital_id: str, *, after: str = "", limit: int = 1000) -> Sequence[Patient]:
        """Ordered by id."""
        ...

    async def candidates(
        self, hospital_id: str, schedule_hour: int, *, after: str = "", limit: int = 1000
    ) -> Sequence[Candidate]:
        """Patients whose `hours` hold `schedule_hour` or who have own times, ordered by patient id.

        Who may not be phoned is among them: the round records why (`core.patients.bar`).
        """
        ...

    async def roster_revision(self, hospital_id: str) -> int:
        """Grows with every change to the hospital's patients; 0 for an unknown hospital."""
        ...

    async def hospitals(self) -> Sequence[str]:
        """Ids of all hospitals that have patients or rounds, ascending."""
        ...

    async def add_do_not_call(self, entry: DoNotCall) -> None:
        """Idempotent on (hospital, phone, patient)."""
        ...

    async def on_do_not_call(self, hospital_id: str, patient_id: str, phone: str | None) -> bool:
        """Whether an entry names the patient, or holds the number, whoever was on the telephone."""
        ...

    # rounds and executions

    async def open_round(self, round_: Round) -> Round:
        """Create the round if its id is new; in both cases the stored one."""
        ...

    async def round(self, hospital_id: str, round_id: str) -> Round | None: ...

    async def rounds(self, hospital_id: str, *, limit: int = 50) -> Sequence[Round]:
        """Latest window first."""
        ...

    async def unclosed_rounds(self) -> Sequence[Round]:
        """Rounds of every hospital without `closed_at`, earliest window first."""
        ...

    async def update_round(self, round_: Round) -> bool: ...

    async def add_execution(self, execution: Execution) -> None:
        """Idempotent on the id; a later record of the same id replaces the earlier."""
        ...

    async def executions(self, hospital_id: str, *, limit: int = 50) -> Sequence[Execution]:
        """Latest first."""
        ...

    # calls

    async def create_calls(self, calls: Sequence[Call]) -> int:
        """Create those whose (round, patient) is new, all or none durable; how many were new. The others stay as they are."""
        ...

    async def call(self, hospital_id: str, call_id: str) -> Call | None: ...

    async def calls(
        self, hospital_id: str, round_id: str, *, after: str = "", limit: int = 1000, open_only: bool = False
    ) -> Sequence[Call]:
        """Ordered by call id. `open_only` leaves out the ended ones."""
        ...

    async def left_calls(
        self,
        hospital_id: str,
        round_id: str,
        *,
        since: datetime,
        after: Call | None = None,
        limit: int = 1000,
    ) -> Sequence[Call]:
        """Open calls that nobody has taken since then (`core.calls.left_at`), the longest left first, then by id.

        `after` is the last call of the page before, as it was then. Costs what it finds, however many others are open.
        """
        ...

    async def count_calls(self, hospital_id: str, round_id: str) -> Mapping[tuple[str, str, str], int]:
        """(state, outcome or "", reason) -> count."""
        ...

    async def claim_call(
        self, hospital_id: str, call_id: str, *, owner: str, now: datetime, lease_until: datetime
    ) -> Call | None:
        """Take the call under a lease.

        Eligible when waiting and due, or calling with a lease that is over at `now` or is `owner`'s own.

        The claimed call (state CALLING), or None when it is not eligible.
        """
        ...

    async def renew_lease(self, hospital_id: str, call_id: str, *, owner: str, lease_until: datetime) -> bool:
        """Set the lease's end if the call is CALLING and `owner` still has it, over or not. Does not change `version`.

        Later: it is extended. Now: it is given back, and the call is anybody's at once.
        """
        ...

    async def update_call(self, call: Call) -> bool:
        """Never shortens a lease that its owner renewed after reading the call."""
        ...

    # attempts and what they leave

    async def begin_attempt(self, attempt: Attempt, guard: Guard) -> BeginResult:
        """Store the intent to dial; one transaction in which all of this is checked, in this order:

        1. an attempt with this id exists -> EXISTS;
        2. the call is stored (of this hospital, round and patient), CALLING, and its `attempt_id` is this one -> else CALL_OVER;
        3. no other attempt of the patient or to the number (in any round or hospital) is not ENDED -> else LINE_BUSY;
        4. `guard(patient, on_do_not_call)` is None -> else REFUSED with its reason; an unknown patient is refused as "inactive".

        `on_do_not_call` is about the patient, the patient's number as stored now, and the number of the attempt. The guard may be
        asked more than once and must have no effects.
        """
        ...

    async def attempt(self, attempt_id: str) -> Attempt | None: ...

    async def attempt_of_call_sid(self, call_sid: str) -> Attempt | None: ...

    async def attempts(self, hospital_id: str, call_id: str) -> Sequence[Attempt]:
        """By number."""
        ...

    async def open_attempts(self) -> Sequence[Attempt]:
        """All that are not ENDED, of every hospital, oldest intent first."""
        ...

    async def update_attempt(self, attempt: Attempt) -> bool:
        """False also when its `call_sid` is another attempt's."""
        ...

    async def end_attempt(
        self,
        attempt: Attempt,
        *,
        interaction: Interaction,
        check_in: CheckIn | None = None,
        do_not_call: DoNotCall | None = None,
        alerts: Sequence[Alert] = (),
    ) -> bool:
        """Compare-and-store the ended attempt together with everything it leaves: all or none.

        Of the alerts those with a new id are added. Raises ValueError when the attempt is not ENDED, or when anything is not
        of its hospital, round, call and patient; then nothing was changed.
        """
        ...

    async def check_in(self, hospital_id: str, attempt_id: str) -> CheckIn | None: ...

    async def interactions(
        self, hospital_id: str, patient_id: str | None = None, *, round_id: str | None = None
    ) -> Sequence[Interaction]:
        """By start."""
        ...

    async def add_alert(self, alert: Alert) -> bool:
        """Store it if its id is new; whether it was."""
        ...

    async def alerts(
        self, hospital_id: str, *, open_only: bool = False, round_id: str | None = None
    ) -> Sequence[Alert]:
        """By time raised."""
        ...

    async def acknowledge_alert(self, hospital_id: str, alert_id: str, *, by: str, at: datetime) -> bool:
        """True when this acknowledged it; False when it was acknowledged before or is unknown."""
        ...

    async def check(self) -> None:
        """Prove that the store can be written now. Raises StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Finish what was asked for, then close. Does nothing the second time; everything else raises StoreUnavailable then."""
        ...


# --- tasks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One delivery to Pulse. `name` is unique in its queue and matches [A-Za-z0-9_-]{1,500}; `queue` is "calls" or "rounds".

    The body is sent as a JSON object of strings by HTTP POST to Pulse's `path` with an OIDC token, not before `due_at`.
    """

    queue: str
    name: str
    path: str
    body: Mapping[str, str] = field(default_factory=dict)
    due_at: datetime


class TaskQueue(Protocol):
    """Deliver each task at least once, not before it is due; 2xx ends it, anything else is retried with backoff, in bounds."""

    async def enqueue(self, tasks: Sequence[Task]) -> int:
        """Durably add those whose (queue, name) is neither waiting nor being delivered; how many are known to be new.

        A name that was delivered or cancelled within the last day may be refused: that is not an error, and it is not added.
        Raises ValueError for an unknown queue or a name that does not match, then nothing was added; StoreUnavailable when
        not all could be added, then some may have been. Adding them all again is harmless: a name is never there twice.
        """
        ...

    async def cancel(self, queue: str, name: str) -> bool:
        """Forget a waiting task; False when there is none, or it is known to be under delivery. Raises StoreUnavailable."""
        ...

    async def depth(self, queue: str) -> int:
        """Tasks that are waiting or being delivered. Raises StoreUnavailable."""
        ...


# --- telephone and speech --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneCall:
    """What the telephone provider says of one call. `status` is Twilio's word; `created_at` may be None in a list."""

    sid: str
    status: str
    to: str
    created_at: datetime | None
    answered_by: str = ""
    duration_seconds: int | None = None


class Phone(Protocol):
    """The telephone provider. Raises ProviderError, which says whether the refusal is permanent or the result unknown."""

    async def dial(self, attempt: Attempt) -> str:
        """Create the call, with the attempt's id in every callback URL; the provider's call SID."""
        ...

    async def hang_up(self, call_sid: str) -> None:
        """End the call, whatever its state. Does nothing when it is over already."""
        ...

    async def fetch(self, call_sid: str) -> PhoneCall | None:
        """None when the provider does not know it."""
        ...

    async def calls_to(self, number: str) -> Sequence[PhoneCall]:
        """All calls to the number from one of ours, whichever hospital's, newest first, every page."""
        ...


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words heard. `final` is false for a partial, which may be revised or repeated."""

    text: str
    final: bool


class Listening(Protocol):
    """One open speech-to-text session; audio is raw G.711 mu-law, 8 kHz, mono."""

    async def send(self, audio: bytes) -> None:
        """Give it audio. Never blocks on the network for long; drops nothing across one reconnect."""
        ...

    async def commit(self) -> None:
        """The patient stopped speaking: ask for the final words of what was sent since the last commit."""
        ...

    def transcripts(self) -> AsyncIterator[Transcript]:
        """What is heard, in order. Ends when the session is closed; raises ProviderError when it cannot go on."""
        ...

    async def close(self) -> None: ...


class Speech(Protocol):
    """Speech in both directions. Raises ProviderError."""

    async def say(self, text: str, language: str) -> bytes:
        """The spoken text as raw mu-law 8 kHz; from the cache when these words were spoken before."""
        ...

    async def listen(self, language: str) -> Listening:
        """Open a session for one call."""
        ...


# --- agents ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOrder:
    """What Pulse asks of the Caller: ids only; the Caller reads the patient from the store."""

    attempt_id: str
    number: int
    call_id: str
    round_id: str
    hospital_id: str
    patient_id: str
    script: str
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """The attempt as the Caller's A2A task shows it. `refused` explains a rejected order, e.g. "line-busy"."""

    attempt_id: str
    state: str
    ended: bool
    refused: str = ""


class CallerAgent(Protocol):
    """The Caller as Pulse sees it."""

    def follow(self, order: AttemptOrder) -> AsyncIterator[AttemptView]:
        """Have the attempt made, or re-attach to it, and yield its changes; ends after the view with `ended` or `refused`.

        Survives a broken stream (GetTask, subscribe again). Raises ProviderError when the Caller cannot be reached.
        """
        ...

    async def cancel(self, attempt_id: str) -> bool:
        """Ask for the attempt's end; False when it had ended or is unknown."""
        ...


class Tokens(Protocol):
    """OIDC identity tokens for our own outgoing requests."""

    async def token(self, audience: str) -> str:
        """A token that is valid for at least one more minute."""
        ...
