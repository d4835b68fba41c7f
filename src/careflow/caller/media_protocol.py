"""Twilio's Media Streams protocol without any I/O (vendor page "Media Streams - WebSocket Messages").

`MediaStream` is fed the text frames of one socket and answers typed messages, audio in its right order; the `*_frame`
functions build the only three messages that Twilio accepts from us. Nothing behind this file knows Twilio's JSON.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from careflow.errors import CareflowError

FRAME_MS = 20
MAX_FRAME_CHARS = 64 * 1024  # far above the 300 characters of a real one


class BadFrame(CareflowError):
    """A frame is not one of Twilio's messages. It is ignored and counted."""


class ProtocolBroken(CareflowError):
    """The peer does not speak the protocol; the socket is to be closed."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The first message: nothing is known yet."""


@dataclass(frozen=True, slots=True)
class Start:
    """The stream's identity and the TwiML's `<Parameter>` values."""

    stream_sid: str
    call_sid: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Media:
    """One frame of the patient's audio: raw mu-law, 8 kHz, mono. `timestamp_ms` counts from the stream's start."""

    chunk: int
    timestamp_ms: int
    audio: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """A key was pressed: 0-9, * or #."""

    digit: str


@dataclass(frozen=True, slots=True)
class MarkBack:
    """Our mark returned: what we sent before it was played, or cleared."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The stream or the call ended. Not guaranteed to come."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed message of a kind we have no use for."""


Message = Connected | Start | Media | Key | MarkBack | Stop | Unknown


def parse(text: str) -> tuple[Message, str]:
    """The message and the `streamSid` it names ("" for `connected`). Raises BadFrame.

    Error messages name the field but never quote its content: audio and digits are the patient's.
    """
    if len(text) > MAX_FRAME_CHARS:
        raise BadFrame(f"a frame of {len(text)} characters; at most {MAX_FRAME_CHARS} are accepted")
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFrame("not JSON") from error
    if not isinstance(frame, dict):
        raise BadFrame("not a JSON object")
    event = frame.get("event")
    if event == "media":  # first: it is 99 % of all frames
        media = _object(frame, "media")
        if media.get("track", "inbound") != "inbound":
            return Unknown(), _text(frame, "streamSid")
        return (
            Media(_count(media, "chunk"), _count(media, "timestamp"), _audio(media)),
            _text(frame, "streamSid"),
        )
    if event == "connected":
        return Connected(), ""
    stream_sid = _text(frame, "streamSid")
    match event:
        case "start":
            return _start(_object(frame, "start"), stream_sid), stream_sid
        case "dtmf":
            digit = _text(_object(frame, "dtmf"), "digit")
            if len(digit) != 1 or digit not in "0123456789*#":
                raise BadFrame("dtmf.digit is not one of 0-9, * and #")
            return Key(digit), stream_sid
        case "mark":
            return MarkBack(_text(_object(frame, "mark"), "name")), stream_sid
        case "stop":
            return Stop(), stream_sid
        case str():
            return Unknown(), stream_sid
        case _:
            raise BadFrame("event is missing or not a string")


def _start(start: dict[str, Any], stream_sid: str) -> Start:
    form = _object(start, "mediaFormat")
    wanted = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    for name, value in wanted.items():
        if form.get(name) != value:
            raise BadFrame(f"start.mediaFormat.{name} is not {value}")
    parameters = start.get("customParameters", {})
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise BadFrame("start.customParameters is not an object of strings")
    return Start(stream_sid, _text(start, "callSid"), parameters)


def _object(frame: dict[str, Any], name: str) -> dict[str, Any]:
    value = frame.get(name)
    if not isinstance(value, dict):
        raise BadFrame(f"{name} is missing or not an object")
    return value


def _text(frame: dict[str, Any], name: str) -> str:
    value = frame.get(name)
    if not isinstance(value, str) or not value:
        raise BadFrame(f"{name} is missing or not a string")
    return value


def _count(frame: dict[str, Any], name: str) -> int:
    value = frame.get(name)
    if not isinstance(value, str) or not value.isdecimal() or len(value) > 15:
        raise BadFrame(f"media.{name} is not a decimal number in a string")
    return int(value)


