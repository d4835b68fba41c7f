"""Every check of docs/auth.md refuses what it is there for, and each refusal says why in one word."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from careflow.auth.verify import MAX_TOKEN_BYTES, AuthError, Claims, Forbidden, Unauthenticated, Verifier
from careflow.clock import VirtualClock

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
ISSUER = "https://accounts.google.com"
AUDIENCE = "https://pulse.example"
ACCOUNT = "scheduler@careflow-test.iam.gserviceaccount.com"
STRIPPED = "SIGNATURE_REMOVED_BY_GOOGLE"


class OneKey:
    def __init__(self, key: RSAPublicKey) -> None:
        self._key = key

    async def key(self, kid: str) -> RSAPublicKey | None:
        return self._key if kid == "k1" else None


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def claims(**changes: Any) -> dict[str, Any]:
    stamp = int(NOW.timestamp())
    base = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "1234",
        "email": ACCOUNT,
        "email_verified": True,
        "iat": stamp,
        "exp": stamp + 3600,
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def token(key: RSAPrivateKey, *, kid: str | None = "k1", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm="RS256", headers={"kid": kid} if kid else None)


def unsigned(header: dict[str, Any], signature: str = "", **changes: Any) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, claims(**changes))
    ]
    return ".".join([*parts, signature])


async def verify(
    key: RSAPrivateKey, token: str, *, trust: bool = False, checked: bool = True, at: datetime = NOW
) -> Claims:
    verifier = Verifier(
        OneKey(key.public_key()),
        issuers=frozenset({ISSUER, "accounts.google.com"}),
        clock=VirtualClock(at),
        trust_platform=trust,
    )
    return await verifier.verify(
        token, audience=AUDIENCE, accounts=frozenset({ACCOUNT}), platform_checked=checked
    )


async def refusal(key: RSAPrivateKey, token: str, **how: Any) -> AuthError:
    with pytest.raises(AuthError) as caught:
        await verify(key, token, **how)
    return caught.value


async def test_it_accepts_the_configured_account(key: RSAPrivateKey) -> None:
    verified = await verify(key, token(key))
    assert (verified.email, verified.audience) == (ACCOUNT, AUDIENCE)
    assert verified.expires_at == NOW + timedelta(hours=1)


async def test_it_accepts_both_spellings_of_googles_issuer(key: RSAPrivateKey) -> None:
    assert (await verify(key, token(key, iss="accounts.google.com"))).issuer == "accounts.google.com"


STAMP = int(NOW.timestamp())
REFUSED = [
    # (claims changed, reason)
    ({"iss": "https://accounts.example"}, "issuer"),
    ({"iss": None}, "issuer"),
    ({"aud": "https://caller.example"}, "audience"),
    ({"aud": AUDIENCE + "/"}, "audience"),
    ({"aud": None}, "audience"),
    ({"aud": []}, "audience"),
    ({"aud": [AUDIENCE, "https://other.example"]}, "audience"),  # also meant for somebody else
    ({"aud": {"0": AUDIENCE}}, "audience"),
    ({"exp": STAMP - 31}, "expired"),
    ({"exp": None}, "exp-missing-or-malformed"),
    ({"exp": str(STAMP + 60)}, "exp-missing-or-malformed"),
    ({"exp": True}, "exp-missing-or-malformed"),
    ({"exp": float("inf")}, "exp-missing-or-malformed"),
    ({"exp": 10**30}, "exp-missing-or-malformed"),
    ({"exp": 253402300799, "iat": STAMP + 31}, "issued-in-the-future"),  # the last second there is
    ({"iat": STAMP + 31}, "issued-in-the-future"),
    ({"iat": None}, "iat-missing-or-malformed"),
    ({"nbf": STAMP + 31}, "not-yet-valid"),
    ({"nbf": "now"}, "nbf-missing-or-malformed"),
    ({"email": None}, "email-missing"),
    ({"email": [ACCOUNT]}, "email-missing"),
    ({"email_verified": False}, "email-unverified"),
    ({"email_verified": "true"}, "email-unverified"),
    ({"email_verified": 1}, "email-unverified"),
    ({"email_verified": None}, "email-unverified"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED)
async def test_it_refuses_a_signed_token_with_a_bad_claim(
    key: RSAPrivateKey, changes: dict[str, Any], reason: str
) -> None:
    error = await refusal(key, token(key, **changes))
    assert isinstance(error, Unauthenticated)
    assert (error.status, error.code) == (401, reason)


@pytest.mark.parametrize("changes", [{"exp": STAMP - 29}, {"iat": STAMP + 29}, {"nbf": STAMP + 29}])
async def test_it_allows_for_two_clocks_that_differ_a_little(
    key: RSAPrivateKey, changes: dict[str, Any]
) -> None:
    assert await verify(key, token(key, **changes))


async def test_a_token_ends_by_the_clock_it_was_given(key: RSAPrivateKey) -> None:
    assert (await refusal(key, token(key), at=NOW + timedelta(hours=2))).code == "expired"
    assert (await refusal(key, token(key), at=NOW - timedelta(days=400))).code == "issued-in-the-future"


async def test_it_accepts_a_list_that_names_only_us(key: RSAPrivateKey) -> None:
    assert (await verify(key, token(key, aud=[AUDIENCE]))).audience == AUDIENCE


@pytest.mark.parametrize("email", ["someone@careflow-test.iam.gserviceaccount.com", ACCOUNT.upper()])
async def test_another_account_is_forbidden(key: RSAPrivateKey, email: str) -> None:
    error = await refusal(key, token(key, email=email))
    assert isinstance(error, Forbidden)
    assert (error.status, error.code) == (403, "account")


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "RS512", "PS256", "ES256", "", None, ["RS256"]])
async def test_it_refuses_every_algorithm_but_rs256(key: RSAPrivateKey, alg: Any) -> None:
    assert (await refusal(key, unsigned({"alg": alg, "kid": "k1"}))).code == "algorithm"


@pytest.mark.parametrize("alg", ["HS256", "RS256"])
async def test_it_refuses_an_hmac_made_with_the_public_key(key: RSAPrivateKey, alg: str) -> None:
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    body = unsigned({"alg": alg, "typ": "JWT", "kid": "k1"}).rpartition(".")[0]
    mac = base64.urlsafe_b64encode(hmac.new(public, body.encode(), hashlib.sha256).digest()).rstrip(b"=")
    error = await refusal(key, f"{body}.{mac.decode()}")
    assert error.code == ("algorithm" if alg == "HS256" else "signature")


async def test_it_refuses_a_signature_of_another_key(key: RSAPrivateKey) -> None:
    other = generate_private_key(public_exponent=65537, key_size=2048)
    assert (await refusal(key, token(other))).code == "signature"


@pytest.mark.parametrize("kid", ["k2", None])
async def test_it_refuses_an_unknown_key_id(key: RSAPrivateKey, kid: str | None) -> None:
    assert (await refusal(key, token(key, kid=kid))).code == "unknown-key"


async def test_it_refuses_extensions_it_does_not_understand(key: RSAPrivateKey) -> None:
    with_crit = jwt.encode(
        claims(), key, algorithm="RS256", headers={"kid": "k1", "crit": ["exp2"], "exp2": 1}
    )
    assert (await refusal(key, with_crit)).code == "malformed"


class TestStrippedSignature:
    """Cloud Run checks the signature and takes it off (reference/google-cloud section 2)."""

    HEADER: ClassVar = {"alg": "RS256", "typ": "JWT", "kid": "k1"}

    async def test_it_is_refused_unless_the_platform_is_trusted(self, key: RSAPrivateKey) -> None:
        stripped = unsigned(self.HEADER, STRIPPED)
        assert (await refusal(key, stripped)).code == "signature-removed"
        assert (await verify(key, stripped, trust=True)).email == ACCOUNT

    async def test_it_is_refused_in_a_header_that_the_platform_did_not_check(
        self, key: RSAPrivateKey
    ) -> None:
        stripped = unsigned(self.HEADER, STRIPPED)
        assert (await refusal(key, stripped, trust=True, checked=False)).code == "signature-removed"

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"aud": "x"}, "audience"),
            ({"exp": STAMP - 31}, "expired"),
            ({"email": "x@y.example"}, "account"),
            ({"email_verified": "true"}, "email-unverified"),
            ({"iss": "x"}, "issuer"),
        ],
    )
    async def test_trusting_the_platform_leaves_every_other_check(
        self, key: RSAPrivateKey, changes: dict[str, Any], reason: str
    ) -> None:
        assert (await refusal(key, unsigned(self.HEADER, STRIPPED, **changes), trust=True)).code == reason

    @pytest.mark.parametrize("signature", ["", "SIGNATURE_REMOVED_BY_GOOGLE_", "c2ln"])
    async def test_trusting_the_platform_trusts_no_other_signature(
        self, key: RSAPrivateKey, signature: str
    ) -> None:
        assert (await refusal(key, unsigned(self.HEADER, signature), trust=True)).status == 401

    async def test_each_part_has_one_spelling(self, key: RSAPrivateKey) -> None:
        """Without a signature nobody else would notice the spare bits of the last letter."""
        tokens = (unsigned(self.HEADER, STRIPPED, padding="x" * n) for n in range(1, 4))
        head, body, signature = next(parts for one in tokens if len((parts := one.split("."))[1]) % 4 == 3)
        respelt = body[:-1] + chr(ord(body[-1]) + 1)
        assert await verify(key, f"{head}.{body}.{signature}", trust=True)
        assert (await refusal(key, f"{head}.{respelt}.{signature}", trust=True)).code == "malformed"

    async def test_alg_none_stays_refused(self, key: RSAPrivateKey) -> None:
        assert (await refusal(key, unsigned({"alg": "none"}, STRIPPED), trust=True)).code == "algorithm"


GARBAGE = [
    "",
    ".",
    "..",
    "a.b",
    "a.b.c.d",
    "....",
    "ä.ö.ü",
    "\x00.\x00.\x00",
    base64.urlsafe_b64encode(b"[" * 3000).decode() + ".e30.AA",  # nested too deeply
    base64.urlsafe_b64encode(b'{"alg":"RS256"').decode().rstrip("=") + ".e30.AA",
    "bnVsbA.e30.AA",
]


@pytest.mark.parametrize("text", GARBAGE)
async def test_it_refuses_what_is_no_token(key: RSAPrivateKey, text: str) -> None:
    assert (await refusal(key, text)).code == "malformed"


async def test_it_does_not_look_into_a_huge_token(key: RSAPrivateKey) -> None:
    assert (await refusal(key, token(key, padding="x" * MAX_TOKEN_BYTES))).code == "too-long"
    assert await verify(key, token(key, padding="x" * 4000))


async def test_no_refusal_shows_anything_of_the_token(key: RSAPrivateKey) -> None:
    for bad in (
        token(key, email="secret@x.example"),
        token(key, aud="secret"),
        token(key) + "x",
        "secret.x.y",
    ):
        error = await refusal(key, bad)
        shown = f"{error!r} {error} {error.__cause__} {error.code}"
        assert "secret" not in shown
        assert bad[:20] not in shown
