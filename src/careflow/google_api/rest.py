"""REST as Google's APIs speak it: routes, parameters, bodies, the error envelope.

Nobody is asked who they are: as with Google's emulators, who reaches such a port may do everything, so it listens on loopback
only. A browser does reach loopback, on behalf of any page; requests that a page made are therefore refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from careflow import strict_json
from careflow.google_api import wire
from careflow.google_api.refusals import Code, Refused, invalid

_log = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[Request], Awaitable[dict[str, Any]]]


def route(path: str, method: str, answer: Answer) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            if "origin" in request.headers:
                raise Refused(Code.PERMISSION_DENIED, "Requests made by a page in a browser are refused.")
            if parameter(request, "alt") not in ("", "json"):
                raise invalid("alt", "must be json", parameter(request, "alt"))
            return _json(request, 200, await answer(request))
        except Refused as refused:
            return _json(request, refused.code.http, refused.envelope())
        except ClientDisconnect:
            raise
        except Exception:  # noqa: BLE001 - the last handler there is
            _log.exception("%s %s failed", method, path)
            failed = Refused(Code.INTERNAL, "Internal error encountered.")
            return _json(request, failed.code.http, failed.envelope())

    return Route(path, endpoint, methods=[method])


async def no_such_method(request: Request, _error: Exception) -> Response:
    """As with the service, a path with another HTTP method is no method either."""
    refused = Refused(
        Code.NOT_FOUND, f"Method not found: {request.method} {request.scope['path']} is none of this API's."
    )
    return _json(request, refused.code.http, refused.envelope())


def name(request: Request, version: str) -> str:
    """The path without the API's version: the resource's name, with the verb or collection that follows it."""
    return str(request.scope["path"]).removeprefix(f"/{version}/")


def wants_numbers(request: Request) -> bool:
    """Whether enums are to be answered as numbers, which Google's own clients ask for."""
    return "enum-encoding=int" in request.query_params.get("$alt", "")


def parameter(request: Request, name: str) -> str:
    """A query parameter by its JSON name or by its proto name; unknown ones are ignored."""
    query = request.query_params
    return query.get(name) or query.get(wire.snake(name)) or ""


def page_size(request: Request) -> int:
    text = parameter(request, "pageSize")
    return wire.whole_number(text, "pageSize") if text else 0


async def body(request: Request, most: int, *, field: str, accepted: str) -> Any:
    """The JSON value of at most `most` bytes, else `field` is refused saying what is `accepted`; no body is an empty object.

    What is too long is read to its end, and then refused.
    """
    read = bytearray()
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= most:
            read += chunk
    if length > most:
        raise invalid(field, f"the request has {length} bytes; {accepted}")
    if not read.strip():
        return {}
    try:
        return strict_json.parse(bytes(read))
    except ValueError as error:
        raise Refused(
            Code.INVALID_ARGUMENT, f"Invalid JSON payload received: {error}", field="body"
        ) from error


def _json(request: Request, status: int, content: dict[str, Any]) -> Response:
    plain = request.query_params.get("prettyPrint") == "false"
    return Response(
        json.dumps(content, indent=None if plain else 2),
        status_code=status,
        media_type="application/json; charset=UTF-8",
    )
