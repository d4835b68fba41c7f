"""Reading checked FHIR JSON: codings, periods, texts. Every function takes what the R4 models have let through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from careflow.fhir.notes import Refused

Json = Mapping[str, Any]


def problems(resource: Json) -> list[tuple[str, str]]:
    """(field, problem) for everything in the resource that R4 does not allow; no values, only where and what."""
    from fhir.resources.R4B import get_fhir_model_class
    from pydantic import ValidationError

    try:
        get_fhir_model_class(resource["resourceType"]).model_validate(dict(resource))
    except ValidationError as error:
        return [(_place(problem["loc"]), _problem(problem["type"])) for problem in error.errors()[:5]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return [("", "is not valid R4")]  # the models' own validators stumble over some wrong types
    return [(place, "is null, which R4 JSON does not have") for place in _nulls(resource)][:1]


def _nulls(value: object, place: str = "") -> Iterator[str]:
    """Where a property is null, which the models take for absent (R4 JSON, 2.6.2).

    In lists null is allowed: it stands for a value that has only extensions.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            here = _place((place, name)).strip(".")
            if inner is None:
                yield here
            yield from _nulls(inner, here)
    elif isinstance(value, list):
        for inner in value:
            yield from _nulls(inner, place)


def _place(location: tuple[int | str, ...]) -> str:
    """The field's path; a made-up name of an unknown field may say anything, so it is cut to a plain word."""
    words = [
        "".join(c for c in str(part) if c.isascii() and (c.isalnum() or c == "."))[-40:] for part in location
    ]
    return ".".join(words)


def _problem(kind: str) -> str:
    known = {"missing": "is required", "extra_forbidden": "is not an R4 field"}
    return known.get(kind, f"is not a valid R4 value ({kind})")


def one_of(resource: Json, field: str, accepted: frozenset[str]) -> str:
    """The code in `field`. Raises Refused when it is not one of `accepted` (the models do not check it)."""
    value = resource.get(field)
    if not isinstance(value, str) or value not in accepted:
        raise Refused(field, f"must be one of {', '.join(sorted(accepted))}")
    return value


def truth(resource: Json, field: str, default: bool = False) -> bool:
    """The boolean in `field`. Raises Refused for the strings and numbers that the models would let pass for one."""
    value = resource.get(field, default)
    if not isinstance(value, bool):
        raise Refused(field, "must be true or false")
    return value


def codings(concept: object) -> Iterator[tuple[str, str, str]]:
    """(system, code, display) of a CodeableConcept, or of each of a list of them."""
    for one in concept if isinstance(concept, list) else [concept]:
        for coding in one.get("coding", []) if isinstance(one, Mapping) else []:
            yield coding.get("system", ""), coding.get("code", ""), coding.get("display", "")


def has_code(concept: object, system: str, code: str) -> bool:
    return any((s, c) == (system, code) for s, c, _ in codings(concept))


def codes_of(concept: object) -> set[str]:
    return {code for _, code, _ in codings(concept)}


def extension(holder: Json, url: str) -> Json | None:
    """The first extension with this URL."""
    found: Iterator[Json] = (e for e in holder.get("extension", []) if e.get("url") == url)
    return next(found, None)


def moment(text: object, *, end: bool = False) -> datetime:
    """The instant that a FHIR dateTime means, in UTC: the first of a partial one, with `end` the first after it.

    Raises Refused, as for the leap seconds that R4 allows and nobody's clock has.
    """
    try:
        if not isinstance(text, str):
            raise TypeError
        if "T" in text:
            parsed = datetime.fromisoformat(text)
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
        year, month, day = ([int(part) for part in text.split("-")] + [0, 0])[:3]
        if not end:
            return datetime(year, month or 1, day or 1, tzinfo=UTC)
        if day:
            return datetime(year, month, day, tzinfo=UTC) + timedelta(days=1)
        return datetime(year + (month in (0, 12)), month % 12 + 1 if month else 1, 1, tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        raise Refused("dateTime", "is not an R4 date or date-time") from None


def covers(period: object, now: datetime) -> bool:
    """Whether the Period (both ends included, either may be open) holds `now`. Raises Refused when it cannot be read."""
    if not isinstance(period, Mapping):
        return True
    start, end = period.get("start"), period.get("end")
    return (start is None or moment(start) <= now) and (end is None or now < moment(end, end=True))


def full_date(text: object) -> date | None:
    """The date, when the text is a whole one."""
    try:
        return date.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def clock_time(text: object, field: str) -> time:
    """A FHIR time as a local time. Raises Refused."""
    try:
        value = time.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    if value is None or value.tzinfo is not None:
        raise Refused(field, "must be a time of day, HH:MM:SS")
    return value
