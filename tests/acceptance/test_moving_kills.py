"""An export or an import that is cut short anywhere, or killed, goes on and ends the same."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import typing
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from careflow.core.rounds import Round
from careflow.moving.archive import ArchiveDirectory
from careflow.moving.contents import KINDS, survey
from careflow.ports import Store
from moving_kit import (
    WAYS,
    Careflow,
    Cut,
    Cutting,
    a_day,
    all_records,
    export_all,
    filled,
    import_all,
    in_this_process,
    on_the_way,
    quiet,
)


@pytest.fixture
def careflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Careflow:
    return in_this_process(monkeypatch, capsys, tmp_path)


@pytest.fixture(params=WAYS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    async with on_the_way(request.param, tmp_path) as stores:
        yield stores


def torn(path: Path, chance: random.Random) -> None:
    """What a kill leaves of the file that was being written: the latest loses some bytes of its end."""
    files = [file for file in path.glob("*.ndjson") if file.stat().st_size]
    if files:
        latest = max(files, key=lambda file: file.stat().st_mtime_ns)
        os.truncate(latest, chance.randrange(latest.stat().st_size))


@pytest.mark.parametrize("seed", range(4))
async def test_an_export_cut_short_anywhere_goes_on_and_ends_the_same(
    pair: tuple[Store, Store], tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careflow.moving.contents.PAGE", 5)
    old, _ = pair
    whole = await export_all(old, tmp_path / "whole")
    chance = random.Random(seed)
    monkeypatch.delattr(ArchiveDirectory, "discard")  # nothing that was written is written anew
    cuts = 0
    while True:
        store = Cutting(old, chance.randrange(1, 60), done=False)
        try:
            resumed = await export_all(typing.cast(Store, store), tmp_path / "cut")
            break
        except Cut:
            cuts += 1
            torn(tmp_path / "cut", chance)
            if cuts == 4:
                resumed = await export_all(old, tmp_path / "cut")
                break
    assert cuts
    assert resumed == whole
    for name in KINDS:
        assert (tmp_path / f"cut/{name}.ndjson").read_bytes() == (
            tmp_path / f"whole/{name}.ndjson"
        ).read_bytes()


@pytest.mark.parametrize("seed", range(4))
async def test_an_import_cut_short_anywhere_goes_on_and_ends_the_same(
    pair: tuple[Store, Store], tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careflow.moving.archive.PAGE", 5)
    old, new = pair
    whole = await export_all(old, tmp_path / "archive")
    chance = random.Random(seed)
    for _ in range(3):
        store = Cutting(new, chance.randrange(11, 50), done=chance.random() < 0.5)
        with pytest.raises(Cut):
            await import_all(typing.cast(Store, store), tmp_path / "archive")
        if await new.records(Round):  # then everything that a round needs is there
            there = await survey(new, None, quiet)
            assert {**there, "rounds": None} == {**whole.summaries, "rounds": None}
    await import_all(new, tmp_path / "archive")
    assert await survey(new, None, quiet) == whole.summaries
    assert await all_records(new) == await all_records(old)
    assert await import_all(new, tmp_path / "archive") == 0


CHILD = """
import os, signal, sys
from careflow.cli import main
import careflow.moving.contents, careflow.moving.archive
from careflow.moving.archive import ArchiveDirectory
from careflow.store.sqlite import SqliteStore
careflow.moving.contents.PAGE = careflow.moving.archive.PAGE = 5
left = int(sys.argv.pop(1))
def counted(of, name):
    method = getattr(of, name)
    def counting(*args, **words):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args, **words)
    setattr(of, name, counting)
counted(ArchiveDirectory, "append")
counted(SqliteStore, "restore")
main()
"""


def killed(folder: Path, after: int, *words: str) -> None:
    """Run the command; kill -9 at that write."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(after), *words],
        cwd=folder,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_kill_9_in_the_middle_of_both_loses_nothing(tmp_path: Path, careflow: Careflow) -> None:
    before = asyncio.run(filled(tmp_path / "old", a_day()))
    for after in (3, 14):
        killed(tmp_path, after, "export", "archive", "--mid-round", "--data-dir", "old")
        assert careflow("import", "archive", "--data-dir", "new")[0] == 1
        assert not (tmp_path / "new").exists()
    assert careflow("export", "archive", "--mid-round", "--data-dir", "old")[0] == 0
    for after in (2, 25):
        killed(tmp_path, after, "import", "archive", "--data-dir", "new")
        assert careflow("import", "archive", "--check", "--data-dir", "new")[0] == 1
    assert careflow("import", "archive", "--data-dir", "new")[0] == 0
    assert careflow("import", "archive", "--check", "--data-dir", "new")[0] == 0
    assert asyncio.run(filled(tmp_path / "new", {})) == before
