"""Twilio's media messages: what is taken, what is refused, and the order that comes out (reference/twilio section 5)."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from careflow.caller.media_protocol import (
    BadFrame,
    Connected,
    Key,
    MarkBack,
    Media,
    MediaStream,
    ProtocolBroken,
    Start,
    Stop,
    Unknown,
    clear_frame,
    mark_frame,
    media_frame,
    parse,
)

SID = "MZ1"


def media(number: object, *, audio: bytes = b"\xff" * 160, **changes: object) -> dict[str, Any]:
    body = {
        "track": "inbound",
        "chunk": str(number),
        "timestamp": "20",
        "payload": base64.b64encode(audio).decode(),
    }
    return {"event": "media", "sequenceNumber": "3", "streamSid": SID, "media": {**body, **changes}}


def start(**changes: object) -> dict[str, Any]:
    body = {
        "streamSid": SID,
        "accountSid": "AC1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "t"},
    }
    return {"event": "start", "sequenceNumber": "1", "streamSid": SID, "start": {**body, **changes}}


def started(**limits: int) -> MediaStream:
    stream = MediaStream(**limits)
    stream.receive(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
    stream.receive(json.dumps(start()))
    return stream


def chunks(stream: MediaStream, *numbers: int) -> list[int]:
    out: list[int] = []
    for number in numbers:
        out += [m.chunk for m in stream.receive(json.dumps(media(number))) if isinstance(m, Media)]
    return out


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"event": "connected", "protocol": "Call", "version": "1.0.0"}, Connected()),
        (start(), Start(SID, "CA1", {"token": "t"})),
        (media(7, audio=b"abc"), Media(7, 20, b"abc")),
        (media(7, track="outbound"), Unknown()),
        ({"event": "dtmf", "streamSid": SID, "dtmf": {"track": "inbound_track", "digit": "#"}}, Key("#")),
        ({"event": "mark", "streamSid": SID, "mark": {"name": "q1"}}, MarkBack("q1")),
        ({"event": "stop", "streamSid": SID, "stop": {"callSid": "CA1"}}, Stop()),
        ({"event": "new-kind", "streamSid": SID}, Unknown()),
    ],
)
def test_each_message_of_twilio_is_understood(frame: dict[str, Any], message: object) -> None:
    assert parse(json.dumps(frame))[0] == message


@pytest.mark.parametrize(
    "frame",
    [
        [],
        "media",
        {"streamSid": SID},
        {"event": 7, "streamSid": SID},
        {"event": "mark", "streamSid": SID},
        {"event": "mark", "mark": {"name": "q"}},
        {"event": "dtmf", "streamSid": SID, "dtmf": {"digit": "12"}},
        {"event": "dtmf", "streamSid": SID, "dtmf": {"digit": "x"}},
        media(7, chunk=7),
        media(7, chunk="-1"),
        media(7, timestamp="soon"),
        media(7, payload="%%%"),
        media(7, payload=""),
        start(mediaFormat={"encoding": "audio/l16", "sampleRate": 8000, "channels": 1}),
        start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}),
        start(customParameters={"token": 1}),
        start(callSid=None),
    ],
)
def test_anything_else_is_a_bad_frame(frame: object) -> None:
    with pytest.raises(BadFrame):
        parse(json.dumps(frame))


@given(st.text(max_size=200))
def test_no_text_at_all_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(BadFrame):
        parse(text)


@pytest.mark.parametrize(
    "text", ["{", "[" * 60_000, "x" * 70_000, json.dumps(media(1, audio=b"\0" * 60_000))]
)
def test_broken_and_oversized_frames_are_bad_frames(text: str) -> None:
    with pytest.raises(BadFrame):
        parse(text)


def test_an_error_message_does_not_quote_what_was_said() -> None:
    with pytest.raises(BadFrame) as caught:
        parse(json.dumps({"event": "dtmf", "streamSid": SID, "dtmf": {"digit": "secret"}}))
    assert "secret" not in str(caught.value)


def test_frames_in_order_pass_at_once() -> None:
    assert chunks(started(), 1, 2, 3) == [1, 2, 3]


def test_a_frame_that_overtook_another_waits_for_it() -> None:
    stream = started()
    assert chunks(stream, 1, 3) == [1]
    assert chunks(stream, 2) == [2, 3]
    assert stream.counts.lost == 0


def test_a_repeated_frame_is_dropped_and_counted() -> None:
    stream = started()
    assert chunks(stream, 1, 2, 2, 1, 3) == [1, 2, 3]
    assert stream.counts.duplicate == 2


def test_a_lost_frame_is_waited_for_only_a_little_and_counted() -> None:
    stream = started()
    assert chunks(stream, 1, 4, 5, 6, 7) == [1]
    assert chunks(stream, 8) == [4, 5, 6, 7, 8]
    assert stream.counts.lost == 2
    assert chunks(stream, 3, 9) == [9]
    assert stream.counts.late == 1


@given(st.permutations(range(1, 5)), st.lists(st.integers(1, 4), max_size=4))
def test_any_short_disorder_comes_out_in_order_without_repeats(order: list[int], again: list[int]) -> None:
    stream = started()
    assert chunks(stream, 0, *order, *again, 5) == [0, 1, 2, 3, 4, 5]


def test_a_message_before_the_start_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolBroken):
        MediaStream().receive(json.dumps(media(1)))


def test_frames_of_another_stream_and_a_second_start_are_ignored_and_counted() -> None:
    stream = started()
    other = {**media(1), "streamSid": "MZ2"}
    assert not stream.receive(json.dumps(other))
    assert not stream.receive(json.dumps(start()))
    assert stream.counts.malformed == 2


def test_bad_frames_are_ignored_until_there_are_too_many() -> None:
    stream = started(max_malformed=3)
    for text in ("{", None, "[]"):
        assert not stream.receive(text)
    assert chunks(stream, 1) == [1]
    with pytest.raises(ProtocolBroken):
        stream.receive("{")


def test_what_we_send_has_exactly_the_fields_that_twilio_accepts() -> None:
    assert json.loads(media_frame(SID, b"ab")) == {
        "event": "media",
        "streamSid": SID,
        "media": {"payload": "YWI="},
    }
    assert json.loads(mark_frame(SID, "m")) == {"event": "mark", "streamSid": SID, "mark": {"name": "m"}}
    assert json.loads(clear_frame(SID)) == {"event": "clear", "streamSid": SID}
