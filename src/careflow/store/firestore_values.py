"""Documents to Firestore's values and back (google.firestore.v1 Value), on the plain protobuf messages.

Google's client has a conversion of its own (`_helpers`, which is private). It makes a wrapper object for every value: writing a
call takes it 84 us where this takes 14, reading one 40 where this takes 17 (10,000 calls). For a round of 10,000 that is
more than all else that storing its calls takes. A test holds the two to the same messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.cloud.firestore_v1.types import Value
from google.protobuf.struct_pb2 import NULL_VALUE

_Value = Value.pb()


def write_fields(target: Any, document: Mapping[str, Any]) -> None:
    """Put every key of the document into a message's map of values."""
    for key, value in document.items():
        _write(target[key], value)


def read_fields(source: Any) -> dict[str, Any]:
    """The document of a message's map of values."""
    return {key: _read(value) for key, value in source.items()}


def value_of(value: Any) -> Any:
    """One value as a message."""
    target = _Value()
    _write(target, value)
    return target


def _write(target: Any, value: Any) -> None:
    if value is None:
        target.null_value = NULL_VALUE
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):  # before int, which it is as well
        target.boolean_value = value
    elif isinstance(value, int):
        target.integer_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, datetime):
        target.timestamp_value.FromDatetime(value)
    elif isinstance(value, Mapping):
        target.map_value.SetInParent()
        write_fields(target.map_value.fields, value)
    elif isinstance(value, (list, tuple)):
        target.array_value.SetInParent()
        for item in value:
            _write(target.array_value.values.add(), item)
    else:
        raise TypeError(f"no Firestore value for {type(value).__name__}")


def _read(value: Any) -> Any:
    match value.WhichOneof("value_type"):
        case "null_value" | None:
            return None
        case "timestamp_value":
            return value.timestamp_value.ToDatetime(tzinfo=UTC)
        case "map_value":
            return read_fields(value.map_value.fields)
        case "array_value":
            return [_read(item) for item in value.array_value.values]
        case plain:
            return getattr(value, plain)
