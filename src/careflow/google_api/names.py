"""Names of projects and locations, and the Location resource that every API of Google's answers."""

from __future__ import annotations

import re
from typing import Any

from careflow.google_api.refusals import invalid

PROJECT = r"[A-Za-z0-9][A-Za-z0-9.:-]{0,127}"
LOCATION_NAME = rf"projects/{PROJECT}/locations/[a-z][a-z0-9-]{{0,62}}"
"""The pattern of `projects/P/locations/L`, which the patterns of what lies in it begin with."""

_PARENT = re.compile(LOCATION_NAME)
_PROJECT_NAME = re.compile(rf"projects/{PROJECT}")


def checked_project(name: str) -> str:
    """`projects/P`, any project at all. Raises Refused."""
    if not _PROJECT_NAME.fullmatch(name):
        raise invalid("name", 'must be formatted "projects/<PROJECT_ID>"', name)
    return name


def checked_parent(parent: str, *, field: str = "parent") -> str:
    """`projects/P/locations/L`, any project and location at all. Raises Refused."""
    if not _PARENT.fullmatch(parent):
        raise invalid(field, 'must be formatted "projects/<PROJECT_ID>/locations/<LOCATION_ID>"', parent)
    return parent


def location(name: str) -> dict[str, Any]:
    """google.cloud.location.Location of `projects/P/locations/L`. Raises Refused."""
    id_ = checked_parent(name, field="name").rpartition("/")[2]
    return {
        "name": name,
        "locationId": id_,
        "displayName": id_,
        "labels": {"cloud.googleapis.com/region": id_},
    }