def _audio(media: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(_text(media, "payload"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadFrame("media.payload is not base64") from error


@dataclass(slots=True)
class FrameCounts:
    """What became of the inbound frames of one stream."""

    audio: int = 0
    lost: int = 0  # frames that never came
    duplicate: int = 0  # came again; dropped
    late: int = 0  # came too late to take their place; dropped
    reordered: int = 0  # came out of order, put right
    malformed: int = 0


class FrameOrder:
    """Puts audio frames into the order of `media.chunk`.

    A frame after a gap is held back until the missing ones come or `patience` frames wait; then the gap is counted
    as lost. Frames normally arrive in order, so normally nothing waits.
    """

    def __init__(self, counts: FrameCounts, *, patience: int = 5) -> None:
        self._counts = counts
        self._patience = patience
        self._next: int | None = None
        self._waiting: dict[int, Media] = {}
        self._lost: deque[int] = deque(maxlen=64)

    def put(self, media: Media) -> Sequence[Media]:
        """The frames that can go on now, in order."""
        if self._next is None:
            self._next = media.chunk
        if media.chunk == self._next and not self._waiting:
            self._next += 1
            return (media,)
        if media.chunk < self._next:
            if media.chunk in self._lost:
                self._counts.late += 1
            else:
                self._counts.duplicate += 1
            return ()
        if media.chunk in self._waiting:
            self._counts.duplicate += 1
            return ()
        if self._waiting and media.chunk < max(self._waiting):
            self._counts.reordered += 1
        self._waiting[media.chunk] = media
        if self._next not in self._waiting and len(self._waiting) >= self._patience:
            first = min(self._waiting)
            self._counts.lost += first - self._next
            self._lost.extend(range(max(self._next, first - 64), first))
            self._next = first
        return self._run()

    def _run(self) -> list[Media]:
        ready = []
        assert self._next is not None
        while (media := self._waiting.pop(self._next, None)) is not None:
            ready.append(media)
            self._next += 1
        return ready


@dataclass(slots=True)
class MediaStream:
    """The protocol of one socket: `connected`, then `start` once, then everything else, all of one `streamSid`.

    `receive` never raises for a single bad frame: it counts it. `max_malformed` of them end the patience.
    """

    max_malformed: int = 50
    counts: FrameCounts = field(default_factory=FrameCounts)
    stream_sid: str = ""
    call_sid: str = ""
    _order: FrameOrder = field(init=False)

    def __post_init__(self) -> None:
        self._order = FrameOrder(self.counts)

    def receive(self, text: str | None) -> Sequence[Message]:
        """What the frame brings, in order; empty when nothing. None stands for a binary frame, which Twilio never sends.

        Raises ProtocolBroken after too many malformed frames or when the start does not come first.
        """
        if text is None:
            return self._malformed()
        try:
            message, stream_sid = parse(text)
        except BadFrame:
            return self._malformed()
        if isinstance(message, Connected):
            return () if self.stream_sid else (message,)
        if not self.stream_sid:
            if not isinstance(message, Start):
                raise ProtocolBroken("a message came before the start")
            self.stream_sid, self.call_sid = stream_sid, message.call_sid
            return (message,)
        if stream_sid != self.stream_sid or isinstance(message, Start):
            return self._malformed()
        if isinstance(message, Media):
            self.counts.audio += 1
            return self._order.put(message)
        return () if isinstance(message, Unknown) else (message,)

    def _malformed(self) -> tuple[()]:
        self.counts.malformed += 1
        if self.counts.malformed > self.max_malformed:
            raise ProtocolBroken(f"more than {self.max_malformed} malformed frames")
        return ()


def media_frame(stream_sid: str, audio: bytes) -> str:
    """Audio to be queued and played: raw mu-law, of any length below 48 KB."""
    payload = base64.b64encode(audio).decode("ascii")
    return f'{{"event":"media","streamSid":{json.dumps(stream_sid)},"media":{{"payload":"{payload}"}}}}'


def mark_frame(stream_sid: str, name: str) -> str:
    """A mark that returns when everything sent before it was played or cleared."""
    return json.dumps({"event": "mark", "streamSid": stream_sid, "mark": {"name": name}})


def clear_frame(stream_sid: str) -> str:
    """Drop everything that is queued for playing; the marks in it return at once."""
    return json.dumps({"event": "clear", "streamSid": stream_sid})
