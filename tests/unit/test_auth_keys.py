"""Keys: fetched once, cached, rotated, kept through an outage; tokens of the local issuer and of the metadata server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm

from careflow.auth import setup
from careflow.auth.issuer import LocalIssuer
from careflow.auth.jwks import FileKeys, JwksSource, KeysUnavailable, cache_age, parse_jwks
from careflow.auth.tokens import LocalTokens, MetadataTokens
from careflow.auth.verify import AuthError, Verifier
from careflow.clock import VirtualClock
from careflow.errors import ProviderError, SettingsError
from careflow.settings import load_settings

T = TypeVar("T")
NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
ACCOUNT = "pulse@careflow-local.iam.gserviceaccount.com"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW)


@pytest.fixture
def issuer(tmp_path: Path) -> LocalIssuer:
    return LocalIssuer(tmp_path / "issuer")


def kid_of(issuer: LocalIssuer) -> str:
    return str(issuer.jwks()["keys"][0]["kid"])


class Address:
    """A JWKS address that counts how often it is asked, and can be broken."""

    def __init__(self, issuer: LocalIssuer, *, cache: str = "public, max-age=3600") -> None:
        self.issuer = issuer
        self.asked = 0
        self.broken = False
        self.cache = cache

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await asyncio.sleep(0)  # lets the other askers in, as a network would
        if self.broken:
            return httpx.Response(503)
        return httpx.Response(200, json=self.issuer.jwks(), headers={"cache-control": self.cache})

    def source(self, clock: VirtualClock) -> JwksSource:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return JwksSource("https://issuer.example/keys", http, clock)


class TestJwksSource:
    async def test_it_asks_once_for_as_long_as_the_answer_holds(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        address = Address(issuer)
        source = address.source(clock)
        for _ in range(3):
            assert await source.key(kid_of(issuer))
            clock.advance(1100)
        assert address.asked == 1
        clock.advance(1000)
        assert await source.key(kid_of(issuer))
        assert address.asked == 2

    async def test_a_hundred_askers_make_one_request(self, issuer: LocalIssuer, clock: VirtualClock) -> None:
        address = Address(issuer)
        source = address.source(clock)
        keys = await asyncio.gather(*(source.key(kid_of(issuer)) for _ in range(100)))
        assert all(keys)
        assert address.asked == 1

    async def test_a_new_key_is_found_at_once(self, issuer: LocalIssuer, clock: VirtualClock) -> None:
        address = Address(issuer)
        source = address.source(clock)
        old = kid_of(issuer)
        await source.key(old)
        clock.advance(11)
        new = issuer.rotate()
        assert await source.key(new)
        assert await source.key(old)
        assert address.asked == 2

    async def test_made_up_key_ids_cannot_flood_the_issuer(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        address = Address(issuer)
        source = address.source(clock)
        for number in range(50):
            assert await source.key(f"made-up-{number}") is None
            clock.advance(1)
        assert address.asked == 5

    async def test_known_keys_outlive_an_outage_for_a_day(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        address = Address(issuer)
        source = address.source(clock)
        await source.key(kid_of(issuer))
        address.broken = True
        clock.advance(20 * 3600)
        assert await source.key(kid_of(issuer))
        clock.advance(6 * 3600)
        with pytest.raises(KeysUnavailable):
            await source.key(kid_of(issuer))

    async def test_without_any_keys_it_says_so_and_recovers(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        address = Address(issuer)
        address.broken = True
        source = address.source(clock)
        with pytest.raises(KeysUnavailable):
            await source.key("k")
        address.broken = False
        clock.advance(11)
        assert await source.key(kid_of(issuer))

    async def test_an_asker_who_gives_up_does_not_hold_up_the_next(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        hanging = asyncio.Event()
        address = Address(issuer)

        async def hang_once(request: httpx.Request) -> httpx.Response:
            if not hanging.is_set():
                hanging.set()
                await asyncio.Event().wait()
            return await address(request)

        http = httpx.AsyncClient(transport=httpx.MockTransport(hang_once))
        source = JwksSource("https://issuer.example/keys", http, clock)
        first = asyncio.create_task(source.key(kid_of(issuer)))
        await hanging.wait()
        first.cancel()
        assert await source.key(kid_of(issuer))

    @pytest.mark.parametrize(
        "url", ["http://issuer.example/keys", "ftp://issuer.example", "file:///etc/keys"]
    )
    def test_keys_come_over_https_only(self, clock: VirtualClock, url: str) -> None:
        with pytest.raises(SettingsError, match="https://"):
            JwksSource(url, httpx.AsyncClient(), clock)

    async def test_a_token_is_verified_against_a_real_server(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        with serving(json.dumps(issuer.jwks()).encode()) as url:
            async with httpx.AsyncClient() as http:
                verifier = Verifier(
                    JwksSource(url, http, clock), issuers=frozenset({issuer.issuer}), clock=clock
                )
                token = issuer.mint(ACCOUNT, "https://caller.example", NOW)
                accounts = frozenset({ACCOUNT})
                claims = await verifier.verify(token, audience="https://caller.example", accounts=accounts)
                assert claims.email == ACCOUNT
                with pytest.raises(AuthError, match="audience"):
                    await verifier.verify(token, audience="https://pulse.example", accounts=accounts)


class serving:  # noqa: N801 - reads as a verb
    """A real HTTP server on loopback that answers every GET with the body."""

    def __init__(self, body: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/keys"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("public, max-age=20, must-revalidate", 20),
        ("max-age=0", 0),
        ("no-store, max-age=99", 0),
        ("max-age=999999999", 86400),
        ("s-maxage=7", 300),
        ("", 300),
    ],
)
def test_cache_age_is_what_the_header_says_in_bounds(header: str, seconds: int) -> None:
    assert cache_age(header) == timedelta(seconds=seconds)


class TestParseJwks:
    def test_only_public_rsa_signing_keys_count(self, issuer: LocalIssuer) -> None:
        good = issuer.jwks()["keys"][0]
        bad = [
            {**good, "kid": "a", "use": "enc"},
            {**good, "kid": "b", "alg": "RS512"},
            {**good, "kid": "c", "n": "AQAB"},
            {
                **RSAAlgorithm.to_jwk(generate_private_key(65537, 1024).public_key(), as_dict=True),
                "kid": "short",
            },
            {**good, "kid": ""},
            {"kty": "oct", "kid": "d", "k": "c2VjcmV0"},
            {**good, "kid": "e", "n": 5},
            "key",
        ]
        assert set(parse_jwks(json.dumps({"keys": [*bad, good]}).encode())) == {good["kid"]}

    @pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys":{}}', b"\xff", b"[" * 100_000])
    def test_what_is_no_key_set_is_refused(self, document: bytes) -> None:
        with pytest.raises(ValueError):
            parse_jwks(document)


class TestFileKeys:
    async def test_it_sees_a_rotation_and_survives_a_broken_file(self, issuer: LocalIssuer) -> None:
        keys = FileKeys(issuer.jwks_path)
        old = kid_of(issuer)
        assert await keys.key(old)
        new = issuer.rotate()
        assert await keys.key(new)
        issuer.jwks_path.write_text("{ half")
        assert await keys.key(new)
        assert await keys.key("made-up") is None

    async def test_no_file_is_no_keys(self, tmp_path: Path) -> None:
        with pytest.raises(KeysUnavailable):
            await FileKeys(tmp_path / "jwks.json").key("k")


async def in_time(clock: VirtualClock, work: Coroutine[Any, Any, T]) -> T:
    """What the work answers, while the clock goes on."""
    doing = asyncio.ensure_future(work)
    while not doing.done():
        await asyncio.sleep(0)
        clock.advance(0.1)
    return doing.result()


MAKE_ISSUER = (
    "import sys,pathlib;from careflow.auth.issuer import LocalIssuer as L;L(pathlib.Path(sys.argv[1]))"
)


class TestLocalIssuer:
    async def test_its_tokens_have_googles_claims_and_verify(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        verifier = Verifier(FileKeys(issuer.jwks_path), issuers=frozenset({issuer.issuer}), clock=clock)
        claims = await verifier.verify(
            issuer.mint(ACCOUNT, "a", NOW), audience="a", accounts=frozenset({ACCOUNT})
        )
        assert (claims.email, claims.expires_at) == (ACCOUNT, NOW + timedelta(hours=1))
        assert claims.subject.isdigit()
        assert len(claims.subject) == 21

    def test_the_key_is_the_owners_alone_and_is_not_published(self, issuer: LocalIssuer) -> None:
        directory = issuer.jwks_path.parent
        assert (directory / "signing-key.pem").stat().st_mode & 0o777 == 0o600
        assert directory.stat().st_mode & 0o077 == 0
        assert set(issuer.jwks()["keys"][0]) == {"kty", "use", "alg", "kid", "n", "e"}
        assert not [path for path in directory.iterdir() if path.name.startswith(".")]

    def test_processes_that_start_at_once_share_one_key(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", MAKE_ISSUER, str(tmp_path / "issuer")]
        started = [subprocess.Popen(command) for _ in range(3)]
        assert [process.wait(30) for process in started] == [0, 0, 0]
        assert len(LocalIssuer(tmp_path / "issuer").jwks()["keys"]) == 1

    async def test_rotation_reaches_other_processes_and_keeps_old_tokens_valid(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        other = LocalIssuer(issuer.jwks_path.parent)
        before = other.mint(ACCOUNT, "a", NOW)
        issuer.rotate()
        after = other.mint(ACCOUNT, "a", NOW)
        keys = FileKeys(issuer.jwks_path)
        verifier = Verifier(keys, issuers=frozenset({issuer.issuer}), clock=clock)
        for token in (before, after):
            assert await verifier.verify(token, audience="a", accounts=frozenset({ACCOUNT}))
        assert before.split(".")[0] != after.split(".")[0]
        issuer.rotate()
        with pytest.raises(AuthError, match="unknown-key"):
            await verifier.verify(before, audience="a", accounts=frozenset({ACCOUNT}))

    def test_a_lost_key_set_is_published_again(self, issuer: LocalIssuer) -> None:
        before = issuer.jwks()
        issuer.jwks_path.unlink()
        assert LocalIssuer(issuer.jwks_path.parent).jwks() == before


class TestTokens:
    async def test_a_local_token_is_kept_until_shortly_before_its_end(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        tokens = LocalTokens(issuer, ACCOUNT, clock)
        first = await tokens.token("a")
        clock.advance(54 * 60)
        assert await tokens.token("a") == first
        assert await tokens.token("b") != first
        clock.advance(2 * 60)
        assert await tokens.token("a") != first

    async def test_the_metadata_server_is_asked_as_it_wants_to_be_and_once(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        seen: list[httpx.Request] = []

        def serve(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, text=issuer.mint(ACCOUNT, request.url.params["audience"], clock.now()))

        tokens = MetadataTokens(httpx.AsyncClient(transport=httpx.MockTransport(serve)), clock)
        got = await asyncio.gather(*(tokens.token("https://caller.example") for _ in range(20)))
        assert len(set(got)) == len(seen) == 1
        assert seen[0].headers["metadata-flavor"] == "Google"
        assert seen[0].url.path == "/computeMetadata/v1/instance/service-accounts/default/identity"
        clock.advance(56 * 60)
        await tokens.token("https://caller.example")
        assert len(seen) == 2

    async def test_a_token_in_hand_outlives_a_metadata_failure(
        self, issuer: LocalIssuer, clock: VirtualClock
    ) -> None:
        answers = iter([httpx.Response(200, text=issuer.mint(ACCOUNT, "a", NOW)), *[httpx.Response(500)] * 8])
        tokens = MetadataTokens(
            httpx.AsyncClient(transport=httpx.MockTransport(lambda _: next(answers))), clock
        )
        first = await tokens.token("a")
        clock.advance(57 * 60)
        assert await in_time(clock, tokens.token("a")) == first
        clock.advance(2.5 * 60)
        with pytest.raises(ProviderError, match="500"):
            await in_time(clock, tokens.token("a"))
        assert next(answers, None) is None  # four tries each time

    @pytest.mark.parametrize("failure", [500, 503, 429, "silence"])
    async def test_what_may_pass_is_asked_again(
        self, issuer: LocalIssuer, clock: VirtualClock, failure: int | str
    ) -> None:
        tries = 0

        def serve(request: httpx.Request) -> httpx.Response:
            nonlocal tries
            tries += 1
            if tries < 3:
                if isinstance(failure, str):
                    raise httpx.ConnectError(failure)
                return httpx.Response(failure)
            return httpx.Response(200, text=issuer.mint(ACCOUNT, "a", NOW))

        tokens = MetadataTokens(httpx.AsyncClient(transport=httpx.MockTransport(serve)), clock)
        assert (await in_time(clock, tokens.token("a"))).count(".") == 2
        assert tries == 3

    @pytest.mark.parametrize("status", [400, 403, 404])
    async def test_an_instance_without_an_account_is_told_so_at_once(
        self, clock: VirtualClock, status: int
    ) -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(status))
        with pytest.raises(ProviderError, match=str(status)) as refused:
            await MetadataTokens(httpx.AsyncClient(transport=transport), clock).token("a")
        assert refused.value.permanent

    @pytest.mark.parametrize("text", ["", "not a token", "a.b.c", "e30.e30.x"])
    async def test_an_answer_that_is_no_token_is_an_error(self, clock: VirtualClock, text: str) -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, text=text))
        with pytest.raises(ProviderError, match="not an identity token"):
            await MetadataTokens(httpx.AsyncClient(transport=transport), clock).token("a")


class TestSetup:
    """Only local settings accept the local issuer (docs/auth.md)."""

    async def test_the_defaults_verify_their_own_tokens(self, tmp_path: Path, clock: VirtualClock) -> None:
        settings = load_settings(data_dir=tmp_path)
        http = httpx.AsyncClient()
        token = await setup.tokens(settings, ACCOUNT, http, clock).token("a")
        verifier = setup.verifier(settings, http, clock)
        assert await verifier.verify(token, audience="a", accounts=frozenset({ACCOUNT}))

    async def test_google_settings_never_read_the_local_key(
        self, tmp_path: Path, clock: VirtualClock
    ) -> None:
        token = LocalIssuer(tmp_path / "issuer", "https://accounts.google.com").mint(ACCOUNT, "a", NOW)
        settings = load_settings(data_dir=tmp_path, oidc_issuer="https://accounts.google.com")
        answering = httpx.MockTransport(lambda _: httpx.Response(200, json={"keys": []}))
        verifier = setup.verifier(settings, httpx.AsyncClient(transport=answering), clock)
        with pytest.raises(KeysUnavailable):
            await verifier.verify(token, audience="a", accounts=frozenset({ACCOUNT}))
        assert setup.local_issuer(settings) is None

    def test_named_keys_shut_the_local_issuer_out(self, tmp_path: Path) -> None:
        settings = load_settings(data_dir=tmp_path, oidc_jwks="https://issuer.example/keys")
        assert setup.local_issuer(settings) is None
        assert not (tmp_path / "issuer").exists()

    def test_a_stranger_issuer_needs_its_keys_named(self, tmp_path: Path, clock: VirtualClock) -> None:
        with pytest.raises(SettingsError, match="CAREFLOW_OIDC_JWKS"):
            load_settings(data_dir=tmp_path, oidc_issuer="https://issuer.example")
        copied = load_settings(data_dir=tmp_path).model_copy(update={"oidc_issuer": "https://issuer.example"})
        with pytest.raises(SettingsError, match="CAREFLOW_OIDC_JWKS"):
            setup.verifier(copied, httpx.AsyncClient(), clock)


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OIDC_ISSUER", "OIDC_JWKS", "TRUST_PLATFORM_TOKENS"):
        monkeypatch.delenv(f"CAREFLOW_{name}", raising=False)
