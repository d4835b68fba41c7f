"""Cloud Scheduler v1 over gRPC, with the message classes of Google's own client. Imported only when somebody speaks gRPC.

A message and its JSON form are the same thing (proto3 JSON mapping), so there is one set of rules for both: what comes in is
put into JSON and what goes out is made of it.
"""

from __future__ import annotations

from typing import Any

from google.cloud.scheduler_v1 import types
from google.protobuf import empty_pb2, json_format

from careflow.google_api.grpc_server import create_server, in_json
from careflow.scheduler import resource
from careflow.scheduler.api import SchedulerApi
from careflow.scheduler.model import Job

_OUTPUT_ONLY = ("user_update_time", "state", "status", "schedule_time", "last_attempt_time")


def create_grpc_server(api: SchedulerApi, address: str) -> Any:
    """A grpc.aio server, not started, listening on `address` ("unix:PATH", "127.0.0.1:PORT"), without transport security."""
    calls = _Calls(api)
    methods = {
        "ListJobs": (types.ListJobsRequest.pb(), calls.list),
        "GetJob": (types.GetJobRequest.pb(), calls.get),
        "CreateJob": (types.CreateJobRequest.pb(), calls.create),
        "UpdateJob": (types.UpdateJobRequest.pb(), calls.update),
        "DeleteJob": (types.DeleteJobRequest.pb(), calls.delete),
        "PauseJob": (types.PauseJobRequest.pb(), calls.pause),
        "ResumeJob": (types.ResumeJobRequest.pb(), calls.resume),
        "RunJob": (types.RunJobRequest.pb(), calls.run),
    }
    return create_server("google.cloud.scheduler.v1.CloudScheduler", methods, api, address)


class _Calls:
    """One method for each of the service's."""

    def __init__(self, api: SchedulerApi) -> None:
        self._api = api

    async def list(self, request: Any) -> Any:
        page = await self._api.list(request.parent, page_size=request.page_size, token=request.page_token)
        answer = types.ListJobsResponse.pb()(next_page_token=page.next_token)
        answer.jobs.extend(_message(job) for job in page.jobs)
        return answer

    async def get(self, request: Any) -> Any:
        return _message(await self._api.get(request.name))

    async def create(self, request: Any) -> Any:
        return _message(await self._api.create(request.parent, _json(request.job)))

    async def update(self, request: Any) -> Any:
        job = await self._api.update(
            request.job.name, _json(request.job), request.update_mask.paths, camel_case=False
        )
        return _message(job)

    async def delete(self, request: Any) -> Any:
        await self._api.delete(request.name)
        return empty_pb2.Empty()

    async def pause(self, request: Any) -> Any:
        return _message(await self._api.pause(request.name))

    async def resume(self, request: Any) -> Any:
        return _message(await self._api.resume(request.name))

    async def run(self, request: Any) -> Any:
        return _message(await self._api.run(request.name))


def _json(message: Any) -> dict[str, Any]:
    return in_json(message, "job", output_only=_OUTPUT_ONLY)


def _message(job: Job) -> Any:
    return json_format.ParseDict(resource.render(job, enum_numbers=True), types.Job.pb()())
