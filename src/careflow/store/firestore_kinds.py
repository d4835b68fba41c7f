"""The kinds of records in Firestore: where each is kept, and what is kept beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, CallState, left_at
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient, RosterRevision
from careflow.core.rounds import Execution, Round
from careflow.store.codec import JSON, Codec, Forms
from careflow.store.firestore_places import Place

T = TypeVar("T")
Document = dict[str, Any]

# Collections beside those of records.
BARS = "bars"
CALL_SIDS = "callSids"
HEALTH = "health"  # nothing is ever in it
LINES = "lines"
SECRET = "keys"  # noqa: S105 - where it is (firestore_secret), not what it is

OWN_TIMES = "times"  # in `scheduleKeys`: the patient has times of their own


def _instant(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("an instant must be an aware datetime")
    return value.astimezone(UTC)


# Instants are real timestamps, which keep microseconds. A map has no order, so pairs are a list.
FIRESTORE = Forms(
    plain={**JSON.plain, datetime: (_instant, None)},
    pairs=(
        lambda pairs: [{"name": name, "value": value} for name, value in pairs],
        lambda items: tuple((item["name"], item["value"]) for item in items),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T]):
    """One kind of record.

    `key` is what its document id is made of. `beside` gives the documents that exist because the record does, by place: they
    are written and taken away with it, in one commit. `derive` adds keys to the document that only queries use, `restore` gives
    the codec's document back where the stored one is arranged differently.
    """

    collection: str
    codec: Codec[T]
    key: Callable[[T], tuple[str, ...]]
    derive: Callable[[T, Document], Document] = lambda record, document: document
    restore: Callable[[Document], Document] = lambda document: document
    beside: Callable[[T], Mapping[Place, Document]] = field(default=lambda record: {})
    under: Callable[[T], Place | None] = lambda record: None

    def place(self, record: T) -> Place:
        """Where the record is."""
        return Place(self.collection, self.key(record), self.under(record))

    def place_of(self, *key: str) -> Place:
        """Where the record of this key is, for kinds that are not under another."""
        return Place(self.collection, key)

    def to_document(self, record: T) -> Document:
        """The record as it is stored. Raises ValueError for an instant without a zone."""
        return self.derive(record, self.codec.to_document(record))

    def from_document(self, document: Document) -> T:
        """The record of a stored document."""
        return self.codec.from_document(self.restore(document))


def _open(is_open: bool) -> Document:
    """The mark of what is not over yet. What is over lacks the key, so that indexes on it stay as small as the work in hand."""
    return {"open": True} if is_open else {}


def _prefer(patient: Patient, document: Document) -> Document:
    preferences = {"hours": document.pop("hours"), "times": document.pop("times")}
    keys = [str(hour) for hour in preferences["hours"]] + ([OWN_TIMES] if patient.times else [])
    return {**document, "schedulePreferences": preferences, "scheduleKeys": keys}


def _hours_and_times(document: Document) -> Document:
    return {**document, **document["schedulePreferences"]}


def patient_place(hospital_id: str, patient_id: str) -> Place:
    """Where a patient is, and the patient's interactions below."""
    return PATIENTS.place_of(hospital_id, patient_id)


def bars(hospital_id: str, patient_id: str | None, *phones: str | None) -> list[Place]:
    """Where it is written that the patient, or one of the numbers, is on the do-not-call list."""
    places = [Place(BARS, (hospital_id, "phone", phone)) for phone in phones if phone]
    return places + ([Place(BARS, (hospital_id, "patient", patient_id))] if patient_id else [])


def _barred(entry: DoNotCall) -> Mapping[Place, Document]:
    places = bars(entry.hospital_id, entry.patient_id, entry.phone)
    return {place: {"hospitalId": entry.hospital_id} for place in places}


def lines(attempt: Attempt) -> list[Place]:
    """What an attempt in flight holds: the patient's line, and the number's across all hospitals (invariant 1)."""
    return [
        Place(LINES, ("patient", attempt.hospital_id, attempt.patient_id)),
        Place(LINES, ("phone", attempt.phone)),
    ]


