"""A job of Cloud Scheduler read from the API's JSON: what it says, the API's defaults filled in, and whether it is ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from careflow.core.hospitals import Hospital
from careflow.doctor.set_up import SetUp

SWEEP = "/tasks/sweep"


@dataclass(frozen=True, slots=True)
class JobView:
    """What a job says, with the defaults of the API filled in."""

    raw: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.raw.get("name", "")).rpartition("/")[2]

    @property
    def target(self) -> Mapping[str, Any]:
        target = self.raw.get("httpTarget", {})
        return target if isinstance(target, dict) else {}

    @property
    def uri(self) -> str:
        return str(self.target.get("uri", ""))

    @property
    def path(self) -> str:
        return urlsplit(self.uri).path or "/"

    @property
    def account(self) -> str:
        return str(self.target.get("oidcToken", {}).get("serviceAccountEmail", ""))

    @property
    def audience(self) -> str:
        return str(self.target.get("oidcToken", {}).get("audience", "")) or self.uri

    @property
    def content_type(self) -> str:
        headers = self.target.get("headers", {})
        return next((str(value) for name, value in headers.items() if name.lower() == "content-type"), "")

    @property
    def payload(self) -> Mapping[str, Any] | None:
        """The body as a JSON object; None when it is none."""
        try:
            value = json.loads(base64.b64decode(self.target.get("body", "")))
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    @property
    def is_sweep(self) -> bool:
        return self.path == SWEEP

    @property
    def deadline(self) -> float:
        return float(str(self.raw.get("attemptDeadline", "180s")).removesuffix("s") or 180)

    @property
    def zone(self) -> str:
        return str(self.raw.get("timeZone") or "UTC")

    def moment(self, name: str) -> datetime | None:
        """One of the job's times."""
        text = self.raw.get(name)
        return datetime.fromisoformat(str(text)) if text else None

    def serves(self, hospital: Hospital, hour: int, set_up: SetUp) -> bool:
        """Whether it is meant to start this round."""
        payload = self.payload or {}
        of = payload.get("hospitalId", set_up.settings.hospital_id)
        return payload.get("scheduleHour") == hour and of == hospital.id


def is_ours(job: JobView, set_up: SetUp) -> bool:
    """Whether the job concerns this deployment, in a project that may have others."""
    return (
        job.id.startswith("careflow-")
        or job.uri.startswith(set_up.settings.pulse_url)
        or "scheduleHour" in (job.payload or {})
    )


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs are of one scheme, host and port."""
    return urlsplit(one)[:2] == urlsplit(other)[:2]


def shown(url: str) -> str:
    """A URL without what could hold a secret: userinfo and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
