"""What the telephone provider's words mean for an attempt. Pure; Twilio's vocabulary (reference/twilio sections 2, 3 and 7)."""

from __future__ import annotations

from dataclasses import dataclass

from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending
from careflow.core.retry import NEVER_CREATED

FINAL = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})
PROGRESS = {
    "queued": AttemptState.DIALLED,
    "initiated": AttemptState.DIALLED,
    "ringing": AttemptState.RINGING,
    "in-progress": AttemptState.ANSWERED,
}
INVALID_NUMBER = "invalid-number"
NOT_PERMITTED = "not-permitted"

_REFUSED_NUMBERS = frozenset({"21202", "21211", "21214", "21217", "13224"})
_FORBIDDEN = frozenset({"21215", "21216", "21219", "13227", "32205"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an attempt is to end."""

    disposition: Disposition
    ending: Ending | None = None
    failure: str = ""


INTERRUPTED = Verdict(disposition=Disposition.ANSWERED, ending=Ending.INTERRUPTED)
CANCELLED = Verdict(disposition=Disposition.CANCELLED)


def failed(failure: str) -> Verdict:
    """The call could not be put through, because of `failure`: a provider's code or a short word of ours."""
    return Verdict(disposition=Disposition.FAILED, failure=failure)


def machine(answered_by: str | None) -> bool:
    """Whether answering-machine detection says that no person picked up. "unknown" is no evidence."""
    return answered_by is not None and (answered_by.startswith("machine") or answered_by == "fax")


def refused_create(code: str, *, permanent: bool) -> Verdict:
    """The provider refused to create the call, for certain: nobody's telephone rang.

    A refusal that may pass (a rate limit, no connection) is as if the call had never been asked for.
    """
    if code in _REFUSED_NUMBERS:
        return failed(INVALID_NUMBER)
    if code in _FORBIDDEN:
        return failed(NOT_PERMITTED)
    return failed(code or "refused") if permanent else failed(NEVER_CREATED)


def final_verdict(attempt: Attempt, status: str, *, sip_code: str, answered_by: str | None) -> Verdict:
    """How the attempt ends when the provider's last word is `status` and no conversation left a result.

    Somebody picked up and no conversation told its end: our side failed, in the middle or before the first word, and the
    patient is not dialled again for it (invariant 2). Who hangs up in the very second before the stream opens is taken for
    one of these: a nurse phones once too often then, and not a machine. `sip_code` is the network's answer, "" when unknown.
    """
    if attempt.cancel_requested_at is not None:
        return CANCELLED
    if status == "completed" or attempt.state is AttemptState.ANSWERED:
        return Verdict(disposition=Disposition.VOICEMAIL) if machine(answered_by) else INTERRUPTED
    if status == "canceled":
        return failed("cancelled-by-provider")
    if sip_code in {"603", "607", "608"}:
        return Verdict(disposition=Disposition.REFUSED, failure=f"sip-{sip_code}")
    if status == "busy":
        return Verdict(disposition=Disposition.BUSY)
    if status == "no-answer":
        return Verdict(disposition=Disposition.NO_ANSWER)
    if sip_code in {"404", "484", "604"}:
        return failed(INVALID_NUMBER)
    if sip_code in {"486", "600"}:
        return Verdict(disposition=Disposition.BUSY)
    if sip_code in {"408", "480"}:
        return Verdict(disposition=Disposition.NO_ANSWER)
    return failed(f"sip-{sip_code}" if sip_code else "failed")
