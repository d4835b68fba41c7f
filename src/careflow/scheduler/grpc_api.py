"""Cloud Scheduler v1 over gRPC, with the message classes of Google's own client. Imported only when somebody speaks gRPC.

A message and its JSON form are the same thing (proto3 JSON mapping), so there is one set of rules for both: what comes in is
put into JSON and what goes out is made of it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.cloud.location import locations_pb2
from google.cloud.scheduler_v1 import types
from google.protobuf import any_pb2, empty_pb2, json_format
from google.rpc import error_details_pb2, status_pb2

from careflow.scheduler import resource
from careflow.scheduler.api import SchedulerApi
from careflow.scheduler.model import Job
from careflow.scheduler.refusals import Code, Refused

_log = logging.getLogger(__name__)

_OUTPUT_ONLY = ("user_update_time", "state", "status", "schedule_time", "last_attempt_time")

Answer: TypeAlias = Callable[[Any], Awaitable[Any]]


def create_grpc_server(api: SchedulerApi, address: str) -> Any:
    """A grpc.aio server, not started, listening on `address` ("unix:PATH", "127.0.0.1:PORT"), without transport security."""
    calls = _Calls(api)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "google.cloud.scheduler.v1.CloudScheduler",
                {
                    "ListJobs": _method(types.ListJobsRequest.pb(), calls.list),
                    "GetJob": _method(types.GetJobRequest.pb(), calls.get),
                    "CreateJob": _method(types.CreateJobRequest.pb(), calls.create),
                    "UpdateJob": _method(types.UpdateJobRequest.pb(), calls.update),
                    "DeleteJob": _method(types.DeleteJobRequest.pb(), calls.delete),
                    "PauseJob": _method(types.PauseJobRequest.pb(), calls.pause),
                    "ResumeJob": _method(types.ResumeJobRequest.pb(), calls.resume),
                    "RunJob": _method(types.RunJobRequest.pb(), calls.run),
                },
            ),
            grpc.method_handlers_generic_handler(
                "google.cloud.location.Locations",
                {
                    "ListLocations": _method(locations_pb2.ListLocationsRequest, calls.locations),
                    "GetLocation": _method(locations_pb2.GetLocationRequest, calls.location),
                },
            ),
        )
    )
    server.add_insecure_port(address)
    return server


class _Calls:
    """One method for each of the two services'."""

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

    async def locations(self, request: Any) -> Any:
        answer = {"locations": self._api.locations(request.name)}
        return json_format.ParseDict(answer, locations_pb2.ListLocationsResponse())

    async def location(self, request: Any) -> Any:
        return json_format.ParseDict(self._api.location(request.name), locations_pb2.Location())


def _method(request_class: Any, answer: Answer) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await answer(request)
        except Refused as refused:
            failed = refused
        except Exception:  # noqa: BLE001 - the last handler there is
            _log.exception("%s failed", request_class.DESCRIPTOR.name)
            failed = Refused(Code.INTERNAL, "Internal error encountered.")
        context.set_trailing_metadata((("grpc-status-details-bin", _details(failed)),))
        return await context.abort(_STATUS[failed.code], failed.message)  # which raises

    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=request_class.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


_STATUS = {status.value[0]: status for status in grpc.StatusCode}


def _details(refused: Refused) -> bytes:
    """google.rpc.Status with the bad field, as Google's clients read it beside the code."""
    status = status_pb2.Status(code=refused.code, message=refused.message)
    if refused.field:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=refused.field, description=refused.message)
        packed = any_pb2.Any()
        packed.Pack(bad)
        status.details.append(packed)
    return bytes(status.SerializeToString())


def _json(message: Any) -> dict[str, Any]:
    """A Job message in JSON form, without what the service sets itself. Raises Refused for what JSON cannot say."""
    given = type(message)()
    given.CopyFrom(message)
    for name in _OUTPUT_ONLY:
        given.ClearField(name)
    try:
        found: dict[str, Any] = json_format.MessageToDict(given)
    except (ValueError, json_format.Error) as error:
        raise Refused(Code.INVALID_ARGUMENT, f"job: holds a duration that is none: {error}") from error
    return found


def _message(job: Job) -> Any:
    return json_format.ParseDict(resource.render(job, enum_numbers=True), types.Job.pb()())
