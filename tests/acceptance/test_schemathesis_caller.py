"""The Caller's HTTP surface against its own OpenAPI document, by strangers and by a Twilio that signs what it sends."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection
from twilio.request_validator import RequestValidator

from caller_support import world
from careflow.caller.app import create_caller
from careflow.settings import Settings

PUBLIC = "https://caller.test"
TOKEN = "an-auth-token"
Mode = schemathesis.GenerationMode
HOOKS = [f"/twilio/{hook}/{{attempt_id}}" for hook in ("voice", "resume", "status", "amd")]
OPERATIONS = [*((hook, "POST") for hook in HOOKS), ("/", "POST"), ("/healthz", "GET"), ("/readyz", "GET")]
EXAMPLES = settings(
    max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@dataclass(frozen=True)
class Site:
    """The Caller's app without its door, and attempts that it knows: one dialled, one not yet."""

    schema: Any
    known: list[str]


@pytest.fixture(scope="module")
def caller() -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        opened = stage(Path(folder))
        yield runner.run(anext(opened))
        runner.run(opened.aclose())


async def stage(folder: Path) -> AsyncIterator[Site]:
    async with world(folder) as here:
        order = await here.ready()
        desk = here.desk()
        await desk.begin(order)
        configured = Settings(twilio_auth_token=SecretStr(TOKEN), caller_public_url=PUBLIC)
        app = create_caller(desk=desk, watch=here.watch, store=here.store, settings=configured)
        yield Site(schemathesis.openapi.from_asgi("/openapi.json", app), [order.attempt_id])


def sign(case: Any) -> None:
    """Twilio's signature, where the form is one that Twilio could send."""
    body = case.body if isinstance(case.body, dict) else {}
    if all(isinstance(value, str) for pair in body.items() for value in pair):
        path = case.path.format(**case.path_parameters)
        case.headers["X-Twilio-Signature"] = RequestValidator(TOKEN).compute_signature(PUBLIC + path, body)


def modes(operations: Sequence[tuple[str, str]]) -> list[Any]:
    """Each with good and with bad input, where there is any input."""
    return [
        pytest.param(path, method, mode, id=f"{method} {path} {mode.name.lower()}")
        for path, method in operations
        for mode in Mode
        if method == "POST" or mode.is_positive
    ]


@pytest.mark.parametrize(("path", "method", "mode"), modes(OPERATIONS))
def test_the_surface_is_as_documented_to_strangers(caller: Site, path: str, method: str, mode: Mode) -> None:
    @EXAMPLES
    @given(case=caller.schema[path][method].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        # The door (auth.middleware) has tests of its own. JSON-RPC tells its errors with 200.
        excluded = [ignored_auth, *([negative_data_rejection] if path == "/" else [])]
        answer = case.call_and_validate(excluded_checks=excluded)
        assert "twilio" not in path or not answer.status_code < 300

    check()


@pytest.mark.parametrize(("path", "method", "mode"), modes([(hook, "POST") for hook in HOOKS]))
def test_the_surface_is_as_documented_to_twilio(caller: Site, path: str, method: str, mode: Mode) -> None:
    statuses: set[int] = set()

    @EXAMPLES
    @given(
        case=caller.schema[path][method].as_strategy(generation_mode=mode),
        name=st.sampled_from([*caller.known, None]),
    )
    def check(case: Any, name: str | None) -> None:
        if name is not None:
            case.path_parameters["attempt_id"] = name
        sign(case)
        # Where a known name was put in the place of a bad one, the request may have become a good one.
        excluded = [ignored_auth, *([negative_data_rejection] if name else [])]
        statuses.add(case.call_and_validate(excluded_checks=excluded).status_code)

    check()
    if mode.is_positive:
        assert statuses >= {404}
        assert statuses & {200, 204}


def test_every_operation_is_among_them(caller: Site) -> None:
    found = {(one.ok().path, one.ok().method.upper()) for one in caller.schema.get_all_operations()}
    assert found == set(OPERATIONS)
