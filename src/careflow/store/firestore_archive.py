"""`ports.Archive` on Firestore: collections read by document name, records stored with all that is kept beside them."""

from __future__ import annotations

from collections.abc import Sequence

from careflow.errors import StoreError
from careflow.ports import Comparison, R
from careflow.store import firestore_queries as queries
from careflow.store.firestore_changes import MARK, Changes, Plan
from careflow.store.firestore_connection import Connection
from careflow.store.firestore_kinds import KIND_OF, Document, Kind
from careflow.store.firestore_places import Place
from careflow.store.parts import in_parts


class Archiving:
    """What `ports.Archive` says of each method."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    async def records(self, kind: type[R], after: R | None, limit: int) -> Sequence[R]:
        """In the order of the document names: hashes of the keys."""
        stored: Kind[R] = KIND_OF[kind]
        query = queries.walk(
            stored.collection,
            group=stored.collection == "interactions",
            after="" if after is None else self._connection.name(stored.place(after)),
            limit=limit,
        )
        answer = await self._connection.query(None, query)
        return [stored.from_document(document) for document in answer.documents]

    async def compare(self, kind: type[R], records: Sequence[R]) -> Comparison:
        stored: Kind[R] = KIND_OF[kind]
        found = await self._connection.get([stored.place(record) for record in records])
        there = [
            stored.from_document(found[place].document) == record
            for record in records
            if (place := stored.place(record)) in found
        ]
        same = sum(there)
        return Comparison(same, len(there) - same, len(records) - len(there))

    async def restore(self, kind: type[R], records: Sequence[R]) -> int:
        stored: Kind[R] = KIND_OF[kind]
        return sum([await self._create(stored, part) for part in in_parts(records)])

    async def _create(self, kind: Kind[R], records: Sequence[R]) -> int:
        wanted = {kind.place(record): record for record in records}
        beside = {place: kind.beside(record) for place, record in wanted.items()}
        places = dict.fromkeys([*wanted, *(other for documents in beside.values() for other in documents)])

        async def plan() -> Plan[int]:
            found = await self._connection.get(places)
            new = [place for place in wanted if place not in found]
            creates: dict[Place, Document] = {place: kind.to_document(wanted[place]) for place in new}
            for other, document in ((other, one) for place in new for other, one in beside[place].items()):
                there = found[other].document if other in found else creates.setdefault(other, document)
                if {key: value for key, value in there.items() if key != MARK} != document:
                    raise StoreError(
                        f"one of {len(records)} records does not fit beside those in {kind.collection}"
                    )
            return Plan(len(new), [self._changes.create(place, creates[place]) for place in creates])

        return await self._changes.carry_out(plan)
