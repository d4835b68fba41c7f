"""Google Cloud Tasks as `ports.TaskQueue`, through Google's own client (reference/google-cloud section 1; docs/cloud-tasks.md).

What Cloud Tasks promises is less than one database does, and what Pulse needs is no more: every create stands alone, so a batch
that breaks off leaves a part of it behind; a name is refused for a day after its task is gone; a delivery may come twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from google.api_core import exceptions
from google.api_core.retry import AsyncRetry, if_exception_type
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcAsyncIOTransport

from careflow.errors import CareflowError, StoreUnavailable
from careflow.ports import Task
from careflow.tasks.limits import check_task, cloud_tasks_settings
from careflow.tasks.pacing import QueueLimits

T = TypeVar("T")

DEADLINES = (timedelta(seconds=15), timedelta(minutes=30))  # what Cloud Tasks takes as a dispatch deadline
CREATES = 32  # at a time: a planning of 1,000 calls is done in seconds, and far below the 500/s a new queue should see
PAGE = 1000

_PASSING = if_exception_type(
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.Aborted,
    exceptions.ResourceExhausted,
)


class CloudTasksQueue:
    """The queues "calls" and "rounds", each a Cloud Tasks queue that delivers to Pulse. Queues are made elsewhere."""

    def __init__(
        self,
        client: tasks_v2.CloudTasksAsyncClient,
        *,
        queues: Mapping[str, str],
        target: str,
        audience: str,
        account: str,
        deadline: timedelta,
        patience: timedelta = timedelta(seconds=20),
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        """`queues` are full names, `projects/P/locations/L/queues/Q`, by ours. `target` is Pulse's base URL; the token of a
        delivery is `account`'s, for `audience`. `deadline` is how long Pulse may take to answer one.

        A request has `timeout` to be answered, and is repeated for as long as `patience` lasts. Raises ValueError for a
        deadline that Cloud Tasks does not take.
        """
        if not DEADLINES[0] <= deadline <= DEADLINES[1]:
            raise ValueError(
                f"deadline: {deadline.total_seconds():g} s; Cloud Tasks takes 15 s to 1800 s (CAREFLOW_TASK_DEADLINE)"
            )
        self._client = client
        self._queues = dict(queues)
        self._target = target.rstrip("/")
        self._token = tasks_v2.OidcToken(service_account_email=account, audience=audience)
        self._deadline = deadline
        self._retry = AsyncRetry(
            predicate=_PASSING, initial=0.1, maximum=2.0, multiplier=2.0, timeout=patience.total_seconds()
        )
        self._timeout = timeout.total_seconds()

    @classmethod
    async def open(
        cls,
        *,
        project: str,
        location: str,
        queues: Mapping[str, str],
        target: str,
        audience: str,
        account: str,
        deadline: timedelta,
        url: str = "",
    ) -> CloudTasksQueue:
        """The queues with these ids; see `__init__`. With `url` a work-alike at that http:// address, else Google's."""
        client = await _client(url)
        return cls(
            client,
            queues={ours: queue_name(project, location, id_) for ours, id_ in queues.items()},
            target=target,
            audience=audience,
            account=account,
            deadline=deadline,
        )

    async def close(self) -> None:
        """Give up the connection."""
        await self._client.transport.close()

    # ports.TaskQueue

    async def enqueue(self, tasks: Sequence[Task]) -> int:
        for task in tasks:
            check_task(task, self._queues)
        waiting = iter(tasks)
        done = await asyncio.gather(
            *(self._create_all(waiting) for _ in range(min(CREATES, len(tasks)))), return_exceptions=True
        )
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure
        return sum(added for added in done if isinstance(added, int))

    async def cancel(self, queue: str, name: str) -> bool:
        path = f"{self._queues[queue]}/tasks/{name}"
        try:
            task = await self._ask(queue, self._client.get_task, name=path)
            if _is_being_delivered(task):
                return False
            await self._ask(queue, self._client.delete_task, name=path)
        except exceptions.NotFound:
            return False
        return True

    async def depth(self, queue: str) -> int:
        request = tasks_v2.ListTasksRequest(parent=self._queues[queue], page_size=PAGE)
        pages = await self._asked(queue, self._client.list_tasks, request=request)
        count = 0
        try:
            async for page in pages.pages:
                count += len(page.tasks)
        except exceptions.GoogleAPICallError as error:
            raise _unavailable(queue, error) from error
        return count

    async def _create_all(self, waiting: Iterator[Task]) -> int:
        """Create from `waiting`, which others take from as well, until it is empty; how many were new.

        After a failure `waiting` is emptied: what is down stays down, and everything is asked for again.
        """
        added = 0
        for task in waiting:
            try:
                added += await self._create(task)
            except BaseException:
                for _ in waiting:
                    pass
                raise
        return added

    async def _create(self, task: Task) -> bool:
        parent = self._queues[task.queue]
        wanted = tasks_v2.Task(
            name=f"{parent}/tasks/{task.name}",
            http_request=tasks_v2.HttpRequest(
                url=self._target + task.path,
                http_method=tasks_v2.HttpMethod.POST,
                headers={"Content-Type": "application/json"},
                body=json.dumps(dict(task.body)).encode(),
                oidc_token=self._token,
            ),
            schedule_time=task.due_at,
            dispatch_deadline=self._deadline,
        )
        try:
            await self._asked(task.queue, self._client.create_task, parent=parent, task=wanted)
        except exceptions.AlreadyExists:
            return False  # it waits, or runs, or did within the last day; or our own first try went through
        return True

    async def _asked(self, queue: str, method: Callable[..., Awaitable[T]], **request: Any) -> T:
        """`_ask`, for what cannot be missing but the queue."""
        try:
            return await self._ask(queue, method, **request)
        except exceptions.NotFound as error:
            raise _unavailable(queue, error) from error

    async def _ask(self, queue: str, method: Callable[..., Awaitable[T]], **request: Any) -> T:
        """The answer. Raises NotFound and AlreadyExists as they are, StoreUnavailable for every other failure."""
        try:
            return await method(**request, retry=self._retry, timeout=self._timeout)
        except (exceptions.NotFound, exceptions.AlreadyExists):
            raise
        except (exceptions.GoogleAPICallError, exceptions.RetryError) as error:
            raise _unavailable(queue, error) from error


