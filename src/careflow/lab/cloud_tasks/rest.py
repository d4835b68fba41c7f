"""Cloud Tasks v2 over REST (reference/google-cloud section 1)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from careflow.google_api import rest
from careflow.google_api.refusals import invalid
from careflow.lab.cloud_tasks import resource
from careflow.lab.cloud_tasks.api import CloudTasksApi
from careflow.lab.cloud_tasks.model import Queue, Task

BODY_BYTES = 1 << 20  # a task of the largest size in base64, with room for escapes

_LOCATION = "/v2/projects/{project}/locations/{location}"
_QUEUE = _LOCATION + "/queues/{queue}"
_TASK = _QUEUE + "/tasks/{task}"


def create_app(api: CloudTasksApi, on_shutdown: Callable[[], Awaitable[None]]) -> Starlette:
    """The app; `on_shutdown` is awaited when the server stops."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await on_shutdown()

    return Starlette(
        routes=_Rest(api).routes(),
        lifespan=lifespan,
        exception_handlers={HTTPException: rest.no_such_method},
    )


class _Rest:
    """One method for each of the table's; the path is the resource's name."""

    def __init__(self, api: CloudTasksApi) -> None:
        self._api = api

    def routes(self) -> list[Route]:
        # The first that matches answers: verbs stand before the names that would take them for a part of an id.
        return [
            rest.route("/v2/projects/{project}/locations", "GET", self.locations),
            rest.route(_LOCATION, "GET", self.location),
            rest.route(_LOCATION + "/queues", "GET", self.list_queues),
            rest.route(_LOCATION + "/queues", "POST", self.create_queue),
            rest.route(_QUEUE + ":pause", "POST", self.pause_queue),
            rest.route(_QUEUE + ":resume", "POST", self.resume_queue),
            rest.route(_QUEUE + ":purge", "POST", self.purge_queue),
            rest.route(_QUEUE, "GET", self.get_queue),
            rest.route(_QUEUE, "PATCH", self.update_queue),
            rest.route(_QUEUE, "DELETE", self.delete_queue),
            rest.route(_QUEUE + "/tasks", "GET", self.list_tasks),
            rest.route(_QUEUE + "/tasks", "POST", self.create_task),
            rest.route(_TASK + ":run", "POST", self.run_task),
            rest.route(_TASK, "GET", self.get_task),
            rest.route(_TASK, "DELETE", self.delete_task),
        ]

    async def list_queues(self, request: Request) -> dict[str, Any]:
        page = await self._api.list_queues(
            _name(request).removesuffix("/queues"),
            page_size=rest.page_size(request),
            token=rest.parameter(request, "pageToken"),
        )
        shown = {"queues": [_queue(request, queue) for queue in page.queues]} if page.queues else {}
        return shown | _token(page.next_token)

    async def create_queue(self, request: Request) -> dict[str, Any]:
        parent = _name(request).removesuffix("/queues")
        return _queue(request, await self._api.create_queue(parent, await _body(request)))

    async def get_queue(self, request: Request) -> dict[str, Any]:
        return _queue(request, await self._api.get_queue(_name(request)))

    async def update_queue(self, request: Request) -> dict[str, Any]:
        mask = [path.strip() for path in rest.parameter(request, "updateMask").split(",")]
        body = await _body(request)
        return _queue(request, await self._api.update_queue(_name(request), body, mask, camel_case=True))

    async def delete_queue(self, request: Request) -> dict[str, Any]:
        await self._api.delete_queue(_name(request))
        return {}

    async def pause_queue(self, request: Request) -> dict[str, Any]:
        await _fields(request)
        return _queue(request, await self._api.pause_queue(_name(request).removesuffix(":pause")))

    async def resume_queue(self, request: Request) -> dict[str, Any]:
        await _fields(request)
        return _queue(request, await self._api.resume_queue(_name(request).removesuffix(":resume")))

    async def purge_queue(self, request: Request) -> dict[str, Any]:
        await _fields(request)
        return _queue(request, await self._api.purge_queue(_name(request).removesuffix(":purge")))

    async def list_tasks(self, request: Request) -> dict[str, Any]:
        page = await self._api.list_tasks(
            _name(request).removesuffix("/tasks"),
            page_size=rest.page_size(request),
            token=rest.parameter(request, "pageToken"),
        )
        full = _full(rest.parameter(request, "responseView"))
        shown = {"tasks": [_task(request, task, full) for task in page.tasks]} if page.tasks else {}
        return shown | _token(page.next_token)

    async def create_task(self, request: Request) -> dict[str, Any]:
        fields = await _fields(request, "task", "responseView", "parent")
        full = _full(fields.get("responseView", ""))
        parent = _name(request).removesuffix("/tasks")
        return _task(request, await self._api.create_task(parent, fields.get("task", {})), full)

    async def get_task(self, request: Request) -> dict[str, Any]:
        full = _full(rest.parameter(request, "responseView"))
        return _task(request, await self._api.get_task(_name(request)), full)

    async def delete_task(self, request: Request) -> dict[str, Any]:
        await self._api.delete_task(_name(request))
        return {}

    async def run_task(self, request: Request) -> dict[str, Any]:
        full = _full((await _fields(request, "responseView")).get("responseView", ""))
        return _task(request, await self._api.run_task(_name(request).removesuffix(":run")), full)

    async def locations(self, request: Request) -> dict[str, Any]:
        return {"locations": self._api.locations(_name(request).removesuffix("/locations"))}

    async def location(self, request: Request) -> dict[str, Any]:
        return self._api.location(_name(request))


def _name(request: Request) -> str:
    return rest.name(request, "v2")


def _queue(request: Request, queue: Queue) -> dict[str, Any]:
    return resource.render_queue(queue, enum_numbers=rest.wants_numbers(request))


def _task(request: Request, task: Task, full: bool) -> dict[str, Any]:
    return resource.render_task(task, full=full, enum_numbers=rest.wants_numbers(request))


def _token(token: str) -> dict[str, Any]:
    return {"nextPageToken": token} if token else {}


def _full(view: object) -> bool:
    """Whether the view, by name or by number, is the full one."""
    views = {name: name for name in resource.VIEWS} | {
        str(number): name for name, number in resource.VIEWS.items()
    }
    name = views.get(str(view) or "BASIC")
    if name is None:
        raise invalid("responseView", f"must be one of {', '.join(resource.VIEWS)}", view)
    return name == "FULL"


async def _body(request: Request) -> Any:
    return await rest.body(
        request, BODY_BYTES, field="task", accepted=f"a task has at most {resource.TASK_BYTES}"
    )


async def _fields(request: Request, *accepted: str) -> dict[str, Any]:
    """The body's fields. Raises Refused for others than those accepted."""
    body = await _body(request)
    if not isinstance(body, dict):
        raise invalid("body", "must be a JSON object")
    for name in body.keys() - {"name", *accepted}:
        raise invalid(name, f"is no field of this request; accepted are {', '.join(accepted) or 'none'}")
    return body
