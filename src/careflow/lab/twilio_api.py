"""Twilio's REST API for calls, their recordings and the account, as a client sees it (reference/twilio sections 1 and 2)."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from careflow.lab.books import BookedCall
from careflow.lab.config import LabConfig
from careflow.lab.exchange import Exchange
from careflow.lab.orders import parse_form, update_order
from careflow.lab.refusals import Refusal, not_found
from careflow.lab.twilio_account import account_json, balance_json, numbers_json

_ROOT = "/2010-04-01/Accounts/{account}"
_MAX_FORM = 64 * 1024  # bytes

Handler = Callable[[Request], Awaitable[Response]]


class CutOff(Response):
    """The connection breaks before the answer is whole."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"4096")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


class TwilioApi:
    """The account's resources. `routes()` is mounted at the lab's root."""

    def __init__(self, config: LabConfig, exchange: Exchange) -> None:
        self._config = config
        self._exchange = exchange
        self._faults = exchange.network.faults
        self._recordings = exchange.network.recordings

    def routes(self) -> list[Route]:
        calls, one = f"{_ROOT}/Calls.json", f"{_ROOT}/Calls/{{sid}}.json"
        return [
            Route(calls, self._guarded(self._create), methods=["POST"]),
            Route(calls, self._guarded(self._list), methods=["GET"]),
            Route(one, self._guarded(self._fetch), methods=["GET"]),
            Route(one, self._guarded(self._update), methods=["POST"]),
            Route(one, self._guarded(self._delete), methods=["DELETE"]),
            Route(
                f"{_ROOT}/Calls/{{sid}}/Recordings.json", self._guarded(self._recordings_of), methods=["GET"]
            ),
            Route(f"{_ROOT}/Recordings/{{sid}}.json", self._guarded(self._recording), methods=["GET"]),
            Route(f"{_ROOT}/Recordings/{{sid}}.wav", self._guarded(self._sound), methods=["GET"]),
            Route(f"{_ROOT}.json", self._guarded(self._account), methods=["GET"]),
            Route(f"{_ROOT}/Balance.json", self._guarded(self._balance), methods=["GET"]),
            Route(f"{_ROOT}/IncomingPhoneNumbers.json", self._guarded(self._numbers), methods=["GET"]),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        """The handler behind HTTP Basic; refusals become Twilio's error bodies."""

        async def guarded(request: Request) -> Response:
            try:
                self._authenticate(request)
                return await handler(request)
            except Refusal as refusal:
                response = refusal.response()
                if refusal.status == 401:
                    response.headers["WWW-Authenticate"] = 'Basic realm="Twilio API"'
                return response

        return guarded

    def _authenticate(self, request: Request) -> None:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True)
        except ValueError:
            given = b""
        wanted = f"{self._config.account_sid}:{self._config.auth_token}".encode()
        if scheme.lower() != "basic" or not hmac.compare_digest(given, wanted):
            raise Refusal(401, 20003, "Authenticate")
        if request.path_params["account"] != self._config.account_sid:
            raise not_found(request.url.path)

    # --- the account ---------------------------------------------------------------------------------------------

    async def _account(self, request: Request) -> Response:
        return JSONResponse(account_json(self._config))

    async def _balance(self, request: Request) -> Response:
        return JSONResponse(balance_json(self._config))

    async def _numbers(self, request: Request) -> Response:
        wanted = request.query_params.get("PhoneNumber", "")
        return JSONResponse(numbers_json(self._config, request.url.path, wanted))

    # --- calls -------------------------------------------------------------------------------------------------

    async def _create(self, request: Request) -> Response:
        if self._faults.happens("create_429"):
            return Refusal(429, 20429, "Too Many Requests").response()
        if self._faults.happens("create_500"):
            return Refusal(500, 20500, "Internal Server Error").response()
        call = self._exchange.create(parse_form(await self._body(request)))
        if self._faults.happens("lost_create_response"):
            network = self._exchange.network
            network.books.enter(call, network.clock.now(), "response-lost")
            cut = self._faults.seconds(0, 1) < 0.5
            return CutOff() if cut else Refusal(500, 20500, "Internal Server Error").response()
        return JSONResponse(self._call_json(call), status_code=201)

    async def _body(self, request: Request) -> bytes:
        """The form body. Raises Refusal when it is too long."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_FORM:
                raise Refusal(413, 20413, f"The request body has more than {_MAX_FORM} bytes")
        return body

    async def _fetch(self, request: Request) -> Response:
        return JSONResponse(self._call_json(self._exchange.call(request.path_params["sid"])))

    async def _update(self, request: Request) -> Response:
        order = update_order(parse_form(await self._body(request)))
        return JSONResponse(self._call_json(self._exchange.update(request.path_params["sid"], order)))

    async def _delete(self, request: Request) -> Response:
        self._exchange.delete(request.path_params["sid"])
        return Response(status_code=204)

    async def _list(self, request: Request) -> Response:
        """Newest first; the dates have the granularity of a UTC day (reference/twilio section 1.4)."""
        query = request.query_params
        size, page = _whole(query.get("PageSize"), "PageSize", 50, 1), _whole(query.get("Page"), "Page", 0, 0)
        size = min(size, 1000)
        filters = {
            name: query[name]
            for name in ("To", "From", "Status", "ParentCallSid", *_dated("StartTime"), *_dated("EndTime"))
            if query.get(name)
        }
        found = [
            call
            for call in reversed(self._exchange.network.books.calls.values())
            if not call.deleted and all(_matches(call, name, value) for name, value in filters.items())
        ]
        found.sort(key=lambda call: call.created_at, reverse=True)
        path = request.url.path
        shown = found[page * size : (page + 1) * size]

        def uri(number: int) -> str:
            return f"{path}?{urlencode({**filters, 'PageSize': size, 'Page': number})}"

        return JSONResponse(
            {
                "calls": [self._call_json(call) for call in shown],
                "page": page,
                "page_size": size,
                "start": page * size,
                "end": max(page * size, page * size + len(shown) - 1),
                "uri": uri(page),
                "first_page_uri": uri(0),
                "next_page_uri": uri(page + 1) if len(found) > (page + 1) * size else None,
                "previous_page_uri": uri(page - 1) if page else None,
            }
        )

    def _call_json(self, call: BookedCall) -> dict[str, Any]:
        uri = f"/2010-04-01/Accounts/{self._config.account_sid}/Calls/{call.sid}"
        dialled = call.dialled_at or (call.ended_at if call.over else None)
        queued_ms = round(((call.dialled_at or call.created_at) - call.created_at).total_seconds() * 1000)
        return {
            "sid": call.sid,
            "account_sid": self._config.account_sid,
            "parent_call_sid": None,
            "phone_number_sid": "PN" + self._config.account_sid[2:],
            "to": call.to,
            "to_formatted": call.to,
            "from": call.from_,
            "from_formatted": call.from_,
            "status": _status(call),
            "direction": "outbound-api",
            "answered_by": call.answered_by or None,
            "start_time": _rfc2822(dialled),
            "end_time": _rfc2822(call.ended_at),
            "date_created": _rfc2822(call.created_at),
            "date_updated": _rfc2822(call.updated_at),
            "duration": str(call.duration_seconds) if call.over else None,
            "queue_time": str(queued_ms),
            "price": None,
            "price_unit": "USD",
            "api_version": "2010-04-01",
            "forwarded_from": None,
            "caller_name": None,
            "group_sid": None,
            "trunk_sid": "",
            "annotation": None,
            "uri": f"{uri}.json",
            "subresource_uris": {"recordings": f"{uri}/Recordings.json"},
        }

    # --- recordings ----------------------------------------------------------------------------------------------

    async def _recordings_of(self, request: Request) -> Response:
        call = self._exchange.call(request.path_params["sid"])
        path = request.url.path
        found = [self._recording_json(call)] if _is_recorded(call) else []
        return JSONResponse(
            {
                "recordings": found,
                "page": 0,
                "page_size": 50,
                "start": 0,
                "end": 0,
                "uri": path,
                "first_page_uri": path,
                "next_page_uri": None,
                "previous_page_uri": None,
            }
        )

    async def _recording(self, request: Request) -> Response:
        return JSONResponse(self._recording_json(self._recorded_call(request)))

    async def _sound(self, request: Request) -> Response:
        return FileResponse(self.sound_of(self._recorded_call(request).sid), media_type="audio/x-wav")

    def sound_of(self, call_sid: str) -> Path:
        """The file with both sides of a known call. Raises Refusal 20404 when there is none (yet)."""
        path = self._recordings / f"{call_sid}.wav"
        if call_sid not in self._exchange.network.books.calls or not path.exists():
            raise not_found(f"/lab/recordings/{call_sid}.wav")
        return path

    def _recorded_call(self, request: Request) -> BookedCall:
        sid = request.path_params["sid"]
        call = self._exchange.network.books.calls.get("CA" + sid[2:])
        if call is None or not sid.startswith("RE") or not _is_recorded(call):
            raise not_found(request.url.path)
        return call

    def _recording_json(self, call: BookedCall) -> dict[str, Any]:
        sid = "RE" + call.sid[2:]
        uri = f"/2010-04-01/Accounts/{self._config.account_sid}/Recordings/{sid}"
        return {
            "sid": sid,
            "account_sid": self._config.account_sid,
            "call_sid": call.sid,
            "conference_sid": None,
            "status": "completed",
            "channels": 2,
            "source": "OutboundAPI",
            "duration": str(call.recorded_seconds),
            "date_created": _rfc2822(call.answered_at),
            "date_updated": _rfc2822(call.ended_at),
            "start_time": _rfc2822(call.answered_at),
            "price": None,
            "price_unit": "USD",
            "error_code": None,
            "encryption_details": None,
            "api_version": "2010-04-01",
            "uri": f"{uri}.json",
            "media_url": uri,
            "subresource_uris": {},
        }


def _status(call: BookedCall) -> str:
    # "initiated" is an event of the callbacks only; the resource calls it queued until it rings.
    return "queued" if call.status == "initiated" else call.status


def _is_recorded(call: BookedCall) -> bool:
    return ("Record", "true") in call.form and call.recorded_seconds is not None


def _rfc2822(moment: datetime | None) -> str | None:
    return format_datetime(moment.astimezone(UTC)) if moment else None


def _whole(text: str | None, name: str, default: int, lowest: int) -> int:
    if not text:
        return default
    if not text.isdecimal() or int(text) < lowest:
        raise Refusal(400, 20001, f"{name} '{text}' is not a number from {lowest}")
    return int(text)


def _dated(name: str) -> tuple[str, str, str]:
    return name, f"{name}<", f"{name}>"


def _matches(call: BookedCall, name: str, value: str) -> bool:
    match name:
        case "To":
            return call.to == value
        case "From":
            return call.from_ == value
        case "Status":
            return _status(call) == value
        case "ParentCallSid":
            return False
        case _:
            moment = call.dialled_at if name.startswith("StartTime") else call.ended_at
            return moment is not None and _on_day(moment.date(), _day(name, value), name[-1])


def _day(name: str, value: str) -> date:
    try:
        return date.fromisoformat(value[:10])
    except ValueError as error:
        raise Refusal(400, 20001, f"{name} '{value}' is not a date: YYYY-MM-DD is accepted") from error


def _on_day(moment: date, wanted: date, comparison: str) -> bool:
    if comparison == "<":
        return moment <= wanted
    return moment >= wanted if comparison == ">" else moment == wanted
