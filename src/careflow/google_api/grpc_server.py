"""gRPC as Google's APIs speak it: unary methods, refusals as statuses with details. Imported only when somebody speaks gRPC."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

import grpc
from google.cloud.location import locations_pb2
from google.protobuf import any_pb2, json_format
from google.rpc import error_details_pb2, status_pb2

from careflow.google_api.refusals import Code, Refused

_log = logging.getLogger(__name__)

Answer: TypeAlias = Callable[[Any], Awaitable[Any]]


class Locations(Protocol):
    """What answers google.cloud.location.Locations."""

    def location(self, name: str) -> dict[str, Any]: ...

    def locations(self, project: str) -> Any: ...


def create_server(
    service: str, methods: Mapping[str, tuple[Any, Answer]], locations: Locations, address: str
) -> Any:
    """A grpc.aio server, not started, listening on `address` ("unix:PATH", "127.0.0.1:PORT"), without transport security.

    `methods` are the service's: the class of the request, and what answers it or raises Refused.
    """

    async def list_locations(request: Any) -> Any:
        answer = {"locations": locations.locations(request.name)}
        return json_format.ParseDict(answer, locations_pb2.ListLocationsResponse())

    async def get_location(request: Any) -> Any:
        return json_format.ParseDict(locations.location(request.name), locations_pb2.Location())

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                service, {name: _method(request, answer) for name, (request, answer) in methods.items()}
            ),
            grpc.method_handlers_generic_handler(
                "google.cloud.location.Locations",
                {
                    "ListLocations": _method(locations_pb2.ListLocationsRequest, list_locations),
                    "GetLocation": _method(locations_pb2.GetLocationRequest, get_location),
                },
            ),
        )
    )
    server.add_insecure_port(address)
    return server


def in_json(message: Any, field: str, *, output_only: tuple[str, ...] = ()) -> dict[str, Any]:
    """The message in JSON form, without what the service sets itself. Raises Refused for what JSON cannot say."""
    given = type(message)()
    given.CopyFrom(message)
    for name in output_only:
        given.ClearField(name)
    try:
        found: dict[str, Any] = json_format.MessageToDict(given)
    except (ValueError, json_format.Error) as error:
        raise Refused(Code.INVALID_ARGUMENT, f"{field}: holds a duration that is none: {error}") from error
    return found


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
