"""What the store used of Firestore, counted as Google bills it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

ENTRIES_PER_READ = 1000  # index entries that an aggregation goes through for the price of one read


@dataclass(slots=True)
class Usage:
    """Documents read, written and deleted so far, and the requests that did it, by RPC.

    A document that is asked for and not there is a read; a query without a result is one (reference/google-cloud section 3).
    A refused commit writes nothing. `reads_by_rpc` splits `reads` by what read: get, query or count.
    """

    reads: int = 0
    writes: int = 0
    deletes: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    reads_by_rpc: Counter[str] = field(default_factory=Counter)

    def got(self, documents: int) -> None:
        """Documents were asked for by name."""
        self._read("get", documents)

    def queried(self, documents: int) -> None:
        """A query gave so many documents."""
        self._read("query", max(1, documents))

    def counted(self, entries: int) -> None:
        """An aggregation went through so many index entries."""
        self._read("count", max(1, -(-entries // ENTRIES_PER_READ)))

    def committed(self, writes: list[Any]) -> None:
        """A commit of these writes was done."""
        deletes = sum(write.WhichOneof("operation") == "delete" for write in writes)
        self.requests["commit"] += 1
        self.deletes += deletes
        self.writes += len(writes) - deletes

    def _read(self, rpc: str, documents: int) -> None:
        self.requests[rpc] += 1
        self.reads_by_rpc[rpc] += documents
        self.reads += documents
