"""Pulse's HTTP surface against its own OpenAPI document: nothing crashes, every answer is documented, bad input is refused."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ignored_auth

from careflow.clock import VirtualClock
from careflow.store.sqlite import SqliteStore
from pulse_world import EIGHT_FIFTEEN, HandQueue, World, patient

schemathesis.openapi.format("iana-time-zone", st.sampled_from(["America/New_York", "Asia/Tokyo", "UTC"]))


@pytest.fixture(scope="module")
def pulse_schema() -> Iterator[object]:
    with tempfile.TemporaryDirectory() as folder:
        store = asyncio.run(SqliteStore.open(Path(folder)))
        asyncio.run(store.put_patients([patient(1), patient(2)]))
        it = World(store, VirtualClock(EIGHT_FIFTEEN), environment="test")
        assert isinstance(it.queue, HandQueue)
        yield schemathesis.openapi.from_asgi("/openapi.json", it.app)
        asyncio.run(store.close())


OPERATIONS = [
    ("/", "POST"),
    ("/tasks/call", "POST"),
    ("/tasks/close", "POST"),
    ("/rounds/{roundId}", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/.well-known/agent-card.json", "GET"),
]


NO_INPUT = {"/healthz", "/readyz", "/.well-known/agent-card.json"}
Mode = schemathesis.GenerationMode
CASES = [
    pytest.param(path, method, mode, id=f"{method} {path} {mode.name.lower()}")
    for path, method in OPERATIONS
    for mode in Mode
    if mode.is_positive or path not in NO_INPUT
]


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_the_surface_is_as_documented(pulse_schema: Any, path: str, method: str, mode: Mode) -> None:
    @settings(
        max_examples=50,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=pulse_schema[path][method].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        # The door (auth.middleware) stands before the app and has tests of its own; here there is none to be ignored.
        case.call_and_validate(excluded_checks=[ignored_auth])

    check()


def test_every_operation_is_among_them(pulse_schema: Any) -> None:
    found = {(one.ok().path, one.ok().method.upper()) for one in pulse_schema.get_all_operations()}
    assert found == set(OPERATIONS)
