"""Tokens for our own requests (ports.Tokens): from the local issuer, or from the metadata server of Google Cloud."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from careflow.auth.issuer import LIFETIME, LocalIssuer
from careflow.errors import ProviderError
from careflow.ports import Clock

if TYPE_CHECKING:
    import httpx

_RENEW = timedelta(minutes=5)  # before the end; the metadata server gives the same token until then
_PAUSES = (0.1, 0.4, 1.5)  # seconds between the tries: a new instance's metadata server may not be ready
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_AT_LEAST = timedelta(minutes=1)  # what ports.Tokens promises


class _Cache:
    """Tokens by audience, each got by one asker at a time and kept until shortly before its end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._tokens: dict[str, tuple[str, datetime]] = {}

    def held(self, audience: str, *, margin: timedelta) -> str | None:
        token, expires_at = self._tokens.get(audience, (None, None))
        return token if expires_at is not None and self._clock.now() + margin < expires_at else None

    async def get(self, audience: str, fetch: Callable[[], Awaitable[tuple[str, datetime]]]) -> str:
        if token := self.held(audience, margin=_RENEW):
            return token
        async with self._lock:
            if token := self.held(audience, margin=_RENEW):
                return token
            try:
                self._tokens[audience] = await fetch()
            except ProviderError:
                if token := self.held(audience, margin=_AT_LEAST):
                    return token
                raise
            return self._tokens[audience][0]


class LocalTokens:
    """Tokens of the local issuer that speak for `account`."""

    def __init__(self, issuer: LocalIssuer, account: str, clock: Clock) -> None:
        self._issuer = issuer
        self._account = account
        self._clock = clock
        self._cache = _Cache(clock)

    async def token(self, audience: str) -> str:
        return await self._cache.get(audience, lambda: self._mint(audience))

    async def _mint(self, audience: str) -> tuple[str, datetime]:
        now = self._clock.now()
        return self._issuer.mint(self._account, audience, now), now + LIFETIME


class MetadataTokens:
    """Google-signed tokens of the service account that this instance runs as.

    From the metadata server's `instance/service-accounts/default/identity`; `format=full` makes it name the account's
    e-mail address, which is what our services check. What may pass (no answer, 5xx, 429) is asked again, four times in all.
    """

    def __init__(
        self, http: httpx.AsyncClient, clock: Clock, *, server: str = "http://metadata.google.internal"
    ) -> None:
        self._http = http
        self._clock = clock
        self._url = f"{server}/computeMetadata/v1/instance/service-accounts/default/identity"
        self._cache = _Cache(clock)

    async def token(self, audience: str) -> str:
        return await self._cache.get(audience, lambda: self._fetch(audience))

    async def _fetch(self, audience: str) -> tuple[str, datetime]:
        for pause in _PAUSES:
            try:
                return await self._ask(audience)
            except ProviderError as error:
                if error.permanent:
                    raise
            await self._clock.sleep(pause)
        return await self._ask(audience)

    async def _ask(self, audience: str) -> tuple[str, datetime]:
        import httpx

        try:
            response = await self._http.get(
                self._url,
                params={"audience": audience, "format": "full"},
                headers={"Metadata-Flavor": "Google"},
                timeout=5.0,
            )
        except httpx.HTTPError as error:
            raise ProviderError(f"metadata server: {type(error).__name__}") from error
        status = response.status_code
        if status != 200:
            raise ProviderError(
                f"metadata server: HTTP {status}", code=str(status), permanent=status not in _PASSING
            )
        token = response.text.strip()
        return token, _expiry(token)


def _expiry(token: str) -> datetime:
    """When the token ends. It comes from the metadata server itself, so its signature is not ours to check."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (IndexError, ValueError, KeyError, TypeError, OverflowError):
        raise ProviderError("metadata server: the answer is not an identity token", permanent=True) from None
