"""What the lab's tests share: a lab and our server on loopback ports, and a clock that runs fast."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from careflow.clock import Pace, VirtualClock
from careflow.lab.app import create_lab
from careflow.lab.config import LabConfig
from careflow.lab.personas import Persona, Subscriber
from careflow.lab.voice import Ear, Voice

ACCOUNT = "AC" + "0" * 32
TOKEN = "lab-token"
FROM = "+12125550100"
TO = "+12125550123"
MORNING = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


@asynccontextmanager
async def served(*apps: ASGIApp) -> AsyncIterator[list[str]]:
    """The apps' base URLs on free loopback ports."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in apps]
    servers = [
        uvicorn.Server(
            uvicorn.Config(
                app, log_level="critical", ws="websockets-sansio", lifespan="on", timeout_graceful_shutdown=1
            )
        )
        for app in apps
    ]
    pairs = zip(servers, listeners, strict=True)
    serving = asyncio.gather(*(server.serve([listener]) for server, listener in pairs))
    try:
        while not all(server.started for server in servers):
            await asyncio.sleep(0.002)
            assert not serving.done(), serving
        yield [f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    finally:
        for server in servers:
            server.should_exit = True
        await serving


Talk = Callable[["Line"], Any]


@dataclass
class Line:
    """Our end of a media stream: say something and hear what comes back."""

    socket: WebSocket
    messages: list[dict[str, Any]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    keys: str = ""
    marks: list[str] = field(default_factory=list)
    stream_sid: str = ""
    started: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    ear: Ear = field(default_factory=Ear)
    complete: list[bool] = field(default_factory=list)

    async def send(self, **message: object) -> None:
        await self.socket.send_text(json.dumps(message))

    async def say(self, text: str, mark: str) -> None:
        """Send the spoken text and its mark."""
        await self.audio(Voice().speak(text))
        await self.send(event="mark", streamSid=self.stream_sid, mark={"name": mark})

    async def ask(self, text: str, mark: str) -> None:
        """Say it and wait for an answer."""
        before = len(self.heard) + len(self.keys)
        await self.say(text, mark)
        await self.until(lambda: len(self.heard) + len(self.keys) > before)

    async def audio(self, audio: bytes) -> None:
        for at in range(0, len(audio), 1600):
            payload = base64.b64encode(audio[at : at + 1600]).decode()
            await self.send(event="media", streamSid=self.stream_sid, media={"payload": payload})

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.news:
            await asyncio.wait_for(self.news.wait_for(lambda: condition() or self.stopped), 10)

    async def read(self) -> None:
        try:
            while True:
                message = json.loads(await self.socket.receive_text())
                self.messages.append(message)
                match message["event"]:
                    case "start":
                        self.stream_sid, self.started = message["streamSid"], message["start"]
                    case "media":
                        self.ear.feed(base64.b64decode(message["media"]["payload"]))
                        for utterance in self.ear.take():
                            self.heard.append(utterance.text)
                            self.complete.append(utterance.complete)
                    case "dtmf":
                        self.keys += message["dtmf"]["digit"]
                    case "mark":
                        self.marks.append(message["mark"]["name"])
                async with self.news:
                    self.news.notify_all()
        except WebSocketDisconnect:
            self.stopped = True
            async with self.news:
                self.news.notify_all()


class Agent:
    """Our server: answers webhooks, records them, and holds the conversation that a test gives it."""

    def __init__(self, talk: Talk | None = None) -> None:
        self.talk = talk
        self.url = ""
        self.posts: list[
            tuple[str, dict[str, str], str, str]
        ] = []  # path, form, signature, idempotency token
        self.lines: list[Line] = []
        self.twiml: dict[str, str] = {}  # path -> document
        self.statuses: dict[str, list[int]] = {}  # path -> what is answered first
        self.upgrade_signatures: list[str] = []
        self.failures: list[BaseException] = []
        self.app = Starlette(
            routes=[
                Route("/{path:path}", self._post, methods=["POST", "GET"]),
                WebSocketRoute("/{path:path}", self._stream),
            ]
        )

    @property
    def stream(self) -> str:
        return (
            f'<Response><Connect><Stream url="{self.url.replace("http", "ws")}/media">'
            '<Parameter name="attempt" value="a-1"/></Stream></Connect></Response>'
        )

    def events(self) -> list[dict[str, str]]:
        return [form for path, form, _, _ in self.posts if path.startswith("/status")]

    async def _post(self, request: Request) -> Response:
        form = dict(httpx.QueryParams((await request.body()).decode()))
        path = request.url.path
        headers = request.headers
        self.posts.append(
            (path, form, headers.get("x-twilio-signature", ""), headers.get("i-twilio-idempotency-token", ""))
        )
        waiting = self.statuses.get(path)
        status = waiting.pop(0) if waiting else 200
        if path.startswith("/voice"):
            document = self.twiml.get(path, self.stream)
            return Response(document, status, media_type="text/xml")
        return PlainTextResponse("", status)

    async def _stream(self, socket: WebSocket) -> None:
        self.upgrade_signatures.append(socket.headers.get("x-twilio-signature", ""))
        await socket.accept()
        line = Line(socket)
        self.lines.append(line)
        reading = asyncio.ensure_future(line.read())
        await line.until(lambda: bool(line.stream_sid))
        try:
            if self.talk is not None:
                await self.talk(line)
            else:
                await reading
        except (WebSocketDisconnect, RuntimeError):
            pass
        except Exception as error:  # noqa: BLE001  a test reads it
            self.failures.append(error)
        reading.cancel()
        if not line.stopped:
            await socket.close()


@dataclass
class Bench:
    clock: VirtualClock
    lab: str
    agent: Agent
    http: httpx.AsyncClient
    exchange: Any

    @property
    def calls_url(self) -> str:
        return f"{self.lab}/2010-04-01/Accounts/{ACCOUNT}/Calls.json"

    async def dial(self, to: str = TO, **changes: Any) -> str:
        """Create a call as the Caller does; its SID."""
        return str((await self.create(to, **changes)).json()["sid"])

    async def create(self, to: str = TO, **changes: Any) -> httpx.Response:
        form: dict[str, Any] = {
            "To": to,
            "From": FROM,
            "Url": f"{self.agent.url}/voice/a-1",
            "StatusCallback": f"{self.agent.url}/status/a-1",
            "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
            "Timeout": "25",
            "TimeLimit": "600",
        } | changes
        form = {name: value for name, value in form.items() if value is not None}
        return await self.http.post(self.calls_url, data=form, auth=(ACCOUNT, TOKEN))

    async def over(self, sid: str) -> dict[str, Any]:
        """The books on the call when it has ended and everything was told."""
        async with asyncio.timeout(20):
            while True:
                call = self.exchange.network.books.calls[sid]
                if call.over and sid not in self.exchange.live:
                    if self.agent.failures:
                        raise self.agent.failures[0]
                    return dict((await self.http.get(f"{self.lab}/lab/calls/{sid}")).json())
                await asyncio.sleep(0.005)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def subscribe(self, *subscribers: Subscriber) -> None:
        answer = await self.http.put(
            f"{self.lab}/lab/subscribers", json=[one.to_json() for one in subscribers]
        )
        assert answer.status_code == 200, answer.text

    async def faults(self, **chances: float) -> None:
        assert (await self.http.put(f"{self.lab}/lab/faults", json=chances)).status_code == 200


def someone(persona: Persona = Persona.WELL, phone: str = TO, **changes: Any) -> Subscriber:
    return Subscriber(phone=phone, persona=persona, given_name="Maria", birth_year=1948, **changes)


@asynccontextmanager
async def bench(
    folder: Path,
    *subscribers: Subscriber,
    talk: Talk | None = None,
    speed: float = 200.0,
    **changes: Any,
) -> AsyncIterator[Bench]:
    """A running lab with these subscribers, and our server with this conversation."""
    clock = VirtualClock(MORNING)
    running = asyncio.ensure_future(clock.run(lambda: Pace(speed, 0.2)))
    agent = Agent(talk)
    settings: dict[str, Any] = {
        "data_dir": folder,
        "account_sid": ACCOUNT,
        "auth_token": TOKEN,
        "elevenlabs_api_key": "lab-key",
        "from_numbers": frozenset([FROM]),
        "seed": 7,
    } | changes
    try:
        # Not verifying saves the tests the reading of the system's certificates; nothing here speaks TLS.
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            lab = create_lab(LabConfig(**settings), clock, http)
            async with served(agent.app, lab.app) as urls:
                agent.url, url = urls
                ready = Bench(clock, url, agent, http, lab.exchange)
                if subscribers:
                    await ready.subscribe(*subscribers)
                yield ready
    finally:
        running.cancel()


async def ask_all(line: Line, prompts: Sequence[str]) -> None:
    """Say each prompt and wait for an answer; then the goodbye."""
    for place, prompt in enumerate(prompts):
        await line.ask(prompt, f"q{place}")
        if line.stopped:
            return
    await line.say("Thank you. Goodbye.", "bye")
    await line.until(lambda: "bye" in line.marks)
