"""The doors of a served deployment, knocked at over the wire: which bodies are taken and how the others are refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from doors import SECRET, door, error_of
from surface import CALL_TASK, CLOSE_TASK, DOORS, GET_TASK, TRIGGER, Door, Surface, deployed

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Surface]:
    async with deployed(tmp_path_factory.mktemp("surface") / "data", body_seconds=0.3) as surface:
        yield surface


class TestBodies:
    """Design section 7: 400 with the field named, 413, 415, and never the value again."""

    @pytest.mark.parametrize(
        ("path", "change", "field"),
        [
            ("/", {"scheduleHour": 7}, "scheduleHour"),
            ("/", {"scheduleHour": "8"}, "scheduleHour"),
            ("/", {"scheduleHour": 8.0}, "scheduleHour"),
            ("/", {"scheduleHour": True}, "scheduleHour"),
            ("/", {"scheduleHour": 10**400}, "scheduleHour"),
            ("/", {"scheduleHour": -(2**63)}, "scheduleHour"),
            ("/", {"scheduleHour": None}, "scheduleHour"),
            ("/", {"scheduleHour": [8]}, "scheduleHour"),
            ("/", {"timezone": "Europe/Atlantis"}, "timezone"),
            ("/", {"timezone": "America"}, "timezone"),  # a folder of zones
            ("/", {"timezone": "../../etc/passwd"}, "timezone"),
            ("/", {"timezone": SECRET}, "timezone"),
            ("/", {"timezone": "America/New_York\x00"}, "timezone"),
            ("/", {"triggerType": SECRET}, "triggerType"),
            ("/", {"source": SECRET}, "source"),
            ("/", {"source": "x\n2026 forged log line"}, "source"),
            ("/", {"environment": "prod"}, "environment"),
            ("/", {"environment": SECRET}, "environment"),
            ("/", {"hospitalId": SECRET}, "hospitalId"),
            ("/", {"hospitalId": {"$ne": None}}, "hospitalId"),
            ("/", {"patientName": "x"}, "patientName"),
            ("/", {SECRET: "x"}, "(unprintable)"),
            ("/tasks/call", {"callId": SECRET}, "callId"),
            ("/tasks/call", {"callId": "' OR 1=1 --"}, "callId"),
            ("/tasks/call", {"roundId": SECRET}, "roundId"),
            ("/tasks/call", {"hospitalId": 1}, "hospitalId"),
            ("/tasks/call", {"force": True}, "force"),
            ("/tasks/close", {"roundId": "x" * 5000}, "roundId"),
            ("/tasks/close", {"hospitalId": None}, "hospitalId"),
        ],
    )
    async def test_a_wrong_field_is_named(
        self, here: Surface, path: str, change: dict[str, Any], field: str
    ) -> None:
        good = {"/": TRIGGER, "/tasks/call": CALL_TASK, "/tasks/close": CLOSE_TASK}[path]
        answer = await here.enter(door("pulse", path), json=good | change)
        error = error_of(answer)
        assert (answer.status_code, error["field"]) == (400, field)
        assert error["message"].startswith(f"{field}: ")

    @pytest.mark.parametrize("path", ["/", "/tasks/call", "/tasks/close"])
    @pytest.mark.parametrize(
        ("body", "word"),
        [
            (b"", "JSON"),
            (b"scheduleHour=8", "JSON"),
            (b"{'scheduleHour': 8}", "JSON"),
            (b'{"scheduleHour": 8,}', "JSON"),
            (b"[]", "array"),
            (b'"x"', "string"),
            (b"null", "null"),
            (b'{"scheduleHour": NaN}', "number"),
            (b'{"scheduleHour": -Infinity}', "number"),
            (b'{"scheduleHour": ' + b"9" * 9000 + b"}", "number"),
            (b'{"scheduleHour": 8, "scheduleHour": 12}', "twice"),
            (b"[" * 16_000, "deep"),
            (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "deep"),
            (b'{"source": "\xff\xfe"}', "UTF-8"),
            (json.dumps(TRIGGER).encode("utf-16"), "UTF-8"),
            (b"\xef\xbb\xbf" + json.dumps(TRIGGER).encode(), "JSON"),
        ],
    )
    async def test_what_is_no_json_object_is_refused(
        self, here: Surface, path: str, body: bytes, word: str
    ) -> None:
        answer = await here.enter(door("pulse", path), content=body, headers=JSON)
        error = error_of(answer)
        assert answer.status_code == 400
        assert error["message"].startswith("body: ")
        assert word in error["message"]

    @pytest.mark.parametrize("where", [one for one in DOORS if one.method == "POST"], ids=str)
    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/octet-stream", "multipart/form-data", "application/jsonp", ""]
    )
    async def test_another_content_type_is_415(self, here: Surface, where: Door, kind: str) -> None:
        answer = await here.enter(where, content=json.dumps(where.body), headers={"Content-Type": kind})
        assert answer.status_code == 415
        assert "application/json" in error_of(answer)["message"]

    @pytest.mark.parametrize("where", [one for one in DOORS if one.method == "POST"], ids=str)
    @pytest.mark.parametrize("is_chunked", [False, True])
    async def test_a_body_that_is_too_large_is_413_declared_or_not(
        self, here: Surface, where: Door, is_chunked: bool
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 1000

        content = pieces() if is_chunked else b" " * 100_000
        answer = await here.enter(where, content=content, headers=JSON)
        assert answer.status_code == 413
        assert "at most" in error_of(answer)["message"]

    @pytest.mark.parametrize("where", [one for one in DOORS if one.method == "POST"], ids=str)
    async def test_a_chunked_body_without_a_length_is_read_like_any_other(
        self, here: Surface, where: Door
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for letter in json.dumps(where.body).encode():
                yield bytes([letter])

        assert (await here.enter(where, content=pieces(), headers=JSON)).status_code == where.status

    @pytest.mark.parametrize("where", [one for one in DOORS if one.method == "POST"], ids=str)
    async def test_a_body_that_trickles_in_is_408_and_the_connection_is_given_up(
        self, here: Surface, where: Door
    ) -> None:
        reader, writer = await asyncio.open_connection(*_address(here.url(where.role)))
        token = here.token(where.role, where.account)
        head = f"POST {where.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        writer.write((head + "Content-Type: application/json\r\nContent-Length: 200\r\n\r\n{").encode())
        answer = await asyncio.wait_for(reader.read(), 10)  # to the end of the connection
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive in time" in answer

    async def test_a_body_that_breaks_off_harms_nobody(self, here: Surface) -> None:
        for where in (one for one in DOORS if one.method == "POST"):
            reader, writer = await asyncio.open_connection(*_address(here.url(where.role)))
            token = here.token(where.role, where.account)
            head = f"POST {where.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            writer.write((head + "Content-Type: application/json\r\nContent-Length: 200\r\n\r\n{").encode())
            await writer.drain()
            writer.close()
            assert b" 200 " not in await reader.read()
            assert (await here.enter(where)).status_code == where.status

    @pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\n\n", b"GET\r\n\r\n"])
    async def test_what_is_no_http_is_refused(self, here: Surface, garbage: bytes) -> None:
        for role in ("pulse", "caller"):
            reader, writer = await asyncio.open_connection(*_address(here.url(role)))
            writer.write(garbage)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"Traceback" not in answer

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"{", -32700),
            (b"\xff", -32700),
            (b"[" * 10_000, -32700),
            (b'{"jsonrpc": "2.0", "id": 1, "id": 2}', -32700),
            (b"[]", -32600),
            (json.dumps(GET_TASK | {"jsonrpc": "1.0"}).encode(), -32600),
            (json.dumps(GET_TASK | {"id": [SECRET]}).encode(), -32600),
            (json.dumps(GET_TASK | {"method": SECRET}).encode(), -32601),
            (json.dumps(GET_TASK | {"params": {"id": {SECRET: SECRET}}}).encode(), -32602),
            (json.dumps(GET_TASK | {"params": {"id": "x", "historyLength": SECRET}}).encode(), -32602),
        ],
    )
    @pytest.mark.parametrize("where", [door("caller", "/"), door("pulse", "/a2a")], ids=str)
    async def test_a_malformed_a2a_request_is_told_in_json_rpc(
        self, here: Surface, where: Door, body: bytes, code: int
    ) -> None:
        answer = await here.enter(where, content=body, headers=JSON)
        assert (answer.status_code, error_of(answer)["code"]) == (200, code)

    @pytest.mark.parametrize("role", ["pulse", "caller"])
    async def test_an_odd_path_is_not_found(self, here: Surface, role: str) -> None:
        for path in (
            "/rounds/%00",
            "/rounds/%ff",
            "/rounds/" + "x" * 9000,
            "/rounds/a%2Fb",
            "//",
            "/rounds/../",
        ):
            token = here.token(role, "scheduler_account")
            answer = await here.http.get(here.url(role) + path, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code in (400, 404, 405)
            error_of(answer)


def _address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)
