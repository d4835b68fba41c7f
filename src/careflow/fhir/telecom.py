"""Telephone numbers: of a Patient's ContactPoints the one to dial, in E.164."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from careflow.fhir.codes import Json, covers

_USES = {"mobile": 0, "home": 1, None: 2, "temp": 3, "work": 4}


def dialable(telecom: Sequence[Json], now: datetime, region: str) -> tuple[str | None, list[int]]:
    """The number to dial (None when there is none), and the positions of preferred entries that cannot be dialled.

    Order: `rank` first (R4 ContactPoint), then mobile, home, unsaid, temporary, work. Old and expired ones do not count.
    """
    usable = [
        (position, point)
        for position, point in enumerate(telecom)
        if point.get("system") in ("phone", "sms")
        and point.get("use") != "old"
        and covers(point.get("period"), now)
    ]
    refused: list[int] = []
    for position, point in sorted(usable, key=lambda item: _preference(item[1])):
        number = e164(point.get("value"), region)
        if number is not None:
            return number, refused
        refused.append(position)
    return None, refused


def _preference(point: Json) -> tuple[int, bool, int]:
    rank = point.get("rank")
    return (
        rank if isinstance(rank, int) else 1_000_000,
        point.get("system") == "sms",
        _USES.get(point.get("use"), 2),
    )


def e164(text: Any, region: str) -> str | None:
    """The number in E.164, or None when it cannot be dialled: not valid, with an extension, or charged at a premium."""
    import phonenumbers

    if not isinstance(text, str):
        return None
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if number.extension or not phonenumbers.is_valid_number(number):
        return None
    if phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.PREMIUM_RATE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
