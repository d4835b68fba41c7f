"""The telephone by Twilio's REST API (reference/twilio sections 1 and 2). Never retries a create whose answer is unknown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import SecretStr

from careflow.core.attempts import Attempt
from careflow.core.hospitals import Hospitals
from careflow.errors import ProviderError
from careflow.ports import Clock, PhoneCall
from careflow.settings import Settings

_CREATES = 4  # tries of a create that Twilio says it did not process
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 10.0
_CREATE_WINDOW = timedelta(
    seconds=15
)  # after it no create is sent: settling counts on that (dialling.Limits)
_MAX_PAGES = 50
_NOT_UPDATABLE = "21220"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioAccount:
    """The account, what it is told of each call, and how long we wait for an answer (real seconds)."""

    api_url: str
    account_sid: str
    auth_token: SecretStr
    hospitals: Hospitals
    public_url: str
    ring_seconds: int = 25
    call_time_limit: int = 900
    record_calls: bool = False
    timeout_seconds: float = 10.0

    @classmethod
    def of(cls, settings: Settings) -> TwilioAccount:
        return cls(
            api_url=settings.twilio_url,
            account_sid=settings.twilio_account_sid,
            auth_token=settings.twilio_auth_token,
            hospitals=settings.served,
            public_url=settings.caller_public_url,
            ring_seconds=settings.ring_seconds,
            call_time_limit=settings.call_time_limit,
            record_calls=settings.record_calls,
        )


class TwilioPhone:
    """`ports.Phone` over httpx. `random` gives the jitter, in [0, 1). The client is the owner's to close."""

    def __init__(
        self, http: httpx.AsyncClient, account: TwilioAccount, clock: Clock, random: Callable[[], float]
    ) -> None:
        self._http = http
        self._account = account
        self._clock = clock
        self._random = random
        self._auth = httpx.BasicAuth(account.account_sid, account.auth_token.get_secret_value())
        self._calls = f"/2010-04-01/Accounts/{account.account_sid}/Calls"
        for name in ("httpx", "httpcore"):
            # Both log whole URLs, and listing calls has the patient's number in the query.
            logging.getLogger(name).setLevel(logging.WARNING)

    async def dial(self, attempt: Attempt) -> str:
        """As `ports.Phone.dial`. Only a 429, which Twilio did not process, is tried again, and never past `not_after`."""
        if attempt.hospital_id not in self._account.hospitals:
            # An attempt from before the hospital left the deployment: there is no number to phone from.
            message = f"attempt {attempt.id}: hospital {attempt.hospital_id} is not served any more"
            raise ProviderError(message, code="unknown-hospital", permanent=True)
        form = self._create_form(attempt)
        for tried in range(1, _CREATES + 1):
            if self._clock.now() >= min(attempt.not_after, attempt.intended_at + _CREATE_WINDOW):
                raise ProviderError(f"attempt {attempt.id} may not be dialled any more", code="too-late")
            answer = await self._request("POST", f"{self._calls}.json", data=form, creates=True)
            if answer.status_code != 429 or tried == _CREATES:
                break
            pause = self._backoff(answer, tried)
            if self._clock.now() + timedelta(seconds=pause) > attempt.intended_at + _CREATE_WINDOW:
                break
            await self._clock.sleep(pause)
        if answer.is_success:
            sid = _document(answer, creates=True).get("sid")
            if isinstance(sid, str) and sid:
                return sid
            raise ProviderError("Twilio's answer to a create has no sid", code="no-sid", ambiguous=True)
        raise _refusal(answer, creates=True)

    async def hang_up(self, call_sid: str) -> None:
        """As `ports.Phone.hang_up`. A 404 means that the call had just ended (reference/twilio section 1.3)."""
        for status in ("completed", "canceled"):
            answer = await self._request("POST", f"{self._calls}/{call_sid}.json", data={"Status": status})
            if answer.is_success or answer.status_code == 404:
                return
            refusal = _refusal(answer)
            if refusal.code != _NOT_UPDATABLE:
                raise refusal
        # Neither a live call nor a queued one: it is over.

    async def fetch(self, call_sid: str) -> PhoneCall | None:
        answer = await self._request("GET", f"{self._calls}/{call_sid}.json")
        if answer.status_code == 404:
            return None
        if not answer.is_success:
            raise _refusal(answer)
        return _call(_document(answer))

    async def calls_to(self, number: str) -> Sequence[PhoneCall]:
        """As `ports.Phone.calls_to`. One listing for each of our numbers: Twilio filters by one `From` at the most.

        All of them are asked for, since a hospital may have been given another number after the call was made.
        """
        calls: list[PhoneCall] = []
        for ours in sorted({hospital.from_number for hospital in self._account.hospitals}):
            calls += await self._listed({"To": number, "From": ours, "PageSize": "100"})
        return sorted(
            calls, key=lambda call: call.created_at or datetime.max.replace(tzinfo=UTC), reverse=True
        )

    async def _listed(self, query: Mapping[str, str]) -> list[PhoneCall]:
        """Every page of a list; follows `next_page_uri` (reference/twilio section 1.4)."""
        params: Mapping[str, str] | None = query
        path = f"{self._calls}.json"
        calls: list[PhoneCall] = []
        for _ in range(_MAX_PAGES):
            answer = await self._request("GET", path, params=params)
            if not answer.is_success:
                raise _refusal(answer)
            page = _document(answer)
            calls += [_call(item) for item in page.get("calls") or []]
            path = page.get("next_page_uri") or ""
            if not path:
                return calls
            params = None
        raise ProviderError(f"Twilio's list of calls has more than {_MAX_PAGES} pages", code="too-many-pages")

    def _create_form(self, attempt: Attempt) -> dict[str, str | list[str]]:
        url = f"{self._account.public_url}/twilio"
        form: dict[str, str | list[str]] = {
            "To": attempt.phone,
            "From": self._account.hospitals[attempt.hospital_id].from_number,
            "Url": f"{url}/voice/{attempt.id}",
            "Method": "POST",
            "FallbackUrl": f"{url}/resume/{attempt.id}",
            "FallbackMethod": "POST",
            "StatusCallback": f"{url}/status/{attempt.id}",
            "StatusCallbackMethod": "POST",
            "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
            "Timeout": str(self._account.ring_seconds),
            "TimeLimit": str(self._account.call_time_limit),
            "MachineDetection": "DetectMessageEnd",
            "AsyncAmd": "true",
            "AsyncAmdStatusCallback": f"{url}/amd/{attempt.id}",
            "AsyncAmdStatusCallbackMethod": "POST",
        }
        if self._account.record_calls:
            form |= {"Record": "true", "RecordingChannels": "dual"}
        return form

    def _backoff(self, answer: httpx.Response, tried: int) -> float:
        """Doubled each time, half of it by chance; or what Retry-After asks for. In seconds of the clock."""
        asked = answer.headers.get("retry-after", "")
        if asked.isdecimal():
            return min(float(asked), _LONGEST_BACKOFF_SECONDS)
        ceiling = min(_FIRST_BACKOFF_SECONDS * 2.0**tried, _LONGEST_BACKOFF_SECONDS)
        return ceiling * (0.5 + 0.5 * self._random())

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str | list[str]] | None = None,
        creates: bool = False,
    ) -> httpx.Response:
        """One request, one answer. An error after the first byte was sent leaves it open whether a create was done."""
        try:
            async with asyncio.timeout(self._account.timeout_seconds):
                return await self._http.request(
                    method, self._account.api_url + path, params=params, data=data, auth=self._auth
                )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise ProviderError("Twilio cannot be reached", code="unreachable") from _nameless(error)
        except (httpx.HTTPError, TimeoutError) as error:
            message = "Twilio's answer is missing"
            raise ProviderError(message, code="no-answer", ambiguous=creates) from _nameless(error)


