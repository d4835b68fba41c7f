"""JSON at the border: one reading or none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from careflow.strict_json import parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_every_document_of_the_standard_is_read_as_it_was_written(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_in_words_of_ours(document: bytes) -> None:
    said = ""
    try:
        parse(document)
    except ValueError as error:
        said = str(error)
    assert said in {
        "",
        "not in UTF-8",
        "not a JSON document",
        "holds a number that JSON does not have, or one of thousands of digits",
    }


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b'{"patient": 1, "patient": 2}', "twice"),
        (b'[{"a": {"b": 1, "b": 1}}]', "twice"),
        (b'{"a": 1, "\\u0061": 2}', "twice"),  # one name in two spellings
        (b"[NaN]", "number"),
        (b"-Infinity", "number"),
        (b"9" * 5000, "number"),
        (b"[" * 50_000, "deep"),
        (b'{"a":' * 50_000, "deep"),
        (b'"\xff"', "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "JSON document"),  # RFC 8259 section 8.1: no byte order mark
        (b'{"a": 1} {}', "JSON document"),
        (b"", "JSON document"),
    ],
)
def test_what_can_be_read_two_ways_is_refused(document: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse(document)
    assert "patient" not in str(caught.value)
