"""Which settings may stand together: for every process (`settings_problems`), and for one that serves (`role_problems`).

Each rule says what is wrong, with which setting, its value and the way out. They are pure; whoever asks raises all at once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from careflow.auth.issuers import GOOGLE_ISSUER, GOOGLE_ISSUERS, LOCAL_ISSUER

if TYPE_CHECKING:
    from careflow.settings import Settings

LOCAL_PROJECT = "careflow-local"
PRODUCTION = "prod"  # as scheduler/terraform names it

SHORTEST_DEADLINE = timedelta(seconds=15)  # of a Cloud Tasks dispatch (RPC reference, Task.dispatch_deadline)
LONGEST_DEADLINE = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong. `fields` are all settings that the rule looked at, the one to change first."""

    fields: tuple[str, ...]
    text: str


def settings_problems(settings: Settings) -> list[Problem]:
    """What is wrong with these settings whatever is done with them."""
    return [problem for rule in _ALWAYS for problem in rule(settings)]


def role_problems(settings: Settings, roles: Sequence[str]) -> list[Problem]:
    """What is wrong with serving `roles` in one process with these settings."""
    return [problem for rule in _SERVING for problem in rule(settings, frozenset(roles))]


def believes_google(settings: Settings) -> bool:
    """Whether tokens are Google's: the deployment is in the cloud, whatever machine this process is on."""
    return settings.oidc_issuer in GOOGLE_ISSUERS


def practises(settings: Settings) -> bool:
    """Whether this deployment telephones the lab: it does until a Twilio account is configured."""
    return not settings.twilio_account_sid


def practises_tasks(settings: Settings) -> bool:
    """Whether a work-alike stands in for Cloud Tasks, on this machine and at no address of its own."""
    return settings.queue == "cloud-tasks" and not settings.cloud_tasks_url and not believes_google(settings)


# --- every process -----------------------------------------------------------------------------------------------


def _a_call_may_end_by_itself(settings: Settings) -> Iterator[Problem]:
    longest = settings.ring_seconds + settings.call_time_limit
    if settings.attempt_deadline.total_seconds() <= longest:
        yield Problem(
            ("attempt_deadline", "ring_seconds", "call_time_limit"),
            f"{settings.attempt_deadline.total_seconds():.0f} s is not longer than CAREFLOW_RING_SECONDS and"
            f" CAREFLOW_CALL_TIME_LIMIT together ({longest} s); the patient would be cut off in the middle",
        )


def _a_delivery_outlives_its_call(settings: Settings) -> Iterator[Problem]:
    if settings.queue != "cloud-tasks":
        return
    fields = ("task_deadline", "queue", "ring_seconds", "call_time_limit")
    deadline = settings.task_deadline
    longest = timedelta(seconds=settings.ring_seconds + settings.call_time_limit)
    if not SHORTEST_DEADLINE <= deadline <= LONGEST_DEADLINE:
        yield Problem(
            fields[:2],
            f"{deadline.total_seconds():g} s: Cloud Tasks accepts {SHORTEST_DEADLINE.total_seconds():.0f} to"
            f" {LONGEST_DEADLINE.total_seconds():.0f} s",
        )
    elif deadline <= longest:
        yield Problem(
            fields,
            f"{deadline.total_seconds():g} s is not longer than CAREFLOW_RING_SECONDS and CAREFLOW_CALL_TIME_LIMIT"
            f" together ({longest.total_seconds():.0f} s); Cloud Tasks would deliver a call again in its middle",
        )


def _an_issuer_has_keys(settings: Settings) -> Iterator[Problem]:
    where, known = settings.oidc_jwks, GOOGLE_ISSUERS | {LOCAL_ISSUER}
    if not where and settings.oidc_issuer not in known:
        yield Problem(
            ("oidc_jwks", "oidc_issuer"),
            f"not set, and where the keys of {settings.oidc_issuer!r} are is not known; set it to an https:// address or a file,"
            f" or CAREFLOW_OIDC_ISSUER to one of {', '.join(sorted(known))}",
        )
    elif where.startswith("http://") and not is_loopback(where):
        yield Problem(
            ("oidc_jwks",), f"{where!r}: keys that anybody on the way could change; set it to an https:// one"
        )


def _only_cloud_run_checks_signatures_for_us(settings: Settings) -> Iterator[Problem]:
    if not settings.trust_platform_tokens:
        return
    if not settings.cloud_run_service:
        yield Problem(
            ("trust_platform_tokens", "cloud_run_service"),
            "true, but this is not Cloud Run (K_SERVICE is not set), so nobody has checked the signatures; set it to false",
        )
    if not believes_google(settings):
        yield Problem(
            ("trust_platform_tokens", "oidc_issuer"),
            f"true, but Cloud Run checks Google's tokens only and CAREFLOW_OIDC_ISSUER is {settings.oidc_issuer!r};"
            f" set that to {GOOGLE_ISSUER}",
        )