def _held(attempt: Attempt) -> Mapping[Place, Document]:
    holder = {"hospitalId": attempt.hospital_id, "attemptId": attempt.id}
    places = [] if attempt.state is AttemptState.ENDED else lines(attempt)
    if attempt.call_sid is not None:
        places.append(Place(CALL_SIDS, (attempt.call_sid,)))
    return dict.fromkeys(places, holder)


def tally(call: Call) -> str:
    """What calls are counted by: state, outcome and reason, which may hold the separator itself."""
    return f"{call.state}|{call.outcome or ''}|{call.reason}"


PATIENTS = Kind(
    collection="patients",
    codec=Codec(Patient, FIRESTORE),
    key=lambda patient: (patient.hospital_id, patient.id),
    derive=_prefer,
    restore=_hours_and_times,
)
INTERACTIONS = Kind(
    collection="interactions",
    codec=Codec(Interaction, FIRESTORE),
    key=lambda interaction: (interaction.hospital_id, interaction.id),
    under=lambda interaction: patient_place(interaction.hospital_id, interaction.patient_id),
)
DO_NOT_CALL = Kind(
    collection="doNotCall",
    codec=Codec(DoNotCall, FIRESTORE),
    key=lambda entry: (entry.hospital_id, entry.phone, entry.patient_id or ""),
    beside=_barred,
)
ROUNDS = Kind(
    collection="rounds",
    codec=Codec(Round, FIRESTORE),
    key=lambda round_: (round_.hospital_id, round_.id),
    derive=lambda round_, document: {**document, **_open(round_.closed_at is None)},
)
EXECUTIONS = Kind(
    collection="executions",
    codec=Codec(Execution, FIRESTORE),
    key=lambda execution: (execution.hospital_id, execution.id),
)
CALLS = Kind(
    collection="calls",
    codec=Codec(Call, FIRESTORE),
    key=lambda call: (call.hospital_id, call.id),
    derive=lambda call, document: {
        **document,
        **_open(call.state is not CallState.ENDED),
        **({} if call.state is CallState.ENDED else {"leftAt": left_at(call)}),
        "tally": tally(call),
    },
)
ATTEMPTS = Kind(
    collection="attempts",
    codec=Codec(Attempt, FIRESTORE),
    key=lambda attempt: (attempt.id,),
    derive=lambda attempt, document: {**document, **_open(attempt.state is not AttemptState.ENDED)},
    beside=_held,
)
CHECK_INS = Kind(
    collection="checkIns",
    codec=Codec(CheckIn, FIRESTORE),
    key=lambda check_in: (check_in.hospital_id, check_in.id),
)
ALERTS = Kind(
    collection="alerts",
    codec=Codec(Alert, FIRESTORE),
    key=lambda alert: (alert.hospital_id, alert.id),
    derive=lambda alert, document: {**document, **_open(alert.acknowledged_at is None)},
)
ROSTER_REVISIONS = Kind(
    collection="hospitals",
    codec=Codec(RosterRevision, FIRESTORE),
    key=lambda roster: (roster.hospital_id,),
)  # otherwise only ever changed by increments

KINDS: tuple[Kind[Any], ...] = (
    PATIENTS,
    INTERACTIONS,
    DO_NOT_CALL,
    ROUNDS,
    EXECUTIONS,
    CALLS,
    ATTEMPTS,
    CHECK_INS,
    ALERTS,
    ROSTER_REVISIONS,
)
KIND_OF: Mapping[type[Any], Kind[Any]] = {kind.codec.kind: kind for kind in KINDS}

AIDS = (BARS, CALL_SIDS, HEALTH, LINES, SECRET)


def hospital_place(hospital_id: str) -> Place:
    """Where a hospital's roster revision is."""
    return ROSTER_REVISIONS.place_of(hospital_id)
