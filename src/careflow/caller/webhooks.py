"""Twilio's webhooks: signed, repeatable, answered when what they report is durable (reference/twilio sections 3, 6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, HTTPException, Path, Request, Response
from pydantic import SecretStr
from starlette.datastructures import ImmutableMultiDict
from twilio.request_validator import (
    SIGNATURE_HEADER,
    SIGNATURE_SETTINGS_HEADER,
    RequestValidator,
    get_signature_algorithm,
)

from careflow.caller import twiml
from careflow.caller.attempts import AttemptDesk, CallStep, Step
from careflow.ports import Store

Form = ImmutableMultiDict[str, str]

_FORM_TYPE = "application/x-www-form-urlencoded"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["code", "message"]}},
}
_MEANING = {
    400: "a field is missing or malformed",
    401: "no valid token",
    403: "a valid token of an account that may not, or not signed by Twilio",
    404: "no such attempt",
    408: "the body did not arrive in time",
    413: "body too large",
    415: "body of another kind",
    503: "the store is down; Retry-After says when to come back",
}
_TWIML: dict[int | str, dict[str, Any]] = {
    200: {"description": "TwiML", "content": {"text/xml": {"schema": {"type": "string"}}}}
}
AttemptId = Annotated[str, Path(json_schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"})]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for these refusals."""
    content = {"application/json": {"schema": _ERROR}}
    return {status: {"description": _MEANING[status], "content": content} for status in statuses}


def _takes(*fields: str) -> dict[str, Any]:
    """OpenAPI of a form with these fields, beside the many that Twilio sends and we do not read."""
    text = {"type": "string", "minLength": 1}
    schema = {
        "type": "object",
        "required": list(fields),
        "properties": dict.fromkeys(fields, text),
        "additionalProperties": {"type": "string"},
    }
    return {"requestBody": {"required": True, "content": {_FORM_TYPE: {"schema": schema}}}}


class Signatures:
    """Checks that a request is Twilio's. The signed URL is built from configuration: proxies rewrite the request's own."""

    def __init__(self, auth_token: SecretStr, public_url: str) -> None:
        self._validator = RequestValidator(auth_token.get_secret_value())
        self._public_url = public_url

    def valid(self, path: str, form: Form | None, headers: Mapping[str, str], *, query: str = "") -> bool:
        """Whether the headers sign this path, query and form, with or without the port (section 6, port quirk)."""
        url = f"{self._public_url}{path}" + (f"?{query}" if query else "")
        signature = headers.get(SIGNATURE_HEADER.lower(), "")
        algorithm = get_signature_algorithm(headers.get(SIGNATURE_SETTINGS_HEADER.lower(), ""))
        return bool(signature) and bool(self._validator.validate(url, form or {}, signature, algorithm))


def webhook_router(desk: AttemptDesk, store: Store, signatures: Signatures, public_url: str) -> APIRouter:
    """The four webhooks of an attempt. Repeating any of them changes nothing."""

    async def accepted(request: Request, attempt_id: str) -> Form:
        """The form of a request that is Twilio's and about an attempt that we know."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
            raise HTTPException(415, f"content-type: must be {_FORM_TYPE}")
        try:
            text = (await request.body()).decode("utf-8")
            form = Form(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=500))
        except ValueError as error:
            raise HTTPException(400, "body: not a URL-encoded form in UTF-8") from error
        if not signatures.valid(request.url.path, form, request.headers, query=request.url.query):
            raise HTTPException(403, "X-Twilio-Signature: missing or not made with our token for this URL")
        if await store.attempt(attempt_id) is None:
            raise HTTPException(404, "attempt: unknown")
        return form

    async def document(step: CallStep) -> Response:
        attempt = step.attempt
        if attempt is None or step.step is Step.HANG_UP:
            text = twiml.hang_up()
        elif step.step is Step.CONNECT:
            text = twiml.connect(attempt, public_url)
        else:
            patient = await store.patient(attempt.hospital_id, attempt.patient_id)
            text = twiml.apology(patient.language if patient else "en")
        return Response(text, media_type="text/xml")

    router = APIRouter(
        prefix="/twilio", tags=["twilio"], responses=refusals(400, 403, 404, 408, 413, 415, 503)
    )

    @router.post(
        "/voice/{attempt_id}", response_class=Response, responses=_TWIML, openapi_extra=_takes("CallSid")
    )
    async def voice(attempt_id: AttemptId, request: Request) -> Response:
        """The call was picked up: the TwiML that connects it with the bridge."""
        form = await accepted(request, attempt_id)
        return await document(await desk.answered(attempt_id, _field(form, "CallSid")))

    @router.post(
        "/resume/{attempt_id}", response_class=Response, responses=_TWIML, openapi_extra=_takes("CallSid")
    )
    async def resume(attempt_id: AttemptId, request: Request) -> Response:
        """The media stream ended, or the voice document could not be had: go on, apologise, or hang up."""
        form = await accepted(request, attempt_id)
        return await document(await desk.resumed(attempt_id, _field(form, "CallSid")))

    @router.post(
        "/status/{attempt_id}",
        status_code=204,
        response_class=Response,
        openapi_extra=_takes("CallSid", "CallStatus"),
    )
    async def status(attempt_id: AttemptId, request: Request) -> None:
        """The call's progress, in any order and number."""
        form = await accepted(request, attempt_id)
        await desk.status(
            attempt_id,
            _field(form, "CallSid"),
            _field(form, "CallStatus"),
            sip_code=form.get("SipResponseCode", ""),
            answered_by=form.get("AnsweredBy", ""),
        )

    @router.post(
        "/amd/{attempt_id}",
        status_code=204,
        response_class=Response,
        openapi_extra=_takes("CallSid", "AnsweredBy"),
    )
    async def amd(attempt_id: AttemptId, request: Request) -> None:
        """What answering-machine detection found."""
        form = await accepted(request, attempt_id)
        await desk.machine(attempt_id, _field(form, "AnsweredBy"), _field(form, "CallSid"))

    return router


def _field(form: Form, name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise HTTPException(400, f"{name}: missing")
    return value
