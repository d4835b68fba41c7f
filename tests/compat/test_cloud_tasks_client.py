"""Google's own client of Cloud Tasks, over gRPC and over REST, against the lab's: every call that the lab answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import (
    CloudTasksGrpcTransport,
    CloudTasksRestTransport,
)
from google.protobuf import field_mask_pb2

from cloud_tasks_kit import PARENT, Served, serving_in_a_thread

ACCOUNT = "careflow-queue@careflow-local.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_in_a_thread(tmp_path_factory.mktemp("tasks")) as running:
        yield running


def _over_grpc(served: Served) -> Any:
    return CloudTasksGrpcTransport(channel=grpc.insecure_channel(served.address))


def _over_rest(served: Served) -> Any:
    return CloudTasksRestTransport(host=served.address, url_scheme="http", credentials=AnonymousCredentials())


@pytest.fixture(params=[_over_grpc, _over_rest])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[tasks_v2.CloudTasksClient]:
    with tasks_v2.CloudTasksClient(transport=request.param(served)) as made:
        yield made


@pytest.fixture
def queue(client: tasks_v2.CloudTasksClient, request: pytest.FixtureRequest) -> str:
    """A queue of the test's own, at the service's defaults."""
    id_ = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[-90:]
    name = f"{PARENT}/queues/{id_}"
    return client.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=name)).name


def _task(queue: str, served: Served, name: str = "t1", **fields: Any) -> tasks_v2.Task:
    return tasks_v2.Task(
        name=f"{queue}/tasks/{name}",
        http_request=tasks_v2.HttpRequest(
            url=f"{served.receiver.url}/tasks/call",
            headers={"Content-Type": "application/json"},
            body=b'{"callId":"c1"}',
            oidc_token=tasks_v2.OidcToken(service_account_email=ACCOUNT, audience="https://pulse.test"),
        ),
        **fields,
    )


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.01)


def test_a_queue_that_says_nothing_has_the_services_limits(
    client: tasks_v2.CloudTasksClient, queue: str
) -> None:
    found = client.get_queue(name=queue)

    limits, retry = found.rate_limits, found.retry_config
    assert found.state is tasks_v2.Queue.State.RUNNING
    assert (
        limits.max_dispatches_per_second,
        limits.max_concurrent_dispatches,
        limits.max_burst_size,
    ) == (500, 1000, 100)
    assert (retry.max_attempts, retry.max_doublings) == (100, 16)
    assert (retry.min_backoff, retry.max_backoff) == (timedelta(milliseconds=100), timedelta(hours=1))


def test_an_update_changes_what_its_mask_names(client: tasks_v2.CloudTasksClient, queue: str) -> None:
    wanted = tasks_v2.Queue(
        name=queue,
        rate_limits=tasks_v2.RateLimits(max_dispatches_per_second=2, max_concurrent_dispatches=7),
        retry_config=tasks_v2.RetryConfig(max_attempts=-1),
    )

    client.update_queue(
        queue=wanted,
        update_mask=field_mask_pb2.FieldMask(paths=["rate_limits.max_dispatches_per_second", "retry_config"]),
    )

    found = client.get_queue(name=queue)
    assert found.rate_limits.max_dispatches_per_second == 2
    assert found.rate_limits.max_concurrent_dispatches == 1000
    assert found.retry_config.max_attempts == -1


def test_an_update_makes_a_queue_that_is_not_there(client: tasks_v2.CloudTasksClient, queue: str) -> None:
    name = f"{queue}-2"
    client.update_queue(queue=tasks_v2.Queue(name=name))
    assert name in [one.name for one in client.list_queues(parent=PARENT)]


def test_a_task_is_delivered_and_gone(client: tasks_v2.CloudTasksClient, queue: str, served: Served) -> None:
    del served.receiver.received[:]
    created = client.create_task(parent=queue, task=_task(queue, served))
    assert created.http_request.http_method is tasks_v2.HttpMethod.POST
    assert created.dispatch_deadline == timedelta(minutes=10)
    assert created.http_request.body == b""  # the basic view

    _until(lambda: bool(served.receiver.received))
    (request,) = served.receiver.received
    assert request.headers["authorization"] == f"Bearer {ACCOUNT}|https://pulse.test"
    assert request.headers["x-cloudtasks-queuename"] == queue.rpartition("/")[2]
    assert (request.task, request.headers["x-cloudtasks-taskretrycount"]) == ("t1", "0")

    def gone() -> bool:
        try:
            client.get_task(name=created.name)
        except exceptions.NotFound:
            return True
        return False

    _until(gone)
    with pytest.raises(exceptions.Conflict):
        client.create_task(parent=queue, task=_task(queue, served))


def test_tasks_are_listed_page_by_page(client: tasks_v2.CloudTasksClient, queue: str, served: Served) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    for number in range(5):
        client.create_task(parent=queue, task=_task(queue, served, f"t{number}", schedule_time=later))

    pager = client.list_tasks(
        request={"parent": queue, "page_size": 2, "response_view": tasks_v2.Task.View.FULL}
    )
    pages = [list(page.tasks) for page in pager.pages]

    assert [len(page) for page in pages] == [2, 2, 1]
    found = [task for page in pages for task in page]
    assert [task.name.rpartition("/")[2] for task in found] == ["t0", "t1", "t2", "t3", "t4"]
    assert {task.http_request.body for task in found} == {b'{"callId":"c1"}'}


def test_a_paused_queue_dispatches_only_what_is_run_by_hand(
    client: tasks_v2.CloudTasksClient, queue: str, served: Served
) -> None:
    del served.receiver.received[:]
    assert client.pause_queue(name=queue).state is tasks_v2.Queue.State.PAUSED
    client.create_task(parent=queue, task=_task(queue, served, "t1"))
    client.create_task(parent=queue, task=_task(queue, served, "t2"))

    client.run_task(name=f"{queue}/tasks/t2")
    _until(lambda: bool(served.receiver.received))
    client.purge_queue(name=queue)
    client.resume_queue(name=queue)

    assert list(client.list_tasks(parent=queue)) == []
    assert [request.task for request in served.receiver.received] == ["t2"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"schedule_time": datetime.now(UTC) + timedelta(days=31)}, "task.scheduleTime"),
        ({"dispatch_deadline": timedelta(seconds=14)}, "task.dispatchDeadline"),
        ({"dispatch_deadline": timedelta(minutes=31)}, "task.dispatchDeadline"),
        ({"name": "no/name"}, "task.name"),
        ({"http_request": tasks_v2.HttpRequest(url="ftp://x/")}, "task.httpRequest.url"),
        ({"http_request": None}, "task.httpRequest"),
    ],
)
def test_what_is_not_accepted_is_named(
    client: tasks_v2.CloudTasksClient, queue: str, served: Served, fields: dict[str, Any], named: str
) -> None:
    task = _task(queue, served)
    for name, value in fields.items():
        setattr(task, name, value)
    with pytest.raises(exceptions.BadRequest, match=named):
        client.create_task(parent=queue, task=task)


def test_what_is_not_there_is_not_found(
    client: tasks_v2.CloudTasksClient, queue: str, served: Served
) -> None:
    with pytest.raises(exceptions.NotFound, match="Queue"):
        client.create_task(parent=f"{queue}-none", task=_task(f"{queue}-none", served))
    with pytest.raises(exceptions.NotFound, match="task"):
        client.delete_task(name=f"{queue}/tasks/none")
    client.delete_queue(name=queue)
    with pytest.raises(exceptions.BadRequest, match="too recently"):
        client.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=queue))
