"""Records to documents and back: JSON-ready objects with camelCase keys, the same in every store."""

from __future__ import annotations

import base64
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Any, Generic, TypeVar

from pydantic.alias_generators import to_camel

from careflow.core.attempts import Attempt
from careflow.core.calls import Call
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient, RosterRevision
from careflow.core.rounds import Execution, Round

T = TypeVar("T")
Convert = Callable[[Any], Any]
Converters = tuple[Convert | None, Convert | None]


@dataclass(frozen=True, slots=True)
class Forms:
    """How values are written and read, where stores differ: by type, and tuples of (text, value) pairs, whose order counts."""

    plain: Mapping[Any, Converters]
    pairs: Converters


class Codec(Generic[T]):
    """Turns records of one frozen dataclass into documents and back.

    In the usual form, JSON, instants become RFC 3339 text in UTC, times and dates ISO 8601 text, durations microseconds,
    bytes base64 text, enums their value, sets sorted lists, mappings and tuples of (text, value) pairs an object. A key that
    a document lacks takes the field's default, so that fields can be added; a key that the record lacks is ignored, so that
    fields can be dropped.
    """

    def __init__(self, kind: type[T], forms: Forms | None = None) -> None:
        self.kind = kind
        forms = forms or JSON
        hints = typing.get_type_hints(kind)
        self._fields = [
            (item.name, to_camel(item.name), *_converters(hints[item.name], forms))
            for item in fields(kind)  # type: ignore[arg-type]
        ]
        self._required = {
            to_camel(item.name)
            for item in fields(kind)  # type: ignore[arg-type]
            if item.default is MISSING and item.default_factory is MISSING
        }

    def to_document(self, record: T) -> dict[str, Any]:
        """The record as an object that `json.dumps` takes. Raises ValueError for an instant without a zone."""
        document = {}
        for name, key, encode, _ in self._fields:
            value = getattr(record, name)
            document[key] = value if encode is None or value is None else encode(value)
        return document

    def from_document(self, document: dict[str, Any]) -> T:
        """The record of a document. Raises ValueError naming the keys that it lacks."""
        values = {}
        for name, key, _, decode in self._fields:
            if key in document:
                value = document[key]
                values[name] = value if decode is None or value is None else decode(value)
        try:
            return self.kind(**values)
        except TypeError as error:
            missing = ", ".join(sorted(self._required - document.keys()))
            raise ValueError(f"{self.kind.__name__} document lacks {missing}") from error

    def dumps(self, record: T) -> str:
        """The document as compact JSON."""
        return json.dumps(self.to_document(record), ensure_ascii=False, separators=(",", ":"))

    def loads(self, text: str) -> T:
        """The record of `dumps`' text."""
        return self.from_document(json.loads(text))


def _instant(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("an instant must be an aware datetime")
    return value.astimezone(UTC).isoformat()


_MICROSECOND = timedelta(microseconds=1)
_PLAIN: dict[Any, Converters] = {
    str: (None, None),
    int: (None, None),
    float: (None, None),
    bool: (None, None),
    datetime: (_instant, datetime.fromisoformat),
    date: (date.isoformat, date.fromisoformat),
    time: (time.isoformat, time.fromisoformat),
    timedelta: (lambda value: value // _MICROSECOND, lambda count: count * _MICROSECOND),
    bytes: (lambda value: base64.b64encode(value).decode(), base64.b64decode),
}


JSON = Forms(_PLAIN, (dict, lambda pairs: tuple(pairs.items())))


def _converters(hint: Any, forms: Forms) -> Converters:
    """How a value of this type is written and read; None where the document has it as it is. None itself never gets here."""
    if hint in forms.plain:
        return forms.plain[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _converters(inner, forms)
    if origin is Mapping:
        return dict, dict
    if origin is frozenset:
        encode, decode = _each(arguments[0], forms)
        return lambda values: sorted(encode(values)), lambda values: frozenset(decode(values))
    if origin is tuple and arguments[1:] == (...,):
        if typing.get_origin(arguments[0]) is tuple:
            return forms.pairs
        encode, decode = _each(arguments[0], forms)
        return encode, lambda values: tuple(decode(values))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda value: value.value, hint
    if is_dataclass(hint):
        codec = Codec(typing.cast(type[Any], hint), forms)
        return codec.to_document, codec.from_document
    raise TypeError(f"no document form for {hint}")


def _each(hint: Any, forms: Forms) -> tuple[Convert, Convert]:
    encode, decode = _converters(hint, forms)
    return (
        list if encode is None else lambda values: [encode(value) for value in values],
        list if decode is None else lambda values: [decode(value) for value in values],
    )


PATIENT = Codec(Patient)
DO_NOT_CALL = Codec(DoNotCall)
ROUND = Codec(Round)
EXECUTION = Codec(Execution)
CALL = Codec(Call)
ATTEMPT = Codec(Attempt)
CHECK_IN = Codec(CheckIn)
INTERACTION = Codec(Interaction)
ALERT = Codec(Alert)
ROSTER_REVISION = Codec(RosterRevision)

CODEC_OF: Mapping[type[Any], Codec[Any]] = {
    codec.kind: codec
    for codec in (
        *(PATIENT, DO_NOT_CALL, ROSTER_REVISION, ROUND, EXECUTION, CALL),
        *(ATTEMPT, CHECK_IN, INTERACTION, ALERT),
    )
}
