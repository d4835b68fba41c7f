"""Cloud Tasks v2 over gRPC, with the message classes of Google's own client. Imported only when somebody speaks gRPC."""

from __future__ import annotations

from typing import Any

from google.cloud.tasks_v2 import types
from google.protobuf import empty_pb2, json_format

from careflow.google_api.grpc_server import create_server, in_json
from careflow.lab.cloud_tasks import resource
from careflow.lab.cloud_tasks.api import CloudTasksApi
from careflow.lab.cloud_tasks.model import Queue, Task

_QUEUES_OWN = ("state", "purge_time")
_TASKS_OWN = ("create_time", "dispatch_count", "response_count", "first_attempt", "last_attempt", "view")
_FULL = types.Task.View.FULL.value


def create_grpc_server(api: CloudTasksApi, address: str) -> Any:
    """A grpc.aio server, not started, listening on `address`, without transport security."""
    calls = _Calls(api)
    methods = {
        "ListQueues": (types.ListQueuesRequest.pb(), calls.list_queues),
        "GetQueue": (types.GetQueueRequest.pb(), calls.get_queue),
        "CreateQueue": (types.CreateQueueRequest.pb(), calls.create_queue),
        "UpdateQueue": (types.UpdateQueueRequest.pb(), calls.update_queue),
        "DeleteQueue": (types.DeleteQueueRequest.pb(), calls.delete_queue),
        "PurgeQueue": (types.PurgeQueueRequest.pb(), calls.purge_queue),
        "PauseQueue": (types.PauseQueueRequest.pb(), calls.pause_queue),
        "ResumeQueue": (types.ResumeQueueRequest.pb(), calls.resume_queue),
        "ListTasks": (types.ListTasksRequest.pb(), calls.list_tasks),
        "GetTask": (types.GetTaskRequest.pb(), calls.get_task),
        "CreateTask": (types.CreateTaskRequest.pb(), calls.create_task),
        "DeleteTask": (types.DeleteTaskRequest.pb(), calls.delete_task),
        "RunTask": (types.RunTaskRequest.pb(), calls.run_task),
    }
    return create_server("google.cloud.tasks.v2.CloudTasks", methods, api, address)


class _Calls:
    """One method for each of the service's."""

    def __init__(self, api: CloudTasksApi) -> None:
        self._api = api

    async def list_queues(self, request: Any) -> Any:
        page = await self._api.list_queues(
            request.parent, page_size=request.page_size, token=request.page_token
        )
        answer = types.ListQueuesResponse.pb()(next_page_token=page.next_token)
        answer.queues.extend(_queue(queue) for queue in page.queues)
        return answer

    async def get_queue(self, request: Any) -> Any:
        return _queue(await self._api.get_queue(request.name))

    async def create_queue(self, request: Any) -> Any:
        body = in_json(request.queue, "queue", output_only=_QUEUES_OWN)
        return _queue(await self._api.create_queue(request.parent, body))

    async def update_queue(self, request: Any) -> Any:
        body = in_json(request.queue, "queue", output_only=_QUEUES_OWN)
        mask = request.update_mask.paths
        return _queue(await self._api.update_queue(request.queue.name, body, mask, camel_case=False))

    async def delete_queue(self, request: Any) -> Any:
        await self._api.delete_queue(request.name)
        return empty_pb2.Empty()

    async def purge_queue(self, request: Any) -> Any:
        return _queue(await self._api.purge_queue(request.name))

    async def pause_queue(self, request: Any) -> Any:
        return _queue(await self._api.pause_queue(request.name))

    async def resume_queue(self, request: Any) -> Any:
        return _queue(await self._api.resume_queue(request.name))

    async def list_tasks(self, request: Any) -> Any:
        page = await self._api.list_tasks(
            request.parent, page_size=request.page_size, token=request.page_token
        )
        answer = types.ListTasksResponse.pb()(next_page_token=page.next_token)
        answer.tasks.extend(_task(task, request) for task in page.tasks)
        return answer

    async def get_task(self, request: Any) -> Any:
        return _task(await self._api.get_task(request.name), request)

    async def create_task(self, request: Any) -> Any:
        body = in_json(request.task, "task", output_only=_TASKS_OWN)
        return _task(await self._api.create_task(request.parent, body), request)

    async def delete_task(self, request: Any) -> Any:
        await self._api.delete_task(request.name)
        return empty_pb2.Empty()

    async def run_task(self, request: Any) -> Any:
        return _task(await self._api.run_task(request.name), request)


def _queue(queue: Queue) -> Any:
    return json_format.ParseDict(resource.render_queue(queue, enum_numbers=True), types.Queue.pb()())


def _task(task: Task, request: Any) -> Any:
    shown = resource.render_task(task, full=request.response_view == _FULL, enum_numbers=True)
    return json_format.ParseDict(shown, types.Task.pb()())
