"""The Job resource of Cloud Scheduler v1: JSON to Job and back, and its rules (reference/cloud-scheduler sections 1 to 3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from careflow.scheduler import masks, wire
from careflow.scheduler.model import HttpTarget, Job, JobState, OAuthToken, OidcToken, RetryConfig
from careflow.scheduler.refusals import invalid
from careflow.scheduler.wire import Leaf, Message, NotImitated, OutputOnly, Tree

USER_AGENT = "Google-Cloud-Scheduler"
CLOUD_PLATFORM_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

JOB_BYTES = 1 << 20
OVERHEAD_BYTES = 1024  # counted by the service for every job
HEADER_BYTES = 80 * 1024
URI_CHARACTERS = 2083
DESCRIPTION_CHARACTERS = 500
RETRIES = 5
DEFAULT_ZONE = "UTC"
DEFAULT_DEADLINE = timedelta(minutes=3)
DEADLINES = (timedelta(seconds=15), timedelta(minutes=30))
# Not documented; without a limit the moments that the retries lead to would leave the calendar.
LONGEST_DURATION = timedelta(days=3650)

STATES = {"STATE_UNSPECIFIED": 0, "ENABLED": 1, "PAUSED": 2, "DISABLED": 3, "UPDATE_FAILED": 4}
METHODS = {
    "HTTP_METHOD_UNSPECIFIED": 0,
    "POST": 1,
    "GET": 2,
    "HEAD": 3,
    "PUT": 4,
    "DELETE": 5,
    "PATCH": 6,
    "OPTIONS": 7,
}
METHODS_WITH_BODY = ("POST", "PUT", "PATCH")

_TARGETS = frozenset({"httpTarget", "pubsubTarget", "appEngineHttpTarget"})
_TOKENS = frozenset({"oidcToken", "oauthToken"})
_NO_OTHER_TARGET = "this target is not imitated by the embedded scheduler; accepted is httpTarget"

SCHEMA = Message(
    {
        "name": Leaf(wire.text),
        "description": Leaf(wire.text),
        "pubsubTarget": NotImitated(_NO_OTHER_TARGET),
        "appEngineHttpTarget": NotImitated(_NO_OTHER_TARGET),
        "httpTarget": Message(
            {
                "uri": Leaf(wire.text),
                "httpMethod": wire.choice(METHODS),
                "headers": Leaf(wire.text_map),
                "body": Leaf(wire.binary),
                "oauthToken": Message({"serviceAccountEmail": Leaf(wire.text), "scope": Leaf(wire.text)}),
                "oidcToken": Message({"serviceAccountEmail": Leaf(wire.text), "audience": Leaf(wire.text)}),
            },
            one_of=(_TOKENS,),
        ),
        "schedule": Leaf(wire.text),
        "timeZone": Leaf(wire.text),
        "userUpdateTime": OutputOnly(),
        "state": OutputOnly(),
        "status": OutputOnly(),
        "scheduleTime": OutputOnly(),
        "lastAttemptTime": OutputOnly(),
        "satisfiesPzs": OutputOnly(),
        "retryConfig": Message(
            {
                "retryCount": Leaf(wire.whole_number),
                "maxRetryDuration": Leaf(wire.duration),
                "minBackoffDuration": Leaf(wire.duration),
                "maxBackoffDuration": Leaf(wire.duration),
                "maxDoublings": Leaf(wire.whole_number),
            }
        ),
        "attemptDeadline": Leaf(wire.duration),
    },
    one_of=(_TARGETS,),
)

_PROJECT = r"[A-Za-z0-9][A-Za-z0-9.:-]{0,127}"
_LOCATION = r"[a-z][a-z0-9-]{0,62}"
_PARENT = re.compile(rf"projects/{_PROJECT}/locations/{_LOCATION}")
_NAME = re.compile(rf"(projects/{_PROJECT}/locations/{_LOCATION})/jobs/[A-Za-z0-9_-]{{1,500}}")
_PROJECT_NAME = re.compile(rf"projects/{_PROJECT}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")  # no control characters: nothing can end the line
_ACCOUNT = re.compile(r"[^@\s]{1,254}@[^@\s]{1,254}")
_URI_SAFE = "%!#$&'()*+,/:;=?@[]~"  # what encoding leaves as it is


# --- names -----------------------------------------------------------------------------------------------------


def checked_project(name: str) -> str:
    """`projects/P`, any project at all. Raises Refused."""
    if not _PROJECT_NAME.fullmatch(name):
        raise invalid("name", 'must be formatted "projects/<PROJECT_ID>"', name)
    return name


def checked_parent(parent: str, *, field: str = "parent") -> str:
    """`projects/P/locations/L`, any project and location at all. Raises Refused."""
    if not _PARENT.fullmatch(parent):
        raise invalid(field, 'must be formatted "projects/<PROJECT_ID>/locations/<LOCATION_ID>"', parent)
    return parent


def checked_name(name: str) -> str:
    """A job's full name. Raises Refused."""
    if not _NAME.fullmatch(name):
        raise invalid(
            "name",
            'Job name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/jobs/<JOB_ID>", and the job id'
            " of 1 to 500 letters, digits, hyphens and underscores.",
            name,
        )
    return name


