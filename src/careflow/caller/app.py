"""The Caller Agent's web service: A2A behind the door, Twilio's webhooks and the media socket beside it, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

from a2a.server.routes import create_agent_card_routes
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from careflow.auth.middleware import Rule
from careflow.caller.a2a import RETRY_AFTER_SECONDS, AttemptTasks, caller_card
from careflow.caller.attempts import AttemptDesk
from careflow.caller.watch import Watch
from careflow.caller.webhooks import Signatures, refusals, webhook_router
from careflow.errors import StoreUnavailable
from careflow.jsonrpc import ANSWERS, OPENAPI, jsonrpc_endpoint
from careflow.ports import Store
from careflow.settings import Settings

MAX_BODY_BYTES = 64 * 1024
_CARD = "/.well-known/agent-card.json"
_STOPPING_SECONDS = 1.0  # after the drain, which waits for the same and longer


def caller_rules(settings: Settings) -> list[Rule]:
    """Who may order attempts: the Pulse Agent's account, and nobody else; nobody where `twilio` alone is served."""
    if not settings.serves_a2a:
        return []
    return [
        Rule(
            path="/",
            methods=frozenset({"POST"}),
            accounts=frozenset({settings.pulse_account}),
            audience=settings.caller_audience or settings.caller_url,
        )
    ]


def public_paths(settings: Settings) -> tuple[str, ...]:
    """What needs no token: health, the card, and what Twilio signs itself, as far as they are served."""
    return (
        "/healthz",
        "/readyz",
        *((_CARD,) if settings.serves_a2a else ()),
        *(("/twilio/*",) if settings.serves_twilio else ()),
    )


def create_caller(
    *,
    desk: AttemptDesk,
    watch: Watch,
    store: Store,
    settings: Settings,
    routes: Sequence[BaseRoute] = (),
) -> FastAPI:
    """The Caller's app, to be put behind `RequireToken` with `caller_rules` and `public_paths`. `routes` are the media bridge's.

    It has the routes that `CAREFLOW_CALLER_ROUTES` names. The composition root runs `desk.run` beside it and closes the store
    after it.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        # What is cut after a few seconds is settled at the next start.
        with suppress(TimeoutError):
            await asyncio.wait_for(desk.close(), _STOPPING_SECONDS)

    release = _version()
    app = FastAPI(
        title="CareFlow Caller Agent", version=release, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    if settings.serves_twilio:
        signatures = Signatures(settings.twilio_auth_token, settings.caller_public_url)
        app.include_router(webhook_router(desk, store, signatures, settings.caller_public_url))
        app.router.routes.extend(routes)
    if settings.serves_a2a:
        names = desk.scripts
        app.router.routes.extend(create_agent_card_routes(caller_card(settings.caller_url, release, names)))
        app.add_api_route(
            "/",
            jsonrpc_endpoint(AttemptTasks(desk, store, watch, names)),
            methods=["POST"],
            summary="A2A 1.0 over JSON-RPC",
            tags=["a2a"],
            openapi_extra=OPENAPI,
            responses=ANSWERS | refusals(401, 403, 408, 413, 415, 503),
            response_class=JSONResponse,
        )

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """The process is up."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], responses=refusals(503))
    async def readyz() -> dict[str, str]:
        """The store can be written."""
        await store.check()
        return {"status": "ok"}

    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(StoreUnavailable, _store_down)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES)
    return app


class BodyLimit:
    """Refuses a request body of more than `limit` bytes with 413, declared or not; holds the others until they are whole."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        if not self._declares_too_much(scope):
            while len(body) <= self._limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    break
            if len(body) <= self._limit:
                await self._app(scope, _replay(body, receive), send)
                return
        refusal = _error(413, "too-large", f"body: at most {self._limit} bytes are accepted")
        await refusal(scope, receive, send)

    def _declares_too_much(self, scope: Scope) -> bool:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        return bool(declared.isdigit() and int(declared) > self._limit)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then whatever the server has to say (a disconnect)."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    return _error(error.status_code, f"http-{error.status_code}", str(error.detail), headers)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return _error(400, "malformed", fields)


async def _store_down(request: Request, error: Exception) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return _error(503, "store-unavailable", "the store is not available", headers)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return _error(500, "internal", "the request could not be carried out")


def _version() -> str:
    try:
        return version("careflow-pulse")
    except PackageNotFoundError:
        return "0"
