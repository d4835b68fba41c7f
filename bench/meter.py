"""Who used Firestore, and why: what a store read and wrote, told apart by service, by what asked and by method of the store.

What asked is the HTTP request or the websocket that is being served, by its route; else a loop of the service's own.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

from careflow.hosting import Service
from careflow.store.firestore import FirestoreStore
from careflow.store.firestore_usage import Usage

OWN_LOOP = "its own loops"
KINDS = ("reads", "writes", "deletes")

_cause: ContextVar[str] = ContextVar("cause", default=OWN_LOOP)
_method: ContextVar[str] = ContextVar("method", default="other")
_AN_ID = re.compile(r"^(?=.*\d)[\w-]{12,}$")


@dataclass(frozen=True, slots=True)
class Line:
    """What one method of the store used, for one service, for one cause."""

    service: str
    cause: str
    method: str
    kind: str  # one of KINDS


@dataclass(slots=True)
class Meter:
    """Documents by `Line`, and requests by (service, route), so far.

    `in_flight` is how many methods of a store have not returned yet.
    """

    documents: Counter[Line] = field(default_factory=Counter)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_flight: int = 0

    def since(self, before: Meter) -> Meter:
        """What came on top of `before`."""
        return Meter(self.documents - before.documents, self.requests - before.requests)

    def copy(self) -> Meter:
        return Meter(self.documents.copy(), self.requests.copy())

    def where(self, wanted: Callable[[Line], bool]) -> Meter:
        """The documents of these lines alone; all of the requests."""
        documents = Counter({line: count for line, count in self.documents.items() if wanted(line)})
        return Meter(documents, self.requests)

    def total(self, kind: str) -> int:
        """All documents of the kind."""
        return sum(count for line, count in self.documents.items() if line.kind == kind)

    def asked(self, service: str) -> int:
        """Requests that the service was sent."""
        return sum(count for (name, _), count in self.requests.items() if name == service)

    def by(self, *names: str) -> Mapping[tuple[str, ...], Counter[str]]:
        """Documents of each kind, summed up by these fields of `Line`."""
        sums: dict[tuple[str, ...], Counter[str]] = {}
        for line, count in self.documents.items():
            sums.setdefault(tuple(getattr(line, name) for name in names), Counter())[line.kind] += count
        return dict(sorted(sums.items(), key=lambda item: -item[1].total()))

    # where it is put between

    def watch(self, service: str, store: FirestoreStore) -> None:
        """Count what this store uses from now on, for the service."""
        usage = _Metered(meter=self, service=service)
        store._connection.usage = usage
        for name, method in inspect.getmembers(store, inspect.iscoroutinefunction):
            if not name.startswith("_"):
                setattr(store, name, self._labelled(name, method))

    def listen(self, service: Service, name: str) -> Service:
        """The same service, whose requests are counted under `name` and are the cause of what they make the store do."""
        app = service.app

        async def counting(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await app(scope, receive, send)
                return
            route = route_of(scope["path"])
            self.requests[name, route] += 1
            token = _cause.set(route)
            try:
                await app(scope, receive, send)
            finally:
                _cause.reset(token)

        return replace(service, app=counting)

    def _labelled(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            token = _method.set(name)
            self.in_flight += 1
            try:
                return await method(*args, **kwargs)
            finally:
                self.in_flight -= 1
                _method.reset(token)

        return call


def route_of(path: str) -> str:
    """The path without the ids in it."""
    return "/".join("*" if _AN_ID.match(part) else part for part in path.split("/"))


@dataclass(slots=True)
class _Metered(Usage):
    meter: Meter = field(default_factory=Meter)
    service: str = ""

    def _read(self, rpc: str, documents: int) -> None:
        Usage._read(self, rpc, documents)
        self._count("reads", documents)

    def committed(self, writes: list[Any]) -> None:
        deletes = self.deletes
        Usage.committed(self, writes)
        self._count("deletes", self.deletes - deletes)
        self._count("writes", len(writes) - (self.deletes - deletes))

    def _count(self, kind: str, number: int) -> None:
        if number:
            self.meter.documents[Line(self.service, _cause.get(), _method.get(), kind)] += number
