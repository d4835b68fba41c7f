"""What may be posted to Pulse, and how a refusal reads. Strict: nothing is coerced, nothing unknown is let through."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from careflow import strict_json
from careflow.core.hospitals import Hospital
from careflow.core.rounds import Trigger
from careflow.errors import CareflowError
from careflow.hospitals import HOSPITAL_ID
from careflow.settings import Settings

MAX_BODY_BYTES = 16 * 1024

ROUND_ID = r"^[a-z][a-z0-9]{0,19}-[a-z0-9][a-z0-9-]{0,39}-[0-9]{8}-[0-9]{2}$"
_ZONE = r"^[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}$"

_Hospital = Annotated[str, Field(pattern=HOSPITAL_ID)]
_HospitalId = Annotated[str, Field(pattern=HOSPITAL_ID, alias="hospitalId")]
_RoundId = Annotated[str, Field(pattern=ROUND_ID, alias="roundId")]


class Refused(CareflowError):
    """The request is refused.

    `status` is the HTTP status, `code` a short machine word, `field` the culprit, `retry_after` seconds.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        *,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.retry_after = retry_after


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=_Body)


class TriggerPayload(_Body):
    """The body of `POST /`: the seed's request payload, plus an optional `hospitalId`."""

    schedule_hour: Annotated[int, Field(alias="scheduleHour")]
    timezone: Annotated[str, Field(pattern=_ZONE, json_schema_extra={"format": "iana-time-zone"})]
    trigger_type: Annotated[Literal["scheduled", "manual", "forced"], Field(alias="triggerType")]
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$")]
    environment: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,19}$")]
    hospital_id: Annotated[_Hospital | None, Field(alias="hospitalId")] = None


class CallTask(_Body):
    """The body of `POST /tasks/call`."""

    hospital_id: _HospitalId
    round_id: _RoundId
    call_id: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$", alias="callId")]


class CloseTask(_Body):
    """The body of `POST /tasks/close`."""

    hospital_id: _HospitalId
    round_id: _RoundId


class SweepTask(_Body):
    """The body of `POST /tasks/sweep`: an empty object."""


_ACCEPTED: Mapping[str, str] = {
    "timezone": "an IANA time zone name such as America/New_York",
    "triggerType": "scheduled, manual, forced",
    "source": "1 to 100 letters, digits and . _ : / -, a letter or digit first",
    "environment": "this deployment's name: lower case letters and digits, a letter first",
    "hospitalId": "1 to 40 lower case letters, digits and -, a letter or digit first",
    "roundId": "a round id, {environment}-{hospital}-{yyyymmdd}-{hh}",
    "callId": "a call id, 24 hexadecimal digits",
}


def trigger_of(payload: TriggerPayload, settings: Settings) -> Trigger:
    """The checked trigger. Raises Refused when this deployment does not serve what it asks for."""
    hospital = _hospital(payload.hospital_id, settings)
    if payload.schedule_hour not in hospital.round_hours:
        raise Refused(
            400,
            "invalid-value",
            f"scheduleHour: got another number; accepted: {_hours(hospital.round_hours)}",
            "scheduleHour",
        )
    if not _is_zone(payload.timezone):
        raise Refused(
            400,
            "invalid-value",
            f"timezone: got an unknown zone; accepted: {_ACCEPTED['timezone']}",
            "timezone",
        )
    if payload.environment != settings.environment:
        # A job pointing at another environment's URL would otherwise phone that environment's patients.
        raise Refused(
            400,
            "wrong-environment",
            f"environment: this is {settings.environment!r} and the trigger is meant for {payload.environment!r}; "
            f"accepted: {settings.environment}. Check the job's target URL.",
            "environment",
        )
    return Trigger(
        schedule_hour=payload.schedule_hour,
        time_zone=payload.timezone,
        trigger_type=payload.trigger_type,
        source=payload.source,
        environment=payload.environment,
        hospital_id=hospital.id,
    )


def _hospital(named: str | None, settings: Settings) -> Hospital:
    """The hospital of a request that names this one, or none. Raises Refused (400) when the deployment does not serve it."""
    served = settings.served
    if hospital := served.get(named or settings.hospital_id):
        return hospital
    code, problem = ("unknown-hospital", "not served here") if named else ("missing-field", "missing")
    accepted = ", ".join(one.id for one in served)
    raise Refused(400, code, f"hospitalId: {problem}; accepted: {accepted}", "hospitalId")


async def read_body(request: Request, model: type[_Model], settings: Settings) -> _Model:
    """The request's body as `model`. Raises Refused: 415, 413, or 400 naming the field and what is accepted."""
    try:
        value = strict_json.parse(await read_bounded(request))
    except ValueError as error:
        raise Refused(400, "malformed-json", f"body: {error}; accepted: a JSON object in UTF-8") from None
    if not isinstance(value, dict):
        raise Refused(400, "invalid-value", f"body: got {_class_of(value)}; accepted: a JSON object")
    return checked(value, model, settings)


def checked(value: Mapping[str, Any], model: type[_Model], settings: Settings) -> _Model:
    """The object as `model`. Raises Refused (400) naming the first bad field and what is accepted."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0], model, settings) from None


async def read_bounded(request: Request) -> bytes:
    """The body of a request that says it is JSON. Raises Refused: 415, 413, or 400 when the client went away."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(415, "unsupported-media-type", "Content-Type: accepted: application/json")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise Refused(413, "too-large", f"body: accepted: at most {MAX_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise Refused(400, "incomplete", "body: the request ended before its body did") from None
    return bytes(body)


def _refusal(problem: Any, model: type[_Body], settings: Settings) -> Refused:
    """One pydantic problem as a refusal. The value itself is never repeated: it may be anything, only its class is told."""
    location = [str(part) for part in problem["loc"]]
    field = location[0] if location else "body"
    if problem["type"] == "extra_forbidden":
        known = ", ".join(info.alias or name for name, info in model.model_fields.items())
        shown = field if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", field) else "(unprintable)"
        return Refused(
            400, "unknown-field", f"{shown}: not a field of this request; accepted: {known}", shown
        )
    accepted = _hours(rounds_of_day(settings)) if field == "scheduleHour" else _ACCEPTED[field]
    if problem["type"] == "missing":
        return Refused(400, "missing-field", f"{field}: missing; accepted: {accepted}", field)
    return Refused(
        400, "invalid-value", f"{field}: got {_class_of(problem['input'])}; accepted: {accepted}", field
    )


def rounds_of_day(settings: Settings) -> tuple[int, ...]:
    """The hours at which some hospital has a round, ascending."""
    return tuple(sorted({hour for hospital in settings.served for hour in hospital.round_hours}))


def _hours(hours: tuple[int, ...]) -> str:
    return ", ".join(str(hour) for hour in hours)


def _class_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number with a fraction"
        case str():
            return "another string" if value else "an empty string"
        case list():
            return "an array"
        case _:
            return "an object"


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: a folder of zones such as "America"
        return False
    return True
