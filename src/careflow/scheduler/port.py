"""The scheduler's gRPC server, for the port that it shares with REST."""

from __future__ import annotations

from careflow.google_api.port import GrpcBackend
from careflow.scheduler.api import SchedulerApi

_NEEDS = {
    "grpc": "grpcio",
    "google.cloud.scheduler_v1": "google-cloud-scheduler",
    "google.cloud.location": "googleapis-common-protos",
}


def grpc_backend(api: SchedulerApi) -> GrpcBackend:
    """Not started: the first connection that speaks gRPC starts it."""
    return GrpcBackend("careflow.scheduler.grpc_api:create_grpc_server", api, _NEEDS)
