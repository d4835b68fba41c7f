"""What came of an attempt: google.rpc codes and debugInfo as in the logs (reference/cloud-scheduler sections 2 and 11)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType


class Code(IntEnum):
    """google.rpc.Code; stored and shown by name, in a Job's status by number."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# The observed ones, and for the rest the standard mapping.
_BY_STATUS = MappingProxyType(
    {
        400: Code.INVALID_ARGUMENT,
        401: Code.UNAUTHENTICATED,
        403: Code.PERMISSION_DENIED,
        404: Code.NOT_FOUND,
        409: Code.ABORTED,
        416: Code.OUT_OF_RANGE,
        429: Code.RESOURCE_EXHAUSTED,
        499: Code.CANCELLED,
        501: Code.UNIMPLEMENTED,
        503: Code.UNAVAILABLE,
        504: Code.DEADLINE_EXCEEDED,
    }
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an attempt. `http_status` is None when there was no answer."""

    code: Code
    debug_info: str
    http_status: int | None = None

    @property
    def succeeded(self) -> bool:
        return self.code is Code.OK


def answered(status: int) -> Outcome:
    """The target's answer: 200 to 299 is success, and nothing else is."""
    said = f"Original HTTP response code number = {status}"
    if 200 <= status <= 299:
        return Outcome(Code.OK, f"URL_CRAWLED. {said}", status)
    if status in _BY_STATUS:
        code = _BY_STATUS[status]
    else:
        code = {4: Code.FAILED_PRECONDITION, 5: Code.INTERNAL}.get(status // 100, Code.UNKNOWN)
    kind = "URL_UNREACHABLE-UNREACHABLE_5xx" if status // 100 == 5 else "URL_ERROR-ERROR_OTHER"
    return Outcome(code, f"{kind}. {said}", status)


# No answer; the words after the first are ours, Google's are not documented.
OVERDUE = Outcome(Code.DEADLINE_EXCEEDED, "URL_TIMEOUT. No answer within the attempt deadline")
UNREACHABLE = Outcome(Code.UNAVAILABLE, "URL_UNREACHABLE. No connection to the target")
BROKEN = Outcome(Code.UNAVAILABLE, "URL_UNREACHABLE. The connection ended without a valid HTTP answer")
NO_TOKEN = Outcome(Code.UNAUTHENTICATED, "URL_ERROR-ERROR_OTHER. No token for the service account")
INTERRUPTED = Outcome(
    Code.UNAVAILABLE, "INTERRUPTED. The scheduler ended before the target's answer was recorded"
)
