"""The door: an ASGI middleware that lets a request in when it is public, or carries a token that its rule accepts.

What no rule names does not exist here (404, 405), so a new route is closed until somebody opens it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from careflow.auth.jwks import KeysUnavailable
from careflow.auth.verify import AuthError, Claims, Unauthenticated, Verifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which accounts may do what: `path` is exact, or a prefix when it ends in "/*". GET includes HEAD."""

    path: str
    methods: frozenset[str]
    accounts: frozenset[str]
    audience: str | frozenset[str]


@dataclass(frozen=True, slots=True)
class CallerUser:
    """The verified caller, as Starlette's BaseUser; what the A2A SDK shows its handlers."""

    claims: Claims
    is_authenticated: bool = field(default=True, init=False)

    @property
    def display_name(self) -> str:
        return self.claims.email

    @property
    def identity(self) -> str:
        return self.claims.email


class RequireToken:
    """Guards `app`. `public` paths (exact, or prefixes that end in "/*") pass without a token, websockets only there.

    Refusals are JSON, {"error": {"code", "message"}}: 401 without a valid token, 403 with one of another account,
    404 and 405 where there is no rule, 503 with Retry-After when no keys are known.
    """

    def __init__(
        self, app: App, *, verifier: Verifier, rules: Sequence[Rule], public: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._rules = tuple(rules)
        self._public = tuple(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan" or (kind in ("http", "websocket") and self._is_public(scope["path"])):
            await self._app(scope, receive, send)
        elif kind == "http":
            await self._guarded(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "not public"})

    def _is_public(self, path: str) -> bool:
        return _is_plain(path) and any(_matches(pattern, path) for pattern in self._public)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = [rule for rule in self._rules if _matches(rule.path, scope["path"])]
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        rules = [rule for rule in here if method in rule.methods]
        allowed = ", ".join(sorted({method for rule in here for method in rule.methods}))
        if not here:
            await _refuse(send, 404, "not-found", "there is nothing here")
        elif not rules:
            message = f"method not allowed; accepted: {allowed}"
            await _refuse(send, 405, "method-not-allowed", message, allow=allowed)
        else:
            try:
                scope["user"] = CallerUser(await self._verify(scope, rules))
            except AuthError as error:
                headers = {} if error.status == 403 else {"www-authenticate": _challenge(error.code)}
                await _refuse(send, error.status, error.code, str(error), **headers)
            except KeysUnavailable as error:
                message = "tokens cannot be verified now; try again later"
                await _refuse(send, 503, error.code, message, retry_after="10")
            else:
                await self._app(scope, receive, send)

    async def _verify(self, scope: Scope, rules: Sequence[Rule]) -> Claims:
        """The claims under the first rule that accepts the token; the last rule's refusal when none does."""
        token, platform_checked = bearer_token(scope["headers"])
        refusal: AuthError = Unauthenticated("missing")
        for rule in rules:
            try:
                return await self._verifier.verify(
                    token,
                    audience=rule.audience,
                    accounts=rule.accounts,
                    platform_checked=platform_checked,
                )
            except AuthError as error:
                refusal = error
        raise refusal


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, bool]:
    """The request's token, and whether Cloud Run's own check can have been of this one.

    Cloud Run looks at Authorization or at X-Serverless-Authorization, and leaves the other to the app (reference/google-cloud
    section 2). With both, Authorization is the app's, and must then carry its signature. Raises Unauthenticated.
    """
    found: dict[bytes, list[bytes]] = {b"authorization": [], b"x-serverless-authorization": []}
    for name, value in headers:
        if name.lower() in found:
            found[name.lower()].append(value)
    own, platform = found[b"authorization"], found[b"x-serverless-authorization"]
    if len(own) > 1 or len(platform) > 1:
        raise Unauthenticated("duplicate-credentials")
    values = own or platform
    if not values:
        raise Unauthenticated("missing")
    scheme, _, token = values[0].decode("latin-1").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("missing")
    return token.strip(), not (own and platform)


def _matches(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("/*") else path == pattern


def _is_plain(path: str) -> bool:
    """No empty, "." or ".." segment: nothing that another layer might read as a different path."""
    return (
        "\\" not in path
        and not {"", ".", ".."} & set(path.split("/")[1:-1])
        and not path.endswith(("/.", "/.."))
    )


def _challenge(code: str) -> str:
    """WWW-Authenticate (RFC 6750 section 3): no error code when there were no credentials."""
    return "Bearer" if code == "missing" else f'Bearer error="invalid_token", error_description="{code}"'


async def _refuse(send: Send, status: int, code: str, message: str, **headers: str) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
