"""Serving apps on sockets of ours: what is accepted sends at once, and a slow body ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import MutableMapping
from typing import Any

import pytest

from careflow.hosting import BodyDeadline, PortInUse, listen

HTTP = {"type": "http", "method": "POST", "path": "/", "headers": []}


async def test_what_is_accepted_sends_at_once() -> None:
    """TCP_NODELAY: else an answer in two segments waits for a delayed acknowledgement, and so does every frame of speech."""
    delays: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def met(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        delays.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    bound = listen("127.0.0.1", 0, "CAREFLOW_TEST_PORT")
    async with await asyncio.start_server(met, sock=bound):
        _, writer = await asyncio.open_connection(*bound.getsockname())
        assert await delays
        writer.close()


def test_a_taken_port_names_the_setting_that_chooses_another() -> None:
    with listen("127.0.0.1", 0, "CAREFLOW_TEST_PORT") as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port} .*CAREFLOW_TEST_PORT"):
            listen("127.0.0.1", port, "CAREFLOW_TEST_PORT")


class Peer:
    """A client that sends these messages and then nothing more."""

    def __init__(self, *messages: MutableMapping[str, Any]) -> None:
        self.waiting = list(messages)
        self.got: list[Any] = []

    async def receive(self) -> MutableMapping[str, Any]:
        if not self.waiting:
            await asyncio.get_running_loop().create_future()
        return self.waiting.pop(0)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.got.append(message.get("status") or message["body"])


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers 200 with what it read; when the peer leaves, with nothing."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


def piece(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_is_the_app_s() -> None:
    peer = Peer(piece(b"a", more=True), piece(b"b", more=False))
    await BodyDeadline(reading, seconds=10)(HTTP, peer.receive, peer.send)
    assert peer.got == [200, b"ab"]


async def test_a_body_that_does_not_end_is_answered_408_once_and_the_app_is_told_that_the_peer_is_gone() -> (
    None
):
    peer = Peer(piece(b"a", more=True))
    await BodyDeadline(reading, seconds=0.01)(HTTP, peer.receive, peer.send)
    status, body = peer.got
    assert status == 408
    assert b"did not arrive in time" in body


async def test_after_the_body_an_answer_may_take_as_long_as_it_likes() -> None:
    """A stream of events waits for its peer's leaving for the whole of a telephone call."""
    told: list[str] = []

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        left = asyncio.ensure_future(receive())
        done, _ = await asyncio.wait([left], timeout=0.05)
        told.append("left" if done else "still there")
        left.cancel()

    peer = Peer(piece(b"", more=False))
    await BodyDeadline(streaming, seconds=0.01)(HTTP, peer.receive, peer.send)
    assert (told, peer.got) == (["still there"], [])
