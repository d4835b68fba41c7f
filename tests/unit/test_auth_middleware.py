"""The door refuses everything that no rule opens, and says so in one shape."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from careflow.auth.issuer import LocalIssuer
from careflow.auth.jwks import FileKeys
from careflow.auth.middleware import RequireToken, Rule
from careflow.auth.verify import Verifier
from careflow.clock import VirtualClock

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
SCHEDULER, QUEUE = "scheduler@x.example", "queue@x.example"


async def inside(scope: Any, receive: Any, send: Any) -> None:
    user = scope.get("user")
    await JSONResponse({"who": Request(scope).user.display_name if user else None})(scope, receive, send)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> LocalIssuer:
    return LocalIssuer(tmp_path_factory.mktemp("issuer"))


def door(keys: Path, app: Any = inside) -> RequireToken:
    clock = VirtualClock(NOW)
    verifier = Verifier(FileKeys(keys), issuers=frozenset({"https://careflow.local"}), clock=clock)

    def rule(path: str, *accounts: str) -> Rule:
        return Rule(path=path, methods=frozenset({"POST"}), accounts=frozenset(accounts), audience="pulse")

    return RequireToken(
        app,
        verifier=verifier,
        rules=[rule("/", SCHEDULER), rule("/tasks/*", QUEUE)],
        public=["/health", "/twilio/*"],
    )


@pytest.fixture
def client(issuer: LocalIssuer) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(door(issuer.jwks_path))
    return httpx.AsyncClient(transport=transport, base_url="http://pulse.example")


def bearer(issuer: LocalIssuer, account: str = SCHEDULER, audience: str = "pulse") -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.mint(account, audience, NOW)}"}


async def test_the_right_account_comes_in_and_is_known_inside(
    client: httpx.AsyncClient, issuer: LocalIssuer
) -> None:
    answer = await client.post("/", headers=bearer(issuer))
    assert (answer.status_code, answer.json()) == (200, {"who": SCHEDULER})


async def test_each_path_has_its_own_accounts(client: httpx.AsyncClient, issuer: LocalIssuer) -> None:
    assert (await client.post("/tasks/call", headers=bearer(issuer, QUEUE))).status_code == 200
    answer = await client.post("/tasks/call", headers=bearer(issuer, SCHEDULER))
    assert answer.status_code == 403
    assert answer.json() == {"error": {"code": "account", "message": "token refused: account"}}
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer  "},
    ],
)
async def test_no_token_is_401_with_a_bare_challenge(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.post("/", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["code"] == "missing"


async def test_a_bad_token_is_401_with_the_reason(client: httpx.AsyncClient, issuer: LocalIssuer) -> None:
    answer = await client.post("/", headers=bearer(issuer, audience="caller"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token", error_description="audience"'


async def test_two_credentials_are_refused(client: httpx.AsyncClient, issuer: LocalIssuer) -> None:
    value = bearer(issuer)["Authorization"]
    answer = await client.post("/", headers=[("Authorization", value), ("Authorization", value)])
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "duplicate-credentials")


async def test_the_scheme_is_read_without_regard_to_case(
    client: httpx.AsyncClient, issuer: LocalIssuer
) -> None:
    value = bearer(issuer)["Authorization"].replace("Bearer", "bearer")
    assert (await client.post("/", headers={"authorization": value})).status_code == 200


class TestServerlessAuthorization:
    """Cloud Run leaves Authorization to the app when it is given the other header."""

    async def test_it_is_read_when_it_is_alone(self, client: httpx.AsyncClient, issuer: LocalIssuer) -> None:
        value = bearer(issuer)["Authorization"]
        assert (await client.post("/", headers={"X-Serverless-Authorization": value})).status_code == 200

    async def test_authorization_is_ours_when_both_are_there(
        self, client: httpx.AsyncClient, issuer: LocalIssuer
    ) -> None:
        good, bad = bearer(issuer)["Authorization"], "Bearer a.b.c"
        both = {"Authorization": good, "X-Serverless-Authorization": bad}
        assert (await client.post("/", headers=both)).status_code == 200
        both = {"Authorization": bad, "X-Serverless-Authorization": good}
        assert (await client.post("/", headers=both)).status_code == 401

    async def test_a_stripped_token_beside_another_is_never_trusted(self, issuer: LocalIssuer) -> None:
        keys = FileKeys(issuer.jwks_path)
        issuers = frozenset({"https://careflow.local"})
        verifier = Verifier(keys, issuers=issuers, clock=VirtualClock(NOW), trust_platform=True)
        rule = Rule(path="/", methods=frozenset({"POST"}), accounts=frozenset({SCHEDULER}), audience="pulse")
        app = RequireToken(inside, verifier=verifier, rules=[rule])
        stripped = bearer(issuer)["Authorization"].rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE"
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://pulse.example"
        ) as client:
            alone = await client.post("/", headers={"Authorization": stripped})
            forged = {"Authorization": stripped, "X-Serverless-Authorization": "Bearer anything"}
            beside = await client.post("/", headers=forged)
        assert (alone.status_code, beside.status_code) == (200, 401)


async def test_public_paths_need_no_token(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json() == {"who": None}
    assert (await client.post("/twilio/voice/a-1")).status_code == 200


async def test_what_no_rule_names_is_not_there_even_with_a_token(
    client: httpx.AsyncClient, issuer: LocalIssuer
) -> None:
    for path in ("/docs", "/healthz", "/health/", "/twilio", "/tasks", "/Health"):
        assert (await client.post(path, headers=bearer(issuer))).status_code == 404, path


async def test_a_method_without_a_rule_is_405(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/tasks/call")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/twilio/../tasks/call", "/twilio//x", "/twilio/./x", "/twilio/.."])
async def test_a_path_that_can_be_read_two_ways_is_not_public(issuer: LocalIssuer, path: str) -> None:
    assert await status_of({"type": "http", "method": "POST", "path": path}, issuer) == 404


async def status_of(scope: dict[str, Any], issuer: LocalIssuer) -> int | str:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    await door(issuer.jwks_path)({"headers": [], **scope}, receive, send)
    return sent[0].get("status", sent[0]["type"])


async def test_a_websocket_passes_only_where_it_is_public(issuer: LocalIssuer) -> None:
    assert await status_of({"type": "websocket", "path": "/tasks/call"}, issuer) == "websocket.close"
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    await door(issuer.jwks_path, app)({"type": "websocket", "path": "/twilio/media"}, None, None)  # type: ignore[arg-type]
    await door(issuer.jwks_path, app)({"type": "lifespan"} | {"path": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert reached == ["/twilio/media", "lifespan"]


async def test_without_keys_it_asks_to_come_again(issuer: LocalIssuer, tmp_path: Path) -> None:
    transport = httpx.ASGITransport(door(tmp_path / "none.json"))
    async with httpx.AsyncClient(transport=transport, base_url="http://pulse.example") as client:
        answer = await client.post("/", headers=bearer(issuer))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["error"]["code"] == "keys-unavailable"
