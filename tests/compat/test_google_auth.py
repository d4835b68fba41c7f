"""Google's own library beside ours, on one metadata server and one key set: both ask alike, and take the same tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from google.auth.compute_engine import IDTokenCredentials, _metadata
from google.auth.transport.requests import Request
from google.oauth2 import id_token
from jwt import PyJWTError

from careflow.auth.issuer import LocalIssuer
from careflow.auth.issuers import GOOGLE_ISSUER
from careflow.auth.jwks import JwksSource
from careflow.auth.tokens import MetadataTokens
from careflow.auth.verify import AuthError, Verifier
from careflow.clock import SystemClock

ACCOUNT = "careflow-pulse@hospital-prod.iam.gserviceaccount.com"
AUDIENCE = "https://caller-agent-abc-uc.a.run.app"


@dataclass
class Google:
    """What an instance sees of Google: the metadata server, and the key set of the tokens' issuer."""

    issuer: LocalIssuer
    url: str = ""
    failures: int = 0  # how often the metadata server answers 503 first
    asked: list[tuple[str, dict[str, list[str]], str | None]] = field(default_factory=list)

    def identity(self, request: BaseHTTPRequestHandler) -> tuple[int, str, str]:
        parts = urlsplit(request.path)
        self.asked.append((parts.path, parse_qs(parts.query), request.headers.get("Metadata-Flavor")))
        if request.headers.get("Metadata-Flavor") != "Google":
            return 403, "text/html", "Missing Metadata-Flavor:Google header."
        if self.failures:
            self.failures -= 1
            return 503, "text/html", "try again"
        audience = parse_qs(parts.query)["audience"][0]
        return 200, "text/html", self.issuer.mint(ACCOUNT, audience, datetime.now(UTC))


@pytest.fixture
def google(tmp_path: Path) -> Iterator[Google]:
    here = Google(LocalIssuer(tmp_path / "google", GOOGLE_ISSUER))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/certs":
                status, kind, body = 200, "application/json", json.dumps(here.issuer.jwks())
            elif path.endswith("/service-accounts/default/identity"):
                status, kind, body = here.identity(self)
            elif path.endswith("/service-accounts/default/"):
                status, kind, body = 200, "application/json", json.dumps({"email": ACCOUNT, "scopes": []})
            else:
                status, kind, body = 404, "text/html", "not found"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield here
    server.shutdown()
    server.server_close()
    thread.join()


def ask_as_google(google: Google, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", google.url.removeprefix("http://"))
    credentials = IDTokenCredentials(Request(), AUDIENCE, use_metadata_identity_endpoint=True)
    credentials.refresh(Request())
    return str(credentials.token)


async def ask_as_we_do(google: Google) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await MetadataTokens(http, SystemClock(), server=google.url).token(AUDIENCE)


async def test_both_ask_the_metadata_server_for_the_same(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask_as_we_do(google)
    ours = google.asked.pop()
    ask_as_google(google, monkeypatch)
    theirs = google.asked.pop()
    assert ours == theirs
    assert ours[2] == "Google"


async def test_both_outlast_a_metadata_server_that_is_not_ready(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.failures = 1
    assert await ask_as_we_do(google)
    google.failures = 1
    assert ask_as_google(google, monkeypatch)
    assert len(google.asked) == 4


async def test_each_verifies_the_other_s_token_and_refuses_another_audience(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    certs = f"{google.url}/certs"
    ours, theirs = await ask_as_we_do(google), ask_as_google(google, monkeypatch)
    async with httpx.AsyncClient(trust_env=False) as http:
        verifier = Verifier(
            JwksSource(certs, http, SystemClock()), issuers=frozenset({GOOGLE_ISSUER}), clock=SystemClock()
        )
        accounts = frozenset({ACCOUNT})
        assert (await verifier.verify(theirs, audience=AUDIENCE, accounts=accounts)).email == ACCOUNT
        with pytest.raises(AuthError, match="audience"):
            await verifier.verify(theirs, audience=f"{AUDIENCE}/", accounts=accounts)
    assert id_token.verify_token(ours, Request(), AUDIENCE, certs_url=certs)["email"] == ACCOUNT
    with pytest.raises(PyJWTError, match="udience"):
        id_token.verify_token(ours, Request(), f"{AUDIENCE}/", certs_url=certs)


async def test_both_refuse_an_expired_token(google: Google) -> None:
    certs, then = f"{google.url}/certs", datetime.now(UTC) - timedelta(hours=2)
    token = google.issuer.mint(ACCOUNT, AUDIENCE, then)
    async with httpx.AsyncClient(trust_env=False) as http:
        verifier = Verifier(
            JwksSource(certs, http, SystemClock()), issuers=frozenset({GOOGLE_ISSUER}), clock=SystemClock()
        )
        with pytest.raises(AuthError, match="expired"):
            await verifier.verify(token, audience=AUDIENCE, accounts=frozenset({ACCOUNT}))
    with pytest.raises(PyJWTError, match="expired"):
        id_token.verify_token(token, Request(), AUDIENCE, certs_url=certs)
