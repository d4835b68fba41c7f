"""The lab's end of one media stream: Twilio is the websocket client (reference/twilio section 5).

`StreamProtocol` is the pure part: frames and keys in, messages out; messages of our server in, playback out.
`MediaStream` owns the socket. Audio is written by string formatting, 50 times a second and call: the lab's hottest path.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from careflow.errors import CareflowError
from careflow.lab.faults import FaultSource
from careflow.lab.mulaw import SILENCE
from careflow.lab.playback import Playback
from careflow.lab.twiml import Stream

_SILENCE_BASE64 = b64encode(SILENCE).decode()
_CONNECTED = '{"event":"connected","protocol":"Call","version":"1.0.0"}'
_FRAME_MS = 20
_CONNECT_SECONDS = 5.0  # real: the other side's patience does not depend on the lab's clock
_MAX_UNSENT = 256 * 1024  # bytes that our server has not read before audio is discarded (31930)

# The only events accepted, with exactly these fields (reference/twilio section 5.2).
_FIELDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "media": (frozenset({"event", "streamSid", "media"}), frozenset({"payload"})),
    "mark": (frozenset({"event", "streamSid", "mark"}), frozenset({"name"})),
    "clear": (frozenset({"event", "streamSid"}), frozenset()),
}

Warn = Callable[[int, str], None]


class StreamFailed(CareflowError):
    """The stream could not be opened; `code` is Twilio's for the debugger."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class StreamProtocol:
    """The messages of one stream, without the socket. `warn(code, text)` gets each kind of warning once per stream."""

    def __init__(
        self, *, account_sid: str, call_sid: str, stream_sid: str, playback: Playback, warn: Warn
    ) -> None:
        self.outbox: list[str] = []  # to be sent, in order
        self.rejected = 0  # messages of our server that were ignored
        self._ids = (account_sid, call_sid, stream_sid)
        self._playback = playback
        self._warn = warn
        self._warned: set[int] = set()
        self._sequence = 0
        self._chunk = 0

    def start(self, parameters: tuple[tuple[str, str], ...]) -> None:
        account_sid, call_sid, stream_sid = self._ids
        self.outbox.append(_CONNECTED)
        self._add(
            "start",
            {
                "streamSid": stream_sid,
                "accountSid": account_sid,
                "callSid": call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": dict(parameters),
            },
        )

    def frame(self, audio: bytes, *, lost: bool = False) -> None:
        """20 ms from the patient. A lost one uses up its numbers, as a gap in the network does."""
        self._sequence += 1
        self._chunk += 1
        if lost:
            return
        payload = _SILENCE_BASE64 if audio == SILENCE else b64encode(audio).decode()
        self.outbox.append(
            f'{{"event":"media","sequenceNumber":"{self._sequence}","streamSid":"{self._ids[2]}","media":{{"track":"inbound",'
            f'"chunk":"{self._chunk}","timestamp":"{self._chunk * _FRAME_MS}","payload":"{payload}"}}}}'
        )

    def key(self, digit: str) -> None:
        self._add("dtmf", {"track": "inbound_track", "digit": digit})

    def marks(self, names: list[str]) -> None:
        """These marks were reached, or cleared."""
        for name in names:
            self._add("mark", {"name": name})

    def stop(self) -> None:
        self._add("stop", {"accountSid": self._ids[0], "callSid": self._ids[1]})

    def receive(self, message: str | bytes) -> None:
        """One message of our server's; a bad one is ignored and warned of (31950, 31951)."""
        if isinstance(message, bytes):
            self._reject(31950, "a binary message: text is accepted")
            return
        try:
            document = json.loads(message)
        except (ValueError, RecursionError):
            self._reject(31951, "a message that is not JSON")
            return
        event = document.get("event") if isinstance(document, dict) else None
        if not isinstance(event, str) or event not in _FIELDS:
            self._reject(31951, f"an unknown event: {', '.join(_FIELDS)} are accepted")
            return
        outer, inner = _FIELDS[event]
        body: Any = document.get(event, {})
        if document.keys() != outer or not isinstance(body, dict) or body.keys() != inner:
            self._reject(31951, f"{event}: a field is missing or unexpected")
        elif document["streamSid"] != self._ids[2]:
            self._reject(31951, f"{event}: the streamSid of another stream")
        elif event == "media":
            self._play(body["payload"])
        elif event == "clear":
            self.marks(self._playback.clear())
        elif isinstance(body["name"], str):
            self.marks(self._playback.mark(body["name"]))
        else:
            self._reject(31951, "mark: the name is not a text")

    def warn_once(self, code: int, text: str) -> None:
        if code not in self._warned:
            self._warned.add(code)
            self._warn(code, text)

    def _play(self, payload: object) -> None:
        try:
            if not isinstance(payload, str):
                raise TypeError
            self._playback.push(b64decode(payload, validate=True))
        except (TypeError, Base64Error):
            self._reject(31951, "media: the payload is not base64")

    def _reject(self, code: int, text: str) -> None:
        self.rejected += 1
        self.warn_once(code, text)

    def _add(self, event: str, body: dict[str, Any]) -> None:
        self._sequence += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            "streamSid": self._ids[2],
            event: body,
        }
        self.outbox.append(json.dumps(message, separators=(",", ":")))


