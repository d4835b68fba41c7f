"""Every error of Pulse's HTTP surface in one shape: {"error": {"code", "message", "field"?}}; never a stack trace."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from careflow.errors import StoreUnavailable
from careflow.pulse.payload import Refused

RETRY_AFTER_SECONDS = 30

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "field": {"type": "string"},
            },
        }
    },
}


def error_response(
    status: int, code: str, message: str, *, field: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The one error shape."""
    error = {"code": code, "message": message} | ({} if field is None else {"field": field})
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these error statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": ERROR_SCHEMA}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Translate every exception that can leave a route."""

    async def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        headers = None if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return error_response(error.status, error.code, str(error), field=error.field, headers=headers)

    async def unavailable(_request: Request, error: Exception) -> JSONResponse:
        _log().warning("Store unavailable", exc_info=error)
        return error_response(
            503,
            "store-unavailable",
            "the store cannot be written now; try again later",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )

    async def http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        return error_response(
            error.status_code,
            phrase.lower().replace(" ", "-"),
            phrase,
            headers=dict(error.headers) if error.headers else None,
        )

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(StoreUnavailable, unavailable)
    app.add_exception_handler(HTTPException, http)
    app.add_middleware(_LastResort)


class _LastResort:
    """Answers 500 for what nobody expected. The server's own handler would print a traceback with the error's words in it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001 - the last handler there is
            _log().error("Request failed", exc_info=error, method=scope["method"])
            if not started:
                response = error_response(500, "internal", "the request failed on our side; see the log")
                await response(scope, receive, send)


def _log() -> Any:
    return structlog.get_logger("careflow.pulse")
