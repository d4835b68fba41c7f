"""Cloud Scheduler's v1 API as the commands use it, at this machine's scheduler or at Google's: only the endpoint differs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
from cyclopts import Parameter

from careflow.cli.context import NotFound, settings_for
from careflow.cli.whereabouts import reached
from careflow.errors import CareflowError, SettingsError
from careflow.settings import Settings

GOOGLE = "https://cloudscheduler.googleapis.com"
GOOGLE_LOGGING = "https://logging.googleapis.com"


class JobsRefused(CareflowError):
    """The scheduler refused."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which scheduler, and which of its jobs."""

    project: Annotated[str | None, Parameter(help="Project id (default: CAREFLOW_PROJECT).")] = None
    location: Annotated[str | None, Parameter(help="Location (default: CAREFLOW_LOCATION).")] = None
    endpoint: Annotated[
        str | None,
        Parameter(help=f"The API's address (default: this machine's scheduler; Google's is {GOOGLE})."),
    ] = None
    token: Annotated[
        str | None,
        Parameter(
            env_var="CAREFLOW_ACCESS_TOKEN",
            help="Access token for a remote endpoint (gcloud auth print-access-token).",
        ),
    ] = None
    data_dir: Annotated[
        Path | None, Parameter(help="Data directory (default: CAREFLOW_DATA_DIR or ./careflow-data).")
    ] = None

    @property
    def settings(self) -> Settings:
        return reached(settings_for(self.data_dir))


NOWHERE = Where()


@dataclass(frozen=True, slots=True)
class SchedulerApi:
    """The API at an endpoint, one project and location of it."""

    http: httpx.AsyncClient
    project: str
    parent: str
    logs: str

    def name(self, job_id: str) -> str:
        """The job's resource name."""
        return f"{self.parent}/jobs/{job_id}"

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        """The answer's JSON. Raises JobsRefused with the API's own words, NotFound for a job that is not there."""
        try:
            answer = await self.http.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            raise JobsRefused(
                f"no scheduler answers at {self.http.base_url} ({type(error).__name__}): is `careflow up` running?"
            ) from error
        try:
            document: dict[str, Any] = answer.json()
        except ValueError:
            document = {}
        if answer.is_success:
            return document
        told = document.get("error", {})
        message = f"{told.get('status', answer.status_code)}: {told.get('message', answer.reason_phrase)}"
        raise (NotFound if answer.status_code == 404 else JobsRefused)(message)

    async def job(self, method: str, job_id: str, verb: str = "", body: Any = None, **query: str) -> Any:
        """Call a method of one job."""
        return await self.call(method, f"/v1/{self.name(job_id)}{verb}", body, **query)

    async def jobs(self) -> list[dict[str, Any]]:
        """Every job, page by page."""
        found: list[dict[str, Any]] = []
        query: dict[str, str] = {}
        while True:
            page = await self.call("GET", f"/v1/{self.parent}/jobs", **query)
            found += page.get("jobs", [])
            if not page.get("nextPageToken"):
                return found
            query = {"pageToken": page["nextPageToken"]}

    async def log_entries(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest log entries of a job (reference/cloud-scheduler section 11), the newest first."""
        document = await self.call(
            "POST",
            self.logs,
            {
                "resourceNames": [f"projects/{self.project}"],
                "filter": f'resource.type="cloud_scheduler_job" AND resource.labels.job_id="{job_id}"',
                "orderBy": "timestamp desc",
                "pageSize": limit,
            },
        )
        return list(document.get("entries", []))


@asynccontextmanager
async def scheduler_api(where: Where) -> AsyncIterator[SchedulerApi]:
    """The API that a command's options name. Raises SettingsError when a remote one is named without a token."""
    settings = where.settings
    base = (where.endpoint or settings.scheduler_url).rstrip("/")
    remote = base.endswith(".googleapis.com")
    if remote and not where.token:
        raise SettingsError(
            "--token: a remote endpoint needs one, e.g. --token $(gcloud auth print-access-token)"
        )
    headers = {"Authorization": f"Bearer {where.token}"} if where.token else {}
    project = where.project or settings.project
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30) as http:
        yield SchedulerApi(
            http=http,
            project=project,
            parent=f"projects/{project}/locations/{where.location or settings.location}",
            logs=(GOOGLE_LOGGING if remote else "") + "/v2/entries:list",
        )
