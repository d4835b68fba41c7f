"""Cloud Scheduler v1 over REST (reference/cloud-scheduler section 1), and the answering of entries:list from the executions' log.

Nobody is asked who they are: as with Google's emulators, who reaches this port may do everything, so it listens on loopback
only. A browser does reach loopback, on behalf of any page; requests that a page made are therefore refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from careflow import strict_json
from careflow.scheduler import resource, wire
from careflow.scheduler.api import SchedulerApi
from careflow.scheduler.log_query import LogSource, list_entries
from careflow.scheduler.model import Job
from careflow.scheduler.refusals import Code, Refused, invalid

_log = logging.getLogger(__name__)

BODY_BYTES = 4 << 20  # a job of the largest size in base64, with room for escapes

_LOCATION = "/v1/projects/{project}/locations/{location}"
_JOB = _LOCATION + "/jobs/{job}"
_OPERATION = _LOCATION + "/operations/{operation}"

Answer: TypeAlias = Callable[[Request], Awaitable[dict[str, Any]]]


def create_scheduler_api(
    api: SchedulerApi,
    *,
    logs: Sequence[LogSource] = (),
    on_shutdown: Sequence[Callable[[], Awaitable[None]]] = (),
) -> Starlette:
    """The app. `logs` are what entries:list searches; `on_shutdown` is awaited in order when the server stops."""
    rest = _Rest(api, logs)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        for close in on_shutdown:
            await close()

    return Starlette(
        routes=rest.routes(),
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_such_method},
    )


class _Rest:
    """One method for each of the table's; the path is the resource's name."""

    def __init__(self, api: SchedulerApi, logs: Sequence[LogSource]) -> None:
        self._api = api
        self._logs = logs

    def routes(self) -> list[Route]:
        # The first that matches answers: verbs stand before the names that would take them for a part of an id.
        return [
            _route("/v1/projects/{project}/locations", "GET", self.locations),
            _route(_LOCATION, "GET", self.location),
            _route(_LOCATION + "/jobs", "GET", self.list),
            _route(_LOCATION + "/jobs", "POST", self.create),
            _route(_JOB + ":pause", "POST", self.pause),
            _route(_JOB + ":resume", "POST", self.resume),
            _route(_JOB + ":run", "POST", self.run),
            _route(_JOB, "GET", self.get),
            _route(_JOB, "PATCH", self.patch),
            _route(_JOB, "DELETE", self.delete),
            _route(_LOCATION + "/cmekConfig", "GET", self.cmek_config),
            _route(_LOCATION + "/cmekConfig", "PATCH", self.no_cmek),
            _route(_LOCATION + "/operations", "GET", self.operations),
            _route(_OPERATION + ":cancel", "POST", self.no_operation),
            _route(_OPERATION, "GET", self.no_operation),
            _route(_OPERATION, "DELETE", self.no_operation),
            _route("/v2/entries:list", "POST", self.log_entries),
        ]

    async def list(self, request: Request) -> dict[str, Any]:
        page = await self._api.list(
            _name(request).removesuffix("/jobs"),
            page_size=_page_size(request),
            token=_parameter(request, "pageToken"),
        )
        shown: dict[str, Any] = {}
        if page.jobs:
            shown["jobs"] = [_shown(request, job) for job in page.jobs]
        if page.next_token:
            shown["nextPageToken"] = page.next_token
        return shown

    async def create(self, request: Request) -> dict[str, Any]:
        parent = _name(request).removesuffix("/jobs")
        return _shown(request, await self._api.create(parent, await _body(request)))

    async def get(self, request: Request) -> dict[str, Any]:
        return _shown(request, await self._api.get(_name(request)))

    async def patch(self, request: Request) -> dict[str, Any]:
        mask = [path.strip() for path in _parameter(request, "updateMask").split(",")]
        return _shown(
            request, await self._api.update(_name(request), await _body(request), mask, camel_case=True)
        )

    async def delete(self, request: Request) -> dict[str, Any]:
        await self._api.delete(_name(request))
        return {}

    async def pause(self, request: Request) -> dict[str, Any]:
        await _no_fields(request)
        return _shown(request, await self._api.pause(_name(request).removesuffix(":pause")))

    async def resume(self, request: Request) -> dict[str, Any]:
        await _no_fields(request)
        return _shown(request, await self._api.resume(_name(request).removesuffix(":resume")))

    async def run(self, request: Request) -> dict[str, Any]:
        await _no_fields(request)
        return _shown(request, await self._api.run(_name(request).removesuffix(":run")))

    async def locations(self, request: Request) -> dict[str, Any]:
        return {"locations": self._api.locations(_name(request).removesuffix("/locations"))}

    async def location(self, request: Request) -> dict[str, Any]:
        return self._api.location(_name(request))

    async def cmek_config(self, request: Request) -> dict[str, Any]:
        """No key: nothing here is encrypted with a customer's."""
        resource.checked_parent(_name(request).removesuffix("/cmekConfig"))
        return {"name": _name(request)}

    async def no_cmek(self, _request: Request) -> dict[str, Any]:
        raise Refused(
            Code.UNIMPLEMENTED, "Customer-managed keys are not imitated by the embedded scheduler.", field=""
        )

    async def operations(self, request: Request) -> dict[str, Any]:
        """None: only changes of customer-managed keys are operations."""
        resource.checked_parent(_name(request).removesuffix("/operations"))
        return {}

    async def no_operation(self, _request: Request) -> dict[str, Any]:
        raise Refused(Code.NOT_FOUND, "Operation not found.")

    async def log_entries(self, request: Request) -> dict[str, Any]:
        return await list_entries(self._logs, await _body(request))


