"""A bridge on a real websocket at a hospital with a store, for a telephone that plays on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bridge_kit import MORNING, QUESTIONS, FakeDesk, FakeSpeech, Questionnaire, Telephone
from careflow.caller.bridge import BridgeConfig, MediaBridge
from careflow.clock import Pace, VirtualClock
from careflow.core.patients import Patient

PATIENT = Patient(id="p1", hospital_id="h1", given_name="Ada", family_name="Example", time_zone="UTC")
PUBLIC_URL, AUTH_TOKEN = "wss://caller.example/twilio/media", "auth-token"
SIGNATURE = RequestValidator(AUTH_TOKEN).compute_signature(PUBLIC_URL, {})
FIRST, SECOND = QUESTIONS


class Shelf:
    """The one patient, and the attempt as the desk has it."""

    def __init__(self, desk: FakeDesk) -> None:
        self._desk = desk

    async def patient(self, hospital_id: str, patient_id: str) -> Patient | None:
        return PATIENT if (hospital_id, patient_id) == ("h1", "p1") else None

    async def attempt(self, attempt_id: str) -> object:
        return self._desk.stored


class Hospital:
    """The bridge in a server on a free port, with everything that it talks to."""

    def __init__(self) -> None:
        self.clock = VirtualClock(MORNING)
        self.trace: list[object] = []
        self.desk = FakeDesk(self.clock, self.trace)
        self.speech = FakeSpeech(self.clock)
        self.talks: list[Questionnaire] = []
        self.config = BridgeConfig(url=PUBLIC_URL, auth_token=AUTH_TOKEN)
        self.port = 0
        self.bridge: MediaBridge | None = None
        self.server: uvicorn.Server | None = None
        self.phone: Telephone | None = None

    def talk(self, attempt: Any, patient: Patient) -> Questionnaire:
        self.talks.append(Questionnaire(self.trace, attempt.checkpoint))
        return self.talks[-1]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Hospital]:
        store: Any = Shelf(self.desk)
        self.bridge = MediaBridge(
            self.desk, self.desk, store, self.speech, self.talk, self.clock, self.config
        )
        route = self.bridge.route()
        self.server = uvicorn.Server(
            uvicorn.Config(Starlette(routes=[route]), port=0, log_level="error", lifespan="off")
        )
        tasks = [
            asyncio.create_task(self.server.serve()),
            asyncio.create_task(self.clock.run(lambda: Pace(speed=60, step=0.1))),
        ]
        try:
            while not self.server.started:
                await asyncio.sleep(0.005)
            self.port = self.server.servers[0].sockets[0].getsockname()[1]
            yield self
        finally:
            self.server.should_exit = True
            await tasks[0]
            tasks[1].cancel()

    def socket(self, signature: str | None = SIGNATURE) -> connect:
        signed = {"x-twilio-signature": signature} if signature else {}
        return connect(
            f"ws://127.0.0.1:{self.port}/twilio/media", compression=None, additional_headers=signed
        )

    @contextlib.asynccontextmanager
    async def call(self, **parameters: str) -> AsyncIterator[Telephone]:
        """A call with a patient at the telephone."""
        async with self.socket() as socket:
            phone = self.phone = Telephone(self.clock, socket.send, self.trace)
            await phone.connect(**parameters)
            tasks = [asyncio.create_task(phone.live()), asyncio.create_task(self._hear(socket, phone))]
            try:
                yield phone
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _hear(socket: ClientConnection, phone: Telephone) -> None:
        async for message in socket:
            assert isinstance(message, str), "Twilio accepts text frames only"
            phone.take(message)

    async def until(self, true: Callable[[], object], *, seconds: float = 90) -> None:
        """Wait in virtual time; fails when it never becomes true."""
        for _ in range(int(seconds / 0.05)):
            if true():
                return
            await self.clock.sleep(0.05)
        raise AssertionError(f"it never happened; the trace ends with {self.trace[-12:]}")

    async def ended(self) -> object:
        await self.until(lambda: self.desk.ends)
        return self.desk.ends[0]


async def refused_with(socket: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.wait_for(socket.recv(), 5)
    return socket.close_code
