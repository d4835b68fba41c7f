"""The set-up under examination: its settings, and how to reach each of its parts. Everything is asked through one client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from careflow.doctor.remedies import Remedies
from careflow.errors import CareflowError
from careflow.ports import Clock, Store
from careflow.settings import Settings


class JobsApi(Protocol):
    """Cloud Scheduler's v1 API, ours or Google's, as far as it is looked at."""

    async def jobs(self) -> list[dict[str, Any]]:
        """Every job, as the API's JSON. Raises CareflowError."""
        ...

    async def log_entries(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest log entries of a job, the newest first. Raises CareflowError."""
        ...


@dataclass(slots=True, kw_only=True)
class SetUp:
    """`settings` hold every address; `access_token` is for Google's APIs, `identity_token` for Pulse, each empty if not given.

    `cloud` says that the tokens are Google's and the services on Cloud Run. The owner closes it.
    """

    settings: Settings
    clock: Clock
    http: httpx.AsyncClient
    jobs: JobsApi
    remedies: Remedies
    cloud: bool = False
    access_token: str = ""
    identity_token: str = ""
    _store: Store | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def store(self) -> Store:
        """The store, opened at the first question. Raises StoreError, SettingsError."""
        from careflow.backends import open_store

        async with self._opening:
            if self._store is None:
                self._store = await open_store(self.settings)
            return self._store

    async def close(self) -> None:
        """Close what was opened."""
        if self._store is not None:
            await self._store.close()

    async def token(self, account: str, audience: str) -> str | None:
        """A token as the account's services would send it; None where this machine cannot have one."""
        from careflow.auth import setup as auth
        from careflow.auth.issuer import JWKS_FILE

        if self.cloud:
            mine = account == self.settings.scheduler_account and audience == self.pulse_audience
            return self.identity_token if self.identity_token and mine else None
        if not (self.settings.data_dir / "issuer" / JWKS_FILE).is_file():
            return None  # asking would make a key, and we only look
        if auth.local_issuer(self.settings) is None:
            return None
        return await auth.tokens(self.settings, account, self.http, self.clock).token(audience)

    @property
    def pulse_audience(self) -> str:
        return self.settings.pulse_audience or self.settings.pulse_url

    async def ask(
        self, method: str, url: str, *, token: str | None = None, **words: Any
    ) -> httpx.Response | NoAnswer:
        """The answer, or why there is none. Follows no redirect: a token would go with it."""
        headers = dict(words.pop("headers", {}))
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            return await self.http.request(method, url, headers=headers, **words)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return NoAnswer(type(error).__name__)

    async def google(self, method: str, url: str, **words: Any) -> Mapping[str, Any]:
        """The JSON of a Google API, or of a work-alike that needs no token. Raises GoogleRefused."""
        token = self.access_token if url.startswith("https://") else None
        answer = await self.ask(method, url, token=token, **words)
        if isinstance(answer, NoAnswer):
            raise GoogleRefused(0, answer.reason)
        document = json_of(answer)
        if not answer.is_success:
            error = document.get("error")
            status = error.get("status", "") if isinstance(error, dict) else ""
            raise GoogleRefused(answer.status_code, str(status))
        return document


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nobody answered; `reason` is the kind of failure."""

    reason: str


class GoogleRefused(CareflowError):
    """A Google API refused, or did not answer (status 0)."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"HTTP {status} {code}".rstrip() if status else f"no answer ({code})")
        self.status = status


def json_of(answer: httpx.Response) -> Mapping[str, Any]:
    """The answer's JSON object; empty when it is none."""
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
