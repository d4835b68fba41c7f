"""What a client asks of the Calls resource: forms in, typed orders out (reference/twilio sections 1.1 and 1.3). Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from careflow.lab.refusals import Refusal

E164 = re.compile(r"\+[1-9]\d{6,14}")
STATUS_EVENTS = ("initiated", "ringing", "answered", "completed")
RECORDING_EVENTS = ("in-progress", "completed", "absent")
MAX_TWIML = 4000  # characters of a Twiml parameter (reference/twilio section 1.1)

Method = Literal["GET", "POST"]


@dataclass(frozen=True, slots=True)
class Hook:
    """An address of the client's and how it wants to be asked."""

    url: str
    method: Method = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOrder:
    """A call to make. Times are in seconds of the lab's clock; `machine_detection` is "", "Enable" or "DetectMessageEnd"."""

    to: str
    from_: str
    voice: Hook | None
    twiml: str
    fallback: Hook | None
    status: Hook | None
    status_events: frozenset[str]
    ring_seconds: int
    time_limit: int
    record: bool
    recording_status: Hook | None
    recording_events: frozenset[str]
    machine_detection: str
    machine_detection_timeout: int
    async_amd: bool
    amd: Hook | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOrder:
    """A change of a live call; at most one of `voice` and `twiml` is given."""

    status: str
    voice: Hook | None
    twiml: str
    time_limit: int | None


Fields = Sequence[tuple[str, str]]


def parse_form(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form body in order. Raises Refusal when it is not UTF-8."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True)
    except UnicodeDecodeError as error:
        raise Refusal(400, 20001, "The request body is not a UTF-8 form") from error


class _Form:
    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        return next((value for key, value in reversed(self._fields) if key == name), "")

    def all(self, name: str) -> list[str]:
        return [word for key, value in self._fields if key == name for word in value.split()]

    def choice(self, name: str, accepted: Sequence[str], default: str) -> str:
        value = self.text(name) or default
        if value not in accepted:
            raise Refusal(400, 20001, f"{name} '{value}' is not one of {', '.join(accepted)}")
        return value

    def choices(self, name: str, accepted: Sequence[str], default: str) -> frozenset[str]:
        values = self.all(name) or [default]
        for value in values:
            if value not in accepted:
                raise Refusal(400, 20001, f"{name} '{value}' is not one of {', '.join(accepted)}")
        return frozenset(values)

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        value = self.text(name)
        if not value:
            return default
        if not value.isdecimal() or not lowest <= int(value) <= highest:
            raise Refusal(400, 20001, f"{name} '{value}' is not a number from {lowest} to {highest}")
        return int(value)

    def flag(self, name: str) -> bool:
        return self.choice(name, ("true", "false"), "false") == "true"

    def hook(self, name: str) -> Hook | None:
        url = self.text(name)
        if not url:
            return None
        method = self.choice(
            "Method" if name == "Url" else name.removesuffix("Url") + "Method", ("GET", "POST"), "POST"
        )
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https"):
            raise Refusal(400, 21205, f"{name} '{url}' is not a valid URL")
        # Reference twilio section 1.1: the StatusCallback host may not contain underscores.
        if name == "StatusCallback" and "_" in host:
            raise Refusal(400, 21609, f"{name} '{url}' has an underscore in its host name")
        return Hook(url, "GET" if method == "GET" else "POST")


def create_order(fields: Fields, own_numbers: Container[str]) -> CreateOrder:
    """The call that the form asks for. `own_numbers` are the account's caller ids. Raises Refusal."""
    form = _Form(fields)
    to, from_ = form.text("To"), form.text("From")
    if not to:
        raise Refusal(400, 21201, "No 'To' number is specified")
    if not from_:
        raise Refusal(400, 21213, "No 'From' number is specified")
    if not E164.fullmatch(to):
        raise Refusal(400, 21211, f"The 'To' number {to} is not a valid phone number: E.164 is accepted")
    if not E164.fullmatch(from_):
        raise Refusal(400, 21212, f"The 'From' number {from_} is not a valid phone number: E.164 is accepted")
    if from_ not in own_numbers:
        raise Refusal(400, 21210, f"The 'From' number {from_} is not owned by or verified for your account")
    if to == from_:
        raise Refusal(400, 21211, f"The 'To' number {to} is the same as 'From'")
    if to.startswith(("+1900", "+1976")):
        raise Refusal(400, 21202, f"The 'To' number {to} is a premium number")
    voice, twiml = form.hook("Url"), form.text("Twiml")
    if voice is None and not twiml:
        raise Refusal(400, 21205, "Url or Twiml is required")
    _check_twiml(twiml)
    return CreateOrder(
        to=to,
        from_=from_,
        voice=voice,
        twiml="" if voice else twiml,
        fallback=form.hook("FallbackUrl"),
        status=form.hook("StatusCallback"),
        status_events=form.choices("StatusCallbackEvent", STATUS_EVENTS, "completed"),
        ring_seconds=form.number("Timeout", 60, 1, 600),
        time_limit=form.number("TimeLimit", 14400, 1, 86400),
        record=form.flag("Record"),
        recording_status=form.hook("RecordingStatusCallback"),
        recording_events=form.choices("RecordingStatusCallbackEvent", RECORDING_EVENTS, "completed"),
        # SendDigits switches machine detection off (reference/twilio section 1.1).
        machine_detection=""
        if form.text("SendDigits")
        else form.choice("MachineDetection", ("", "Enable", "DetectMessageEnd"), ""),
        machine_detection_timeout=form.number("MachineDetectionTimeout", 30, 1, 120),
        async_amd=form.flag("AsyncAmd"),
        amd=form.hook("AsyncAmdStatusCallback"),
    )


def update_order(fields: Fields) -> UpdateOrder:
    """The change that the form asks for. Raises Refusal."""
    form = _Form(fields)
    voice, twiml = form.hook("Url"), form.text("Twiml")
    if voice and twiml:
        raise Refusal(400, 20001, "Url and Twiml exclude each other")
    _check_twiml(twiml)
    limit = form.number("TimeLimit", 0, 1, 86400)
    return UpdateOrder(
        status=form.choice("Status", ("", "canceled", "completed"), ""),
        voice=voice,
        twiml=twiml,
        time_limit=limit or None,
    )


def _check_twiml(twiml: str) -> None:
    if len(twiml) > MAX_TWIML:
        raise Refusal(400, 20001, f"Twiml has {len(twiml)} characters: at most {MAX_TWIML} are accepted")