def _route(path: str, method: str, answer: Answer) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            if "origin" in request.headers:
                raise Refused(Code.PERMISSION_DENIED, "Requests made by a page in a browser are refused.")
            if _parameter(request, "alt") not in ("", "json"):
                raise invalid("alt", "must be json", _parameter(request, "alt"))
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


async def _no_such_method(request: Request, _error: Exception) -> Response:
    """As with the service, a path with another HTTP method is no method either."""
    refused = Refused(
        Code.NOT_FOUND, f"Method not found: {request.method} {request.scope['path']} is none of this API's."
    )
    return _json(request, refused.code.http, refused.envelope())


def _name(request: Request) -> str:
    return str(request.scope["path"]).removeprefix("/v1/")


def _shown(request: Request, job: Job) -> dict[str, Any]:
    return resource.render(job, enum_numbers="enum-encoding=int" in request.query_params.get("$alt", ""))


def _parameter(request: Request, name: str) -> str:
    """A query parameter by its JSON name or by its proto name; unknown ones are ignored."""
    query = request.query_params
    return query.get(name) or query.get(wire.snake(name)) or ""


def _page_size(request: Request) -> int:
    text = _parameter(request, "pageSize")
    return wire.whole_number(text, "pageSize") if text else 0


async def _body(request: Request) -> Any:
    """The JSON value; no body is an empty object. What is too long is read to its end, and then refused."""
    body = bytearray()
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= BODY_BYTES:
            body += chunk
    if length > BODY_BYTES:
        raise invalid("job", f"the request has {length} bytes; a job has at most {resource.JOB_BYTES}")
    if not body.strip():
        return {}
    try:
        return strict_json.parse(bytes(body))
    except ValueError as error:
        raise Refused(
            Code.INVALID_ARGUMENT, f"Invalid JSON payload received: {error}", field="body"
        ) from error


async def _no_fields(request: Request) -> None:
    """pause, resume and run take an empty message; older gcloud builds put `legacyAppEngineCron` into it."""
    body = await _body(request)
    if not isinstance(body, dict) or body.keys() - {"name", "legacyAppEngineCron"}:
        raise invalid("body", "must be empty or {}")


def _json(request: Request, status: int, content: dict[str, Any]) -> Response:
    plain = request.query_params.get("prettyPrint") == "false"
    return Response(
        json.dumps(content, indent=None if plain else 2),
        status_code=status,
        media_type="application/json; charset=UTF-8",
    )
