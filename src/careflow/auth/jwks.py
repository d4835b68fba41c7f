"""Public keys of token issuers (RFC 7517): from an HTTPS address, cached, or from a local file, re-read when it changes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from careflow.errors import ProviderError, SettingsError
from careflow.ports import Clock

if TYPE_CHECKING:
    import httpx
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

GOOGLE_JWKS = "https://www.googleapis.com/oauth2/v3/certs"

_DEFAULT_AGE = timedelta(minutes=5)
_LONGEST_AGE = timedelta(days=1)
_LARGEST_BYTES = 1_000_000
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class KeysUnavailable(ProviderError):
    """No keys are known to verify tokens with; trying again later can help (HTTP 503)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="keys-unavailable")


class KeySource(Protocol):
    """The issuer's public keys."""

    async def key(self, kid: str) -> RSAPublicKey | None:
        """The key with this id; None when the issuer has none. Raises KeysUnavailable when no keys could be had at all."""
        ...


class JwksSource:
    """Keys from `url`, kept as long as its Cache-Control says, and for `stale_for` more while the address does not answer.

    An unknown key id asks again, because keys rotate. However many requests ask, one fetch is under way at a time and
    fetches are at least `spacing` apart: tokens with made-up ids cannot make us flood the issuer.
    """

    def __init__(
        self,
        url: str,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        spacing: timedelta = timedelta(seconds=10),
        stale_for: timedelta = _LONGEST_AGE,
        timeout_seconds: float = 5.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise SettingsError(
                f"oidc_jwks: {url!r} must be an https:// address (http:// only on this machine)"
            )
        self._url = url
        self._http = http
        self._clock = clock
        self._spacing = spacing
        self._stale_for = stale_for
        self._timeout = timeout_seconds
        self._lock = asyncio.Lock()
        self._keys: Mapping[str, RSAPublicKey] = {}
        self._fresh_until: datetime | None = None
        self._asked_at: datetime | None = None

    async def key(self, kid: str) -> RSAPublicKey | None:
        now = self._clock.now()
        if kid not in self._keys or self._fresh_until is None or now >= self._fresh_until:
            await self._refresh()
        if self._fresh_until is None or now >= self._fresh_until + self._stale_for:
            raise KeysUnavailable(f"no keys from {self._url}")
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        async with self._lock:
            before = self._asked_at
            now = self._clock.now()
            if before is not None and now - before < self._spacing:
                return
            self._asked_at = now
            try:
                fetched = await self._fetch()
            except asyncio.CancelledError:
                self._asked_at = before  # the next request asks in our place
                raise
            if fetched is not None:
                self._keys, age = fetched
                self._fresh_until = now + age

    async def _fetch(self) -> tuple[Mapping[str, RSAPublicKey], timedelta] | None:
        """The address's keys and for how long they hold; None when it gives none."""
        import httpx

        try:
            response = await self._http.get(self._url, timeout=self._timeout)
            if response.status_code != 200 or len(response.content) > _LARGEST_BYTES:
                return None
            keys = parse_jwks(response.content)
        except (httpx.HTTPError, ValueError):
            return None
        return (keys, cache_age(response.headers.get("cache-control", ""))) if keys else None


class FileKeys:
    """Keys from a file, read again whenever it changes. What cannot be read leaves the last good keys in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: Mapping[str, RSAPublicKey] = {}

    async def key(self, kid: str) -> RSAPublicKey | None:
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._keys = parse_jwks(self._path.read_bytes()) or self._keys
                self._seen = seen
        except (OSError, ValueError):
            self._seen = None
        if not self._keys:
            raise KeysUnavailable(f"no keys in {self._path}")
        return self._keys.get(kid)


def parse_jwks(document: bytes) -> dict[str, RSAPublicKey]:
    """Key id -> key, of the set's public RSA signing keys of 2048 bits or more; others are left out.

    Raises ValueError when the document is not a JSON Web Key Set.
    """
    try:
        data: Any = json.loads(document)
    except RecursionError as error:
        raise ValueError("the key set is nested too deeply") from error
    entries = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise ValueError('the key set has no "keys" list')
    keys = {}
    for entry in entries:
        if isinstance(entry, dict) and (key := _public_key(entry)) is not None:
            keys[entry["kid"]] = key
    return keys


def _public_key(entry: Mapping[str, Any]) -> RSAPublicKey | None:
    import jwt
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if entry.get("kty") != "RSA" or not isinstance(entry.get("kid"), str) or not entry["kid"]:
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", "RS256") != "RS256":
        return None
    try:
        key = jwt.PyJWK(dict(entry), "RS256").key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return key if isinstance(key, RSAPublicKey) and key.key_size >= 2048 else None


def cache_age(cache_control: str) -> timedelta:
    """How long an answer with this Cache-Control header holds (RFC 9111 section 5.2.2), in bounds; 5 minutes by default."""
    directives = cache_control.lower()
    if "no-store" in directives or "no-cache" in directives:
        return timedelta(0)
    found = re.search(r"(?:^|[\s,])max-age=\"?(\d{1,9})", directives)
    return min(timedelta(seconds=int(found[1])), _LONGEST_AGE) if found else _DEFAULT_AGE
