"""Both stores for tests, by one name each.

There is one Firestore emulator for a pytest process, started when the first test needs it. Each test has a project in it.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Awaitable, Callable
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
from google.cloud.firestore_v1.types import StructuredQuery
from hypothesis import given, settings

from careflow.lab.firestore_emulator import EmulatorMissing, find_emulator
from careflow.ports import Store
from careflow.store.firestore import FirestoreStore
from careflow.store.sqlite import SqliteStore

INFRA = Path(__file__).parents[2] / "infra" / "firestore"


def require_emulator():
    """The emulator of this machine. Skips the test where there is none; in CI there must be one."""
    try:
        return find_emulator()
    except EmulatorMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@cache
def _address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        find_emulator().command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    atexit.register(lambda: (process.kill(), process.wait()))
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return f"127.0.0.1:{port}"
        except OSError:
            assert process.poll() is None, f"the emulator ended with {process.returncode}"
            time.sleep(0.05)
    raise AssertionError("the Firestore emulator does not answer after 60 s")


def emulator_address() -> str:
    """Its host:port."""
    require_emulator()
    return _address()


def project_of(data_dir: Path) -> str:
    """The project that stands for a data directory: the same for the same, and another's for every other."""
    return f"test-{sha256(str(data_dir).encode()).hexdigest()[:16]}"


async def open_firestore(project: str) -> FirestoreStore:
    """A store on the project, in the emulator of this pytest process.

    Google refuses a query without its index and the emulator does not; so this does.
    """
    store = await FirestoreStore.open(project=project, emulator=emulator_address())
    connection = store._connection
    for rpc, asked in (
        ("_query", lambda request: request.structured_query),
        ("_count", lambda request: request.structured_aggregation_query.structured_query),
    ):
        setattr(connection, rpc, _refusing_unindexed(getattr(connection, rpc), asked))
    return store


def _refusing_unindexed(method, asked):
    def call(request, **options):
        wanted = index_of(asked(request))
        assert serves(wanted), f"infra/firestore/firestore.indexes.json has no index for {wanted}"
        return method(request, **options)

    return call


def index_of(query) -> tuple[str, str, frozenset[str], tuple[tuple[str, str], ...]]:
    """What index a StructuredQuery needs, read off the request alone: collection, scope, equal fields, the rest in order."""
    (source,) = query.from_
    operators = StructuredQuery.FieldFilter.Operator
    equal, rest, ranges = set(), [], set()
    for one in query.where.composite_filter.filters:
        name, operator = one.field_filter.field.field_path, operators(one.field_filter.op)
        if operator in (operators.EQUAL, operators.IN):
            equal.add(name)
        elif operator in (operators.ARRAY_CONTAINS, operators.ARRAY_CONTAINS_ANY):
            rest.append((name, "CONTAINS"))
        else:
            ranges.add(name)
    orders = [(one.field.field_path, StructuredQuery.Direction(one.direction).name) for one in query.order_by]
    assert ranges <= {name for name, _ in orders[:1]}, "a range is over the first field of the order"
    scope = "COLLECTION_GROUP" if source.all_descendants else "COLLECTION"
    return source.collection_id, scope, frozenset(equal), (*rest, *orders)


def serves(wanted) -> bool:
    """Whether the declared indexes hold one for this."""
    collection, scope, equal, rest = wanted
    if (equal, rest) == (frozenset(), (("__name__", "ASCENDING"),)):
        return True  # a walk by document name, as the documents themselves lie
    if len(equal) + len(rest) == 1:
        ((name, way),) = rest or ((*equal, "ASCENDING"),)
        override = {"collectionGroup": collection, "fieldPath": name}
        return any(
            {"order": way, "queryScope": scope} in one["indexes"]
            for one in declared_indexes()["fieldOverrides"]
            if override.items() <= one.items()
        )
    for one in declared_indexes()["indexes"]:
        fields = [(field["fieldPath"], field.get("order") or field["arrayConfig"]) for field in one["fields"]]
        first, others = fields[: len(equal)], tuple(fields[len(equal) :])
        if (one["collectionGroup"], one["queryScope"], others) == (collection, scope, rest) and {
            name for name, _ in first
        } == equal:
            return True
    return False


@cache
def declared_indexes():
    """The content of infra/firestore/firestore.indexes.json."""
    return json.loads((INFRA / "firestore.indexes.json").read_text())


async def open_sqlite(data_dir: Path) -> Store:
    """A store on the SQLite database of the directory."""
    return await SqliteStore.open(data_dir)


async def open_emulated(data_dir: Path) -> Store:
    """A store on the project that stands for the directory."""
    return await open_firestore(project_of(data_dir))


OPENERS: dict[str, Callable[[Path], Awaitable[Store]]] = {"sqlite": open_sqlite, "firestore": open_emulated}
"""Each opens the same data again for the same directory, as each process of a deployment does."""


def on_both_stores(*, sqlite: int, firestore: int, **strategies):
    """Make a property of a check that takes the store's kind first: so many examples on each, the emulator being slower."""

    def decorate(check):
        def test(kind):
            @settings(max_examples={"sqlite": sqlite, "firestore": firestore}[kind], deadline=None)
            @given(**strategies)
            def holds(**drawn):
                check(kind, **drawn)

            holds()

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return pytest.mark.parametrize("kind", OPENERS)(test)

    return decorate
