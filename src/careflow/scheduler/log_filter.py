"""The part of Cloud Logging's query language that a runbook and infra/monitoring use: comparisons of fields, joined by AND.

Regular expressions, OR, NOT and searches without a field are refused by name rather than answered wrongly. As there, comparisons
of strings do not mind upper and lower case, and one with a field that an entry has not is false.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from careflow.google_api.refusals import Refused, invalid

Entry: TypeAlias = Mapping[str, Any]
"""A LogEntry in JSON form."""

SEVERITIES = {
    "DEFAULT": 0,
    "DEBUG": 100,
    "INFO": 200,
    "NOTICE": 300,
    "WARNING": 400,
    "ERROR": 500,
    "CRITICAL": 600,
    "ALERT": 700,
    "EMERGENCY": 800,
}

_LONGEST = 20_000  # characters; Cloud Logging's own limit
_PIECE = re.compile(
    r"""\s+
    | (?P<open>\() | (?P<close>\))
    | (?P<op>=~|!~|>=|<=|!=|=|:|>|<)
    | (?P<quoted>"(?:[^"\\]|\\.)*")
    | (?P<dot>\.)
    | (?P<word>[^\s()"=:<>!]+)""",
    re.VERBOSE,
)
_WORDS = ("AND", "OR", "NOT")
_NAMES = re.compile(r"[A-Za-z_@$][\w@$/-]*(\.[A-Za-z_@$][\w@$/-]*)*\.?")
_ORDERED: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`path op value`; `value` is as it was written, without its quotes. The op `:*` asks only whether the field is there."""

    path: tuple[str, ...]
    op: str
    value: str

    def holds(self, entry: Entry) -> bool:
        found: Any = entry
        for name in self.path:
            found = found.get(name) if isinstance(found, Mapping) else None
        if found is None:
            return False
        if self.op == ":*":
            return True
        if self.op == ":":
            return self.value.casefold() in str(found).casefold()
        ours, theirs = self._comparable(found)
        return ours is not None and theirs is not None and _ORDERED[self.op](ours, theirs)

    def _comparable(self, found: Any) -> tuple[Any, Any]:
        """Both sides in one type; None for a side that is not of it."""
        if self.path == ("severity",):
            return SEVERITIES.get(str(found)), _severity(self.value)
        if self.path[-1] == "timestamp":
            return _moment(str(found)), _moment(self.value)
        if isinstance(found, bool):
            return str(found).casefold(), self.value.casefold()
        if isinstance(found, int | float):
            return found, _number(self.value)
        return str(found).casefold(), self.value.casefold()


def parse(text: str) -> Sequence[Comparison]:
    """All of these must hold; none for an empty filter. Raises Refused naming what is not understood."""
    if len(text) > _LONGEST:
        raise invalid("filter", f"is longer than {_LONGEST} characters")
    reader = _Reader(text)
    found: list[Comparison] = []
    while not reader.at_end:
        if found and reader.take("word", "AND"):
            if reader.at_end:
                raise invalid("filter", "ends where a comparison was to follow AND")
        elif reader.take("open"):
            reader.depth += 1
        elif found and reader.depth and reader.take("close"):
            reader.depth -= 1
        else:
            found.append(reader.comparison())
    if reader.depth:
        raise invalid("filter", "lacks a closing parenthesis")
    return found


class _Reader:
    """A filter's pieces, taken one after the other."""

    def __init__(self, text: str) -> None:
        self._pieces = _pieces(text)
        self._at = 0
        self.depth = 0  # parentheses that are open

    @property
    def at_end(self) -> bool:
        return self._at == len(self._pieces)

    def take(self, kind: str, piece: str = "") -> str | None:
        """The next piece if it is of this kind (and is this one), else None."""
        if self.at_end or self._pieces[self._at][0] != kind or (piece and self._pieces[self._at][1] != piece):
            return None
        self._at += 1
        return self._pieces[self._at - 1][1]

    def comparison(self) -> Comparison:
        start = self._at
        path = self._path()
        op = self.take("op")
        follows = self.take("word") if op is None else op
        if follows in ("OR", "NOT", "=~", "!~"):
            raise _unsupported(follows)
        if op is None or not path:
            raise invalid(
                "filter",
                "a search without a field is not imitated; accepted is FIELD OPERATOR VALUE",
                self._pieces[start][1],
            )
        quoted = self.take("quoted")
        value = self.take("word") if quoted is None else _unquoted(quoted)
        if value is None or (quoted is None and value in _WORDS):
            raise invalid("filter", f"no value stands behind {'.'.join(path)}{op}")
        if (op, quoted, value) == (":", None, "*"):
            op = ":*"
        comparison = Comparison(tuple(path), op, value)
        _check(comparison)
        return comparison

    def _path(self) -> list[str]:
        """The names of a field and of those that it is within, any of them in quotes."""
        path: list[str] = []
        more = True
        while more:
            quoted, word = self.take("quoted"), None
            if quoted is not None:
                path.append(_unquoted(quoted))
            else:
                word = self.take("word")
                if word is None:
                    break
                if word in _WORDS or word.startswith("-"):
                    raise _unsupported(word)
                if not _NAMES.fullmatch(word):
                    raise invalid("filter", "is not the name of a field", word)
                path += word.removesuffix(".").split(".")
            more = self.take("dot") is not None or (word is not None and word.endswith("."))
        return path


def _pieces(text: str) -> list[tuple[str, str]]:
    pieces, at = [], 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise invalid("filter", "is not understood from here on", text[at:])
        if match.lastgroup:
            pieces.append((match.lastgroup, match[0]))
        at = match.end()
    return pieces


def _check(comparison: Comparison) -> None:
    """A value that its field can never have is a mistake, and not an empty answer."""
    if comparison.op in (":", ":*"):
        return
    if comparison.path == ("severity",) and _severity(comparison.value) is None:
        raise invalid("filter", f"a severity is one of {', '.join(SEVERITIES)}", comparison.value)
    if comparison.path == ("timestamp",) and _moment(comparison.value) is None:
        raise invalid("filter", 'a timestamp is like "2026-11-23T13:15:00Z"', comparison.value)


def _unsupported(word: str) -> Refused:
    return invalid(
        "filter", "is not imitated; accepted are comparisons (= != : > >= < <=) joined by AND", word
    )


def _unquoted(piece: str) -> str:
    return re.sub(r"\\(.)", r"\1", piece[1:-1])


def _severity(value: str) -> int | None:
    return int(value) if value.isdecimal() and len(value) < 5 else SEVERITIES.get(value.upper())


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _moment(value: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
