"""Many records in parts, of which a store takes each whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from careflow.ports import R
from careflow.store.codec import CODEC_OF

PART_BYTES = 1_000_000  # Firestore takes four times as much (firestore_connection.LARGEST_COMMIT_BYTES)
BESIDE_BYTES = 2_000  # for a record's name, and for what a store keeps beside it


def in_parts(records: Iterable[R]) -> Iterator[Sequence[R]]:
    """The records in their order, some hundred at a time; measured as JSON, which is about as long as any form."""
    part: list[R] = []
    size = 0
    for record in records:
        length = len(CODEC_OF[type(record)].dumps(record).encode()) + BESIDE_BYTES
        if part and size + length > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(record)
        size += length
    if part:
        yield part
