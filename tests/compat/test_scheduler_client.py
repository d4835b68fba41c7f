"""google-cloud-scheduler, Google's own client, against our port: blocking over REST and gRPC, async over gRPC (it has no other).

Its REST transport raises by HTTP status, its gRPC transport a subclass by code: BadRequest is InvalidArgument there, Conflict
AlreadyExists.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import scheduler_v1
from google.cloud.scheduler_v1.services.cloud_scheduler import transports
from google.protobuf import any_pb2, duration_pb2, field_mask_pb2
from google.rpc import status_pb2

from scheduler_api_kit import PARENT, Threaded, serving_in_a_thread

OIDC = "careflow-scheduler@careflow-local.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Threaded]:
    with serving_in_a_thread(tmp_path_factory.mktemp("scheduler")) as threaded:
        yield threaded


@pytest.fixture
def job_id() -> str:
    return f"job-{uuid.uuid4().hex[:8]}"


def blocking(running: Threaded, transport: str) -> scheduler_v1.CloudSchedulerClient:
    if transport == "rest":
        return scheduler_v1.CloudSchedulerClient(
            transport="rest",
            client_options=ClientOptions(api_endpoint=running.served.url),
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        )
    channel = grpc.insecure_channel(running.served.address)
    return scheduler_v1.CloudSchedulerClient(
        transport=transports.CloudSchedulerGrpcTransport(channel=channel)
    )


@pytest.fixture(params=["rest", "grpc"])
def client(running: Threaded, request: pytest.FixtureRequest) -> Iterator[scheduler_v1.CloudSchedulerClient]:
    with blocking(running, request.param) as found:
        yield found


def job(running: Threaded, job_id: str, **changes: Any) -> scheduler_v1.Job:
    values: dict[str, Any] = {
        "name": f"{PARENT}/jobs/{job_id}",
        "description": "Morning rounds",
        "schedule": "15 8 * * *",
        "time_zone": "America/New_York",
        "http_target": {
            "uri": f"{running.served.target.url}/rounds",
            "http_method": scheduler_v1.HttpMethod.POST,
            "headers": {"Content-Type": "application/json"},
            "body": b'{"scheduleHour":8}',
            "oidc_token": {"service_account_email": OIDC},
        },
        "retry_config": {
            "retry_count": 3,
            "min_backoff_duration": duration_pb2.Duration(seconds=60),
            "max_backoff_duration": duration_pb2.Duration(seconds=300),
        },
        "attempt_deadline": duration_pb2.Duration(seconds=600),
    }
    return scheduler_v1.Job(values | changes)


def masked(*paths: str) -> field_mask_pb2.FieldMask:
    return field_mask_pb2.FieldMask(paths=paths)


def test_a_created_job_is_read_back_with_the_services_defaults(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str
) -> None:
    client.create_job(parent=PARENT, job=job(running, job_id))

    found = client.get_job(name=f"{PARENT}/jobs/{job_id}")

    assert found.state is scheduler_v1.Job.State.ENABLED
    assert found.http_target.http_method is scheduler_v1.HttpMethod.POST
    assert found.http_target.body == b'{"scheduleHour":8}'
    assert dict(found.http_target.headers) == {
        "Content-Type": "application/json",
        "User-Agent": "Google-Cloud-Scheduler",
    }
    assert found.http_target.oidc_token.audience == f"{running.served.target.url}/rounds"
    assert found.retry_config.retry_count == 3
    assert found.retry_config.max_doublings == 5
    assert found.retry_config.max_retry_duration.total_seconds() == 0
    assert found.attempt_deadline.total_seconds() == 600
    assert found.schedule_time > found.user_update_time


def test_a_mask_replaces_the_named_fields_and_nothing_else(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str
) -> None:
    created = client.create_job(parent=PARENT, job=job(running, job_id))
    change = scheduler_v1.Job(
        name=created.name, schedule="0 9 * * *", retry_config={"retry_count": 1}, description="not named"
    )

    client.update_job(job=change, update_mask=masked("schedule", "retry_config.retry_count"))

    found = client.get_job(name=created.name)
    assert (found.schedule, found.retry_config.retry_count) == ("0 9 * * *", 1)
    assert found.description == "Morning rounds"
    assert found.retry_config.min_backoff_duration.total_seconds() == 60
    assert found.http_target == created.http_target


def test_what_the_mask_names_and_the_body_lacks_is_reset(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str
) -> None:
    created = client.create_job(parent=PARENT, job=job(running, job_id))

    found = client.update_job(
        job=scheduler_v1.Job(name=created.name),
        update_mask=masked("description", "retry_config", "attempt_deadline", "http_target.headers"),
    )

    assert found.description == ""
    assert found.retry_config.retry_count == 0
    assert found.retry_config.min_backoff_duration.total_seconds() == 5
    assert found.attempt_deadline.total_seconds() == 180
    assert dict(found.http_target.headers) == {
        "Content-Type": "application/octet-stream",
        "User-Agent": "Google-Cloud-Scheduler",
    }


def test_without_a_mask_everything_is_replaced(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str
) -> None:
    created = client.create_job(parent=PARENT, job=job(running, job_id))
    bare = scheduler_v1.Job(name=created.name, http_target={"uri": "https://example.com/"}, time_zone="UTC")

    found = client.update_job(job=bare)

    assert found.schedule == "15 8 * * *"  # required on create only
    assert (found.description, found.time_zone, found.http_target.body) == ("", "UTC", b"")
    assert not found.http_target.oidc_token.service_account_email


def test_paging_yields_every_job_once_in_order(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient
) -> None:
    parent = f"projects/p-{uuid.uuid4().hex[:8]}/locations/europe-west1"
    names = [f"{parent}/jobs/job-{number}" for number in range(5)]
    for name in reversed(names):
        client.create_job(parent=parent, job=job(running, "any", name=name))

    pages = client.list_jobs(request={"parent": parent, "page_size": 2}).pages

    assert [[found.name for found in page.jobs] for page in pages] == [names[:2], names[2:4], names[4:]]


def test_pause_resume_run_and_delete(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str
) -> None:
    name = client.create_job(parent=PARENT, job=job(running, job_id)).name

    assert client.resume_job(name=name).state is scheduler_v1.Job.State.ENABLED
    assert client.pause_job(name=name).state is scheduler_v1.Job.State.PAUSED
    assert client.resume_job(name=name).state is scheduler_v1.Job.State.ENABLED
    assert client.run_job(name=name).name == name
    client.delete_job(name=name)

    with pytest.raises(exceptions.NotFound):
        client.get_job(name=name)


def test_a_forced_run_reaches_the_target_with_the_body_and_a_token(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str
) -> None:
    name = client.create_job(parent=PARENT, job=job(running, job_id)).name
    target = running.served.target
    running.ask(_forget(target))

    client.run_job(name=name)

    running.ask(target.came.wait())
    method, headers, body = target.received[-1]
    assert (method, body) == ("POST", b'{"scheduleHour":8}')
    assert headers["x-cloudscheduler-jobname"] == job_id
    assert headers["authorization"] == f"Bearer token-for-{target.url}/rounds"


async def _forget(target: Any) -> None:
    target.received.clear()
    target.came.clear()


def test_locations(client: scheduler_v1.CloudSchedulerClient) -> None:
    listed = client.list_locations(request={"name": "projects/careflow-local"})
    found = client.get_location(request={"name": PARENT})

    assert [location.location_id for location in listed.locations] == ["us-central1"]
    assert found.labels["cloud.googleapis.com/region"] == "us-central1"


def violated(detail: Any) -> str:
    """The field that a google.rpc.BadRequest names: a message over gRPC, JSON over REST."""
    if isinstance(detail, dict):
        return str(detail["fieldViolations"][0]["field"])
    return str(detail.field_violations[0].field)


REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("schedule", {"schedule": "0 15 8 * * *"}),
    ("schedule", {"schedule": "15 8 L * *"}),
    ("schedule", {"schedule": "0 0 30 2 *"}),
    ("schedule", {"schedule": ""}),
    ("timeZone", {"time_zone": "America/Gotham"}),
    ("attemptDeadline", {"attempt_deadline": duration_pb2.Duration(seconds=79 * 3600)}),
    (
        "httpTarget.body",
        {"http_target": {"uri": "https://example.com/", "http_method": "GET", "body": b"x"}},
    ),
    ("job", {"http_target": {"uri": "https://example.com/", "body": b"x" * (2 << 20)}}),
    ("retryConfig.retryCount", {"retry_config": {"retry_count": 6}}),
    ("httpTarget", {"http_target": None}),
    ("pubsubTarget", {"http_target": None, "pubsub_target": {"topic_name": "projects/p/topics/t"}}),
]


@pytest.mark.parametrize(("field", "changes"), REFUSALS, ids=[f"{n}-{r[0]}" for n, r in enumerate(REFUSALS)])
def test_a_bad_job_is_an_invalid_argument_that_names_the_field(
    running: Threaded,
    client: scheduler_v1.CloudSchedulerClient,
    job_id: str,
    field: str,
    changes: dict[str, Any],
) -> None:
    with pytest.raises(exceptions.BadRequest) as refused:
        client.create_job(parent=PARENT, job=job(running, job_id, **changes))

    assert field in refused.value.message
    assert [violated(detail) for detail in refused.value.details] == [field]
    with pytest.raises(exceptions.NotFound):
        client.get_job(name=f"{PARENT}/jobs/{job_id}")


@pytest.mark.parametrize("character", ["9", "\N{BLACK TELEPHONE}", "\N{TELEPHONE RECEIVER}"])
def test_a_refusal_of_something_very_long_is_short_enough_to_arrive(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str, character: str
) -> None:
    with pytest.raises(exceptions.BadRequest, match="schedule: Schedule or time zone is invalid") as refused:
        client.create_job(parent=PARENT, job=job(running, job_id, schedule=character * 100_000))

    assert [violated(detail) for detail in refused.value.details] == ["schedule"]


def test_a_bad_update_changes_nothing(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str
) -> None:
    created = client.create_job(parent=PARENT, job=job(running, job_id))
    change = scheduler_v1.Job(name=created.name, description="other", schedule="never")

    with pytest.raises(exceptions.BadRequest, match="schedule"):
        client.update_job(job=change, update_mask=masked("description", "schedule"))
    with pytest.raises(exceptions.BadRequest, match="patience"):
        client.update_job(job=change, update_mask=masked("description", "patience"))

    assert client.get_job(name=created.name) == created


def test_errors_come_as_the_clients_own_types(
    running: Threaded, client: scheduler_v1.CloudSchedulerClient, job_id: str
) -> None:
    client.create_job(parent=PARENT, job=job(running, job_id))
    missing = f"{PARENT}/jobs/missing"

    with pytest.raises(exceptions.Conflict, match=job_id):
        client.create_job(parent=PARENT, job=job(running, job_id))
    for call in (client.get_job, client.delete_job, client.pause_job, client.resume_job, client.run_job):
        with pytest.raises(exceptions.NotFound):
            call(name=missing)
    with pytest.raises(exceptions.NotFound):
        client.update_job(job=job(running, "missing"))
    with pytest.raises(exceptions.BadRequest, match="pageToken"):
        list(client.list_jobs(request={"parent": PARENT, "page_token": "bad"}))
    with pytest.raises(exceptions.BadRequest, match="Job name must be formatted"):
        client.create_job(parent=PARENT, job=job(running, job_id, name="short"))


def test_what_the_service_sets_itself_is_ignored_whatever_it_is(running: Threaded, job_id: str) -> None:
    unknown = any_pb2.Any(type_url="type.googleapis.com/no.such.Type", value=b"x")
    given = job(running, job_id, state="PAUSED", status=status_pb2.Status(code=5, details=[unknown]))
    with blocking(running, "grpc") as client:
        assert client.create_job(parent=PARENT, job=given).state is scheduler_v1.Job.State.ENABLED


def test_over_grpc_a_mask_is_in_snake_case_only(running: Threaded, job_id: str) -> None:
    with blocking(running, "grpc") as client:
        created = client.create_job(parent=PARENT, job=job(running, job_id))

        with pytest.raises(exceptions.BadRequest, match="Invalid mask for Job: timeZone"):
            client.update_job(job=created, update_mask=masked("timeZone"))


async def test_the_async_client_goes_from_create_to_delete(running: Threaded, job_id: str) -> None:
    channel = grpc.aio.insecure_channel(running.served.address)
    client = scheduler_v1.CloudSchedulerAsyncClient(
        transport=transports.CloudSchedulerGrpcAsyncIOTransport(channel=channel)
    )

    created = await client.create_job(parent=PARENT, job=job(running, job_id))
    updated = await client.update_job(
        job=scheduler_v1.Job(name=created.name, time_zone="Europe/Berlin"), update_mask=masked("time_zone")
    )
    paused = await client.pause_job(name=created.name)
    resumed = await client.resume_job(name=created.name)
    ran = await client.run_job(name=created.name)
    listed = [found.name async for found in await client.list_jobs(parent=PARENT)]
    await client.delete_job(name=created.name)

    assert updated.time_zone == "Europe/Berlin"
    assert (paused.state.name, resumed.state.name) == ("PAUSED", "ENABLED")
    assert ran.name == created.name
    assert created.name in listed
    with pytest.raises(exceptions.NotFound):
        await client.get_job(name=created.name)
    await channel.close()