def _google_s_tokens_meet_no_work_alike(settings: Settings) -> Iterator[Problem]:
    if not believes_google(settings):
        return
    stand_ins = {
        "firestore_emulator": settings.firestore_emulator if settings.store == "firestore" else "",
        "cloud_tasks_url": settings.cloud_tasks_url if settings.queue == "cloud-tasks" else "",
        "twilio_url": settings.twilio_url if settings.twilio_url.startswith("http://") else "",
        "elevenlabs_url": settings.elevenlabs_url if settings.elevenlabs_url.startswith("http://") else "",
    }
    for field, value in stand_ins.items():
        if value:
            yield Problem(
                (field, "oidc_issuer", "store", "queue"),
                f"{value!r} is a stand-in for practice, but CAREFLOW_OIDC_ISSUER is Google's: take one of the two away",
            )


def _an_instance_keeps_nothing(settings: Settings) -> Iterator[Problem]:
    if not settings.cloud_run_service:
        return
    if settings.store != "firestore":
        yield Problem(
            ("store", "cloud_run_service"),
            f"{settings.store!r} keeps everything on the disk, which a Cloud Run instance loses; set it to firestore",
        )
    if not believes_google(settings):
        yield Problem(
            ("oidc_issuer", "cloud_run_service"),
            f"{settings.oidc_issuer!r}: on Cloud Run tokens are Google's; set it to {GOOGLE_ISSUER}",
        )


def _google_has_no_such_project(settings: Settings) -> Iterator[Problem]:
    if settings.project != LOCAL_PROJECT:
        return
    way_out = "is not a project of Google Cloud: set it to yours"
    if settings.store == "firestore" and not settings.firestore_emulator:
        yield Problem(
            ("project", "store", "firestore_emulator"),
            f"{LOCAL_PROJECT!r} {way_out}, or FIRESTORE_EMULATOR_HOST to the host:port of an emulator",
        )
    elif settings.queue == "cloud-tasks" and believes_google(settings) and not settings.cloud_tasks_url:
        yield Problem(("project", "queue", "oidc_issuer", "cloud_tasks_url"), f"{LOCAL_PROJECT!r} {way_out}")


# --- a process that serves ---------------------------------------------------------------------------------------

_AGENTS = frozenset({"pulse", "caller"})
_ASK_NOBODY = frozenset({"tasks", "scheduler"})


def _a_door_without_a_lock_is_private(settings: Settings, roles: frozenset[str]) -> Iterator[Problem]:
    if settings.trust_platform_tokens and "caller" in roles and settings.serves_twilio:
        yield Problem(
            ("trust_platform_tokens", "caller_routes"),
            f"true, but CAREFLOW_CALLER_ROUTES is {settings.caller_routes!r}: Twilio's routes are open to everybody, so Cloud Run"
            " checks nobody; set CAREFLOW_CALLER_ROUTES to a2a here and serve twilio apart, or this to false",
        )


def _local_keys_stay_on_this_machine(settings: Settings, roles: frozenset[str]) -> Iterator[Problem]:
    local = settings.oidc_issuer == LOCAL_ISSUER and not settings.oidc_jwks
    if local and roles & _AGENTS and not roles & _ASK_NOBODY and not is_loopback(settings.host):
        yield Problem(
            ("host", "oidc_issuer", "oidc_jwks"),
            f"{settings.host!r} is open to other machines, and the tokens are of this directory's own key; set it to 127.0.0.1,"
            f" or CAREFLOW_OIDC_ISSUER to {GOOGLE_ISSUER}",
        )


def _who_signs_for_everybody_stays_on_this_machine(
    settings: Settings, roles: frozenset[str]
) -> Iterator[Problem]:
    if roles & _ASK_NOBODY and not is_loopback(settings.host):
        named = " and ".join(sorted(roles & _ASK_NOBODY))
        yield Problem(
            ("host",),
            f"{settings.host!r} is open to other machines, and {named} would send requests with our tokens for whoever asks;"
            " set it to 127.0.0.1",
        )


def _production_phones_patients(settings: Settings, roles: frozenset[str]) -> Iterator[Problem]:
    if not practises(settings) or not roles & {"caller", "lab"}:
        return
    if settings.store == "firestore" and not settings.firestore_emulator:
        yield Problem(
            ("twilio_account_sid", "store", "firestore_emulator"),
            f"not set, but the records are in Firestore, of project {settings.project!r}: the lab would be telephoned and no"
            " patient, and what it says kept as theirs; set the account, or practise without CAREFLOW_STORE or with"
            " FIRESTORE_EMULATOR_HOST",
        )
    elif "caller" in roles and "lab" not in roles:
        for field, value in {
            "environment": settings.environment if settings.environment == PRODUCTION else "",
            "cloud_run_service": settings.cloud_run_service,
        }.items():
            if value:
                yield Problem(
                    ("twilio_account_sid", field),
                    f"not set, but {setting_of(field)} is {value!r}: this Caller would telephone the lab and no patient; set the"
                    " account, or practise with careflow up",
                )
                return


def _the_lab_is_not_for_google(settings: Settings, roles: frozenset[str]) -> Iterator[Problem]:
    for role in sorted(roles & {"lab", "tasks", "scheduler"}):
        if believes_google(settings):
            yield Problem(
                ("oidc_issuer",),
                f"{settings.oidc_issuer!r}, but the role {role!r} stands in for a service that a deployment in the cloud has;"
                " serve pulse and caller only, or leave CAREFLOW_OIDC_ISSUER out",
            )


