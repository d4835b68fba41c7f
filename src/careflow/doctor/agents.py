"""Pulse and the Caller as their callers meet them: alive, ready, themselves, closed to strangers, open to whom they should be."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from careflow.doctor.findings import Finding, evident, not_seen, well, wrong
from careflow.doctor.set_up import NoAnswer, SetUp, json_of

CARD = "/.well-known/agent-card.json"
NOWHERE = "nosuchenvironment"  # no deployment's name: a trigger for it is checked to the end, and refused
_HERE = re.compile(
    r"this is '([a-z][a-z0-9]{0,19})'"
)  # in pulse/payload.py's refusal of another environment's trigger


@dataclass(frozen=True, slots=True)
class Agent:
    """A service by its name on Cloud Run, and where it is."""

    service: str
    name: str
    url: str
    setting: str


async def pulse(set_up: SetUp) -> AsyncIterator[Finding]:
    """Does Pulse answer, is its store well, is it Pulse, and does it refuse strangers?"""
    url = set_up.settings.pulse_url
    agent = Agent("careflow-agent", "CareFlow Pulse", url, "CAREFLOW_PULSE_URL")
    token = set_up.identity_token or None
    async for one in _alive(set_up, agent, token):
        yield one
    async for one in _closed(set_up, agent):
        yield one


async def caller(set_up: SetUp) -> AsyncIterator[Finding]:
    """Does the Caller answer, is its store well, is it the Caller, and does it refuse strangers?"""
    url = set_up.settings.caller_url
    agent = Agent("caller-agent", "CareFlow Caller Agent", url, "CAREFLOW_CALLER_URL")
    async for one in _alive(set_up, agent, None):
        yield one
    async for one in _closed(set_up, agent):
        yield one


async def _alive(set_up: SetUp, agent: Agent, token: str | None) -> AsyncIterator[Finding]:
    card = await set_up.ask("GET", agent.url + CARD, token=token)
    if isinstance(card, NoAnswer):
        yield wrong(
            agent.url,
            f"nobody answers ({card.reason})",
            f"{agent.name} does not run there, or {agent.setting} is wrong."
            " Triggers and tasks end with UNAVAILABLE and are retried.",
            *set_up.remedies.start(agent.service),
            f"echo ${agent.setting}",
            blocks=True,
        )
        return
    if set_up.cloud and card.status_code in (401, 403):
        by_hand = (
            identity_command(set_up)
            if agent.service == "careflow-agent"
            else set_up.remedies.logs(agent.service)
        )
        yield not_seen(
            agent.url,
            f"is private and lets nobody in without a token ({card.status_code}), as it should",
            *by_hand,
        )
        return
    name = str(json_of(card).get("name", ""))
    if card.status_code != 200 or name != agent.name:
        yield wrong(
            agent.url,
            f"answers {card.status_code} and is not {agent.name}",
            f"{agent.setting} is the address of something else.",
            f"echo ${agent.setting}",
            *_real_address(set_up, agent),
            blocks=True,
            url=agent.url + CARD,
        )
        return
    ready = await set_up.ask("GET", agent.url + "/readyz", token=token)
    if isinstance(ready, NoAnswer) or ready.status_code != 200:
        status = "nothing" if isinstance(ready, NoAnswer) else str(ready.status_code)
        yield wrong(
            agent.url,
            f"lives, and /readyz answers {status}",
            "Its store cannot be written, so it takes nothing on.",
            *set_up.remedies.logs(agent.service),
        )
        return
    yield well(agent.url, f"is {agent.name} {json_of(card).get('version', '')}, ready")


def _real_address(set_up: SetUp, agent: Agent) -> Sequence[str]:
    if not set_up.cloud:
        return ()
    given = set_up.settings
    return (
        f"gcloud run services describe {agent.service} --project={given.project} --region={given.location}"
        " --format='value(status.url)'",
    )


async def _closed(set_up: SetUp, agent: Agent) -> AsyncIterator[Finding]:
    """A trigger or an order without a token must be refused."""
    answer = await set_up.ask("POST", agent.url + "/", json={})
    if isinstance(answer, NoAnswer):
        return
    if answer.status_code in ((401, 403) if set_up.cloud else (401,)):
        yield well(agent.url, f"refuses who has no token ({answer.status_code})")
        return
    yield wrong(
        agent.url,
        f"answers {answer.status_code} to a request without a token",
        "It is not one of ours, or it is not guarded: take it off the network.",
        *set_up.remedies.logs(agent.service),
    )


# --- what Twilio reaches -----------------------------------------------------------------------------------------


async def public(set_up: SetUp) -> AsyncIterator[Finding]:
    """The address that Twilio is told: https for a real account, and a webhook without a signature is refused with 403."""
    given = set_up.settings
    url = given.caller_public_url
    real = urlsplit(given.twilio_url).hostname == "api.twilio.com" and bool(given.twilio_account_sid)
    if real and not url.startswith("https://"):
        yield wrong(
            url,
            "is not an https:// address",
            "Twilio would send patients' words in the clear, and its media stream refuses to.",
            "export CAREFLOW_CALLER_PUBLIC_URL=https://...   # docs/real-telephones.md",
        )
    answer = await set_up.ask("POST", f"{url}/twilio/voice/doctor-1", data={"CallSid": "CA" + "0" * 32})
    yield judged_webhook(url, answer, set_up)


def judged_webhook(url: str, answer: httpx.Response | NoAnswer, set_up: SetUp) -> Finding:
    """What an unsigned webhook is answered."""
    which = "caller-agent-twilio"
    if isinstance(answer, NoAnswer):
        return wrong(
            url,
            f"nobody answers ({answer.reason})",
            "Twilio cannot reach the Caller: calls ring, and end as soon as they are answered.",
            *set_up.remedies.start(which),
        )
    match answer.status_code:
        case 403 if json_of(answer).get("error"):
            return well(url, "is reachable, and refuses a webhook that Twilio has not signed (403)")
        case 401 | 403:
            means = (
                "The service is private: Twilio has no Google account and cannot reach it."
                " The public one is caller-agent-twilio."
            )
            return wrong(
                url,
                f"answers {answer.status_code} before the Caller does",
                means,
                *_open_to_all(set_up, which),
            )
        case 404:
            means = "Another service is there, or the Caller with CAREFLOW_CALLER_ROUTES=a2a, which has no routes for Twilio."
            return wrong(
                url,
                "has no /twilio routes (404)",
                means,
                "echo $CAREFLOW_CALLER_PUBLIC_URL $CAREFLOW_CALLER_ROUTES",
            )
        case status:
            return wrong(
                url,
                f"answers {status} to a webhook that nobody signed",
                "403 is what the Caller says. This is not the Caller, or it is not well.",
                *set_up.remedies.logs(which),
            )


def _open_to_all(set_up: SetUp, service: str) -> Sequence[str]:
    return (
        set_up.remedies.invoker(service, "allUsers")
        if set_up.cloud
        else ("echo $CAREFLOW_CALLER_PUBLIC_URL",)
    )


# --- a trigger that changes nothing ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Pulse's answer to a trigger that is in order except that it is meant for no environment.

    `environment` is the one that Pulse then says it is; empty when it refused for another reason, which is `code`.
    """

    status: int
    code: str
    field: str
    environment: str


