"""What the API answers when it does not do what was asked: google.rpc codes, their HTTP numbers, the error envelope."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from careflow.errors import CareflowError

# In bytes of UTF-8. gRPC puts the message into headers, once percent-encoded (three times as long) and twice in base64, and
# above 8 KB of headers a client refuses the answer now and then (gRPC's soft limit).
_SHOWN = 120  # of a refused value that a message repeats
_FIELD = 100
_MESSAGE = 500


class Code(IntEnum):
    """google.rpc.Code, those that this API answers; the number is gRPC's status."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14

    @property
    def http(self) -> int:
        """The HTTP status of the same refusal (reference/cloud-scheduler section 2)."""
        return _HTTP[self]


_HTTP = {
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
}


class Refused(CareflowError):
    """The API refuses a request. `field` is the JSON path of the bad field, empty when no field is to blame."""

    def __init__(self, code: Code, message: str, *, field: str = "") -> None:
        self.code = code
        self.message = _cut(message, _MESSAGE)
        self.field = _cut(field, _FIELD)
        super().__init__(self.message)

    def envelope(self) -> dict[str, Any]:
        """The body of the HTTP answer."""
        error: dict[str, Any] = {"code": self.code.http, "message": self.message, "status": self.code.name}
        if self.field:
            violation = {"field": self.field, "description": self.message}
            error["details"] = [
                {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
            ]
        return {"error": error}


def invalid(field: str, accepted: str, value: object = None) -> Refused:
    """INVALID_ARGUMENT for `field`: the value, unless it is None (secret, or absent), and what is accepted."""
    told = "" if value is None else f" {_short(value)}:"
    return Refused(Code.INVALID_ARGUMENT, f"{_cut(field, _FIELD)}:{told} {accepted}", field=field)


def _short(value: object) -> str:
    return _cut(repr(value), _SHOWN)


def _cut(text: str, most: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= most:
        return text
    return f"{encoded[:most].decode(errors='ignore')}... ({len(text)} characters)"
