"""What an A2A endpoint refuses before the SDK sees it: the field is named, and nothing of what was sent is said again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from hypothesis import given
from hypothesis import strategies as st

from careflow.jsonrpc import BadRequest, check

METHODS = JsonRpcDispatcher.METHOD_TO_MODEL
SECRET = "Quintessa Exampleton"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "parts", SECRET]), inner)
    ),
    max_leaves=8,
)


def request(**changes: Any) -> bytes:
    return json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "a-1"}} | changes
    ).encode()


def message(**fields: Any) -> bytes:
    return request(
        method="SendMessage", params={"message": {"messageId": "a-1", "role": "ROLE_USER"} | fields}
    )


@pytest.mark.parametrize(
    "body",
    [request(), request(id="x"), request(id=None), request(params={"id": "a-1", "unheardOf": 1}), message()],
)
def test_a_request_of_the_protocol_passes(body: bytes) -> None:
    check(body, METHODS)


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"", -32700, "body"),
        (b'{"id": "' + SECRET.encode() + b'", "id": 2}', -32700, "body"),
        (b"[" * 50_000, -32700, "body"),
        (b'{"id": "\xff"}', -32700, "body"),
        (b"[" + request() + b"]", -32600, "body"),
        (b"null", -32600, "body"),
        (request(id=SECRET * 20), -32600, "id"),
        (request(id="a\nforged log line"), -32600, "id"),
        (request(id=True), -32600, "id"),
        (request(id=1.5), -32600, "id"),
        (request(id=[SECRET]), -32600, "id"),
        (request(id=10**400), -32600, "id"),
        (request(jsonrpc=SECRET), -32600, "jsonrpc"),
        (request(method={SECRET: 1}), -32600, "method"),
        (request(method=SECRET), -32601, "method"),
        (request(method="message/send"), -32601, "method"),  # the protocol before 1.0
        (request(params=[SECRET]), -32602, "params"),
        (request(params=None), -32602, "params"),
        (request(params={"id": [SECRET]}), -32602, "params.id"),
        (request(params={"id": "\ud800"}), -32602, "params.id"),
        (request(params={"id": "a-1", "historyLength": SECRET}), -32602, "params.historyLength"),
        (request(params={"id": "a-1", "historyLength": 2**40}), -32602, "params.historyLength"),
        (message(role={SECRET: 1}), -32602, "params.message.role"),
        (message(parts=SECRET), -32602, "params.message"),
        (message(metadata=SECRET), -32602, "params.message.metadata"),
    ],
)
def test_a_bad_request_is_refused_with_its_field_and_without_its_value(
    body: bytes, code: int, field: str
) -> None:
    with pytest.raises(BadRequest, match=rf"^{field}") as caught:
        check(body, METHODS)
    assert caught.value.code == code
    assert SECRET.split()[0] not in str(caught.value)


@given(method=st.sampled_from(sorted(METHODS)), params=JSON)
def test_whatever_the_params_hold_passes_or_is_refused_without_its_value(method: str, params: Any) -> None:
    said = ""
    try:
        check(request(method=method, params=params), METHODS)
    except BadRequest as error:
        said = str(error)
    assert SECRET not in said
