"""Twilio's webhooks: signed, repeatable, answered when what they report is durable (reference/twilio sections 3, 6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import APIRouter, HTTPException, Request, Response
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
_RESPONSES: dict[int | str, dict[str, object]] = {
    400: {"description": "a field is missing or malformed"},
    403: {"description": "not signed by Twilio"},
    404: {"description": "no such attempt"},
    413: {"description": "body too large"},
    415: {"description": "body is not a form"},
    503: {"description": "the store is down; Retry-After says when to come back"},
}


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

    router = APIRouter(prefix="/twilio", tags=["twilio"], responses=_RESPONSES)

    @router.post("/voice/{attempt_id}", response_class=Response)
    async def voice(attempt_id: str, request: Request) -> Response:
        """The call was picked up: the TwiML that connects it with the bridge."""
        form = await accepted(request, attempt_id)
        return await document(await desk.answered(attempt_id, _field(form, "CallSid")))

    @router.post("/resume/{attempt_id}", response_class=Response)
    async def resume(attempt_id: str, request: Request) -> Response:
        """The media stream ended, or the voice document could not be had: go on, apologise, or hang up."""
        form = await accepted(request, attempt_id)
        return await document(await desk.resumed(attempt_id, _field(form, "CallSid")))

    @router.post("/status/{attempt_id}", status_code=204, response_class=Response)
    async def status(attempt_id: str, request: Request) -> None:
        """The call's progress, in any order and number."""
        form = await accepted(request, attempt_id)
        await desk.status(
            attempt_id,
            _field(form, "CallSid"),
            _field(form, "CallStatus"),
            sip_code=form.get("SipResponseCode", ""),
            answered_by=form.get("AnsweredBy", ""),
        )

    @router.post("/amd/{attempt_id}", status_code=204, response_class=Response)
    async def amd(attempt_id: str, request: Request) -> None:
        """What answering-machine detection found."""
        form = await accepted(request, attempt_id)
        await desk.machine(attempt_id, _field(form, "AnsweredBy"), _field(form, "CallSid"))

    return router


def _field(form: Form, name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise HTTPException(400, f"{name}: missing")
    return value
