"""The telephone and speech accounts, by reads that cost nothing. Nobody is dialled, nothing is spoken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from careflow.doctor.findings import Finding, doubtful, not_seen, well, wrong
from careflow.doctor.ledger import hospitals
from careflow.doctor.set_up import NoAnswer, SetUp, json_of

_LOW_BALANCE = 10.0  # in the account's currency: some hundred short calls
_LOW_QUOTA = 0.1  # of the month's characters


async def telephone(set_up: SetUp) -> AsyncIterator[Finding]:
    """Twilio: the account, its money, and the numbers that calls come from."""
    given = set_up.settings
    if not given.twilio_account_sid:
        yield _no_credentials(set_up, "Twilio", "CAREFLOW_TWILIO_AUTH_TOKEN", "careflow-twilio-auth-token")
        return
    base = f"{given.twilio_url}/2010-04-01/Accounts/{given.twilio_account_sid}"
    auth = httpx.BasicAuth(given.twilio_account_sid, given.twilio_auth_token.get_secret_value())
    account = await set_up.ask("GET", f"{base}.json", auth=auth)
    finding = judged_account(given.twilio_url, account, set_up)
    yield finding
    if finding.blocks:
        return
    if isinstance(balance := await set_up.ask("GET", f"{base}/Balance.json", auth=auth), httpx.Response):
        for one in judged_balance(json_of(balance)):
            yield one
    for number in sorted({one.from_number for one in hospitals(set_up)}):
        if not number:
            yield wrong(
                "CAREFLOW_TWILIO_FROM",
                "is not set",
                "There is no number to phone from.",
                "export CAREFLOW_TWILIO_FROM=+1...",
            )
            continue
        owned = await set_up.ask(
            "GET", f"{base}/IncomingPhoneNumbers.json", auth=auth, params={"PhoneNumber": number}
        )
        yield judged_number(number, owned)


def judged_account(url: str, answer: httpx.Response | NoAnswer, set_up: SetUp) -> Finding:
    """The Account resource (Twilio, REST API: Accounts)."""
    vendor = "Twilio" if urlsplit(url).hostname == "api.twilio.com" else f"Twilio's stand-in at {url}"
    if isinstance(answer, NoAnswer):
        fix = ("curl -sS https://status.twilio.com/api/v2/status.json",)
        local = set_up.remedies.start("careflow-agent")
        means = "No call can be placed: attempts end as failed and are retried."
        return wrong(
            vendor,
            f"nobody answers ({answer.reason})",
            means,
            *(fix if vendor == "Twilio" else local),
            blocks=True,
        )
    if answer.status_code in (401, 403):
        return wrong(
            vendor,
            f"refuses the credentials ({answer.status_code})",
            "SID and token do not belong together, or the token was renewed."
            " Every dialling fails, and Twilio's webhooks are refused.",
            "echo $CAREFLOW_TWILIO_ACCOUNT_SID",
            *(
                _renewed(set_up, "careflow-twilio-auth-token")
                or ("export CAREFLOW_TWILIO_AUTH_TOKEN=...   # console.twilio.com",)
            ),
            blocks=True,
            status=str(answer.status_code),
        )
    document = json_of(answer)
    if answer.status_code != 200 or "status" not in document:
        return wrong(
            vendor,
            f"answers {answer.status_code}",
            "CAREFLOW_TWILIO_URL is not Twilio's API.",
            "unset CAREFLOW_TWILIO_URL",
            blocks=True,
        )
    if document["status"] != "active":
        return wrong(
            vendor,
            f"the account is {document['status']}",
            "It can place no calls.",
            "# see why at https://console.twilio.com, and pay or write to Twilio",
            blocks=True,
        )
    if document.get("type") == "Trial":
        return doubtful(
            vendor,
            "the account is a trial",
            "It phones verified numbers only, and speaks a notice first.",
            "# upgrade it at https://console.twilio.com before patients are phoned",
        )
    return well(
        vendor,
        "the account is active; which countries it may phone is a setting of its console (Voice, Geo permissions)",
    )


def judged_balance(document: Mapping[str, Any]) -> Sequence[Finding]:
    """The Balance resource, where the account shows one."""
    try:
        balance = float(document["balance"])
    except (KeyError, TypeError, ValueError):
        return []
    told = f"{balance:.2f} {document.get('currency', '')}".rstrip()
    if balance < _LOW_BALANCE:
        return [
            doubtful(
                "Twilio's balance",
                told,
                "At nothing, calls are refused.",
                "# top up at https://console.twilio.com",
            )
        ]
    return [well("Twilio's balance", told)]


def judged_number(number: str, answer: httpx.Response | NoAnswer) -> Finding:
    """The IncomingPhoneNumbers that match ours."""
    listed = [] if isinstance(answer, NoAnswer) else json_of(answer).get("incoming_phone_numbers", [])
    mine = [one for one in listed if one.get("phone_number") == number]
    if not mine:
        return wrong(
            number,
            "is not a number of this Twilio account",
            "Twilio refuses calls from it (21210), unless it is a verified caller id.",
            f"export CAREFLOW_TWILIO_FROM={listed[0]['phone_number'] if listed else '+1...'}   # a number of the account",
        )
    if not mine[0].get("capabilities", {}).get("voice", False):
        return wrong(
            number,
            "cannot carry voice",
            "No call can come from it.",
            "# buy a number with voice at https://console.twilio.com",
        )
    return well(number, "is the account's, with voice")


async def speech(set_up: SetUp) -> AsyncIterator[Finding]:
    """ElevenLabs: the key, a voice for each language, what is left of the month."""
    given = set_up.settings
    key = given.elevenlabs_api_key.get_secret_value()
    if not key:
        yield _no_credentials(
            set_up, "ElevenLabs", "CAREFLOW_ELEVENLABS_API_KEY", "careflow-elevenlabs-api-key"
        )
        return
    headers = {"xi-api-key": key}
    answer = await set_up.ask("GET", f"{given.elevenlabs_url}/v1/voices", headers=headers)
    for one in judged_voices(answer, set_up):
        yield one
    quota = await set_up.ask("GET", f"{given.elevenlabs_url}/v1/user/subscription", headers=headers)
    if not isinstance(quota, NoAnswer):
        for one in judged_quota(json_of(quota)):
            yield one


def judged_voices(answer: httpx.Response | NoAnswer, set_up: SetUp) -> Sequence[Finding]:
    """The account's voices beside those that the scripts' languages are given."""
    from careflow.scripts import load_scripts

    given = set_up.settings
    if isinstance(answer, NoAnswer):
        fix = set_up.remedies.start("careflow-agent")
        return [
            wrong(
                "ElevenLabs",
                f"nobody answers ({answer.reason})",
                "Only cached prompts can be spoken, nothing is understood.",
                *fix,
            )
        ]
    if answer.status_code in (401, 403):
        return [
            wrong(
                "ElevenLabs",
                f"refuses the key ({answer.status_code})",
                "It is wrong, was revoked, or may not read voices. Calls fail as soon as somebody answers.",
                *(
                    _renewed(set_up, "careflow-elevenlabs-api-key")
                    or ("export CAREFLOW_ELEVENLABS_API_KEY=...",)
                ),
            )
        ]
    if not answer.is_success:
        return [
            wrong(
                "ElevenLabs",
                f"answers {answer.status_code}",
                "CAREFLOW_ELEVENLABS_URL is not its API, or it is down.",
                "unset CAREFLOW_ELEVENLABS_URL",
            )
        ]
    there = {str(one.get("voice_id")) for one in json_of(answer).get("voices", [])}
    languages = sorted({language for script in load_scripts().values() for language in script.prompts})
    found: list[Finding] = [well("ElevenLabs", f"takes the key; {len(there)} voices")]
    for language in languages:
        voice = given.elevenlabs_voices.get(language)
        if voice is None:
            found.append(
                doubtful(
                    f"voice for {language}",
                    "is not set",
                    f"Patients of language {language} cannot be spoken to in it.",
                    f"export CAREFLOW_ELEVENLABS_VOICES={_voices(given.elevenlabs_voices, language)}",
                )
            )
        elif voice not in there:
            found.append(
                wrong(
                    f"voice for {language}",
                    f"{voice} is not among the account's",
                    f"Every prompt in {language} fails.",
                    f"export CAREFLOW_ELEVENLABS_VOICES={_voices(given.elevenlabs_voices, language)}",
                )
            )
    return found


def _voices(given: Mapping[str, str], wrong_one: str) -> str:
    return ",".join(f"{language}={voice}" for language, voice in {**given, wrong_one: "VOICE_ID"}.items())


def judged_quota(document: Mapping[str, Any]) -> Sequence[Finding]:
    """The Subscription, where the key may see it."""
    try:
        used, most = int(document["character_count"]), int(document["character_limit"])
    except (KeyError, TypeError, ValueError):
        return []
    left = max(0, most - used)
    told = f"{left:,} of {most:,} characters left"
    if left < _LOW_QUOTA * most:
        return [
            doubtful(
                "ElevenLabs' quota",
                told,
                "At nothing, prompts that are not cached cannot be spoken.",
                "# raise the plan at https://elevenlabs.io",
            )
        ]
    return [well("ElevenLabs' quota", told)]


def _no_credentials(set_up: SetUp, vendor: str, setting: str, secret: str) -> Finding:
    if not set_up.cloud:
        return not_seen(
            vendor, "no account is configured, and the lab that stands in does not run: careflow up starts it"
        )
    return not_seen(
        vendor,
        "the credentials are in Secret Manager, and not in this shell",
        f"export {setting}=$(gcloud secrets versions access latest --secret={secret} --project={set_up.settings.project})",
    )


def _renewed(set_up: SetUp, secret: str) -> Sequence[str]:
    if not set_up.cloud:
        return ()
    return (
        f'read -rs TOKEN && printf %s "$TOKEN" | gcloud secrets versions add {secret}'
        f" --project={set_up.settings.project} --data-file=-",
        f"# name the new version in release (infra/vars), then {set_up.remedies.infra()}",
    )
