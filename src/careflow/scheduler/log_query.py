"""Cloud Logging v2's entries:list, as far as `gcloud logging read` needs it (reference/cloud-scheduler section 11)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from careflow.google_api import wire
from careflow.google_api.refusals import invalid
from careflow.google_api.wire import Leaf, Message
from careflow.scheduler import log_filter
from careflow.scheduler.log_filter import Entry

LogSource: TypeAlias = Callable[[str, int], Awaitable[Sequence[Entry]]]
"""Given a project id and a number: so many of its latest LogEntry objects, in JSON form, with `timestamp` and `insertId`."""

PAGE = 1000
_USUAL_PAGE = 50
_FIRST_LOOK = 1000
_MOST = 100_000  # entries of one project that are searched, the latest
_ORDERS = ("timestamp asc", "timestamp desc")


def _texts(value: Any, path: str) -> list[str]:
    if not isinstance(value, list):
        raise invalid(path, "must be a list of strings", value)
    return [wire.text(part, path) for part in value]


_REQUEST = Message(
    {
        "resourceNames": Leaf(_texts),
        "projectIds": Leaf(_texts),
        "filter": Leaf(wire.text),
        "orderBy": Leaf(wire.text),
        "pageSize": Leaf(wire.whole_number),
        "pageToken": Leaf(wire.text),
    }
)


async def list_entries(sources: Sequence[LogSource], body: Any) -> dict[str, Any]:
    """The answer to a ListLogEntriesRequest: `entries`, and `nextPageToken` while there are more. Raises Refused."""
    asked = wire.read(_REQUEST, body)
    order = asked.get("orderBy", _ORDERS[0])
    if order not in _ORDERS:
        raise invalid("orderBy", f"must be one of {', '.join(_ORDERS)}", order)
    size = asked.get("pageSize", _USUAL_PAGE)
    if size < 0:
        raise invalid("pageSize", f"must be 1 to {PAGE}; more is cut to that", size)
    comparisons = log_filter.parse(asked.get("filter", ""))
    descending = order == _ORDERS[1]
    mark = _token_read(asked["pageToken"]) if "pageToken" in asked else None
    size = min(size, PAGE)

    def fits(entry: Entry) -> bool:
        position = _position(entry)
        passed = mark is not None and (position >= mark if descending else position <= mark)
        return not passed and all(comparison.holds(entry) for comparison in comparisons)

    found: list[Entry] = []
    for project in _projects(asked):
        for source in sources:
            found += await _search(source, project, fits, size if descending else _MOST)
    found.sort(key=_position, reverse=descending)
    page = found[:size]
    shown: dict[str, Any] = {"entries": page} if page else {}
    if len(found) > len(page):
        shown["nextPageToken"] = _token_for(page[-1])
    return shown


async def _search(
    source: LogSource, project: str, fits: Callable[[Entry], bool], wanted: int
) -> Sequence[Entry]:
    """What fits among the latest entries, looking further back until there is more than `wanted` or nothing left."""
    look = _FIRST_LOOK
    while True:
        entries = await source(project, look)
        found = [entry for entry in entries if fits(entry)]
        if len(found) > wanted or len(entries) < look or look >= _MOST:
            return found
        look *= 10


def _projects(asked: wire.Tree) -> list[str]:
    names = asked.get("resourceNames", []) + [
        f"projects/{project}" for project in asked.get("projectIds", [])
    ]
    if not names:
        raise invalid("resourceNames", 'must name at least one project, like "projects/careflow-local"')
    for name in names:
        if not name.startswith("projects/") or name.count("/") != 1:
            raise invalid("resourceNames", 'only projects have logs here: "projects/<PROJECT_ID>"', name)
    return [name.removeprefix("projects/") for name in dict.fromkeys(names)]


def _position(entry: Entry) -> tuple[str, str]:
    """Where an entry stands in time. With the Z, whole seconds would come after their fractions."""
    return str(entry["timestamp"]).removesuffix("Z"), str(entry.get("insertId", ""))


def _token_for(entry: Entry) -> str:
    return base64.urlsafe_b64encode(json.dumps(_position(entry)).encode()).decode("ascii")


def _token_read(token: str) -> tuple[str, str]:
    try:
        moment, insert_id = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        moment = insert_id = None
    if not isinstance(moment, str) or not isinstance(insert_id, str):
        raise invalid("pageToken", "must be a token that this list answered")
    return moment, insert_id
