"""May the patient be phoned: what Consent, Flag, CarePlan and Appointment (R4) say, as far as rounds go by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from careflow.fhir.codes import Json, covers, has_code, moment, one_of
from careflow.fhir.notes import OWN

CONSENT_SYSTEM = f"{OWN}/CodeSystem/consent"
FLAG_SYSTEM = f"{OWN}/CodeSystem/flag"
PROGRAMME_SYSTEM = f"{OWN}/CodeSystem/programme"
AUTOMATED_CALLS = "automated-calls"
OPTED_OUT, PAUSED = "opted-out", "paused"
FOLLOW_UP_CALLS = "follow-up-calls"
FOREVER = datetime.max.replace(tzinfo=UTC)

_CONSENT_STATUSES = frozenset({"draft", "proposed", "active", "rejected", "inactive", "entered-in-error"})
_FLAG_STATUSES = frozenset({"active", "inactive", "entered-in-error"})
_PLAN_STATUSES = frozenset(
    {"draft", "active", "on-hold", "revoked", "completed", "entered-in-error", "unknown"}
)
_BOOKED = frozenset({"booked", "arrived", "checked-in", "pending", "waitlist"})


@dataclass(frozen=True, slots=True)
class Decision:
    """One Consent's word on automated calls; the latest counts, and of two at once the refusal."""

    at: datetime
    permitted: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """A Flag in force: no calls until then. `opted_out` is for good."""

    opted_out: bool
    until: datetime


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One CarePlan for follow-up calls: running, on hold, or over."""

    running: bool
    on_hold: bool


@dataclass(frozen=True, slots=True)
class Visit:
    """An Appointment that is going to take place."""

    at: datetime


def decision(consent: Json, now: datetime) -> Decision | None:
    """What the Consent decides about automated calls; None when it is about something else or not in force. Raises Refused."""
    concerned = has_code(consent.get("category"), CONSENT_SYSTEM, AUTOMATED_CALLS)
    provision = consent.get("provision", {})
    if not concerned and not has_code(provision.get("code"), CONSENT_SYSTEM, AUTOMATED_CALLS):
        return None
    status = one_of(consent, "status", _CONSENT_STATUSES)
    if status in ("draft", "proposed", "entered-in-error", "inactive"):
        return None
    at = moment(consent["dateTime"]) if "dateTime" in consent else datetime.min.replace(tzinfo=UTC)
    if status == "rejected":
        return Decision(at, False)
    kind = one_of(provision, "type", frozenset({"permit", "deny"}))
    in_force = covers(provision.get("period"), now)
    if kind == "deny":
        return Decision(at, False) if in_force else None
    return Decision(at, in_force)


def consented(decisions: Iterable[Decision]) -> bool | None:
    """The latest word; None when there is none."""
    latest = max(decisions, key=lambda one: (one.at, not one.permitted), default=None)
    return None if latest is None else latest.permitted


def hold(flag: Json, now: datetime) -> Hold | None:
    """What the Flag holds up; None when it is another kind of flag, or not in force. Raises Refused."""
    code = flag.get("code")
    opted_out = has_code(code, FLAG_SYSTEM, OPTED_OUT)
    if not opted_out and not has_code(code, FLAG_SYSTEM, PAUSED):
        return None
    if one_of(flag, "status", _FLAG_STATUSES) != "active" or not covers(flag.get("period"), now):
        return None
    end = flag.get("period", {}).get("end")
    return Hold(opted_out, moment(end, end=True) if end and not opted_out else FOREVER)


def enrolment(plan: Json, now: datetime) -> Enrolment | None:
    """What the CarePlan says of the patient's part in the calls; None when it is about something else. Raises Refused.

    Only plans of our own category count: a patient has care plans for every illness, and their end says nothing of the calls.
    """
    if not has_code(plan.get("category"), PROGRAMME_SYSTEM, FOLLOW_UP_CALLS):
        return None
    status = one_of(plan, "status", _PLAN_STATUSES)
    if status in ("draft", "entered-in-error", "unknown"):
        return None
    inside = covers(plan.get("period"), now)
    return Enrolment(status in ("active", "on-hold") and inside, status == "on-hold" and inside)


def visit(appointment: Json) -> Visit | None:
    """The visit, when it is going to take place. Raises Refused."""
    if appointment.get("status") not in _BOOKED or "start" not in appointment:
        return None
    return Visit(moment(appointment["start"]))


def is_today(planned: Visit, time_zone: str, now: datetime) -> bool:
    """Whether the visit is on the patient's own present day."""
    zone = ZoneInfo(time_zone)
    return planned.at.astimezone(zone).date() == now.astimezone(zone).date()
