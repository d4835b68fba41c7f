"""What the tests of the doors of a served deployment share: which door, and how it refuses."""

from __future__ import annotations

from typing import Any

import httpx

from surface import DOORS, Door

SECRET = "Quintessa Exampleton +12125550177"


def door(role: str, path: str) -> Door:
    return next(one for one in DOORS if (one.role, one.path) == (role, path))


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The one shape of a refusal, in which nothing of a stack trace and nothing of what was sent is told."""
    assert answer.headers["content-type"] == "application/json"
    for never in ("Traceback", "File ", "Error(", *SECRET.split()):
        assert never not in answer.text
    error = answer.json()["error"]
    assert error["code"]
    assert error["message"]
    return dict(error)
