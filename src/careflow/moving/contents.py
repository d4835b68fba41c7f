"""What a store or an archive holds, told so that two of them can be compared whatever order their records come in."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, CallState
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient, RosterRevision
from careflow.core.rounds import Execution, Round
from careflow.errors import CareflowError
from careflow.ports import Archive, R, Record
from careflow.store.codec import CODEC_OF

PAGE = 500
_MODULUS = 1 << 256

KINDS: Mapping[str, type[Record]] = {
    "patients": Patient,
    "do-not-call": DoNotCall,
    "calls": Call,
    "attempts": Attempt,
    "interactions": Interaction,
    "check-ins": CheckIn,
    "alerts": Alert,
    "executions": Execution,
    "hospitals": RosterRevision,
    "rounds": Round,
}
"""In the order in which they are stored. Rounds are last: Pulse dials for no call whose round it does not find."""

Told = Callable[[str], None]
"""Is told how far something is; counts and kinds only."""


class NotMoved(CareflowError):
    """The records could not be carried over."""


class Summary(BaseModel):
    """What there is of one kind. `unfinished` are those that somebody has yet to act on, `hospitals` counts by hospital."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    count: int
    unfinished: int
    hospitals: dict[str, int]
    digest: str


@dataclass(slots=True)
class Tally:
    """A summary in the making.

    The digest is the sum, modulo 2^256, of the SHA-256 of each record's text. So it does not depend on the order, which every
    store has its own of, and a record that is there twice does not vanish from it. It tells accidents; it is no signature.
    """

    unfinished: int = 0
    hospitals: Counter[str] = field(default_factory=Counter)
    _sum: int = 0

    def add(self, record: Record, text: bytes) -> None:
        """`text` is the record as its codec writes it."""
        self.unfinished += is_unfinished(record)
        self.hospitals[record.hospital_id] += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(text).digest())) % _MODULUS

    def summary(self) -> Summary:
        """What was added so far."""
        return Summary(
            count=self.hospitals.total(),
            unfinished=self.unfinished,
            hospitals=dict(sorted(self.hospitals.items())),
            digest=f"{self._sum:064x}",
        )


def is_unfinished(record: Record) -> bool:
    """Whether Pulse or the Caller still has to do something about it that a patient would notice."""
    match record:
        case Call():
            return record.state is not CallState.ENDED
        case Attempt():
            return record.state is not AttemptState.ENDED
        case Round():
            return record.planned_at is None and record.closed_at is None
    return False


def text_of(record: Record) -> bytes:
    """The one line that a record is in an archive, without its end."""
    return CODEC_OF[type(record)].dumps(record).encode()


def digest_of(summaries: Mapping[str, Summary]) -> str:
    """One digest for all kinds together."""
    lines = "".join(f"{name} {one.count} {one.digest}\n" for name, one in sorted(summaries.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


async def pages(
    store: Archive, kind: type[R], hospitals: Collection[str] | None, after: R | None = None
) -> AsyncGenerator[Sequence[R], None]:
    """All records of the kind after that one, of these hospitals (all if None)."""
    while page := await store.records(kind, after=after, limit=PAGE):
        after = page[-1]
        yield [record for record in page if hospitals is None or record.hospital_id in hospitals]


async def survey(store: Archive, hospitals: Collection[str] | None, told: Told) -> dict[str, Summary]:
    """What the store holds of these hospitals (all if None), by kind. Reads everything."""
    return {name: await _tallied(store, name, hospitals, told) for name in KINDS}


async def _tallied(store: Archive, name: str, hospitals: Collection[str] | None, told: Told) -> Summary:
    tally = Tally()
    kind: type[Any] = KINDS[name]
    async for page in pages(store, kind, hospitals):
        for record in page:
            tally.add(record, text_of(record))
        told(f"checked {tally.hospitals.total():,} {name}")
    return tally.summary()


def counted(numbers: Mapping[str, int]) -> str:
    """The kinds of which there are any: "3 calls, 1 attempts"."""
    return ", ".join(f"{number:,} {name}" for name, number in numbers.items() if number)


def unlike(these: Mapping[str, Summary], those: Mapping[str, Summary]) -> Iterable[str]:
    """The kinds of which the two do not hold the same."""
    return [name for name in KINDS if these.get(name) != those.get(name)]
