"""A whole deployment as `careflow up` composes it, served on loopback ports in this process, and who knocks at its doors."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
from twilio.request_validator import RequestValidator

from careflow.app import Assembly, assembled, bind
from careflow.auth.issuer import LocalIssuer
from careflow.caller.stream_pass import StreamPass
from careflow.clock import Pace, VirtualClock
from careflow.core.attempts import Attempt, AttemptState, move
from careflow.core.calls import CallState, attempt_id
from careflow.core.calls import move as move_call
from careflow.core.patients import Patient
from careflow.core.rounds import Trigger, plan, round_for
from careflow.hosting import running
from careflow.ports import AttemptOrder
from careflow.settings import Settings, load_settings

MORNING = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)  # 08:15 in New York
ROUND = "local-default-20261123-08"
TRIGGER: dict[str, Any] = {
    "scheduleHour": 8,
    "timezone": "America/New_York",
    "triggerType": "scheduled",
    "source": "cloud-scheduler",
    "environment": "local",
}
CALL_TASK = {"hospitalId": "default", "roundId": ROUND, "callId": "0123456789abcdef01234567"}
CLOSE_TASK = {"hospitalId": "default", "roundId": ROUND}
GET_TASK = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "nobody-1"}}


@dataclass(frozen=True, slots=True)
class Door:
    """A request that needs a token: what it is, whose token opens it, and how it is answered then."""

    role: str
    method: str
    path: str
    body: Mapping[str, Any] | None
    account: str
    status: int

    def __str__(self) -> str:
        return f"{self.role} {self.method} {self.path}"


DOORS = (
    Door("pulse", "POST", "/", TRIGGER, "scheduler_account", 200),
    Door("pulse", "POST", "/tasks/call", CALL_TASK, "queue_account", 404),
    Door("pulse", "POST", "/tasks/close", CLOSE_TASK | {"roundId": ROUND[:-2] + "12"}, "queue_account", 404),
    Door("pulse", "POST", "/tasks/sweep", {}, "queue_account", 200),
    Door("pulse", "GET", "/rounds/local-default-20200101-08", None, "scheduler_account", 404),
    Door("pulse", "POST", "/a2a", GET_TASK, "scheduler_account", 200),
    Door("pulse", "POST", "/a2a", GET_TASK, "scheduler_account", 200),
    Door("caller", "POST", "/", GET_TASK, "pulse_account", 200),
)


def resident(number: int = 1, **changes: Any) -> Patient:
    """A patient of the morning round who may be phoned."""
    usual: dict[str, Any] = {
        "id": f"p{number:05d}",
        "hospital_id": "default",
        "given_name": "Quintessa",
        "family_name": "Exampleton",
        "phone": f"+1212555{100 + number:04d}",
        "time_zone": "America/New_York",
        "consent": True,
        "hours": frozenset({8}),
    }
    return Patient(**usual | changes)


@dataclass(frozen=True, slots=True)
class Surface:
    """A served deployment, a client that has no token of its own, and the keys to forge with."""

    assembly: Assembly
    http: httpx.AsyncClient
    clock: VirtualClock
    issuer: LocalIssuer

    @property
    def settings(self) -> Settings:
        return self.assembly.settings

    def url(self, role: str) -> str:
        return str(getattr(self.settings, f"{role}_url"))

    def token(self, role: str, account: str) -> str:
        """A good token of the account in that setting, for the service `role`."""
        return self.issuer.mint(getattr(self.settings, account), self.url(role), self.clock.now())

    async def knock(self, door: Door, token: str | None = None, **changes: Any) -> httpx.Response:
        """The door's request with this token; `changes` go to httpx in place of what the door sends."""
        headers = {"A2A-Version": "1.0"} | changes.pop("headers", {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if door.body is not None and not changes.keys() & {"content", "json"}:
            changes["json"] = door.body
        return await self.http.request(
            door.method, self.url(door.role) + door.path, headers=headers, **changes
        )

    async def enter(self, door: Door, **changes: Any) -> httpx.Response:
        """The same with the door's own account."""
        return await self.knock(door, self.token(door.role, door.account), **changes)

    async def webhook(
        self, path: str, form: Mapping[str, str], *, signed: str | None = None
    ) -> httpx.Response:
        """A Twilio webhook with its signature, or with `signed` in its place."""
        if signed is None:
            signer = RequestValidator(self.settings.twilio_auth_token.get_secret_value())
            signed = signer.compute_signature(self.settings.caller_public_url + path, dict(form))
        return await self.http.post(
            self.url("caller") + path, data=dict(form), headers={"X-Twilio-Signature": signed}
        )

    async def ordered(self, number: int = 1) -> AttemptOrder:
        """Pulse's order for that patient's morning call, which it has claimed."""
        store, now, who = self.assembly.store, self.clock.now(), resident(number)
        wanted = Trigger(
            schedule_hour=8,
            time_zone="America/New_York",
            trigger_type="scheduled",
            source="test",
            environment="local",
            hospital_id="default",
        )
        await store.put_patients([who])
        opened = await store.open_round(round_for(wanted, now, (8, 12, 20)))
        planned = plan(opened, who, now, do_not_call=False)
        assert planned is not None
        await store.create_calls([planned])
        name = attempt_id(planned, 1)
        assert await store.update_call(move_call(planned, CallState.CALLING, attempt_id=name, attempts=1))
        return AttemptOrder(
            attempt_id=name,
            number=1,
            call_id=planned.id,
            round_id=opened.id,
            hospital_id="default",
            patient_id=who.id,
            script="morning",
            not_after=now + timedelta(hours=1),
        )

    async def dialled(self, number: int) -> Attempt:
        """The order's attempt, stored as the Caller stores it when Twilio has taken the call."""
        order = await self.ordered(number)
        fields = {name: getattr(order, name) for name in order.__slots__ if name != "attempt_id"}
        now, store = self.clock.now(), self.assembly.store
        attempt = Attempt(
            id=order.attempt_id,
            phone=resident(number).phone or "",
            stream_token=StreamPass(secret=f"secret-{number}").token(),
            intended_at=now,
            **fields,
        )
        assert (await store.begin_attempt(attempt, lambda _patient, _barred: None)).attempt is not None
        taken = move(attempt, AttemptState.DIALLED, now, call_sid=f"CA{number:032x}")
        assert await store.update_attempt(taken)
        stored = await store.attempt(order.attempt_id)
        assert stored is not None
        return stored

    async def until(self, condition: Callable[[], Any]) -> Any:
        """The condition's first truth, asked again and again; it may be a coroutine function."""
        async with asyncio.timeout(20):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.005)


@asynccontextmanager
async def deployed(
    folder: Path,
    *,
    roles: Sequence[str] = ("caller", "pulse"),
    speed: float = 0.0,
    body_seconds: float = 30.0,
    **settings: Any,
) -> AsyncIterator[Surface]:
    """These services on free ports; time runs at `speed`, or only by hand."""
    wanted = {f"{role}_port": 0 for role in ("pulse", "caller", "lab")}
    bound, sockets = bind(load_settings(data_dir=folder, **wanted | settings), roles)
    clock = VirtualClock(MORNING)
    async with (
        assembled(bound, sockets, clock) as assembly,
        running(assembly.services, body_seconds=body_seconds),
        httpx.AsyncClient(trust_env=False, timeout=20) as http,
    ):
        ticking = asyncio.create_task(clock.run(lambda: Pace(speed, 0.2)))
        try:
            yield Surface(assembly, http, clock, LocalIssuer(bound.data_dir / "issuer"))
        finally:
            ticking.cancel()


# --- tokens as a thief would make them --------------------------------------------------------------------------


def _part(value: Mapping[str, Any] | bytes) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def signed(issuer: LocalIssuer, claims: Mapping[str, Any], **header: Any) -> str:
    """The claims under the issuer's own key: what a careless issuer might hand out."""
    key, kid = issuer._current()
    return jwt.encode(dict(claims), key, algorithm="RS256", headers={"kid": kid} | header)


def unsigned(claims: Mapping[str, Any], alg: str = "none") -> str:
    return f"{_part({'alg': alg, 'typ': 'JWT'})}.{_part(claims)}."


def with_public_key_as_secret(issuer: LocalIssuer, claims: Mapping[str, Any]) -> str:
    """HS256 keyed with the published key (RFC 8725 section 2.1)."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key, kid = issuer._current()
    secret = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = f"{_part({'alg': 'HS256', 'kid': kid, 'typ': 'JWT'})}.{_part(claims)}"
    return f"{head}.{_part(hmac.new(secret, head.encode(), hashlib.sha256).digest())}"


def stripped(token: str) -> str:
    """As Cloud Run hands it on (reference/google-cloud section 2)."""
    return token.rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE"


Forgery = Callable[[LocalIssuer, Mapping[str, Any]], str | None]

FORGERIES: Mapping[str, tuple[Forgery, int, str]] = {
    "no token": (lambda _issuer, _claims: None, 401, "missing"),
    "expired": (
        lambda issuer, claims: signed(
            issuer, {**claims, "iat": claims["iat"] - 7200, "exp": claims["iat"] - 3600}
        ),
        401,
        "expired",
    ),
    "of tomorrow": (
        lambda issuer, claims: signed(
            issuer, {**claims, "iat": claims["iat"] + 86400, "exp": claims["exp"] + 86400}
        ),
        401,
        "issued-in-the-future",
    ),
    "without an end": (
        lambda issuer, claims: signed(issuer, {k: v for k, v in claims.items() if k != "exp"}),
        401,
        "exp-missing-or-malformed",
    ),
    "wrong audience": (
        lambda issuer, claims: signed(issuer, {**claims, "aud": "https://elsewhere.test"}),
        401,
        "audience",
    ),
    "ours among other audiences": (
        lambda issuer, claims: signed(issuer, {**claims, "aud": [claims["aud"], "https://elsewhere.test"]}),
        401,
        "audience",
    ),
    "wrong issuer": (
        lambda issuer, claims: signed(issuer, {**claims, "iss": "https://accounts.google.com"}),
        401,
        "issuer",
    ),
    "unverified e-mail": (
        lambda issuer, claims: signed(issuer, {**claims, "email_verified": False}),
        401,
        "email-unverified",
    ),
    "e-mail verified in words": (
        lambda issuer, claims: signed(issuer, {**claims, "email_verified": "true"}),
        401,
        "email-unverified",
    ),
    "no e-mail": (
        lambda issuer, claims: signed(issuer, {k: v for k, v in claims.items() if k != "email"}),
        401,
        "email-missing",
    ),
    "wrong account": (
        lambda issuer, claims: signed(issuer, {**claims, "email": "somebody@elsewhere.test"}),
        403,
        "account",
    ),
    "alg none": (lambda _issuer, claims: unsigned(claims), 401, "algorithm"),
    "alg NoNe": (lambda _issuer, claims: unsigned(claims, "NoNe"), 401, "algorithm"),
    "HMAC with the public key": (with_public_key_as_secret, 401, "algorithm"),
    "unknown kid": (lambda issuer, claims: signed(issuer, claims, kid="nobody-knows"), 401, "unknown-key"),
    "kid as a path": (
        lambda issuer, claims: signed(issuer, claims, kid="../../dev/null"),
        401,
        "unknown-key",
    ),
    "stripped signature": (lambda issuer, claims: stripped(signed(issuer, claims)), 401, "signature-removed"),
    "other claims under a real signature": (
        lambda issuer, claims: _swapped(
            signed(issuer, {**claims, "email": "somebody@elsewhere.test"}), claims
        ),
        401,
        "signature",
    ),
    "no JWT at all": (lambda _issuer, _claims: "open-sesame", 401, "malformed"),
    "of a megabyte's kind": (
        lambda issuer, claims: signed(issuer, {**claims, "x": "x" * 8192}),
        401,
        "too-long",
    ),
}


def _swapped(token: str, claims: Mapping[str, Any]) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{_part(claims)}.{signature}"
