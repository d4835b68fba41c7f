"""An archive: a directory with one NDJSON file for each kind of record, and a manifest that says what must be in them.

It holds names, numbers and what patients said, so only its owner may read it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from careflow.core.calls import Call, call_id
from careflow.errors import CareflowError
from careflow.moving.contents import KINDS, PAGE, Summary, Tally, digest_of, text_of
from careflow.ports import Record
from careflow.store.codec import CODEC_OF

FORMAT_VERSION = 1  # grows when an archive is arranged in another way
MANIFEST = "manifest.json"
UNFINISHED = "unfinished.json"


class ArchiveUnusable(CareflowError):
    """The archive is not one that can be read here, or not as it was written."""


class Heading(BaseModel):
    """What is known of an archive before it is written. `hospital` is the only one in it, None when it holds all."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    format: Literal["careflow-archive"] = "careflow-archive"
    format_version: Literal[1] = 1
    careflow: str
    source: str
    hospital: str | None


class FileEntry(BaseModel):
    """One file of an archive: its bytes, and what they hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    bytes: int
    sha256: str
    holds: Summary


class Manifest(Heading):
    """What an archive holds.

    `files` are by kind. `digest` is that of all summaries (`contents.digest_of`), the same for the same records from any store.
    `seal` is the SHA-256 of the manifest itself.
    """

    exported_at: datetime
    files: dict[str, FileEntry]
    digest: str
    seal: str = ""

    def sealed(self) -> Manifest:
        """With the seal that it must have."""
        text = self.model_dump_json(by_alias=True, exclude={"seal"})
        return self.model_copy(update={"seal": hashlib.sha256(text.encode()).hexdigest()})

    @property
    def summaries(self) -> Mapping[str, Summary]:
        """What is in it, by kind."""
        return {name: entry.holds for name, entry in self.files.items()}

    @property
    def hospitals(self) -> frozenset[str]:
        """Those that it has records of."""
        return frozenset(hospital for one in self.summaries.values() for hospital in one.hospitals)


_Heading = TypeVar("_Heading", bound=Heading)


class ArchiveDirectory:
    """An archive on disk, whole or in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # in the making

    def begin(self, heading: Heading) -> None:
        """Make the directory, or find the export in it that was cut short. Raises ArchiveUnusable for any other content."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self.path / UNFINISHED
        if not unfinished.exists():
            if next(self.path.iterdir(), None) is not None:
                raise ArchiveUnusable(
                    f"{self.path} is not empty and holds no export: name a new or an empty directory"
                )
            self.path.chmod(0o700)
            self._write(UNFINISHED, heading.model_dump_json(by_alias=True, indent=2))
        elif (begun := self._read(UNFINISHED, Heading)) != heading:
            raise ArchiveUnusable(
                f"{self.path} holds an unfinished export of {_said(begun)}, not of {_said(heading)}: name another directory"
            )

    def last_whole(self, name: str) -> Record | None:
        """The last record of a file that was cut short, after cutting it back to that. None when there is none."""
        path = self._file(name)
        with suppress(FileNotFoundError):
            content_end, line = _last_line(path)
            with suppress(ArchiveUnusable):
                record = None if line is None else _record(name, line, "its last line")
                os.truncate(path, content_end)
                return record
            self.discard(name)
        return None

    def append(self, name: str, records: Sequence[Record]) -> None:
        """Add records to a file, which is made if need be. On disk for good when `finish` returns."""
        path = self._file(name)
        with _naming(path), os.fdopen(self._opened(path, os.O_APPEND), "wb") as file:
            file.writelines(text_of(record) + b"\n" for record in records)

    def discard(self, name: str) -> None:
        """Take a file away, to be written anew."""
        self._file(name).unlink(missing_ok=True)

    def finish(self, heading: Heading, files: Mapping[str, FileEntry], now: datetime) -> Manifest:
        """Write the manifest, once the files are on disk: from now on the archive is whole."""
        for name in files:
            with self._file(name).open("rb") as file:
                os.fsync(file.fileno())
        manifest = Manifest(
            **heading.model_dump(),
            exported_at=now,
            files=dict(files),
            digest=digest_of({name: entry.holds for name, entry in files.items()}),
        ).sealed()
        self._write(MANIFEST, manifest.model_dump_json(by_alias=True, indent=2))
        (self.path / UNFINISHED).unlink(missing_ok=True)
        return manifest

    # whole

    @property
    def is_whole(self) -> bool:
        """Whether an export into it was finished."""
        return (self.path / MANIFEST).is_file()

    def manifest(self) -> Manifest:
        """What the archive says it holds. Raises ArchiveUnusable."""
        if not self.is_whole:
            unfinished = (self.path / UNFINISHED).exists()
            raise ArchiveUnusable(
                f"{self.path} holds an export that was not finished: give the same careflow export again"
                if unfinished
                else f"{self.path} is no archive: there is no {MANIFEST} in it"
            )
        manifest = self._read(MANIFEST, Manifest)
        if manifest != manifest.sealed():
            raise ArchiveUnusable(f"{MANIFEST} is not as it was written: its seal does not fit")
        if set(manifest.files) != set(KINDS):
            raise ArchiveUnusable(f"{MANIFEST} names other files than this version of careflow writes")
        return manifest

    def checked(self) -> Manifest:
        """The manifest, once every file was found to be what it says. Raises ArchiveUnusable naming what is not."""
        manifest = self.manifest()
        for name, entry in manifest.files.items():
            found = self.scan(name)
            if found != entry:
                raise ArchiveUnusable(
                    f"{name}.ndjson is not as it was written: {found.holds.count:,} records in {found.bytes:,} bytes with SHA-256"
                    f" {found.sha256}, where {MANIFEST} says {entry.holds.count:,} in {entry.bytes:,} with {entry.sha256}"
                )
        return manifest

    def scan(self, name: str) -> FileEntry:
        """What is in a file. Raises ArchiveUnusable naming the line that is no record as this version writes it."""
        tally, sha256, length = Tally(), hashlib.sha256(), 0
        for line, record in self._lines(name):
            tally.add(record, line[:-1])
            sha256.update(line)
            length += len(line)
        return FileEntry(bytes=length, sha256=sha256.hexdigest(), holds=tally.summary())

    def pages(self, name: str) -> Iterator[Sequence[Record]]:
        """The records of a file, some at a time."""
        lines = self._lines(name)
        while page := [record for _, record in islice(lines, PAGE)]:
            yield page

    def _lines(self, name: str) -> Iterator[tuple[bytes, Record]]:
        try:
            with self._file(name).open("rb") as file:
                for number, line in enumerate(file, 1):
                    yield line, _record(name, line, f"line {number:,}")
        except FileNotFoundError as error:
            raise ArchiveUnusable(f"{name}.ndjson is missing") from error

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.ndjson"

    def _opened(self, path: Path, how: int) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)

    def _write(self, name: str, text: str) -> None:
        """The file is there whole or not at all."""
        draft = self.path / f".{name}"
        with _naming(draft), os.fdopen(self._opened(draft, os.O_TRUNC), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / name)

    def _read(self, name: str, kind: type[_Heading]) -> _Heading:
        try:
            document = json.loads((self.path / name).read_bytes())
        except ValueError as error:
            raise ArchiveUnusable(f"{name} is not JSON") from error
        version = document.get("formatVersion") if isinstance(document, dict) else None
        if isinstance(version, int) and version != FORMAT_VERSION:
            raise ArchiveUnusable(
                f"{name}: formatVersion {version} is not accepted, this version of careflow reads {FORMAT_VERSION}"
            )
        try:
            return kind.model_validate(document)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, one["loc"])) or "the document" for one in error.errors())
            raise ArchiveUnusable(f"{name} is not as it was written: {places}") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A write that is refused (a full disk) does not say which file it was."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _record(name: str, line: bytes, where: str) -> Record:
    """The record of a line. Raises ArchiveUnusable for one that this version would not have written so."""
    codec = CODEC_OF[KINDS[name]]
    reason = "its end is missing"
    if line.endswith(b"\n"):
        reason = "it is no record as this version of careflow writes it"
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            record: Record = codec.loads(line.decode())
            if text_of(record) + b"\n" == line:
                if not isinstance(record, Call) or record.id == call_id(record.round_id, record.patient_id):
                    return record
                reason = "the call's id is not that of its round and patient"
    raise ArchiveUnusable(f"{name}.ndjson, {where}: {reason}")


def _last_line(path: Path) -> tuple[int, bytes | None]:
    """Where the last whole line of a file ends, and that line."""
    with path.open("rb") as file:
        position, tail = file.seek(0, os.SEEK_END), b""
        while position and tail.count(b"\n") < 2:
            step = min(position, 65_536)
            position -= step
            file.seek(position)
            tail = file.read(step) + tail
    whole = tail[: tail.rfind(b"\n") + 1]
    line = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    return position + len(whole), line or None


def _said(heading: Heading) -> str:
    hospital = "all hospitals" if heading.hospital is None else f"hospital {heading.hospital}"
    return f"{hospital} of {heading.source} by careflow {heading.careflow}"