class MediaStream:
    """An open stream. `closed` is set when it is over, whoever ended it."""

    def __init__(
        self, socket: ClientConnection, protocol: StreamProtocol, playback: Playback, faults: FaultSource
    ) -> None:
        self.closed = asyncio.Event()
        self._socket = socket
        self._protocol = protocol
        self._playback = playback
        self._faults = faults
        self._frames_held = 0  # frames for which everything is held back still
        self._frame = 0
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def open(
        cls,
        stream: Stream,
        protocol: StreamProtocol,
        playback: Playback,
        faults: FaultSource,
        signature: str,
    ) -> MediaStream:
        """Connect and send `connected` and `start`. Raises StreamFailed (31920 for another answer than 101, 31910 for none)."""
        if "?" in stream.url:
            raise StreamFailed("the url of <Stream> has a query string, which is not supported", 31920)
        try:
            socket = await connect(
                stream.url,
                additional_headers={"X-Twilio-Signature": signature},
                compression=None,
                ping_interval=None,
                open_timeout=_CONNECT_SECONDS,
                close_timeout=1.0,
                proxy=None,
                user_agent_header="Twilio.TmeWs/1.0",
            )
        except InvalidHandshake as error:
            raise StreamFailed(
                f"the upgrade was not answered with 101: {type(error).__name__}", 31920
            ) from error
        except (OSError, TimeoutError, InvalidURI) as error:
            raise StreamFailed(f"no connection: {type(error).__name__}", 31910) from error
        opened = cls(socket, protocol, playback, faults)
        protocol.start(stream.parameters)
        await opened.flush()
        return opened

    def frame(self, audio: bytes) -> None:
        """Queue 20 ms from the patient; `flush` sends it."""
        if self._frame % 50 == 0 and self._faults.happens("late_media"):
            self._frames_held = round(self._faults.seconds(0.5, 2.0) * 50)
        self._frame += 1
        self._frames_held = max(0, self._frames_held - 1)
        self._protocol.frame(audio, lost=self._faults.happens("dropped_frame"))

    def key(self, digit: str) -> None:
        self._protocol.key(digit)

    def marks(self, names: list[str]) -> None:
        self._protocol.marks(names)

    async def flush(self) -> None:
        """Send what is due. When our server does not read, audio is discarded (31930) instead of waiting for it."""
        outbox = self._protocol.outbox
        if not outbox or self._frames_held or self.closed.is_set():
            return
        self._protocol.outbox = []
        if self._socket.transport.get_write_buffer_size() > _MAX_UNSENT:
            self._protocol.warn_once(31930, "the server reads too slowly: audio was discarded")
            self._protocol.outbox = [message for message in outbox if '"event":"media"' not in message]
            return
        try:
            for message in outbox:
                await self._socket.send(message)
        except ConnectionClosed:
            self.closed.set()

    async def end(self) -> None:
        """Say `stop`, close the socket, and wait until it is closed. Does nothing when it is over."""
        if not self.closed.is_set():
            if self._faults.happens("missing_stop"):
                self._socket.transport.abort()
            else:
                self._frames_held = 0
                self._protocol.stop()
                await self.flush()
                await self._socket.close()
        self._reader.cancel()
        self.closed.set()

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                self._protocol.receive(message)
        except ConnectionClosed:
            pass
        finally:
            # What was not played yet belongs to the stream and ends with it.
            self._playback.clear()
            self.closed.set()
