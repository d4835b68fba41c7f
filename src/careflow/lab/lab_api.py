"""The lab's own API, under `/lab`: who has which telephone, what goes wrong, and what really happened."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from careflow import strict_json
from careflow.lab.exchange import Exchange
from careflow.lab.faults import BadFaults, Faults
from careflow.lab.personas import BadSubscriber, Subscriber
from careflow.lab.refusals import Refusal
from careflow.lab.twilio_api import TwilioApi


class LabApi:
    """Open to anybody on the machine, as the lab listens on the loopback only and knows no real patient."""

    def __init__(self, exchange: Exchange, twilio: TwilioApi) -> None:
        self._exchange = exchange
        self._twilio = twilio

    def routes(self) -> list[Route]:
        return [
            Route("/lab/health", self._health, methods=["GET"]),
            Route("/lab/subscribers", self._put_subscribers, methods=["PUT"]),
            Route("/lab/subscribers", self._subscribers, methods=["GET"]),
            Route("/lab/calls", self._calls, methods=["GET"]),
            Route("/lab/calls/{sid}", self._call, methods=["GET"]),
            Route("/lab/recordings/{sid}.wav", self._recording, methods=["GET"]),
            Route("/lab/faults", self._put_faults, methods=["PUT"]),
            Route("/lab/faults", self._faults, methods=["GET"]),
            Route("/lab/live", self._live, methods=["GET"]),
        ]

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _put_subscribers(self, request: Request) -> Response:
        try:
            document = strict_json.parse(await request.body())
            if not isinstance(document, list):
                raise BadSubscriber("the body must be a JSON list of subscribers")
            subscribers = []
            for place, item in enumerate(document):
                try:
                    subscribers.append(Subscriber.from_json(item))
                except BadSubscriber as error:
                    raise BadSubscriber(f"[{place}]: {error}") from error
        except (BadSubscriber, ValueError) as error:
            return _bad(error)
        self._exchange.set_subscribers(subscribers)
        return JSONResponse({"subscribers": len(subscribers)})

    async def _subscribers(self, request: Request) -> Response:
        return JSONResponse([subscriber.to_json() for subscriber in self._exchange.subscribers.values()])

    async def _calls(self, request: Request) -> Response:
        """Every call that was ever asked for, oldest first, and the requests that were refused."""
        books = self._exchange.network.books
        return JSONResponse(
            {"calls": [call.to_json() for call in books.calls.values()], "refused": books.refused}
        )

    async def _call(self, request: Request) -> Response:
        call = self._exchange.network.books.calls.get(request.path_params["sid"])
        return JSONResponse(call.to_json()) if call else JSONResponse({"error": "no such call"}, 404)

    async def _recording(self, request: Request) -> Response:
        try:
            path = self._twilio.sound_of(request.path_params["sid"])
        except Refusal as refusal:
            return refusal.response()
        return FileResponse(path, media_type="audio/wav")

    async def _put_faults(self, request: Request) -> Response:
        try:
            faults = Faults.from_json(strict_json.parse(await request.body()))
        except (BadFaults, ValueError) as error:
            return _bad(error)
        self._exchange.set_faults(faults)
        return JSONResponse(faults.to_json())

    async def _faults(self, request: Request) -> Response:
        return JSONResponse(self._exchange.network.faults.chances.to_json())

    async def _live(self, request: Request) -> Response:
        """How many calls are between dialling and their last callback, and how many wait to be dialled."""
        calls = self._exchange.network.books.calls.values()
        queued = sum(call.status == "queued" for call in calls)
        return JSONResponse({"live": len(self._exchange.live), "queued": queued})


def _bad(error: Exception) -> JSONResponse:
    words = str(error) if isinstance(error, BadSubscriber | BadFaults) else f"body: {error}; JSON is accepted"
    return JSONResponse({"error": words}, 400)
