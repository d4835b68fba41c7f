"""Time zones as they are written in settings and profiles."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones such as "America"
        raise ValueError(f"{name!r} is not an IANA time zone like 'America/New_York'") from None
    return name


Zone = Annotated[str, AfterValidator(_known)]
