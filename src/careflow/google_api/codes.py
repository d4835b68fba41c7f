"""google.rpc codes, and which one an HTTP answer of a target stands for (reference/cloud-scheduler sections 2 and 11)."""

from __future__ import annotations

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


def code_of(status: int) -> Code:
    """The code of a target's HTTP answer: 200 to 299 is OK, and nothing else is."""
    if 200 <= status <= 299:
        return Code.OK
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return {4: Code.FAILED_PRECONDITION, 5: Code.INTERNAL}.get(status // 100, Code.UNKNOWN)