async def ensure_queues(
    *, project: str, location: str, limits: Mapping[str, QueueLimits], url: str = ""
) -> None:
    """Make or change each queue (by its id) so that it has these limits. Raises StoreUnavailable.

    On Google Cloud Terraform does this (infra/); here is the same for a work-alike at `url`.
    """
    client = await _client(url)
    try:
        for id_, wanted in limits.items():
            queue = tasks_v2.Queue.from_json(
                json.dumps({"name": queue_name(project, location, id_), **cloud_tasks_settings(wanted)})
            )
            await client.update_queue(queue=queue, timeout=10.0)
    except exceptions.GoogleAPICallError as error:
        raise _unavailable(id_, error) from error
    finally:
        await client.transport.close()


def queue_name(project: str, location: str, id_: str) -> str:
    """A queue's full name."""
    return f"projects/{project}/locations/{location}/queues/{id_}"


async def _client(url: str) -> tasks_v2.CloudTasksAsyncClient:
    if not url:
        return tasks_v2.CloudTasksAsyncClient()
    import grpc

    address = urlsplit(url)
    if address.scheme != "http" or not address.netloc:
        raise CareflowError(f"CAREFLOW_CLOUD_TASKS_URL: {url!r} is not an http:// address")
    channel = grpc.aio.insecure_channel(address.netloc)
    return tasks_v2.CloudTasksAsyncClient(transport=CloudTasksGrpcAsyncIOTransport(channel=channel))


def _is_being_delivered(task: tasks_v2.Task) -> bool:
    """Whether its last attempt has begun and not ended."""
    last = task.last_attempt
    return bool(last.dispatch_time) and not last.response_time


def _unavailable(queue: str, error: Exception) -> StoreUnavailable:
    """By the kind alone: a message of Google's repeats what it was given."""
    kind = type(error).__name__
    return StoreUnavailable(
        f"queue {queue}: Cloud Tasks answered {kind}; some of the tasks may have been added"
    )
