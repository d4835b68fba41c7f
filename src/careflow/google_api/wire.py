"""Protocol buffers' JSON form (proto3 JSON mapping): messages described as tables, read strictly, written in canonical form.

What is read is a tree: a dictionary by camelCase names whose leaves are Python values. As in proto3 a scalar at its zero value
is as good as absent and is left out; a message that is there and empty stays.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from careflow.google_api.refusals import invalid

Tree: TypeAlias = dict[str, Any]

_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s")
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_WHOLE = re.compile(r"-?\d{1,10}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field that is no message: `read` takes the JSON value and its path, and answers the Python value or refuses."""

    read: Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class OutputOnly:
    """A field that the service sets: ignored in bodies and masks."""


@dataclass(frozen=True, slots=True)
class NotImitated:
    """A field that the real service has and this one refuses to pretend: `why` says so."""

    why: str


@dataclass(frozen=True, slots=True)
class Message:
    """Fields by their camelCase names; of each group in `one_of` at most one may be set."""

    fields: Mapping[str, Node]
    one_of: tuple[frozenset[str], ...] = ()
    names: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        both = {snake(name): name for name in self.fields} | {name: name for name in self.fields}
        object.__setattr__(self, "names", both)


Node: TypeAlias = Leaf | OutputOnly | NotImitated | Message


def read(schema: Message, value: Any, path: str = "") -> Tree:
    """The tree of a JSON object. Raises Refused naming the field for what the schema does not hold or hold so."""
    if not isinstance(value, dict):
        raise invalid(path or "body", "must be a JSON object", value)
    given = {}
    for name, part in value.items():
        where = _join(path, name)
        known = schema.names.get(name)
        if known is None:
            raise invalid(where, f"no such field; the fields are {', '.join(schema.fields)}")
        if known in given:
            raise invalid(where, "given twice, in camelCase and in snake_case")
        if part is not None:  # null is absent
            given[known] = part
    for group in schema.one_of:
        chosen = sorted(group & given.keys())
        if len(chosen) > 1:
            raise invalid(
                _join(path, chosen[1]), f"set together with {chosen[0]}; at most one of them may be"
            )
    tree: Tree = {}
    for name, part in given.items():
        found = _read_field(schema.fields[name], part, _join(path, name))
        if found is not None:
            tree[name] = found
    return tree


def _read_field(node: Node, part: Any, path: str) -> Any:
    match node:
        case OutputOnly():
            return None
        case NotImitated(why):
            raise invalid(path, why)
        case Message():
            return read(node, part, path)
        case Leaf(reader):
            found = reader(part, path)
            return found if found or isinstance(found, timedelta) else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def snake(name: str) -> str:
    """The name in a .proto file of the camelCase one."""
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise invalid(path, "must be a string", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(path, "holds half a surrogate pair, which is no Unicode text") from None
    return value


def whole_number(value: Any, path: str) -> int:
    """An int32: a number, or one in a string."""
    number: int | None = None
    if isinstance(value, str):
        number = int(value) if _WHOLE.fullmatch(value) else None
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        number = int(value)
    if number is None or not -(2**31) <= number < 2**31:
        raise invalid(path, "must be a whole number of 32 bits", value)
    return number


def binary(value: Any, path: str) -> bytes:
    """Base64 in either alphabet, padded or not. A refusal does not repeat the value, which is the user's payload."""
    if not isinstance(value, str):
        raise invalid(path, "must be a string in base64")
    usual = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(usual + "=" * (-len(usual) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid(path, "is not base64") from None


def number(value: Any, path: str) -> float:
    """A double that is a number."""
    try:
        found = (
            float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        )
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise invalid(path, "must be a number", value)
    return found


def timestamp(value: Any, path: str) -> datetime:
    """RFC 3339 with a zone. What is finer than a microsecond is cut off."""
    found = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError
        day, decimals, zone = found.groups()
        return datetime.fromisoformat(f"{day}.{(decimals or '')[:6]:0<6}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(path, 'must be a time like "2026-11-23T08:00:00Z"', value) from None


def text_map(value: Any, path: str) -> dict[str, str]:
    """A map of strings. A refusal names the key and does not repeat the value, which may be a secret."""
    if not isinstance(value, dict):
        raise invalid(path, "must be an object of strings")
    for key, part in value.items():
        text(key, path)
        if not isinstance(part, str):
            raise invalid(f"{path}[{key!r}]", "must be a string")
        text(part, f"{path}[{key!r}]")
    return dict(value)


def choice(numbers: Mapping[str, int]) -> Leaf:
    """An enum, read by name or by number as the name; its zero is as good as absent."""
    names = {number: name for name, number in numbers.items()}

    def read_choice(value: Any, path: str) -> str:
        name = names.get(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(name, str) or name not in numbers:
            raise invalid(path, f"must be one of {', '.join(numbers)}", value)
        return name if numbers[name] else ""

    return Leaf(read_choice)


def duration(value: Any, path: str) -> timedelta:
    """Seconds with up to nine decimals and an "s". Refuses what is finer than a microsecond instead of changing it silently."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise invalid(path, 'must be a number of seconds like "180s" or "3.5s"', value)
    sign, seconds, decimals = found.groups()
    nanos = (decimals or "").ljust(9, "0")
    if int(seconds) > 315_576_000_000:
        raise invalid(path, "is longer than 10,000 years", value)
    if nanos[6:] != "000":
        raise invalid(path, "is finer than a microsecond, which is not kept here", value)
    span = timedelta(seconds=int(seconds), microseconds=int(nanos[:6]))
    return -span if sign else span


def duration_text(span: timedelta) -> str:
    """The canonical form: no decimals, or three, or six ("180s", "3.500s"), as the real service answers."""
    micros = span // timedelta(microseconds=1)
    sign, (seconds, rest) = ("-" if micros < 0 else ""), divmod(abs(micros), 1_000_000)
    return f"{sign}{seconds}{_decimals(rest)}s"


def timestamp_text(moment: datetime) -> str:
    """RFC 3339 in UTC with Z, and no decimals, or three, or six."""
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}{_decimals(utc.microsecond)}Z"


def binary_text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def present(**fields: Any) -> Tree:
    """Without what proto3 leaves out: scalars at zero."""
    return {name: value for name, value in fields.items() if value or isinstance(value, timedelta)}


def _decimals(micros: int) -> str:
    if micros == 0:
        return ""
    return f".{micros // 1000:03d}" if micros % 1000 == 0 else f".{micros:06d}"