def _refusal(answer: httpx.Response, *, creates: bool = False) -> ProviderError:
    """The error of a refused request. The HTTP status decides, Twilio's codes shift; its message may hold the number.

    Reads Twilio's own error document and a problem document (RFC 9457): both have `code` and `status`.
    """
    try:
        document = answer.json()
    except ValueError:
        document = {}
    code = document.get("code") if isinstance(document, dict) else None
    status = answer.status_code
    return ProviderError(
        f"Twilio answered HTTP {status}, code {code or 'none'}",
        code=str(code or status),
        permanent=400 <= status < 500 and status not in (408, 425, 429),
        ambiguous=creates and (status >= 500 or status in (408, 425) or status < 400 or str(code) == "21204"),
    )


def _document(answer: httpx.Response, *, creates: bool = False) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ProviderError("Twilio's answer is not a JSON object", code="not-json", ambiguous=creates)
    return document


def _call(document: dict[str, Any]) -> PhoneCall:
    """The Call resource (reference/twilio section 1.2): dates are RFC 2822, the duration is text and may be empty."""
    duration = str(document.get("duration") or "")
    return PhoneCall(
        sid=str(document.get("sid") or ""),
        status=str(document.get("status") or ""),
        to=str(document.get("to") or ""),
        created_at=_date(document.get("date_created")),
        answered_by=str(document.get("answered_by") or ""),
        duration_seconds=int(duration) if duration.isdecimal() else None,
    )


def _date(text: object) -> datetime | None:
    try:
        moment = parsedate_to_datetime(str(text)) if text else None
    except ValueError:
        return None
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _nameless(error: Exception) -> Exception | None:
    """The cause without its text, which may be the URL with the number in it."""
    return type(error)() if isinstance(error, TimeoutError) else RuntimeError(type(error).__name__)
