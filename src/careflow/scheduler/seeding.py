"""The default jobs of a deployment, put where there are none, and aimed anew when Pulse has moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from careflow.scheduler.errors import JobExists, JobNotFound
from careflow.scheduler.model import Job
from careflow.scheduler.service import Scheduler


async def ensure_jobs(scheduler: Scheduler, jobs: Sequence[Job]) -> None:
    """Create `jobs` on a scheduler that has none in their place; aim those that are there at the given targets.

    What a user changed in a job stays (schedule, payload, retries, state), and a job that a user deleted stays deleted as long
    as another one is there. Only the address is ours: a free port is another one at every start.
    """
    first_start = not await scheduler.list(jobs[0].parent, limit=1)
    for job in jobs:
        if first_start:
            try:
                await scheduler.create(job)
            except JobExists:
                continue  # another process was as quick
        else:
            await _aim(scheduler, job)


async def _aim(scheduler: Scheduler, wanted: Job) -> None:
    try:
        stored = await scheduler.get(wanted.name)
    except JobNotFound:
        return
    if stored.http_target.uri == wanted.http_target.uri:
        return

    def aimed(job: Job) -> Job:
        target = replace(
            job.http_target, uri=wanted.http_target.uri, oidc_token=wanted.http_target.oidc_token
        )
        return replace(job, http_target=target)

    await scheduler.update(wanted.name, aimed)
