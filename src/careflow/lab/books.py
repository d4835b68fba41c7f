"""The lab's books: what was really asked, dialled, heard and said. Append-only, so that they outlive any kill.

Every change of a call is an entry, written with one system call before anything that follows from it happens; the calls are
the entries applied in order. A killed process therefore leaves complete books, except perhaps a torn last line, which is cut.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from careflow.errors import CareflowError

FINAL = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})

# Reference twilio section 3. A call may skip what the network never told us.
MOVES: dict[str, frozenset[str]] = {
    "queued": frozenset({"initiated", "canceled", "failed"}),
    "initiated": frozenset({"ringing", "busy", "failed", "canceled"}),
    "ringing": frozenset({"in-progress", "busy", "no-answer", "failed", "canceled"}),
    "in-progress": frozenset({"completed"}),
}


class BadMove(CareflowError):
    """A telephone call cannot change in this way."""


@dataclass(slots=True, kw_only=True)
class BookedCall:
    """One call as the books have it. Times are UTC; `form` is the create request, `attempt` the last path segment of its Url."""

    sid: str
    to: str
    from_: str
    created_at: datetime
    form: list[tuple[str, str]]
    attempt: str = ""
    status: str = "queued"
    changes: int = 0  # of status so far: the next callback's SequenceNumber
    persona: str = ""
    updated_at: datetime
    dialled_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    ended_by: str = ""  # agent, patient, network, api or lab
    answered_by: str = ""
    sip: int | None = None
    recorded_seconds: int | None = None
    response_lost: bool = False
    deleted: bool = False
    transcript: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.status in FINAL

    @property
    def duration_seconds(self) -> int:
        """Whole seconds from pick-up to the end, as Twilio bills them; 0 for a call that was never answered."""
        if self.answered_at is None or self.ended_at is None:
            return 0
        return max(1, round((self.ended_at - self.answered_at).total_seconds()))

    def to_json(self) -> dict[str, object]:
        """The lab's own view, in camelCase."""
        return {
            "sid": self.sid,
            "attempt": self.attempt,
            "to": self.to,
            "from": self.from_,
            "persona": self.persona,
            "status": self.status,
            "createdAt": self.created_at.isoformat(),
            "dialledAt": _iso(self.dialled_at),
            "answeredAt": _iso(self.answered_at),
            "endedAt": _iso(self.ended_at),
            "endedBy": self.ended_by,
            "answeredBy": self.answered_by,
            "sipResponseCode": self.sip,
            "responseLost": self.response_lost,
            "transcript": self.transcript,
            "warnings": self.warnings,
        }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def apply(call: BookedCall, entry: Mapping[str, Any]) -> None:
    """Change the call as the entry says. Raises BadMove for a change of status that a call cannot make."""
    at = _instant(entry["at"])
    match entry["kind"]:
        case "status":
            status = entry["status"]
            if status not in MOVES.get(call.status, frozenset()):
                raise BadMove(f"call {call.sid}: {call.status} -> {status} is not an allowed move")
            call.status, call.updated_at = status, at
            call.changes += 1
            if status == "initiated":
                call.dialled_at, call.persona = at, entry.get("persona", "")
            elif status == "in-progress":
                call.answered_at = at
            elif status in FINAL:
                call.ended_at, call.ended_by, call.sip = at, entry.get("by", ""), entry.get("sip")
        case "said" | "heard" | "pressed":
            call.transcript.append(
                {
                    "at": entry["at"],
                    "who": "agent" if entry["kind"] == "heard" else "patient",
                    "pressed" if entry["kind"] == "pressed" else "text": entry["text"],
                }
            )
        case "warning":
            call.warnings.append({"at": entry["at"], "code": entry["code"], "text": entry["text"]})
        case "answered-by":
            call.answered_by = entry["verdict"]
        case "recorded":
            call.recorded_seconds = entry["seconds"]
        case "response-lost":
            call.response_lost = True
        case "deleted":
            call.deleted = True
        case _:
            pass  # an entry for readers only, e.g. how a callback was answered


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


class Books:
    """The entries in `folder/books.jsonl` and the calls they add up to, oldest first."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.calls: dict[str, BookedCall] = {}
        self.refused: list[dict[str, Any]] = []
        self.starts = 0
        path = folder / "books.jsonl"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        for entry in self._whole_lines(path):
            self._apply(entry)

    def start(self, at: datetime) -> int:
        """Book that a process took over the books; how many did, this one included."""
        self._write({"kind": "started", "at": at.isoformat()})
        return self.starts

    def close(self) -> None:
        os.close(self._file)

    def created(self, call: BookedCall) -> None:
        """Book a new call."""
        self._write(
            {
                "kind": "created",
                "sid": call.sid,
                "at": call.created_at.isoformat(),
                "to": call.to,
                "from": call.from_,
                "attempt": call.attempt,
                "form": call.form,
            }
        )

    def refuse(self, at: datetime, code: int, to: str) -> None:
        """Book a create request that made no call."""
        self._write({"kind": "refused", "at": at.isoformat(), "code": code, "to": to})

    def enter(self, call: BookedCall, at: datetime, kind: str, **details: object) -> None:
        """Book a change of a call. Raises BadMove, and books nothing, for a change it cannot make."""
        if kind == "status" and details["status"] not in MOVES.get(call.status, frozenset()):
            raise BadMove(f"call {call.sid}: {call.status} -> {details['status']} is not an allowed move")
        self._write({"kind": kind, "sid": call.sid, "at": at.isoformat(), **details})

    def times_dialled(self, number: str) -> int:
        """How many calls to the number were put through to the network so far."""
        return sum(call.to == number and call.dialled_at is not None for call in self.calls.values())

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "started":
            self.starts += 1
        elif entry["kind"] == "refused":
            self.refused.append({key: value for key, value in entry.items() if key != "kind"})
        elif entry["kind"] == "created":
            at = _instant(entry["at"])
            self.calls[entry["sid"]] = BookedCall(
                sid=entry["sid"],
                to=entry["to"],
                from_=entry["from"],
                created_at=at,
                updated_at=at,
                form=[(name, value) for name, value in entry["form"]],
                attempt=entry["attempt"],
            )
        else:
            apply(self.calls[entry["sid"]], entry)

    def _whole_lines(self, path: Path) -> Iterator[dict[str, Any]]:
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file, whole)
        for line in content[:whole].splitlines():
            yield json.loads(line)