async def rehearse(
    set_up: SetUp, path: str, payload: Mapping[str, Any], token: str, headers: Mapping[str, str]
) -> Rehearsal | NoAnswer:
    """Send the payload to Pulse as a job would, for the environment that nobody is. Pulse checks all of it, then refuses.

    So it is the real route, rule, token and body, and no round is opened.
    """
    answer = await set_up.ask(
        "POST",
        set_up.settings.pulse_url + path,
        token=token,
        json={**payload, "environment": NOWHERE},
        headers=headers,
    )
    if isinstance(answer, NoAnswer):
        return answer
    error = json_of(answer).get("error")
    told = error if isinstance(error, dict) else {}
    code, message = str(told.get("code", "")), str(told.get("message", ""))
    here = _HERE.search(message) if code == "wrong-environment" else None
    return Rehearsal(answer.status_code, code, str(told.get("field", "")), here.group(1) if here else "")


def identity_command(set_up: SetUp) -> Sequence[str]:
    """How a person gets a token as the scheduler's account, for `--identity-token`."""
    given = set_up.settings
    return (
        "export CAREFLOW_IDENTITY_TOKEN=$(gcloud auth print-identity-token"
        f" --impersonate-service-account={given.scheduler_account} --audiences={set_up.pulse_audience} --include-email)",
    )


