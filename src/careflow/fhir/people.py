"""A FHIR Patient (R4 8.1) as the roster's patient: name, number, language, zone, and our own schedule preferences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from careflow.core.patients import Patient
from careflow.fhir.codes import Json, clock_time, codes_of, covers, extension, full_date, moment, truth
from careflow.fhir.notes import OWN, Refused, RosterDefaults
from careflow.fhir.telecom import dialable

PREFERENCES = f"{OWN}/StructureDefinition/schedule-preferences"
TIMEZONE = "http://hl7.org/fhir/StructureDefinition/timezone"
LANGUAGES = ("en", "es")

Tell = Callable[[str, str, str], None]
"""Called with (field, problem, what was done) for whatever is defaulted."""


def read_patient(
    resource: Json, *, hospital_id: str, defaults: RosterDefaults, now: datetime, tell: Tell
) -> Patient:
    """The patient without what other resources say. Raises Refused when it cannot be a patient of a round."""
    given, family = _name(resource, now, tell)
    phone = _phone(resource, now, defaults, tell)
    born = _birth_date(resource, now, tell)
    return Patient(
        id=resource["id"],
        hospital_id=hospital_id,
        given_name=given,
        family_name=family,
        birth_date=born,
        phone=phone,
        language=_language(resource, defaults, tell),
        time_zone=_time_zone(resource, defaults, tell),
        active=truth(resource, "active", True),
        deceased=truth(resource, "deceasedBoolean") or "deceasedDateTime" in resource,
        **_preferences(resource),
    )


_NAME_USES = ("official", "usual", None, "nickname", "temp")


def _name(resource: Json, now: datetime, tell: Tell) -> tuple[str, str]:
    names: list[Json] = [
        name
        for name in resource.get("name", [])
        if name.get("use") in _NAME_USES and covers(name.get("period"), now)
    ]
    names.sort(key=lambda name: _NAME_USES.index(name.get("use")))
    for name in names:
        given = next((part.strip() for part in name.get("given", []) if part and part.strip()), "")
        family = str(name.get("family", "")).strip()
        if given and family:
            return given, family
    for name in names:
        words = str(name.get("text", "")).split()
        if len(words) >= 2:
            tell("name", "has no given and family part", "the first and the rest of name.text were taken")
            return words[0], " ".join(words[1:])
    raise Refused("name", "has no current name with a given and a family part")


def _phone(resource: Json, now: datetime, defaults: RosterDefaults, tell: Tell) -> str | None:
    phone, refused = dialable(resource.get("telecom", []), now, defaults.region)
    for position in refused:
        done = "the next one was taken" if phone else "it was left out"
        tell(f"telecom[{position}].value", "is not a number that can be dialled", done)
    if phone is None:
        tell("telecom", "holds no number that can be dialled", "rounds will skip the patient")
    return phone


def _birth_date(resource: Json, now: datetime, tell: Tell) -> date | None:
    text = resource.get("birthDate")
    born = full_date(text)
    if born is None:
        tell("birthDate", "is missing" if text is None else "is not a whole date", "it was left open")
    elif born > now.date():
        raise Refused("birthDate", "lies in the future")
    return born


def _language(resource: Json, defaults: RosterDefaults, tell: Tell) -> str:
    spoken = sorted(resource.get("communication", []), key=lambda one: not truth(one, "preferred"))
    for one in spoken[:1]:
        for code in sorted(codes_of(one.get("language"))):
            if (language := code.split("-")[0].lower()) in LANGUAGES:
                return language
    problem = f"is not one of {', '.join(LANGUAGES)}" if spoken else "is missing"
    tell("communication.language", problem, f"{defaults.language} was taken")
    return defaults.language


def _time_zone(resource: Json, defaults: RosterDefaults, tell: Tell) -> str:
    for holder in (resource, *resource.get("address", [])):
        if (found := extension(holder, TIMEZONE)) is not None:
            name = found.get("valueCode") or found.get("valueString")
            try:
                return ZoneInfo(name).key if isinstance(name, str) and name else _no_zone()
            except (ZoneInfoNotFoundError, ValueError, OSError):
                return _no_zone()
    tell("extension(timezone)", "is missing", f"{defaults.time_zone} was taken")
    return defaults.time_zone


def _no_zone() -> str:
    raise Refused("extension(timezone)", "is not an IANA time zone")


def _preferences(resource: Json) -> dict[str, Any]:
    """The fields of our extension that are given (docs/roster.md); `hours` only when the extension is there."""
    found = extension(resource, PREFERENCES)
    if found is None:
        return {}
    field = "extension(schedule-preferences)"
    parts: dict[str, list[Any]] = {}
    for url, value in _parts(found):
        parts.setdefault(url, []).append(value)
    if unknown := parts.keys() - {"hour", "time", "callingFrom", "callingUntil", "pausedUntil"}:
        raise Refused(
            field, f"has {len(unknown)} part(s) other than hour, time, callingFrom, callingUntil, pausedUntil"
        )
    hours = parts.get("hour", [])
    if not all(isinstance(hour, int) and not isinstance(hour, bool) and 0 <= hour <= 23 for hour in hours):
        raise Refused(f"{field}.hour", "must be a whole number from 0 to 23")
    fields: dict[str, Any] = {
        "times": tuple(sorted({clock_time(at, f"{field}.time") for at in parts.get("time", [])}))
    }
    if hours or fields["times"]:
        fields["hours"] = frozenset(hours)
    for url, name in (("callingFrom", "calling_from"), ("callingUntil", "calling_until")):
        if url in parts:
            fields[name] = clock_time(parts[url][0], f"{field}.{url}")
    if fields.get("calling_from", time(8)) >= fields.get("calling_until", time(21)):
        raise Refused(field, "has a callingFrom that is not before its callingUntil")
    if "pausedUntil" in parts:
        fields["paused_until"] = moment(parts["pausedUntil"][0], end=True)
    return fields


def _parts(found: Json) -> Iterator[tuple[str, Any]]:
    for part in found.get("extension", []):
        values = [value for name, value in part.items() if name.startswith("value")]
        yield part.get("url", ""), values[0] if values else None
