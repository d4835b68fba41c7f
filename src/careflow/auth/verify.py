"""Verification of OIDC identity tokens (OpenID Connect Core 3.1.3.7, RFC 7519, RFC 8725), one check after another.

Everything but the lookup of the key is pure; the time is the Clock's, never the machine's. No error and no reason
code holds any part of a token.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from careflow.auth.jwks import KeySource
from careflow.errors import CareflowError
from careflow.ports import Clock

MAX_TOKEN_BYTES = 8192
LEEWAY = timedelta(seconds=30)  # two machines' clocks may differ by this much

_ALGORITHM = "RS256"
_STRIPPED = "SIGNATURE_REMOVED_BY_GOOGLE"  # reference/google-cloud section 2


class AuthError(CareflowError):
    """The request's token was refused; `code` says why in one word and holds nothing of the token."""

    status = 401

    def __init__(self, code: str) -> None:
        super().__init__(f"token refused: {code}")
        self.code = code


class Unauthenticated(AuthError):
    """There is no token, or it proves nothing (HTTP 401)."""


class Forbidden(AuthError):
    """The token is valid, but its account may not do this (HTTP 403)."""

    status = 403


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a verified token says. `audience` is the one of ours that it names."""

    issuer: str
    audience: str
    email: str
    subject: str
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class _Parsed:
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    stripped: bool


class Verifier:
    """Verifies tokens of `issuers` against `keys`.

    `trust_platform` accepts tokens whose signature Cloud Run has checked and removed. It is safe only where nothing
    but the platform's invoker check can reach the service (reference/google-cloud section 2, mode A).
    """

    def __init__(
        self, keys: KeySource, *, issuers: frozenset[str], clock: Clock, trust_platform: bool = False
    ) -> None:
        self._keys = keys
        self._issuers = issuers
        self._clock = clock
        self._trust_platform = trust_platform

    async def verify(
        self,
        token: str,
        *,
        audience: str | frozenset[str],
        accounts: frozenset[str],
        platform_checked: bool = True,
    ) -> Claims:
        """The token's claims, when it is addressed to `audience` (any of them) and speaks for one of `accounts`.

        `platform_checked` is False when this token cannot be the one that the platform looked at.
        Raises Unauthenticated, Forbidden, or KeysUnavailable when no keys are known.
        """
        parsed = _parse(token)
        if parsed.stripped:
            if not (self._trust_platform and platform_checked):
                raise Unauthenticated("signature-removed")
        else:
            await self._check_signature(token, parsed.header)
        audiences = frozenset({audience}) if isinstance(audience, str) else audience
        claims = check_claims(
            parsed.claims, issuers=self._issuers, audiences=audiences, now=self._clock.now()
        )
        if claims.email not in accounts:
            raise Forbidden("account")
        return claims

    async def _check_signature(self, token: str, header: Mapping[str, Any]) -> None:
        import jwt  # here, because it takes a tenth of a cold start and a health check needs none of it

        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise Unauthenticated("unknown-key")
        key = await self._keys.key(kid)
        if key is None:
            raise Unauthenticated("unknown-key")
        try:
            jwt.PyJWS().decode_complete(token, key, algorithms=[_ALGORITHM])
        except jwt.PyJWTError:
            raise Unauthenticated("signature") from None


def check_claims(
    claims: Mapping[str, Any],
    *,
    issuers: frozenset[str],
    audiences: frozenset[str],
    now: datetime,
    leeway: timedelta = LEEWAY,
) -> Claims:
    """The checked claims of a token whose signature is known to be good. Raises Unauthenticated with the first failure."""
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or issuer not in issuers:
        raise Unauthenticated("issuer")
    audience = _audience(claims.get("aud"), audiences)
    expires_at = _instant(claims, "exp")
    issued_at = _instant(claims, "iat")
    if now - leeway >= expires_at:
        raise Unauthenticated("expired")
    if issued_at > now + leeway:
        raise Unauthenticated("issued-in-the-future")
    if "nbf" in claims and _instant(claims, "nbf") > now + leeway:
        raise Unauthenticated("not-yet-valid")
    email = claims.get("email")
    if not isinstance(email, str) or not email:
        raise Unauthenticated("email-missing")
    # Identity, not truth: "true" and 1 are what a careless issuer of somebody else's addresses would send.
    if claims.get("email_verified") is not True:
        raise Unauthenticated("email-unverified")
    subject = claims.get("sub")
    return Claims(
        issuer=issuer,
        audience=audience,
        email=email,
        subject=subject if isinstance(subject, str) else "",
        issued_at=issued_at,
        expires_at=expires_at,
    )


def _audience(named: object, ours: frozenset[str]) -> str:
    """The audience of ours. A token that is also meant for somebody else is refused (OpenID Connect Core 3.1.3.7 item 3)."""
    names = named if isinstance(named, list) else [named]
    if not names or not all(isinstance(name, str) and name and name in ours for name in names):
        raise Unauthenticated("audience")
    return str(names[0])


def _instant(claims: Mapping[str, Any], name: str) -> datetime:
    """A NumericDate claim (RFC 7519 section 2), which must be there."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unauthenticated(f"{name}-missing-or-malformed")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        raise Unauthenticated(f"{name}-missing-or-malformed") from None


def _parse(token: str) -> _Parsed:
    """The token's parts, by the compact serialization (RFC 7515 section 7.1) and nothing looser."""
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated("too-long")
    parts = token.split(".")
    if len(parts) != 3:
        raise Unauthenticated("malformed")
    header = _json_object(parts[0])
    if header.get("alg") != _ALGORITHM:
        raise Unauthenticated("algorithm")
    if "crit" in header:  # extensions that must be understood; we understand none
        raise Unauthenticated("malformed")
    stripped = parts[2] == _STRIPPED
    if not stripped:
        _decode(parts[2])
    return _Parsed(header, _json_object(parts[1]), stripped)


def _json_object(part: str) -> Mapping[str, Any]:
    try:
        value = json.loads(_decode(part))
    except (ValueError, RecursionError):
        raise Unauthenticated("malformed") from None
    if not isinstance(value, dict):
        raise Unauthenticated("malformed")
    return value


def _decode(part: str) -> bytes:
    """Base64url without padding, in a value's one spelling: PyJWT would ignore the spare bits of the last letter."""
    try:
        raw = part.encode("ascii")
        decoded = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Unauthenticated("malformed") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != raw:
        raise Unauthenticated("malformed")
    return decoded
