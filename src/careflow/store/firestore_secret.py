"""The secret that a database's document ids are made with (`firestore_places`), kept in the database itself: `keys/ids`.

Whoever needs it first makes it; all processes share it from then on, each reads it once. It is never changed: what was
stored under another one would not be found again.
"""

from __future__ import annotations

from collections.abc import Callable

from careflow.errors import StoreError
from careflow.store import firestore_queries as queries
from careflow.store.firestore_changes import Changes, Plan
from careflow.store.firestore_connection import Connection
from careflow.store.firestore_kinds import SECRET
from careflow.store.firestore_places import Place

PLACE = Place(SECRET, name="ids")
FIELD = "secret"


class Secret:
    """Sees to it that the connection has the secret. `make` gives 32 bytes that nobody can guess."""

    def __init__(self, connection: Connection, changes: Changes, make: Callable[[], bytes]) -> None:
        self._connection = connection
        self._changes = changes
        self._make = make

    async def ready(self) -> None:
        """Read the secret, or make it; does nothing the second time. To be awaited before anything is named.

        Many may come here at once and read it each: that is cheaper than to let all wait for one that may go away.
        Raises StoreUnavailable, and StoreError when the secret of a database that is in use is gone.
        """
        if self._connection.secret is None:
            self._connection.secret = bytes.fromhex(await self._changes.carry_out(self._plan))

    async def _plan(self) -> Plan[str]:
        found = await self._connection.get([PLACE])
        if PLACE not in found and await self._in_use():
            found = await self._connection.get([PLACE])  # others may have made it, and used it, since
            if PLACE not in found:
                raise StoreError(
                    "Firestore holds records, but keys/ids is gone, without which none can be found:"
                    " restore the database from a backup (docs/firestore.md)"
                )
        if PLACE in found:
            return Plan(str(found[PLACE].document[FIELD]))
        made = self._make().hex()
        return Plan(made, [self._changes.create(PLACE, {FIELD: made})])

    async def _in_use(self) -> bool:
        return bool((await self._connection.query(None, queries.HOSPITALS.query(limit=1))).documents)
