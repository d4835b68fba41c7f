"""JSON documents from outside, read in the one way that leaves nothing to interpretation (RFC 8259, RFC 7493)."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse(document: bytes) -> Any:
    """The document's value. Raises ValueError, whose words hold nothing of the document.

    Refused beside what is no JSON: any encoding but UTF-8, a byte order mark, a name twice in one object (two readers would
    read two things), NaN and Infinity, numbers of thousands of digits, and what is nested too deeply to be read at all.
    """
    try:
        return json.loads(
            document.decode("utf-8"), object_pairs_hook=_without_repetition, parse_constant=_no_number
        )
    except UnicodeDecodeError:
        raise ValueError("not in UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("not a JSON document") from None
    except _Repeated:
        raise ValueError("holds a name twice in one object") from None
    except ValueError:
        raise ValueError("holds a number that JSON does not have, or one of thousands of digits") from None


class _Repeated(ValueError):
    """A name stands twice in one object."""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Repeated
    return found


def _no_number(_name: str) -> NoReturn:
    raise ValueError
