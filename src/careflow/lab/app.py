"""The lab as one ASGI application: Twilio's API, ElevenLabs' API, and its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from random import Random

import httpx
from starlette.applications import Starlette

from careflow.lab.books import Books
from careflow.lab.config import LabConfig
from careflow.lab.exchange import Exchange
from careflow.lab.faults import FaultSource
from careflow.lab.lab_api import LabApi
from careflow.lab.live import Network
from careflow.lab.speech_routes import speech_routes
from careflow.lab.twilio_api import TwilioApi
from careflow.lab.voice import Voice
from careflow.lab.webhooks import Webhooks
from careflow.ports import Clock


@dataclass(frozen=True, slots=True)
class Lab:
    """The application, and for those in the same process the network behind it."""

    app: Starlette
    exchange: Exchange

    @property
    def live_calls(self) -> int:
        """Calls between their dialling and their last callback."""
        return len(self.exchange.live)


def create_lab(config: LabConfig, clock: Clock, client: httpx.AsyncClient | None = None) -> Lab:
    """The lab; its calls run while the application's lifespan does.

    `client` sends the webhooks and stays open; without one the lab makes its own.
    """
    folder = config.data_dir / "lab"
    recordings = folder / "recordings"
    recordings.mkdir(parents=True, exist_ok=True)
    books = Books(folder)
    faults = FaultSource(Random(f"{config.seed}:faults"))
    http = client or httpx.AsyncClient(trust_env=False, follow_redirects=False)
    new_id = _ids(config.seed, books.start(clock.now()))
    network = Network(
        account_sid=config.account_sid,
        books=books,
        clock=clock,
        webhooks=Webhooks(http, config.auth_token, new_id),
        faults=faults,
        voice=Voice(),
        recordings=recordings,
        new_id=new_id,
    )
    exchange = Exchange(config, network)
    twilio = TwilioApi(config, exchange)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await exchange.start()
        try:
            yield
        finally:
            await exchange.stop()
            if client is None:
                await http.aclose()
            books.close()

    speech = speech_routes(config, clock, faults, network.voice)
    routes = [*twilio.routes(), *LabApi(exchange, twilio).routes(), *speech]
    return Lab(Starlette(routes=routes, lifespan=lifespan), exchange)


def _ids(seed: int, start: int) -> Callable[[], str]:
    """Ids of 32 hexadecimal digits that are never given twice, also not by a later process on the same books."""
    given = 0

    def new_id() -> str:
        nonlocal given
        given += 1
        return sha256(f"{seed}:{start}:{given}".encode()).hexdigest()[:32]

    return new_id
