"""From the settings to a verifier and a source of tokens. The one place that knows which issuer's keys are accepted when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from careflow.auth.issuer import JWKS_FILE, LocalIssuer
from careflow.auth.issuers import GOOGLE_ISSUERS, LOCAL_ISSUER
from careflow.auth.jwks import GOOGLE_JWKS, FileKeys, JwksSource, KeySource
from careflow.auth.tokens import LocalTokens, MetadataTokens
from careflow.auth.verify import Verifier
from careflow.errors import SettingsError
from careflow.ports import Clock, Tokens
from careflow.settings import Settings

if TYPE_CHECKING:
    import httpx


def local_issuer(settings: Settings) -> LocalIssuer | None:
    """The local issuer, its key made if need be; None unless the settings say that it is the one to believe."""
    if settings.oidc_issuer != LOCAL_ISSUER or settings.oidc_jwks:
        return None
    return LocalIssuer(_directory(settings), settings.oidc_issuer)


def verifier(settings: Settings, http: httpx.AsyncClient, clock: Clock) -> Verifier:
    """The verifier that the settings describe; `safety` has seen to it that they describe a safe one."""
    is_google = settings.oidc_issuer in GOOGLE_ISSUERS
    return Verifier(
        _keys(settings, http, clock),
        issuers=GOOGLE_ISSUERS if is_google else frozenset({settings.oidc_issuer}),
        clock=clock,
        trust_platform=settings.trust_platform_tokens,
    )


def tokens(settings: Settings, account: str, http: httpx.AsyncClient, clock: Clock) -> Tokens:
    """Tokens for our own requests as `account`; on Google Cloud the instance's own account, whatever is asked."""
    issuer = local_issuer(settings)
    return MetadataTokens(http, clock) if issuer is None else LocalTokens(issuer, account, clock)


def _keys(settings: Settings, http: httpx.AsyncClient, clock: Clock) -> KeySource:
    where = settings.oidc_jwks
    if where.startswith(("https://", "http://")):
        return JwksSource(where, http, clock)
    if where:
        return FileKeys(Path(where))
    if settings.oidc_issuer == LOCAL_ISSUER:
        return FileKeys(_directory(settings) / JWKS_FILE)
    if settings.oidc_issuer in GOOGLE_ISSUERS:
        return JwksSource(GOOGLE_JWKS, http, clock)
    raise SettingsError(f"CAREFLOW_OIDC_JWKS: not set, so there are no keys of {settings.oidc_issuer!r}")


def _directory(settings: Settings) -> Path:
    return settings.data_dir / "issuer"