# --- from JSON -------------------------------------------------------------------------------------------------


def new_job(body: Any, parent: str, invented_id: str) -> Job:
    """The job that a create asks for; without a name it is called `invented_id`. Raises Refused."""
    tree = wire.read(SCHEMA, body)
    name = checked_name(tree.get("name") or f"{parent}/jobs/{invented_id}")
    if not name.startswith(f"{parent}/jobs/"):
        raise invalid("name", f"must be under the parent of the request, {parent}", name)
    return _job(tree, name)


def updated_job(stored: Job, body: Tree, chosen: Sequence[masks.Path] | None) -> Job:
    """`stored` after an update: what it has of the service's part stays. Raises Refused.

    `body` is a tree read by `read_body`; `chosen` what `masks.paths` made of the mask. Without a mask everything is
    replaced, save a schedule that the body leaves out (it is required on create only).
    """
    everything = {"schedule": stored.schedule, **body}
    fresh = _job(
        everything if chosen is None else masks.merge(SCHEMA, _tree(stored), body, chosen), stored.name
    )
    return replace(
        stored,
        description=fresh.description,
        schedule=fresh.schedule,
        time_zone=fresh.time_zone,
        http_target=fresh.http_target,
        retry=fresh.retry,
        attempt_deadline=fresh.attempt_deadline,
    )


def read_body(body: Any) -> Tree:
    """The tree of an update's body; a name in it means nothing, the request names the job. Raises Refused."""
    return wire.read(SCHEMA, body)


def _job(tree: Tree, name: str) -> Job:
    if len(tree.get("description", "")) > DESCRIPTION_CHARACTERS:
        raise invalid("description", f"is longer than {DESCRIPTION_CHARACTERS} characters")
    if not tree.get("schedule"):
        raise invalid(
            "schedule", "Schedule or time zone is invalid. A schedule is required, like '15 8 * * *'"
        )
    if "httpTarget" not in tree:
        raise invalid("httpTarget", "is missing: a job has exactly one target")
    deadline: timedelta = tree.get("attemptDeadline", DEFAULT_DEADLINE)
    if not DEADLINES[0] <= deadline <= DEADLINES[1]:
        raise invalid(
            "attemptDeadline", "must be 15s to 1800s for an HTTP target", wire.duration_text(deadline)
        )
    job = Job(
        name=name,
        description=tree.get("description", ""),
        schedule=tree["schedule"],
        time_zone=tree.get("timeZone", DEFAULT_ZONE),
        http_target=_target(tree["httpTarget"]),
        retry=_retry(tree.get("retryConfig", {})),
        attempt_deadline=deadline,
    )
    size = job_bytes(job)
    if size > JOB_BYTES:
        raise invalid("job", f"a job has at most {JOB_BYTES} bytes, its body the most of them, not {size}")
    return job