def _twilio_is_told_https(settings: Settings, roles: frozenset[str]) -> Iterator[Problem]:
    real = not practises(settings) and settings.twilio_url.startswith("https://")
    if real and "caller" in roles and not settings.caller_public_url.startswith("https://"):
        yield Problem(
            ("caller_public_url", "twilio_account_sid", "twilio_url"),
            f"{settings.caller_public_url!r}: what patients say would cross the network in the clear; set it to the https://"
            " address at which Twilio reaches the Caller",
        )


def _an_account_is_whole(settings: Settings, roles: frozenset[str]) -> Iterator[Problem]:
    """Without the token anybody could sign as Twilio; without a voice every patient would be phoned, and hear nothing."""
    if practises(settings) or "caller" not in roles:
        return
    needed = {
        "twilio_auth_token": (settings.twilio_auth_token.get_secret_value(), ""),
        "twilio_from": (
            min(one.from_number for one in settings.served),  # the empty one, if there is one
            ", nor is every hospital's fromNumber" if settings.hospitals else "",
        ),
    }
    if settings.serves_twilio:
        needed |= {
            "elevenlabs_api_key": (settings.elevenlabs_api_key.get_secret_value(), ""),
            "elevenlabs_voices": (settings.elevenlabs_voices.get("en", ""), " with en=VOICE"),
        }
    for field, (value, hint) in needed.items():
        if not value:
            yield Problem(
                (field, "twilio_account_sid"),
                f"not set{hint}, but CAREFLOW_TWILIO_ACCOUNT_SID is: both are needed to talk to patients",
            )


def _the_cloud_has_addresses_and_accounts(settings: Settings, roles: frozenset[str]) -> Iterator[Problem]:
    if not believes_google(settings):
        return
    serves_a2a = "caller" in roles and settings.serves_a2a
    urls = {"pulse_url": "pulse" in roles, "caller_url": "pulse" in roles or serves_a2a}
    accounts = {
        "scheduler_account": "pulse" in roles,
        "queue_account": "pulse" in roles,
        "pulse_account": serves_a2a,
    }
    for field, needed in urls.items():
        url = getattr(settings, field)
        if needed and not url.startswith("https://"):
            yield Problem(
                (field, "oidc_issuer"),
                f"{url!r}: with Google's tokens it is the https:// address that Cloud Run gives the service",
            )
    for field, needed in accounts.items():
        account = getattr(settings, field)
        if needed and account.endswith(f"@{LOCAL_PROJECT}.iam.gserviceaccount.com"):
            yield Problem(
                (field, "oidc_issuer"), f"{account!r} is not an account of Google Cloud: set it to yours"
            )


def _an_instance_is_not_alone(settings: Settings, roles: frozenset[str]) -> Iterator[Problem]:
    if settings.cloud_run_service and "pulse" in roles and settings.queue != "cloud-tasks":
        yield Problem(
            ("queue", "cloud_run_service"),
            f"{settings.queue!r} keeps its tasks on the disk, which a Cloud Run instance loses; set it to cloud-tasks",
        )


def _the_usual_hospital_is_served(settings: Settings) -> Iterator[Problem]:
    """A trigger or a command that names no hospital would otherwise be refused each time, and not at the start."""
    named = settings.hospital_id != type(settings).model_fields["hospital_id"].default
    if named and settings.hospital_id not in settings.served:
        accepted = ", ".join(one.id for one in settings.served)
        yield Problem(
            ("hospital_id", "hospitals"),
            f"{settings.hospital_id!r} is not in the file of CAREFLOW_HOSPITALS; accepted: {accepted}",
        )


_ALWAYS: tuple[Callable[[Settings], Iterator[Problem]], ...] = (
    _a_call_may_end_by_itself,
    _a_delivery_outlives_its_call,
    _an_issuer_has_keys,
    _only_cloud_run_checks_signatures_for_us,
    _google_s_tokens_meet_no_work_alike,
    _an_instance_keeps_nothing,
    _google_has_no_such_project,
    _the_usual_hospital_is_served,
)
_SERVING: tuple[Callable[[Settings, frozenset[str]], Iterator[Problem]], ...] = (
    _a_door_without_a_lock_is_private,
    _local_keys_stay_on_this_machine,
    _who_signs_for_everybody_stays_on_this_machine,
    _production_phones_patients,
    _the_lab_is_not_for_google,
    _twilio_is_told_https,
    _an_account_is_whole,
    _the_cloud_has_addresses_and_accounts,
    _an_instance_is_not_alone,
)


def setting_of(field: str) -> str:
    """The environment variable of a field of `Settings`."""
    from careflow.settings import Settings

    known = Settings.model_fields.get(field)
    alias = known.validation_alias if known is not None else None
    return alias if isinstance(alias, str) else f"CAREFLOW_{field.upper()}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`, an address or a name (a URL's host for a URL)."""
    name = urlsplit(host).hostname or "" if "//" in host else host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
