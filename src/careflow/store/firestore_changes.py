"""One change to the store, whole or not at all, although others change the same and answers get lost.

A change is planned on what is stored, and committed on condition that it is still so; else it is planned again. That
needs no locks, and is what Firestore does best. After a commit without an answer nobody knows whether it was done. So the
first document of a commit carries a mark made for this commit alone (`writeId`), and whoever plans again looks for it first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.cloud.firestore_v1.types import Write

from careflow.errors import StoreUnavailable
from careflow.store.firestore_connection import Connection, Found, NotCommitted, backoff
from careflow.store.firestore_kinds import Document
from careflow.store.firestore_places import Place
from careflow.store.firestore_values import value_of, write_fields

T = TypeVar("T")
_Write = Write.pb()

TRIES = 8
MARK = "writeId"


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """What to write, and the answer once it is written; without writes the answer is final.

    The first write bears the mark. A plan whose first write is a deletion has none: doing it twice must be the same as once.
    `transaction` holds what must not change until the commit and is not written itself.
    """

    result: T
    writes: Sequence[Any] = ()
    transaction: bytes = b""


class Changes:
    """Carries out plans. `token` makes the marks: text that was never used before."""

    def __init__(self, connection: Connection, token: Callable[[], str]) -> None:
        self._connection = connection
        self._token = token

    # the writes that plans are made of

    def create(self, place: Place, document: Document) -> Any:
        """Refused when there is such a document."""
        write = self.put(place, document)
        write.current_document.exists = False
        return write

    def replace(self, place: Place, document: Document, stored: Found) -> Any:
        """Refused when the document was written since it was read."""
        write = self.put(place, document)
        write.current_document.update_time.CopyFrom(stored.update_time)
        return write

    def put(self, place: Place, document: Document) -> Any:
        """Whatever was there."""
        write = _Write()
        write.update.name = self._connection.name(place)
        write_fields(write.update.fields, document)
        return write

    def merge(self, place: Place, document: Document, increments: Mapping[str, int]) -> Any:
        """Set these keys and add to those; the others stay. A new document starts at zero."""
        write = self.put(place, document)
        write.update_mask.field_paths.extend(document)
        for name, by in increments.items():
            write.update_transforms.add(field_path=name).increment.CopyFrom(value_of(by))
        return write

    def delete(self, place: Place) -> Any:
        """Does nothing when it is not there."""
        return _Write(delete=self._connection.name(place))

    async def carry_out(self, plan: Callable[[], Awaitable[Plan[T]]]) -> T:
        """Plan and commit, again if need be. Raises StoreUnavailable after `TRIES`, and what planning raises.

        When an answer was lost and the change was changed by another before we looked, its new plan decides: who asked then
        learns that another was first.
        """
        doubtful: list[tuple[str, str, T]] = []
        code = ""
        for number in range(TRIES):
            if number:
                await self._connection.sleep(backoff(number, self._connection.random))
            try:
                planned = await plan()
            except NotCommitted as refused:  # could not get its locks
                code = refused.code
                continue
            try:
                for name, mark, result in doubtful:
                    if await self._bears(name, mark):
                        return result
                if not planned.writes:
                    return planned.result
                mark = self._token()
                first = planned.writes[0].update
                if first.name:
                    write_fields(first.fields, {MARK: mark})
                try:
                    await self._connection.commit(planned.writes, planned.transaction)
                except NotCommitted as refused:
                    code = refused.code
                    if refused.doubtful and first.name:
                        doubtful.append((first.name, mark, planned.result))
                else:
                    planned = Plan(planned.result)
                    return planned.result
            finally:
                if planned.transaction:
                    await self._connection.roll_back(planned.transaction)
        raise StoreUnavailable(f"Firestore could not be written in {TRIES} tries: {code}")

    async def _bears(self, name: str, mark: str) -> bool:
        found = await self._connection.get_named([name], select=[MARK])
        return name in found and found[name].document.get(MARK) == mark