def _target(tree: Tree) -> HttpTarget:
    method = tree.get("httpMethod", "POST")
    body = tree.get("body", b"")
    if body and method not in METHODS_WITH_BODY:
        raise invalid(
            "httpTarget.body",
            f"a {method} request has none; accepted is a body with {', '.join(METHODS_WITH_BODY)}",
        )
    oidc, oauth = tree.get("oidcToken"), tree.get("oauthToken")
    return HttpTarget(
        uri=_uri(tree.get("uri", "")),
        http_method=method,
        headers=_headers(tree.get("headers", {})),
        body=body,
        oidc_token=None
        if oidc is None
        else OidcToken(
            service_account_email=_account(oidc, "httpTarget.oidcToken"), audience=oidc.get("audience", "")
        ),
        oauth_token=None
        if oauth is None
        else OAuthToken(
            service_account_email=_account(oauth, "httpTarget.oauthToken"), scope=oauth.get("scope", "")
        ),
    )


def _uri(uri: str) -> str:
    field = "httpTarget.uri"
    if not uri.startswith(("http://", "https://")):
        raise invalid(field, "must start with http:// or https://", uri)
    if any(character.isspace() or not character.isprintable() for character in uri):
        raise invalid(field, "holds a space or a control character, which must be percent-encoded", uri)
    if len(quote(uri, safe=_URI_SAFE)) > URI_CHARACTERS:
        raise invalid(field, f"is longer than {URI_CHARACTERS} characters when encoded")
    try:
        parts = urlsplit(uri)
        reachable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        reachable = False
    if not reachable:
        raise invalid(field, "has no host, or a port that is none", uri)
    if parts.username is not None:
        # Not shown: it is a secret, and one that would be sent nowhere.
        raise invalid(field, "holds a user name or password; targets are authenticated by a token")
    return uri


def _headers(headers: dict[str, str]) -> dict[str, str]:
    field = "httpTarget.headers"
    seen: set[str] = set()
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise invalid(field, "is not the name of a header (RFC 9110 section 5.6.2)", name)
        if name.lower() in seen:
            raise invalid(field, "is given twice; a header has one value", name)
        if not _FIELD_VALUE.fullmatch(value):
            raise invalid(f"{field}[{name!r}]", "holds a control character")
        seen.add(name.lower())
    size = sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
    if size >= HEADER_BYTES:
        raise invalid(field, f"must be less than {HEADER_BYTES} bytes in all, not {size}")
    # The service sends its own, and shows that.
    return {name: value for name, value in headers.items() if name.lower() != "user-agent"}


def _account(token: Tree, field: str) -> str:
    email: str = token.get("serviceAccountEmail", "")
    if not _ACCOUNT.fullmatch(email):
        raise invalid(f"{field}.serviceAccountEmail", "must be the address of a service account", email)
    return email


def _retry(tree: Tree) -> RetryConfig:
    defaults = RetryConfig()
    count, doublings = tree.get("retryCount", 0), tree.get("maxDoublings", defaults.max_doublings)
    if not 0 <= count <= RETRIES:
        raise invalid("retryConfig.retryCount", f"must be 0 to {RETRIES}", count)
    if doublings < 0:
        raise invalid("retryConfig.maxDoublings", "must not be negative", doublings)
    return RetryConfig(
        retry_count=count,
        max_retry_duration=_span(tree, "maxRetryDuration", defaults.max_retry_duration),
        min_backoff=_span(tree, "minBackoffDuration", defaults.min_backoff) or defaults.min_backoff,
        max_backoff=_span(tree, "maxBackoffDuration", defaults.max_backoff) or defaults.max_backoff,
        max_doublings=doublings,
    )


def _span(tree: Tree, name: str, default: timedelta) -> timedelta:
    span: timedelta = tree.get(name, default)
    if not timedelta(0) <= span <= LONGEST_DURATION:
        longest = wire.duration_text(LONGEST_DURATION)
        raise invalid(f"retryConfig.{name}", f"must be 0s to {longest}", wire.duration_text(span))
    return span


