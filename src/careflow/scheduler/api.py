"""The verbs of Cloud Scheduler v1 on resources, the same for REST and gRPC: checks, paging, and errors in the API's words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from careflow.errors import StoreUnavailable
from careflow.google_api import masks, names
from careflow.google_api.paging import PageTokens
from careflow.google_api.refusals import Code, Refused, invalid
from careflow.ports import Clock
from careflow.scheduler import resource
from careflow.scheduler.errors import InvalidSchedule, JobExists, JobNotFound, JobWrongState
from careflow.scheduler.model import Job
from careflow.scheduler.service import Scheduler

PAGE_BYTES = 3 << 20  # gRPC clients refuse an answer of more than 4 MiB
PAGE = 500  # jobs; also what is answered when nothing or more is asked for


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
        self._tokens = PageTokens(clock)
        self._location = location
        self._new_id = new_id

    async def create(self, parent: str, body: Any) -> Job:
        job = resource.new_job(body, names.checked_parent(parent), self._new_id())
        with _in_the_apis_words():
            return await self._scheduler.create(job)

    async def get(self, name: str) -> Job:
        resource.checked_name(name)
        with _in_the_apis_words():
            return await self._scheduler.get(name)

    async def list(self, parent: str, *, page_size: int, token: str) -> Page:
        """At most `page_size` jobs (0 is as many as there may be), from where `token` points to."""
        names.checked_parent(parent)
        if page_size < 0:
            raise invalid("pageSize", f"must be 0 to {PAGE}; more is cut to that", page_size)
        size = min(page_size or PAGE, PAGE)
        after = self._tokens.read(token, f"{parent}/jobs/") if token else ""
        with _in_the_apis_words():
            jobs = await self._scheduler.list(parent, after=after, limit=size + 1)
        fitting = jobs[: max(1, _fitting(jobs[:size]))]
        more = len(jobs) > len(fitting)
        return Page(fitting, self._tokens.after(fitting[-1].name) if more else "")

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
        return names.location(name)

    def locations(self, project: str) -> Sequence[dict[str, Any]]:
        """The one location of this machine; gcloud takes it when none is given."""
        return [names.location(f"{names.checked_project(project)}/locations/{self._location}")]


def _fitting(jobs: Sequence[Job]) -> int:
    """How many of the jobs, from the first, one page holds."""
    sizes = accumulate(resource.job_bytes(job) for job in jobs)
    return sum(1 for size in sizes if size <= PAGE_BYTES)


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
