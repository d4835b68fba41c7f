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
from schemathesis.specs.openapi.checks import ensure_resource_availability, ignored_auth

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
    ("/tasks/sweep", "POST"),
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


def test_rounds_that_were_triggered_can_be_read_and_closed_in_any_order(pulse_schema: Any) -> None:
    """Along the links of the document, each answer held to it; and a trigger's answer never changes."""
    seen: set[tuple[str, str, int]] = set()
    planned: dict[str, Any] = {}

    class Rounds(pulse_schema.as_state_machine()):  # type: ignore[misc]
        def validate_response(self, response: Any, case: Any, **options: Any) -> None:
            # A round is one hospital's: asked for as another's, it is not found, just created or not.
            excluded = [ignored_auth, ensure_resource_availability]
            case.validate_response(response, excluded_checks=excluded)
            seen.add((case.method, case.path, response.status_code))
            if (case.method, case.path, response.status_code) == ("POST", "/", 200):
                body = response.json()
                assert planned.setdefault(body["roundId"], body) == body

    Rounds.run(
        settings=settings(
            max_examples=30,
            stateful_step_count=8,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
    )
    assert seen >= {("POST", "/", 200), ("GET", "/rounds/{roundId}", 200), ("POST", "/tasks/close", 200)}