def job_bytes(job: Job) -> int:
    """The size of a job as its limit counts it."""
    target = job.http_target
    texts = [job.name, job.description, job.schedule, job.time_zone, target.uri]
    texts += [part for pair in target.headers.items() for part in pair]
    for token in (target.oidc_token, target.oauth_token):
        if token is not None:
            texts.append(token.service_account_email)
    if target.oidc_token:
        texts.append(target.oidc_token.audience)
    if target.oauth_token:
        texts.append(target.oauth_token.scope)
    return OVERHEAD_BYTES + len(target.body) + sum(len(text.encode()) for text in texts)


# --- to JSON ---------------------------------------------------------------------------------------------------


def _tree(job: Job) -> Tree:
    """The user's part as a create would have set it, without what is added on reading."""
    target = job.http_target
    http: Tree = {"uri": target.uri, "httpMethod": target.http_method}
    if target.headers:
        http["headers"] = dict(target.headers)
    if target.body:
        http["body"] = target.body
    if target.oidc_token:
        http["oidcToken"] = _present(
            serviceAccountEmail=target.oidc_token.service_account_email, audience=target.oidc_token.audience
        )
    if target.oauth_token:
        http["oauthToken"] = _present(
            serviceAccountEmail=target.oauth_token.service_account_email, scope=target.oauth_token.scope
        )
    return _present(
        description=job.description,
        httpTarget=http,
        schedule=job.schedule,
        timeZone=job.time_zone,
        retryConfig={
            "retryCount": job.retry.retry_count,
            "maxRetryDuration": job.retry.max_retry_duration,
            "minBackoffDuration": job.retry.min_backoff,
            "maxBackoffDuration": job.retry.max_backoff,
            "maxDoublings": job.retry.max_doublings,
        },
        attemptDeadline=job.attempt_deadline,
    )


def render(job: Job, *, enum_numbers: bool = False) -> dict[str, Any]:
    """The job as the service answers it, with what it adds on reading (section 3); enums as numbers when asked for."""
    moments = {
        "scheduleTime": job.schedule_time,
        "lastAttemptTime": job.last_attempt_time,
    }
    shown: dict[str, Any] = _present(name=job.name, description=job.description)
    shown["httpTarget"] = _rendered_target(job.http_target, enum_numbers)
    shown |= {"schedule": job.schedule, "timeZone": job.time_zone}
    if job.user_update_time:
        shown["userUpdateTime"] = wire.timestamp_text(job.user_update_time)
    shown["state"] = STATES[JobState(job.state).value] if enum_numbers else JobState(job.state).value
    if job.status_code is not None:
        shown["status"] = _present(code=job.status_code)
    shown |= {name: wire.timestamp_text(moment) for name, moment in moments.items() if moment}
    shown["retryConfig"] = _present(
        retryCount=job.retry.retry_count,
        maxRetryDuration=wire.duration_text(job.retry.max_retry_duration),
        minBackoffDuration=wire.duration_text(job.retry.min_backoff),
        maxBackoffDuration=wire.duration_text(job.retry.max_backoff),
        maxDoublings=job.retry.max_doublings,
    )
    shown["attemptDeadline"] = wire.duration_text(job.attempt_deadline)
    return shown


def _rendered_target(target: HttpTarget, enum_numbers: bool) -> dict[str, Any]:
    headers = {**target.headers, "User-Agent": USER_AGENT}
    if target.body and not any(name.lower() == "content-type" for name in target.headers):
        headers["Content-Type"] = "application/octet-stream"
    shown: dict[str, Any] = {
        "uri": target.uri,
        "httpMethod": METHODS[target.http_method] if enum_numbers else target.http_method,
        "headers": headers,
    }
    if target.body:
        shown["body"] = wire.binary_text(target.body)
    if target.oidc_token:
        shown["oidcToken"] = {
            "serviceAccountEmail": target.oidc_token.service_account_email,
            "audience": target.oidc_token.audience or target.uri,
        }
    if target.oauth_token:
        shown["oauthToken"] = {
            "serviceAccountEmail": target.oauth_token.service_account_email,
            "scope": target.oauth_token.scope or CLOUD_PLATFORM_SCOPE,
        }
    return shown


def _present(**fields: Any) -> dict[str, Any]:
    """Without what proto3 leaves out: scalars at zero."""
    return {name: value for name, value in fields.items() if value or isinstance(value, timedelta)}
