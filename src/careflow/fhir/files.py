"""Resources out of files: Bundles, single resources, NDJSON (also gzipped), and folders of any mix of them."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from careflow.fhir.notes import Note

LARGEST_BYTES = 100_000_000  # of one Bundle, or one line of NDJSON, unpacked: it is read into memory whole

_ENDINGS = (".json", ".ndjson", ".jsonl", ".json.gz", ".ndjson.gz", ".jsonl.gz")
_BUNDLES = frozenset({"collection", "transaction", "batch", "searchset", "document", "history", "message"})
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Found:
    """One resource as JSON, where it was, and how its Bundle's entries are called: full URL -> "Type/id"."""

    file: str
    reference: str
    resource: Mapping[str, Any]
    entries: Mapping[str, str]

    def resolve(self, reference: object) -> str | None:
        """The "Type/id" that a Reference means, or None when it means nothing that could be here (R4 references, 2.3.0.2)."""
        target = reference.get("reference") if isinstance(reference, Mapping) else None
        if not isinstance(target, str):
            return None
        if target in self.entries:
            return self.entries[target]
        parts = target.split("/_history/")[0].split("/")
        if len(parts) >= 2 and parts[-2].isalpha() and _ID.fullmatch(parts[-1]):
            return f"{parts[-2]}/{parts[-1]}"
        return None


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be read to its end. `export` when what is lost may be any patient's."""

    note: Note
    export: bool


def read(paths: Iterable[Path]) -> Iterator[Found | Broken | Note]:
    """Every resource of the files and folders, in the order of their names; folders are searched all the way down."""
    for path in paths:
        if not path.exists():
            yield Broken(_file_note(str(path), "there is no such file or folder", "nothing was read"), False)
        elif path.is_dir():
            for file in _walk(path):
                yield from _read_file(file)
        else:
            yield from _read_file(path)


def _walk(folder: Path) -> Iterator[Path]:
    """The files that look like FHIR JSON; every real folder once, so that a link in a circle ends."""
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        stat = os.stat(root)
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders.sort()
        yield from (Path(root, name) for name in sorted(names) if name.lower().endswith(_ENDINGS))


def _read_file(path: Path) -> Iterator[Found | Broken | Note]:
    name = str(path)
    by_lines = "json" in path.name.lower() and any(end in path.name.lower() for end in (".ndjson", ".jsonl"))
    try:
        if not path.is_file():
            yield _file_note(name, "it is not a regular file", "it was skipped")
            return
        with _open(path) as file:
            yield from _read_lines(name, file) if by_lines else _read_document(name, file)
    except (OSError, EOFError, zlib.error) as error:
        problem = f"it cannot be read ({type(error).__name__})"
        yield Broken(_file_note(name, problem, "nothing more of it was read"), by_lines)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _read_lines(name: str, file: IO[bytes]) -> Iterator[Found | Broken | Note]:
    number = 0
    while line := file.readline(LARGEST_BYTES + 1):
        number += 1
        if len(line) > LARGEST_BYTES:
            yield Broken(
                _file_note(name, f"line {number} is larger than {LARGEST_BYTES:,} bytes", "stopped"), True
            )
            return
        if not line.strip():
            continue
        resource = _parse(line)
        if resource is None:
            problem = f"line {number} is not a JSON object"
            yield Broken(_file_note(name, problem, "the export is not whole"), True)
        else:
            yield from _expand(name, resource, f"line {number}")


def _read_document(name: str, file: IO[bytes]) -> Iterator[Found | Broken | Note]:
    content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        yield Broken(
            _file_note(name, f"it is larger than {LARGEST_BYTES:,} bytes", "use NDJSON for more"), False
        )
        return
    resource = _parse(content)
    if resource is None:
        yield Broken(_file_note(name, "it is not a JSON object", "nothing of it was read"), False)
    else:
        yield from _expand(name, resource, "")


def _parse(content: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _expand(name: str, resource: Mapping[str, Any], place: str) -> Iterator[Found | Broken | Note]:
    """The resource itself, or the entries of a Bundle."""
    if resource.get("resourceType") != "Bundle":
        yield _found(name, resource, place, {}, "")
        return
    entries = resource.get("entry", [])
    if resource.get("type") not in _BUNDLES or not isinstance(entries, list):
        yield Broken(
            _file_note(name, "Bundle.type or Bundle.entry is not as R4 has it", "it was skipped"), False
        )
        return
    inside: list[tuple[Mapping[str, Any], str]] = []
    for index, entry in enumerate(entries):
        item = entry.get("resource") if isinstance(entry, dict) else None
        removes = (
            isinstance(entry, dict)
            and isinstance(entry.get("request"), dict)
            and entry["request"].get("method") == "DELETE"
        )
        if isinstance(item, dict):
            full_url = entry.get("fullUrl")
            inside.append((item, full_url if isinstance(full_url, str) else ""))
        elif not removes:
            yield Broken(
                _file_note(name, f"Bundle.entry[{index}] holds no resource", "the import is not whole"), True
            )
        else:
            yield _file_note(
                name, f"Bundle.entry[{index}] asks for a deletion", "imports never delete; it was skipped"
            )
    called = {full_url: _reference(item, full_url) for item, full_url in inside if full_url}
    for index, (item, full_url) in enumerate(inside):
        yield _found(name, item, f"Bundle.entry[{index}]", called, full_url)


def _found(
    name: str, resource: Mapping[str, Any], place: str, entries: Mapping[str, str], full_url: str
) -> Found | Note:
    if not isinstance(resource.get("resourceType"), str):
        return _file_note(name, f"{place or 'it'} has no resourceType, so it is not FHIR", "it was skipped")
    return Found(name, _reference(resource, full_url), resource, entries)


def _reference(resource: Mapping[str, Any], full_url: str) -> str:
    """ "Type/id"; in a transaction a new resource may have its full URL's UUID only (R4 Bundle, 3.1.3.1)."""
    kind = resource.get("resourceType")
    kind = kind if isinstance(kind, str) and kind.isalpha() and len(kind) < 40 else "?"
    for name in (resource.get("id"), full_url.removeprefix("urn:uuid:")):
        if isinstance(name, str) and _ID.fullmatch(name):
            return f"{kind}/{name}"
    return f"{kind}/?"


def _file_note(file: str, problem: str, done: str) -> Note:
    return Note(file=file, reference="", field="", problem=problem, done=done, refused=True)
