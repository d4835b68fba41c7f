"""The HTTP request that a job or a task makes, with its token: read from JSON, checked, shown again.

Cloud Scheduler's HttpTarget and Cloud Tasks' HttpRequest differ in the name of one field, `uri` and `url`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from careflow.google_api import wire
from careflow.google_api.refusals import invalid
from careflow.google_api.wire import Leaf, Message, Tree

HEADER_BYTES = 80 * 1024
URI_CHARACTERS = 2083
CLOUD_PLATFORM_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
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

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")  # no control characters: nothing can end the line
_ACCOUNT = re.compile(r"[^@\s]{1,254}@[^@\s]{1,254}")
_URI_SAFE = "%!#$&'()*+,/:;=?@[]~"  # what encoding leaves as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcToken:
    """An identity token for the target. An empty `audience` means the target's URI."""

    service_account_email: str
    audience: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthToken:
    """An access token, for Google's own APIs. Kept and read back; nothing here sends one (docs/scheduler.md)."""

    service_account_email: str
    scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTarget:
    """Where and what is sent. `headers` are the user's; what the service adds is added on reading and on delivery."""

    uri: str
    http_method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    oidc_token: OidcToken | None = None
    oauth_token: OAuthToken | None = None


def schema(uri_name: str) -> Message:
    """The message, its address called `uri_name`."""
    return Message(
        {
            uri_name: Leaf(wire.text),
            "httpMethod": wire.choice(METHODS),
            "headers": Leaf(wire.text_map),
            "body": Leaf(wire.binary),
            "oauthToken": Message({"serviceAccountEmail": Leaf(wire.text), "scope": Leaf(wire.text)}),
            "oidcToken": Message({"serviceAccountEmail": Leaf(wire.text), "audience": Leaf(wire.text)}),
        },
        one_of=(frozenset({"oidcToken", "oauthToken"}),),
    )


def read(tree: Tree, where: str, uri_name: str) -> HttpTarget:
    """The target of a tree read by `schema`, at the path `where`. Raises Refused."""
    method = tree.get("httpMethod", "POST")
    body = tree.get("body", b"")
    if body and method not in METHODS_WITH_BODY:
        raise invalid(
            f"{where}.body",
            f"a {method} request has none; accepted is a body with {', '.join(METHODS_WITH_BODY)}",
        )
    oidc, oauth = tree.get("oidcToken"), tree.get("oauthToken")
    return HttpTarget(
        uri=_uri(tree.get(uri_name, ""), f"{where}.{uri_name}"),
        http_method=method,
        headers=_headers(tree.get("headers", {}), f"{where}.headers"),
        body=body,
        oidc_token=None
        if oidc is None
        else OidcToken(
            service_account_email=_account(oidc, f"{where}.oidcToken"), audience=oidc.get("audience", "")
        ),
        oauth_token=None
        if oauth is None
        else OAuthToken(
            service_account_email=_account(oauth, f"{where}.oauthToken"), scope=oauth.get("scope", "")
        ),
    )


def _uri(uri: str, field: str) -> str:
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


def _headers(headers: dict[str, str], field: str) -> dict[str, str]:
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


def size(target: HttpTarget) -> int:
    """Bytes, as the limits of the services count them."""
    texts = [target.uri, *(part for pair in target.headers.items() for part in pair)]
    if target.oidc_token:
        texts += (target.oidc_token.service_account_email, target.oidc_token.audience)
    if target.oauth_token:
        texts += (target.oauth_token.service_account_email, target.oauth_token.scope)
    return len(target.body) + sum(len(text.encode()) for text in texts)


def tree(target: HttpTarget, uri_name: str) -> Tree:
    """The user's part as a create would have set it, without what is added on reading."""
    http: Tree = {uri_name: target.uri, "httpMethod": target.http_method}
    if target.headers:
        http["headers"] = dict(target.headers)
    if target.body:
        http["body"] = target.body
    if target.oidc_token:
        http["oidcToken"] = wire.present(
            serviceAccountEmail=target.oidc_token.service_account_email, audience=target.oidc_token.audience
        )
    if target.oauth_token:
        http["oauthToken"] = wire.present(
            serviceAccountEmail=target.oauth_token.service_account_email, scope=target.oauth_token.scope
        )
    return http


def render(
    target: HttpTarget, uri_name: str, *, user_agent: str, default_type: str = "", enum_numbers: bool = False
) -> dict[str, Any]:
    """The message as the service answers it: with its own headers (a `default_type` for bodies, if it has one) and defaults."""
    headers = {**target.headers, "User-Agent": user_agent}
    if default_type and target.body and not any(name.lower() == "content-type" for name in target.headers):
        headers["Content-Type"] = default_type
    shown: dict[str, Any] = {
        uri_name: target.uri,
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
