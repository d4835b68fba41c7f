"""The verbs of Cloud Scheduler v1 on resources, the same for REST and gRPC: checks, paging, and errors in the API's words."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

from careflow.errors import StoreUnavailable
from careflow.ports import Clock
from careflow.scheduler import masks, resource
from careflow.scheduler.errors import InvalidSchedule, JobExists, JobNotFound, JobWrongState
from careflow.scheduler.model import Job
from careflow.scheduler.refusals import Code, Refused, invalid
from careflow.scheduler.service import Scheduler

PAGE_BYTES = 3 << 20  # gRPC clients refuse an answer of more than 4 MiB
PAGE = 500  # jobs; also what is answered when nothing or more is asked for
TOKEN_LIFE = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, ordered by name; `next_token` asks for what follows and is empty at the end."""

    jobs: Sequence[Job]
    next_token: str


class SchedulerApi:
    """What the API does with a job, before it is put into JSON or a message. Every method raises Refused.

    Any project and any location that are well formed exist: the official clients name their own.
    """

    def __init__(
        self, scheduler: Scheduler, *, clock: Clock, location: str, new_id: Callable[[], str]
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._location = location
        self._new_id = new_id

    async def create(self, parent: str, body: Any) -> Job:
        job = resource.new_job(body, resource.checked_parent(parent), self._new_id())
        with _in_the_apis_words():
            return await self._scheduler.create(job)

    async def get(self, name: str) -> Job:
        resource.checked_name(name)
        with _in_the_apis_words():
            return await self._scheduler.get(name)

    async def list(self, parent: str, *, page_size: int, token: str) -> Page:
        """At most `page_size` jobs (0 is as many as there may be), from where `token` points to."""
        resource.checked_parent(parent)
        if page_size < 0:
            raise invalid("pageSize", f"must be 0 to {PAGE}; more is cut to that", page_size)
        size = min(page_size or PAGE, PAGE)
        after = self._token_read(token, parent) if token else ""
        with _in_the_apis_words():
            jobs = await self._scheduler.list(parent, after=after, limit=size + 1)
        fitting = jobs[: max(1, _fitting(jobs[:size]))]
        more = len(jobs) > len(fitting)
        return Page(fitting, self._token_for(fitting[-1].name) if more else "")

    async def update(self, name: str, body: Any, mask: Iterable[str], *, camel_case: bool) -> Job:
        """Replace the masked fields, or all. The mask may be in camelCase over REST only."""
        resource.checked_name(name)
        tree = resource.read_body(body)
        chosen = masks.paths(resource.SCHEMA, mask, camel_case=camel_case)
        with _in_the_apis_words():
            return await self._scheduler.update(
                name, lambda stored: resource.updated_job(stored, tree, chosen)
            )

    async def delete(self, name: str) -> None:
        resource.checked_name(name)
        with _in_the_apis_words():
            await self._scheduler.delete(name)

    async def pause(self, name: str) -> Job:
        resource.checked_name(name)
        with _in_the_apis_words():
            return await self._scheduler.pause(name)

    async def resume(self, name: str) -> Job:
        resource.checked_name(name)
        with _in_the_apis_words():
            return await self._scheduler.resume(name)

    async def run(self, name: str) -> Job:
        resource.checked_name(name)
        with _in_the_apis_words():
            return await self._scheduler.run(name)

    def location(self, name: str) -> dict[str, Any]:
        """google.cloud.location.Location of `projects/P/locations/L`."""
        location = resource.checked_parent(name, field="name").rpartition("/")[2]
        return {
            "name": name,
            "locationId": location,
            "displayName": location,
            "labels": {"cloud.googleapis.com/region": location},
        }

    def locations(self, project: str) -> Sequence[dict[str, Any]]:
        """The one location of this machine; gcloud takes it when none is given."""
        return [self.location(f"{resource.checked_project(project)}/locations/{self._location}")]

    def _token_for(self, name: str) -> str:
        until = int((self._clock.now() + TOKEN_LIFE).timestamp())
        return base64.urlsafe_b64encode(json.dumps([name, until]).encode()).decode("ascii")

    def _token_read(self, token: str, parent: str) -> str:
        """The name after which the page starts."""
        try:
            after, until = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
            expires = datetime.fromtimestamp(until, UTC)
            name = after if isinstance(after, str) and after.startswith(f"{parent}/jobs/") else ""
        except (binascii.Error, ValueError, TypeError, OverflowError, OSError, RecursionError):
            raise _bad_token() from None
        if not name or self._clock.now() >= expires:
            raise _bad_token()
        return name


def _fitting(jobs: Sequence[Job]) -> int:
    """How many of the jobs, from the first, one page holds."""
    sizes = accumulate(resource.job_bytes(job) for job in jobs)
    return sum(1 for size in sizes if size <= PAGE_BYTES)


def _bad_token() -> Refused:
    hours = TOKEN_LIFE // timedelta(hours=1)
    return invalid("pageToken", f"must be a token that this list answered within the last {hours} hours")


@contextmanager
def _in_the_apis_words() -> Iterator[None]:
    try:
        yield
    except JobNotFound as error:
        raise Refused(Code.NOT_FOUND, "Job not found.") from error
    except JobExists as error:
        raise Refused(Code.ALREADY_EXISTS, f"name: {error}", field="name") from error
    except JobWrongState as error:
        raise Refused(Code.FAILED_PRECONDITION, str(error)) from error
    except InvalidSchedule as error:
        field = "timeZone" if error.field == "time_zone" else error.field
        raise Refused(
            Code.INVALID_ARGUMENT, f"{field}: Schedule or time zone is invalid. {error}", field=field
        ) from error
    except StoreUnavailable as error:
        raise Refused(Code.UNAVAILABLE, "The store cannot be used now; try again later.") from error