async def trigger(set_up: SetUp) -> AsyncIterator[Finding]:
    """Is the scheduler's account let in, for this audience, and is Pulse of the environment that these settings say?"""
    given = set_up.settings
    account = given.scheduler_account
    token = await set_up.token(account, set_up.pulse_audience)
    if token is None:
        by_hand = identity_command(set_up) if set_up.cloud else ()
        yield not_seen("a trigger", "there is no token of the scheduler's account on this machine", *by_hand)
        return
    hospital = next(iter(given.served))
    payload = {
        "scheduleHour": hospital.round_hours[0],
        "timezone": hospital.time_zone,
        "triggerType": "manual",
        "source": "careflow-doctor",
        "hospitalId": hospital.id,
    }
    seen = await rehearse(set_up, "/", payload, token, {})
    if isinstance(seen, NoAnswer):
        yield wrong(
            given.pulse_url,
            f"nobody answers ({seen.reason})",
            "No trigger arrives.",
            *set_up.remedies.start("careflow-agent"),
        )
    elif seen.environment == given.environment:
        yield well(given.pulse_url, f"takes triggers of {account} for {given.environment!r}")
    elif seen.environment:
        yield wrong(
            given.pulse_url,
            f"is the Pulse of {seen.environment!r}, the settings here say {given.environment!r}",
            "This shell, or CAREFLOW_PULSE_URL, belongs to another environment. Jobs aimed there are refused with 400.",
            f"export CAREFLOW_ENVIRONMENT={seen.environment}   # or correct CAREFLOW_PULSE_URL",
        )
    else:
        yield refused(given.pulse_url, seen, account, set_up.pulse_audience, set_up)


def refused(subject: str, seen: Rehearsal, account: str, audience: str, set_up: SetUp, *fix: str) -> Finding:
    """Pulse's refusal of a rehearsed trigger, explained. `fix` replaces the usual one."""
    given = set_up.settings
    told = {
        "status": str(seen.status),
        "code": seen.code,
        "field": seen.field,
        "account": account,
        "audience": audience,
    }
    match seen.status:
        case 401:
            means = (
                f"The token is not for Pulse: its audience is {audience}, and Pulse accepts its own"
                " CAREFLOW_PULSE_AUDIENCE (else CAREFLOW_PULSE_URL) to the letter. Deliveries end with UNAUTHENTICATED."
            )
            usual: Sequence[str] = ("echo $CAREFLOW_PULSE_AUDIENCE $CAREFLOW_PULSE_URL",)
        case 403:
            means = (
                f"The token is good, and {account} may not trigger rounds: Pulse lets in its own"
                " CAREFLOW_SCHEDULER_ACCOUNT alone, and on Cloud Run roles/run.invoker is needed before that."
                " Deliveries end with PERMISSION_DENIED."
            )
            usual = (
                set_up.remedies.invoker("careflow-agent", f"serviceAccount:{given.scheduler_account}")
                if set_up.cloud
                else ("echo $CAREFLOW_SCHEDULER_ACCOUNT",)
            )
        case 415:
            means = "Without the header Content-Type: application/json Cloud Scheduler sends application/octet-stream."
            usual = ()
        case 404:
            means = "There is no such path at Pulse: jobs POST to its address itself, without a path."
            usual = ()
        case 400:
            means = (
                "Pulse refuses the payload; the field is named above. docs/rounds.md says what it accepts."
            )
            usual = ()
        case _:
            means = "Pulse is there and not well; the retries are for this."
            usual = set_up.remedies.logs("careflow-agent")
    what = f" ({seen.code}{': ' + seen.field if seen.field else ''})" if seen.code else ""
    return evident(wrong(subject, f"is answered {seen.status}{what}", means, *(fix or usual)), told)
