"""The lab's own API under `/lab` (docs/lab.md): whatever is put there is taken whole or refused, and the lab goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from careflow.clock import VirtualClock
from careflow.lab.app import create_lab
from careflow.lab.config import LabConfig
from careflow.lab.faults import Faults
from careflow.lab.personas import Persona
from lab_bench import ACCOUNT, FROM, MORNING, TOKEN

EXAMPLES = settings(
    max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""Any JSON, NaN included."""

SUBSCRIBER = {
    "type": "object",
    "required": ["phone", "persona", "givenName", "birthYear"],
    "additionalProperties": False,
    "properties": {
        "phone": {"type": "string", "pattern": "^\\+1[2-9][0-9]{2}55501[0-9]{2}$"},
        "persona": {"enum": [persona.value for persona in Persona]},
        "givenName": {"type": "string", "pattern": "^[A-Z][a-z]{1,8}$"},
        "birthYear": {"enum": [1931, 1948, 1962]},
        "language": {"enum": ["en", "es"]},
    },
}


def documented(operation: dict[str, Any], *statuses: int) -> dict[str, Any]:
    said = {"description": "", "content": {"application/json": {"schema": {}}}}
    return operation | {"responses": {str(status): said for status in statuses}}


def takes(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


CHANCES = {name: {"type": "number", "minimum": 0, "maximum": 1} for name in Faults().to_json()}
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "The lab", "version": "0"},
    "paths": {
        "/lab/subscribers": {
            "get": documented({}, 200),
            "put": documented(takes({"type": "array", "items": SUBSCRIBER, "maxItems": 5}), 200, 400),
        },
        "/lab/faults": {
            "get": documented({}, 200),
            "put": documented(
                takes({"type": "object", "properties": CHANCES, "additionalProperties": False}), 200, 400
            ),
        },
        "/lab/calls": {"get": documented({}, 200)},
        "/lab/live": {"get": documented({}, 200)},
        "/lab/health": {"get": documented({}, 200)},
    },
}


@dataclass(frozen=True)
class Door:
    """The lab, asked from outside any event loop."""

    app: Starlette
    runner: asyncio.Runner
    http: httpx.AsyncClient

    def ask(self, method: str, path: str, **body: Any) -> httpx.Response:
        return self.runner.run(self.http.request(method, path, **body))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    config = LabConfig(
        data_dir=tmp_path_factory.mktemp("lab"),
        account_sid=ACCOUNT,
        auth_token=TOKEN,
        elevenlabs_api_key="lab-key",
        from_numbers=frozenset([FROM]),
    )
    app = create_lab(config, VirtualClock(MORNING)).app
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())  # type: ignore[arg-type]
        yield Door(app, runner, httpx.AsyncClient(transport=transport, base_url="http://lab"))
        runner.run(lifespan.__aexit__(None, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "method"),
    [(path, method) for path, known in DOCUMENT["paths"].items() for method in known],  # type: ignore[attr-defined]
)
def test_the_surface_is_as_documented(lab: Door, path: str, method: str) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.app = lab.app

    @EXAMPLES
    @given(case=schema[path][method.upper()].as_strategy())
    def check(case: Any) -> None:
        answer = lab.ask(method.upper(), path, content=json.dumps(case.body) if method == "put" else None)
        assert answer.status_code == 200, answer.text

    check()


@pytest.mark.parametrize("what", ["subscribers", "faults"])
def test_any_json_is_taken_or_refused_with_nothing_changed(lab: Door, what: str) -> None:
    @EXAMPLES
    @given(JSON)
    def check(value: Any) -> None:
        before = lab.ask("GET", f"/lab/{what}").json()
        answer = lab.ask("PUT", f"/lab/{what}", content=json.dumps(value))
        assert answer.status_code in (200, 400)
        if answer.status_code == 400:
            assert answer.json()["error"]
            assert lab.ask("GET", f"/lab/{what}").json() == before

    check()


def test_any_form_gets_a_call_or_twilio_s_error(lab: Door) -> None:
    @EXAMPLES
    @given(st.dictionaries(st.sampled_from(["To", "From", "Url", "Timeout", "Record", "Twiml"]), st.text()))
    def check(form: dict[str, str]) -> None:
        answer = lab.ask(
            "POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls.json", data=form, auth=(ACCOUNT, TOKEN)
        )
        assert answer.status_code in (201, 400)
        assert answer.json()["status"]

    check()
