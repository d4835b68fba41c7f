"""What came of an attempt: google.rpc codes and debugInfo as in the logs (reference/cloud-scheduler sections 2 and 11)."""

from __future__ import annotations

from dataclasses import dataclass

from careflow.google_api.codes import Code, code_of


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
    code = code_of(status)
    if code is Code.OK:
        return Outcome(code, f"URL_CRAWLED. {said}", status)
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
