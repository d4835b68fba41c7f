"""A2A requests as they are read before the SDK sees them (JSON-RPC 2.0; A2A 1.0 section 9).

The SDK answers a malformed request with its parser's own words, and logs them: both may quote what was sent. So
every request is checked here first, and refused in words of ours that name the field and never the value.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from google.protobuf.json_format import ParseDict, ParseError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from careflow import strict_json

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

_ERROR = {"type": "object", "required": ["code", "message"], "properties": {"code": {"type": "integer"}}}
_ANSWER = {
    "type": "object",
    "required": ["jsonrpc", "id"],
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer", "null"]},
        "error": _ERROR,
    },
}
_REQUEST = {
    "type": "object",
    "required": ["jsonrpc", "method"],
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer", "null"], "maxLength": 200},
        "method": {"type": "string", "enum": sorted(JsonRpcDispatcher.METHOD_TO_MODEL)},
        "params": {"type": "object"},
    },
}
OPENAPI: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}},
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The result or the error; for the streaming methods a stream of them",
        "content": {
            "application/json": {"schema": _ANSWER},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    },
}
"""What OpenAPI can say of a JSON-RPC endpoint. The agent card and A2A 1.0 say the rest."""

_MAX_ID = 200  # an id is given back and written into logs
_FIELD = re.compile(r"Failed to parse (\w+) field: ")
_FIELDS = re.compile(f"(?:{_FIELD.pattern})+")


class BadRequest(Exception):
    """The request is refused with this JSON-RPC error code."""

    def __init__(self, code: int, message: str, request_id: str | int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


def jsonrpc_endpoint(handler: RequestHandler) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint for `handler`. What is not JSON is 415; everything else is told as JSON-RPC tells it, with 200."""
    dispatcher = JsonRpcDispatcher(request_handler=handler)

    async def endpoint(request: Request) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise HTTPException(415, "content-type: must be application/json")
        try:
            check(await request.body(), dispatcher.METHOD_TO_MODEL)
        except BadRequest as error:
            refusal = {"code": error.code, "message": str(error)}
            return JSONResponse({"jsonrpc": "2.0", "id": error.request_id, "error": refusal})
        return await dispatcher.handle_requests(request)

    return endpoint


def check(body: bytes, methods: Mapping[str, Any]) -> None:
    """Do nothing when this is a request for one of `methods` (name -> message class of its params). Raises BadRequest."""
    try:
        request = strict_json.parse(body)
    except ValueError as error:
        raise BadRequest(PARSE_ERROR, f"body: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest(INVALID_REQUEST, "body: must be one JSON object; batches are not supported")
    request_id = request.get("id")
    if not _is_id(request_id):
        raise BadRequest(
            INVALID_REQUEST, f"id: must be an integer, or a string of at most {_MAX_ID} characters"
        )
    if request.get("jsonrpc") != "2.0":
        raise BadRequest(INVALID_REQUEST, "jsonrpc: must be 2.0", request_id)
    method = request.get("method")
    if not isinstance(method, str):
        raise BadRequest(INVALID_REQUEST, "method: must be a string", request_id)
    if method not in methods:
        accepted = ", ".join(sorted(methods))
        raise BadRequest(METHOD_NOT_FOUND, f"method: must be one of {accepted}", request_id)
    params = request.get("params", {})
    if not isinstance(params, dict):
        raise BadRequest(INVALID_PARAMS, f"params: must be an object, as {method} takes it", request_id)
    if trouble := _trouble(params, methods[method]):
        where = _field(params, methods[method], trouble)
        raise BadRequest(INVALID_PARAMS, f"{where}: not of the type that {method} takes", request_id)


def _is_id(value: object) -> bool:
    match value:
        case bool():
            return False
        case int():
            return abs(value) < 2**63
        case str():
            return len(value) <= _MAX_ID and value.isprintable()
        case _:
            return value is None


def _trouble(params: Mapping[str, Any], message: Any) -> str:
    """What the parser says of the params; nothing when they are of the message's types."""
    try:
        ParseDict(params, message(), ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, RecursionError) as error:
        return str(error) or type(error).__name__
    return ""


def _field(params: Mapping[str, Any], message: Any, trouble: str) -> str:
    """The path of the field that is meant. The parser's words go on with its value, from which nothing is taken."""
    declared = _FIELDS.match(trouble)
    if declared:
        return ".".join(["params", *_FIELD.findall(declared[0])])
    # A name that the parser does not know is no trouble to it, so these are the protocol's names only.
    return next((f"params.{name}" for name in params if _trouble({name: params[name]}, message)), "params")
