"""An archive that is not as it was written is refused by name, and nothing of it is stored."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from careflow.moving.archive import ArchiveDirectory, ArchiveUnusable
from careflow.moving.contents import KINDS, survey
from contract.conftest import Records
from emulated import open_sqlite
from moving_kit import a_day, at, export_all, filled, import_all, quiet


def test_a_full_disk_is_told_with_the_file(archive: Path) -> None:
    (archive / "calls.ndjson").unlink()
    (archive / "calls.ndjson").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*calls\.ndjson'"):
        ArchiveDirectory(archive).append("calls", [Records().call()])


@pytest.fixture(scope="module")
def archive_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")

    async def make() -> None:
        await filled(folder / "old", a_day(patients=3))
        async with at(open_sqlite, folder / "old") as old:
            await export_all(old, folder / "archive")

    asyncio.run(make())
    return folder / "archive"


@pytest.fixture
def archive(archive_once: Path, tmp_path: Path) -> Path:
    """A whole archive, to be damaged."""
    return shutil.copytree(archive_once, tmp_path / "archive")


def refused(path: Path) -> str:
    """Why the archive is refused."""
    with pytest.raises(ArchiveUnusable) as refusal:
        ArchiveDirectory(path).checked()
    return str(refusal.value)


async def test_nothing_of_a_damaged_archive_is_stored(archive: Path, tmp_path: Path) -> None:
    content = (archive / "rounds.ndjson").read_bytes()
    (archive / "rounds.ndjson").write_bytes(content[:-1])
    async with at(open_sqlite, tmp_path / "new") as new:
        with pytest.raises(ArchiveUnusable, match=r"rounds\.ndjson, line 6: its end is missing"):
            await import_all(new, archive)
        assert not any(one.count for one in (await survey(new, None, quiet)).values())


@pytest.mark.parametrize("name", [*(f"{name}.ndjson" for name in KINDS), "manifest.json"])
def test_a_flipped_bit_anywhere_is_found_and_the_file_named(archive: Path, name: str) -> None:
    content = (archive / name).read_bytes()
    chance = random.Random(name)
    for _ in range(5):
        place = chance.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(5)
        (archive / name).write_bytes(flipped)
        assert name in refused(archive)


@pytest.mark.parametrize("name", [*(f"{name}.ndjson" for name in KINDS), "manifest.json"])
def test_a_file_that_is_cut_or_gone_is_named(archive: Path, name: str) -> None:
    content = (archive / name).read_bytes()
    (archive / name).write_bytes(content[: len(content) // 2])
    assert name in refused(archive)
    (archive / name).unlink()
    assert name in refused(archive)


@pytest.mark.parametrize("field", ["source", "exportedAt", "careflow", "digest", "seal"])
def test_an_edited_manifest_is_refused(archive: Path, field: str) -> None:
    manifest = json.loads((archive / "manifest.json").read_text())
    manifest[field] = {"exportedAt": "2026-11-22T13:00:00Z"}.get(field, "other")
    (archive / "manifest.json").write_text(json.dumps(manifest))
    assert "manifest.json is not as it was written: its seal" in refused(archive)


def edited(archive: Path, name: str, line: int, change: Callable[[dict[str, Any]], object]) -> None:
    lines = (archive / name).read_text().splitlines(keepends=True)
    document = json.loads(lines[line - 1])
    change(document)
    lines[line - 1] = json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
    (archive / name).write_text("".join(lines))


def test_a_line_that_another_version_wrote_is_named(archive: Path) -> None:
    edited(archive, "patients.ndjson", 2, lambda document: document.update(faxes=3))
    assert "patients.ndjson, line 2: it is no record as this version" in refused(archive)


def test_a_call_that_is_not_that_of_its_round_and_patient_is_named(archive: Path) -> None:
    edited(archive, "calls.ndjson", 3, lambda document: document.update(patientId="p9"))
    assert "calls.ndjson, line 3: the call's id" in refused(archive)


def test_another_format_is_refused_by_its_number(archive: Path) -> None:
    manifest = json.loads((archive / "manifest.json").read_text())
    (archive / "manifest.json").write_text(json.dumps(manifest | {"formatVersion": 2}))
    assert "formatVersion 2 is not accepted, this version of careflow reads 1" in refused(archive)
