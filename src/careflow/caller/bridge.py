"""The media bridge: Twilio's media socket, one conversation per socket.

A socket is let in only with the attempt's one-time token in its `start` message (and Twilio's signature on the upgrade request);
what is said on it is `caller.conversation`'s matter. Twilio never opens a socket again by itself: what follows
when ours closes is the TwiML's `<Redirect>` (reference/twilio section 4).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from twilio.request_validator import RequestValidator

from careflow.caller.conversation import Background, Conversation, ConversationConfig
from careflow.caller.conversation_ports import SERVICE_RESTART, Desk, Talk, Watching, WireClosed
from careflow.caller.media_protocol import MediaStream, ProtocolBroken, Start
from careflow.caller.stream_pass import StreamPass
from careflow.core.attempts import Attempt
from careflow.core.dialogue import CheckpointError
from careflow.core.patients import Patient
from careflow.errors import CareflowError, StoreUnavailable
from careflow.ports import Clock, Speech, Store

PATH = "/twilio/media"
POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1
TRY_AGAIN_LATER = 1013
INTERNAL_ERROR = 1011

Talks = Callable[[Attempt, Patient], Talk]
"""The dialogue of an attempt (`caller.talks`). Raises KeyError for an unknown script, CheckpointError."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """`url` is the `wss://` URL that the TwiML names: what Twilio signs. `start_seconds` bounds the wait for the start.

    `linger_seconds` is how long calls that were handed over are still answered here.
    """

    url: str
    auth_token: str
    conversation: ConversationConfig = field(default_factory=ConversationConfig)
    start_seconds: float = 10.0
    max_malformed: int = 50
    linger_seconds: float = 1.0


class Refused(CareflowError):
    """The socket may not hold a conversation; `code` is its close code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class MediaBridge:
    """Lets sockets in and runs their conversations. `background` is work that outlives them."""

    def __init__(
        self,
        desk: Desk,
        watch: Watching,
        store: Store,
        speech: Speech,
        talks: Talks,
        clock: Clock,
        config: BridgeConfig,
    ) -> None:
        self._desk = desk
        self._watch = watch
        self._store = store
        self._speech = speech
        self._talks = talks
        self._clock = clock
        self._config = config
        self._live: dict[str, Conversation] = {}
        self._is_leaving = False
        self.background = Background()

    def route(self) -> WebSocketRoute:
        """The websocket route that Twilio's `<Connect><Stream>` connects to."""
        return WebSocketRoute(PATH, self.serve, name="media")

    async def hand_over(self) -> None:
        """Let no conversation begin here any more, and give those that run to other processes; returns when none is left.

        Nor is anything left then that they began, e.g. an alert that the store refused at first.

        Each goes on where it stands: Twilio asks `/twilio/resume` when its socket closes, of whoever is there to answer.
        """
        self._is_leaving = True
        was_busy = bool(self._live)
        while self._live:
            conversations = list(self._live.values())
            for conversation in conversations:
                conversation.hand_over()
            await asyncio.gather(*(conversation.over() for conversation in conversations))
        if was_busy:
            # Where nobody else is there to take them, Twilio asks us again, and the patients should hear an apology.
            await self._clock.sleep(self._config.linger_seconds)
        while self.background.tasks:
            await asyncio.wait(set(self.background.tasks))

    async def serve(self, websocket: WebSocket) -> None:
        """One socket, from its upgrade request to its close."""
        if not self._is_signed(websocket):
            log.warning("media socket refused", why="bad signature")
            await websocket.close(POLICY_VIOLATION)  # before accepting: the peer sees HTTP 403
            return
        await websocket.accept()
        wire = StarletteWire(websocket)
        stream = MediaStream(max_malformed=self._config.max_malformed)
        try:
            await self._admit(wire, stream)
        except Refused as refused:
            told = log.info if refused.code == SERVICE_RESTART else log.warning  # a stop is nobody's fault
            told("media socket refused", why=str(refused), call_sid=stream.call_sid)
            await wire.close(refused.code)
        except WireClosed:
            log.info("media socket closed before it started")
        else:
            await wire.close(1000)

    async def _admit(self, wire: StarletteWire, stream: MediaStream) -> None:
        start = await self._started(wire, stream)
        if self._is_leaving:
            raise Refused(SERVICE_RESTART, "this process is to stop")  # the token stays good for another one
        try:
            attempt = await self._desk.stream_started(
                start.parameters.get("attempt", ""), start.parameters.get("token", ""), start.call_sid
            )
            if attempt is None:
                raise Refused(POLICY_VIOLATION, "unknown attempt, wrong token, or over")
            # The token was a new one: Twilio gave the old stream up, though we may not have seen its socket break.
            earlier = self._live.get(attempt.id)
            if earlier is not None:
                await earlier.leave()
                latest = await self._store.attempt(attempt.id) or attempt  # with its last checkpoint
                attempt = replace(latest, stream_token=attempt.stream_token)
            await self._hold(attempt, wire, stream)
        except StoreUnavailable as error:
            raise Refused(TRY_AGAIN_LATER, "the store is unavailable") from error

    async def _hold(self, attempt: Attempt, wire: StarletteWire, stream: MediaStream) -> None:
        patient = await self._store.patient(attempt.hospital_id, attempt.patient_id)
        number = StreamPass.parse(attempt.stream_token).streams
        if patient is None:
            await self._desk.conversation_broken(attempt.id, None, stream=number)
            raise Refused(INTERNAL_ERROR, "the attempt's patient is not stored")
        try:
            talk = self._talks(attempt, patient)
        except (KeyError, ValueError, CheckpointError) as error:
            await self._desk.conversation_broken(attempt.id, None, stream=number)
            raise Refused(INTERNAL_ERROR, "the attempt's script or checkpoint is not usable") from error
        conversation = Conversation(
            attempt,
            patient.language,
            talk,
            stream,
            wire,
            desk=self._desk,
            watch=self._watch,
            speech=self._speech,
            clock=self._clock,
            config=self._config.conversation,
            background=self.background,
        )
        self._live[attempt.id] = conversation
        if self._is_leaving:
            conversation.hand_over()
        try:
            await conversation.run()
        finally:
            if self._live.get(attempt.id) is conversation:
                del self._live[attempt.id]

    async def _started(self, wire: StarletteWire, stream: MediaStream) -> Start:
        """The start message, within its time; its proof of identity is still to be checked."""
        reading = asyncio.ensure_future(self._read_start(wire, stream))
        timer = asyncio.ensure_future(self._clock.sleep(self._config.start_seconds))
        try:
            await asyncio.wait({reading, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise Refused(POLICY_VIOLATION, "no start message in time")
            return reading.result()
        except ProtocolBroken as broken:
            raise Refused(POLICY_VIOLATION, str(broken)) from broken
        finally:
            reading.cancel()
            timer.cancel()

    @staticmethod
    async def _read_start(wire: StarletteWire, stream: MediaStream) -> Start:
        while True:
            for message in stream.receive(await wire.receive()):
                if isinstance(message, Start):
                    return message

    def _is_signed(self, connection: HTTPConnection) -> bool:
        """Whether Twilio signed the upgrade: HMAC of the stream's URL, no parameters (reference/twilio section 6).

        The validator is inconsistent about ports and slashes, so every form that Twilio is known to sign is accepted.
        """
        signature = connection.headers.get("x-twilio-signature")
        if signature is None:
            return False
        signer = RequestValidator(self._config.auth_token)
        return any(
            hmac.compare_digest(str(signer.compute_signature(url, {})).encode(), signature.encode())
            for url in _signed_forms(self._config.url)
        )


def _signed_forms(url: str) -> list[str]:
    scheme, _, rest = url.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    port = {"wss": ":443", "ws": ":80"}.get(scheme, "")
    hosts = {host, host.removesuffix(port), host if ":" in host else host + port}
    return [f"{scheme}://{name}{slash}{path}{end}" for name in sorted(hosts) for end in ("", "/")]


class StarletteWire:
    """A Starlette websocket as `conversation_ports.Wire`."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> str | None:
        if self._websocket.client_state is not WebSocketState.CONNECTED:
            raise WireClosed(1006)
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WireClosed(message.get("code") or 1006)
        text: str | None = message.get("text")
        return text

    async def send(self, text: str) -> None:
        if not self._open:
            return
        try:
            await self._websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError):
            # The peer is gone; the reader sees it too and tells the conversation.
            return

    async def close(self, code: int) -> None:
        if not self._open:
            return
        try:
            await self._websocket.close(code)
        except (WebSocketDisconnect, RuntimeError, OSError):
            return

    @property
    def _open(self) -> bool:
        return (
            self._websocket.client_state is WebSocketState.CONNECTED
            and self._websocket.application_state is WebSocketState.CONNECTED
        )
