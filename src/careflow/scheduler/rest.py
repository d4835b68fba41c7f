"""Cloud Scheduler v1 over REST (reference/cloud-scheduler section 1), and entries:list, answered from the executions' log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from careflow.google_api import names, rest
from careflow.google_api.refusals import Code, Refused, invalid
from careflow.scheduler import resource
from careflow.scheduler.api import SchedulerApi
from careflow.scheduler.log_query import LogSource, list_entries
from careflow.scheduler.model import Job

BODY_BYTES = 4 << 20  # a job of the largest size in base64, with room for escapes

_LOCATION = "/v1/projects/{project}/locations/{location}"
_JOB = _LOCATION + "/jobs/{job}"
_OPERATION = _LOCATION + "/operations/{operation}"


def create_scheduler_api(
    api: SchedulerApi,
    *,
    logs: Sequence[LogSource] = (),
    on_shutdown: Sequence[Callable[[], Awaitable[None]]] = (),
) -> Starlette:
    """The app. `logs` are what entries:list searches; `on_shutdown` is awaited in order when the server stops."""
    verbs = _Rest(api, logs)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        for close in on_shutdown:
            await close()

    return Starlette(
        routes=verbs.routes(),
        lifespan=lifespan,
        exception_handlers={HTTPException: rest.no_such_method},
    )


class _Rest:
    """One method for each of the table's; the path is the resource's name."""

    def __init__(self, api: SchedulerApi, logs: Sequence[LogSource]) -> None:
        self._api = api
        self._logs = logs

    def routes(self) -> list[Route]:
        # The first that matches answers: verbs stand before the names that would take them for a part of an id.
        return [
            rest.route("/v1/projects/{project}/locations", "GET", self.locations),
            rest.route(_LOCATION, "GET", self.location),
            rest.route(_LOCATION + "/jobs", "GET", self.list),
            rest.route(_LOCATION + "/jobs", "POST", self.create),
            rest.route(_JOB + ":pause", "POST", self.pause),
            rest.route(_JOB + ":resume", "POST", self.resume),
            rest.route(_JOB + ":run", "POST", self.run),
            rest.route(_JOB, "GET", self.get),
            rest.route(_JOB, "PATCH", self.patch),
            rest.route(_JOB, "DELETE", self.delete),
            rest.route(_LOCATION + "/cmekConfig", "GET", self.cmek_config),
            rest.route(_LOCATION + "/cmekConfig", "PATCH", self.no_cmek),
            rest.route(_LOCATION + "/operations", "GET", self.operations),
            rest.route(_OPERATION + ":cancel", "POST", self.no_operation),
            rest.route(_OPERATION, "GET", self.no_operation),
            rest.route(_OPERATION, "DELETE", self.no_operation),
            rest.route("/v2/entries:list", "POST", self.log_entries),
        ]

    async def list(self, request: Request) -> dict[str, Any]:
        page = await self._api.list(
            _name(request).removesuffix("/jobs"),
            page_size=rest.page_size(request),
            token=rest.parameter(request, "pageToken"),
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
        mask = [path.strip() for path in rest.parameter(request, "updateMask").split(",")]
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
        names.checked_parent(_name(request).removesuffix("/cmekConfig"))
        return {"name": _name(request)}

    async def no_cmek(self, _request: Request) -> dict[str, Any]:
        raise Refused(
            Code.UNIMPLEMENTED, "Customer-managed keys are not imitated by the embedded scheduler.", field=""
        )

    async def operations(self, request: Request) -> dict[str, Any]:
        """None: only changes of customer-managed keys are operations."""
        names.checked_parent(_name(request).removesuffix("/operations"))
        return {}

    async def no_operation(self, _request: Request) -> dict[str, Any]:
        raise Refused(Code.NOT_FOUND, "Operation not found.")

    async def log_entries(self, request: Request) -> dict[str, Any]:
        return await list_entries(self._logs, await _body(request))


def _shown(request: Request, job: Job) -> dict[str, Any]:
    return resource.render(job, enum_numbers=rest.wants_numbers(request))


def _name(request: Request) -> str:
    return rest.name(request, "v1")


async def _body(request: Request) -> Any:
    return await rest.body(
        request, BODY_BYTES, field="job", accepted=f"a job has at most {resource.JOB_BYTES}"
    )


async def _no_fields(request: Request) -> None:
    """pause, resume and run take an empty message; older gcloud builds put `legacyAppEngineCron` into it."""
    body = await _body(request)
    if not isinstance(body, dict) or body.keys() - {"name", "legacyAppEngineCron"}:
        raise invalid("body", "must be empty or {}")
