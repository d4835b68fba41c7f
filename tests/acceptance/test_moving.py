"""A deployment's records on their way from one store to another: whole, exact, resumable, and never twice at work."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.app import assembled, bind
from careflow.cli import main
from careflow.clock import Pace, VirtualClock
from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, Outcome, attempt_id, call_id
from careflow.core.checkins import Alert
from careflow.core.patients import DoNotCall, Patient, RosterRevision
from careflow.core.rounds import Round
from careflow.hosting import running
from careflow.lab.personas import Persona, Subscriber
from careflow.moving.archive import ArchiveDirectory, ArchiveUnusable, Heading, Manifest
from careflow.moving.contents import KINDS, NotMoved, survey
from careflow.moving.export import export
from careflow.moving.restore import restore, verify
from careflow.ports import Record, Store
from careflow.settings import load_settings
from careflow.store.locks import hold_role
from contract.conftest import Records
from emulated import emulator_address, open_emulated, open_sqlite, project_of, require_emulator
from property.test_store_codec import records

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
HEADING = Heading(careflow="1", source="test", hospital=None)


def quiet(_: str) -> None:
    """Nobody is told how far it is."""


async def export_all(store: Store, path: Path, heading: Heading = HEADING, **words: Any) -> Manifest:
    options: dict[str, Any] = {"mid_round": True, "now": NOW, "told": quiet, **words}
    return await export(store, ArchiveDirectory(path), heading, **options)


async def import_all(store: Store, path: Path) -> int:
    return (await restore(store, ArchiveDirectory(path), told=quiet))[1]


@asynccontextmanager
async def at(opener: Callable[[Path], Any], path: Path) -> AsyncIterator[Store]:
    store = await opener(path)
    try:
        yield store
    finally:
        await store.close()


Careflow = Callable[..., tuple[int, str, str]]


@pytest.fixture
def careflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Careflow:
    """Run a command in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["careflow", *words])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


async def filled(path: Path, world: dict[type[Record], list[Any]]) -> dict[str, list[str]]:
    """Put a world into the data directory; all that is in it then."""
    async with at(open_sqlite, path) as store:
        await fill(store, {kind: world.get(kind, []) for kind in KINDS.values()})
        return await all_records(store)


# --- records of every kind --------------------------------------------------------------------------------------


def worlds() -> st.SearchStrategy[dict[type[Record], list[Any]]]:
    """What a store may hold: any value in any field, with the keys that the ledger's rules ask for."""

    def many(kind: type[Record], key: Callable[[Any], Any]) -> st.SearchStrategy[list[Any]]:
        return st.lists(records(kind), max_size=3, unique_by=key)

    def by_id(record: Any) -> Any:
        return record.hospital_id, record.id

    keys: dict[type[Record], Callable[[Any], Any]] = dict.fromkeys(KINDS.values(), by_id)
    keys[RosterRevision] = lambda one: one.hospital_id
    keys[DoNotCall] = lambda one: (one.hospital_id, one.phone, one.patient_id or "")
    keys[Call] = lambda one: (one.round_id, one.patient_id)
    drawn = st.fixed_dictionaries({kind: many(kind, key) for kind, key in keys.items()})
    return drawn.map(lawful)


def lawful(world: dict[type[Record], list[Any]]) -> dict[type[Record], list[Any]]:
    """The world with ids, lines and hours as the domain makes them."""
    patients = [replace(one, hours=frozenset(hour % 24 for hour in one.hours)) for one in world[Patient]]
    calls = [replace(one, id=call_id(one.round_id, one.patient_id)) for one in world[Call]]
    attempts = [
        replace(
            attempt,
            id=attempt_id(call, 1),
            number=1,
            hospital_id=call.hospital_id,
            round_id=call.round_id,
            call_id=call.id,
            patient_id=call.patient_id,
            phone=f"+1212555010{number}",
            call_sid=f"CA{number}" if attempt.call_sid else None,
            state=attempt.state if number == 0 else AttemptState.ENDED,
        )
        for number, (call, attempt) in enumerate(zip(calls, world[Attempt], strict=False))
    ]
    return {**world, Patient: patients, Call: calls, Attempt: attempts}


async def fill(store: Store, world: dict[type[Record], list[Any]]) -> None:
    for kind in KINDS.values():
        await store.restore(kind, world[kind])


async def all_records(store: Store) -> dict[str, list[str]]:
    return {name: sorted(map(repr, await store.records(kind))) for name, kind in KINDS.items()}


@settings(max_examples=5)
@given(world=worlds())
def test_any_record_is_the_same_after_sqlite_firestore_sqlite(
    world: dict[type[Record], list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_emulator()
    folder = tmp_path_factory.mktemp("trip")

    async def trip() -> None:
        openers = (open_sqlite, open_emulated, open_sqlite)
        digests, seen = [], []
        for number, opener in enumerate(openers):
            async with at(opener, folder / f"store{number}") as store:
                if number:
                    await import_all(store, folder / f"archive{number - 1}")
                else:
                    await fill(store, world)
                seen.append(await all_records(store))
                digests.append((await export_all(store, folder / f"archive{number}")).digest)
        assert seen[0] == seen[1] == seen[2]
        assert len(set(digests)) == 1
        assert sum(map(len, seen[0].values())) == sum(map(len, world.values()))

    asyncio.run(trip())


AREAS = {"general": 212, "lakeside": 312}


def a_day(hospitals: Sequence[str] = ("general", "lakeside"), patients: int = 12) -> dict[type[Record], Any]:
    """Some records of every kind for each hospital, the same at every call."""
    make = Records()
    day: dict[type[Record], list[Any]] = {kind: [] for kind in KINDS.values()}
    for hospital in hospitals:
        at_home = {"hospital_id": hospital}
        day[RosterRevision].append(RosterRevision(hospital_id=hospital, revision=3))
        for index in range(patients):
            patient, phone = f"p{index}", f"+1{AREAS[hospital]}55501{index:02d}"
            round_id = f"test-{hospital}-202611{index + 10}-08"
            round_ = replace(make.round(hospital), id=round_id, planned_at=NOW)
            call = make.call(patient, round_.id, **at_home)
            attempt = make.ended(make.attempt(call, phone=phone, call_sid=f"CA{phone}"))
            of_each: list[Record] = [
                make.patient(patient, phone=phone, **at_home),
                make.do_not_call(phone, patient, **at_home),
                make.execution(f"e{index}", round_id=round_.id, **at_home),
                round_,
                call,
                attempt,
                make.interaction(attempt),
                make.check_in(attempt),
                make.alert(attempt, f"{attempt.id}-red-flag"),
            ]
            for record in of_each:
                day[type(record)].append(record)
    return day


@pytest.fixture(params=["sqlite to firestore", "firestore to sqlite"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """A store with a day in it, and an empty one of the other kind."""
    openers = (
        (open_sqlite, open_emulated) if request.param.startswith("sqlite") else (open_emulated, open_sqlite)
    )
    async with at(openers[0], tmp_path / "old") as old, at(openers[1], tmp_path / "new") as new:
        await fill(old, a_day())
        yield old, new


# --- cut short ---------------------------------------------------------------------------------------------------


class Cut(Exception):
    """The process ended here."""


class Cutting:
    """A store on which the operation number `at` is the last that is begun: it is not done, or, with `done`, not answered."""

    def __init__(self, store: Store, at: int, *, done: bool) -> None:
        self._store, self._left, self._done = store, at, done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def operation(*args: Any, **words: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                if self._done:
                    await method(*args, **words)
                raise Cut
            return await method(*args, **words)

        return operation


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


# --- a store that does not hold still ----------------------------------------------------------------------------


class Changing:
    """A store in which somebody changes a patient while it is read, so many times."""

    def __init__(self, store: Store, times: int) -> None:
        self._store, self._left = store, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def records(self, kind: type[Any], **words: Any) -> Any:
        page = await self._store.records(kind, **words)
        if kind is Patient and page and self._left:
            self._left -= 1
            await self._store.put_patients([replace(page[0], language=f"x{self._left}")])
        return page


class Beginning(Changing):
    """A store in which a call becomes due while it is read."""

    async def records(self, kind: type[Any], **words: Any) -> Any:
        if kind is Call:
            call = Records().call("p0", "test-general-20261224-08", hospital_id="general")
            await self._store.create_calls([call])
        return await self._store.records(kind, **words)


async def test_work_that_begins_meanwhile_is_not_exported(pair: tuple[Store, Store], tmp_path: Path) -> None:
    _, new = pair
    with pytest.raises(NotMoved, match=r"work is under way \(1 calls\)"):
        await export_all(typing.cast(Store, Beginning(new, 0)), tmp_path / "archive", mid_round=False)
    with pytest.raises(ArchiveUnusable, match="not finished"):
        ArchiveDirectory(tmp_path / "archive").checked()


async def test_what_changed_while_it_was_read_is_read_again(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    old, new = pair
    manifest = await export_all(typing.cast(Store, Changing(old, 2)), tmp_path / "archive")
    assert manifest.summaries == await survey(old, None, quiet)
    await import_all(new, tmp_path / "archive")
    assert await all_records(new) == await all_records(old)


async def test_a_store_that_never_holds_still_is_not_exported(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    old, new = pair
    with pytest.raises(NotMoved, match=r"is being changed \(patients, hospitals\)"):
        await export_all(typing.cast(Store, Changing(old, 1000)), tmp_path / "archive")
    with pytest.raises(ArchiveUnusable, match="not finished"):
        await import_all(new, tmp_path / "archive")
    assert (await export_all(old, tmp_path / "archive")).summaries == await survey(old, None, quiet)


async def test_a_finished_archive_is_never_changed(pair: tuple[Store, Store], tmp_path: Path) -> None:
    old, _ = pair
    manifest = await export_all(old, tmp_path / "archive")
    assert await export_all(old, tmp_path / "archive", now=NOW + timedelta(days=1)) == manifest
    await old.put_patients([Records().patient("p99", hospital_id="general")])
    with pytest.raises(NotMoved, match=r"has changed since \(patients, hospitals\)"):
        await export_all(old, tmp_path / "archive")
    assert ArchiveDirectory(tmp_path / "archive").checked() == manifest


async def test_an_export_goes_on_only_with_what_it_began(pair: tuple[Store, Store], tmp_path: Path) -> None:
    old, _ = pair
    with pytest.raises(Cut):
        await export_all(typing.cast(Store, Cutting(old, 3, done=False)), tmp_path / "archive")
    one = HEADING.model_copy(update={"hospital": "general"})
    with pytest.raises(ArchiveUnusable, match="not of hospital general"):
        await export_all(old, tmp_path / "archive", one)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("mine")
    with pytest.raises(ArchiveUnusable, match="not empty"):
        await export_all(old, tmp_path / "mine")


async def test_a_mistyped_hospital_leaves_no_directory_in_the_way(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    old, _ = pair
    mistyped = HEADING.model_copy(update={"hospital": "genral"})
    with pytest.raises(NotMoved, match="no records of hospital 'genral'"):
        await export_all(old, tmp_path / "archive", mistyped)
    assert not (tmp_path / "archive").exists()


def test_a_full_disk_is_told_with_the_file(archive: Path) -> None:
    (archive / "calls.ndjson").unlink()
    (archive / "calls.ndjson").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*calls\.ndjson'"):
        ArchiveDirectory(archive).append("calls", [Records().call()])


# --- archives that are not as they were written ------------------------------------------------------------------


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


# --- stores that hold something already --------------------------------------------------------------------------


async def test_an_import_never_undoes_what_the_store_knows_better(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    old, new = pair
    await export_all(old, tmp_path / "archive")
    patient = replace(a_day()[Patient][0], opted_out=True)
    await new.put_patients([patient])
    before = await all_records(new)
    with pytest.raises(NotMoved, match=r"differ: 1 patients, 1 hospitals.*Nothing was written"):
        await import_all(new, tmp_path / "archive")
    assert await all_records(new) == before


async def test_a_record_that_is_not_in_the_archive_keeps_it_out(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    old, new = pair
    await export_all(old, tmp_path / "archive")
    await new.create_calls([Records().call("p0", "test-general-20261224-08", hospital_id="general")])
    with pytest.raises(NotMoved, match="are not in the archive: 1 calls"):
        await import_all(new, tmp_path / "archive")
    assert await new.records(Patient) == []


async def test_one_hospital_moves_into_a_store_with_another(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    old, new = pair
    await fill(new, a_day(("lakeside",), patients=2))
    with pytest.raises(NotMoved):
        await export_all(old, tmp_path / "none", HEADING.model_copy(update={"hospital": "nowhere"}))
    one = HEADING.model_copy(update={"hospital": "general"})
    manifest = await export_all(old, tmp_path / "archive", one)
    assert manifest.hospitals == {"general"}
    await import_all(new, tmp_path / "archive")
    assert await survey(new, {"general"}, quiet) == await survey(old, {"general"}, quiet)
    assert (await survey(new, {"lakeside"}, quiet))["patients"].count == 2


class Losing:
    """A store that says it has stored alerts and has not."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def restore(self, kind: type[Any], records: Sequence[Any]) -> int:
        return await self._store.restore(kind, records[1:] if kind is Alert else records) + (kind is Alert)


async def test_an_import_is_done_when_the_store_was_found_to_hold_it(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    old, new = pair
    await export_all(old, tmp_path / "archive")
    with pytest.raises(NotMoved, match="does not hold what the archive does: 23 alerts for 24"):
        await import_all(typing.cast(Store, Losing(new)), tmp_path / "archive")


async def test_a_check_finds_one_changed_record(pair: tuple[Store, Store], tmp_path: Path) -> None:
    old, new = pair
    manifest = await export_all(old, tmp_path / "archive")
    await import_all(new, tmp_path / "archive")
    await verify(new, manifest, quiet)
    (alert, *_) = a_day()[Alert]
    assert await new.acknowledge_alert(alert.hospital_id, alert.id, by="nurse", at=NOW)
    with pytest.raises(NotMoved, match=r"24 alerts for 24 \(other ones\)"):
        await verify(new, manifest, quiet)


# --- the commands ------------------------------------------------------------------------------------------------


def test_what_is_said_and_who_may_read_it(careflow: Careflow, tmp_path: Path) -> None:
    day = a_day()
    asyncio.run(filled(tmp_path / "old", day))
    private = ["Ada", "Example", "+1212", "Hello", "Lisinopril", *(one.phone for one in day[Patient])]
    said = [
        careflow("export", "archive", "--data-dir", "old"),
        careflow("export", "archive", "--mid-round", "--data-dir", "old"),
        careflow("import", "archive", "--data-dir", "new"),
        careflow("import", "archive", "--data-dir", "new", "--json"),
    ]
    assert [status for status, _, _ in said] == [1, 0, 0, 0]
    assert "work is under way (24 calls)" in said[0][2]
    assert "24 records of work under way" in said[2][1]
    assert json.loads(said[3][1])["digest"] in said[1][1]
    assert not [word for word in private for _, out, error in said if word in out + error]
    assert not [word for word in private if word in (tmp_path / "archive/manifest.json").read_text()]
    assert (tmp_path / "archive").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "archive").iterdir()} == {0o600}


@pytest.mark.parametrize("role", ["pulse", "caller"])
def test_nothing_moves_under_the_feet_of_a_running_service(
    careflow: Careflow, tmp_path: Path, role: str
) -> None:
    asyncio.run(filled(tmp_path / "old", a_day(patients=1)))
    with hold_role(tmp_path / "old", role):
        status, _, error = careflow("export", "archive", "--mid-round", "--data-dir", "old")
        assert (status, f"runs '{role}'" in error) == (1, True)
    assert careflow("export", "archive", "--mid-round", "--data-dir", "old")[0] == 0
    with hold_role(tmp_path / "new", role):
        assert careflow("import", "archive", "--data-dir", "new")[0] == 1
    assert careflow("import", "archive", "--data-dir", "new")[0] == 0


def test_a_command_that_only_checks_makes_nothing(careflow: Careflow, tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path / "old", {}))
    assert careflow("export", "archive", "--data-dir", "old")[0] == 0
    assert careflow("import", "archive", "--check", "--data-dir", "new")[0] == 1
    assert careflow("export", "other", "--data-dir", "new")[0] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"old", "archive"}


# --- a round on its way ------------------------------------------------------------------------------------------


TEN_PAST_EIGHT = datetime(
    2026, 11, 23, 13, 14, 50, tzinfo=UTC
)  # ten seconds before the job of 8:15 in New York
ROUND = "local-default-20261123-08"
PEOPLE = [
    Records().patient(f"p{number}", hospital_id="default", given_name="Rosa", phone=f"+12125550{number}")
    for number in range(110, 116)
]


@asynccontextmanager
async def deployment(
    clock: VirtualClock, roles: Sequence[str], fields: dict[str, Any]
) -> AsyncIterator[tuple[Store, Any]]:
    """The services of one deployment at work, in one process."""
    configured, sockets = bind(load_settings(twilio_account_sid="", **fields), roles)
    async with AsyncExitStack() as stack:
        assembly = await stack.enter_async_context(assembled(configured, sockets, clock))
        ticking = asyncio.create_task(clock.run(lambda: Pace(speed=60.0, step=0.12)))
        stack.callback(ticking.cancel)
        await stack.enter_async_context(running(assembly.services))
        yield assembly.store, assembly.lab


async def ended(store: Store) -> Counter[str]:
    counts = await store.count_calls("default", ROUND)
    return Counter(
        {outcome: sum(n for (_, o, _), n in counts.items() if o == outcome) for _, outcome, _ in counts}
    )


async def until(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(100):
        while not await done():
            await asyncio.sleep(0.02)


def place(kind: str, path: Path) -> dict[str, Any]:
    """The settings of a deployment on a store of this kind."""
    if kind == "sqlite":
        return {"data_dir": path}
    return {
        "data_dir": path,
        "store": kind,
        "project": project_of(path),
        "firestore_emulator": emulator_address(),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(240)
@pytest.mark.parametrize("to", ["firestore", "sqlite"])
async def test_a_round_goes_on_in_the_other_store_and_nobody_is_phoned_twice(tmp_path: Path, to: str) -> None:
    """Twilio, which is the lab here, stays where it is; the deployment that phones through it is another one."""
    openers = {"sqlite": open_sqlite, "firestore": open_emulated}
    source, target = ("sqlite", "firestore") if to == "firestore" else ("firestore", "sqlite")
    ports = {f"{role}_port": free_port() for role in ("pulse", "caller", "lab", "scheduler")}
    clock = VirtualClock(TEN_PAST_EIGHT)
    old_place = {"calls_in_flight": 2, **ports, **place(source, tmp_path / "old")}
    new_place = {**ports, **place(target, tmp_path / "new")}

    async with deployment(clock, ("lab", "caller", "pulse", "scheduler"), old_place) as (store, lab):
        await store.put_patients(PEOPLE)
        lab.exchange.set_subscribers(
            [
                Subscriber(phone=one.phone or "", persona=Persona.WELL, given_name="Rosa", birth_year=1950)
                for one in PEOPLE
            ]
        )

        async def some_are_over_and_some_are_talking() -> bool:
            talking = [one for one in await store.open_attempts() if one.state is AttemptState.ANSWERED]
            return bool(talking) and (await ended(store))[Outcome.COMPLETED] >= 2

        await until(some_are_over_and_some_are_talking)
    (tmp_path / "new").mkdir()
    shutil.move(tmp_path / "old/lab", tmp_path / "new/lab")
    async with at(openers[source], tmp_path / "old") as store:
        manifest = await export_all(store, tmp_path / "archive")
        assert manifest.summaries["calls"].unfinished > 0
    async with at(openers[target], tmp_path / "new") as store:
        await import_all(store, tmp_path / "archive")
        before = await ended(store)
        assert before[Outcome.COMPLETED] >= 2

    async with deployment(clock, ("lab", "caller", "pulse"), new_place) as (store, lab):

        async def everybody_has_an_outcome() -> bool:
            return set(await ended(store)) and not (await ended(store))[""]

        await until(everybody_has_an_outcome)
        after = await ended(store)
        alerts = await store.alerts("default", round_id=ROUND)
        books = [call.to_json() for call in lab.exchange.network.books.calls.values()]
    # Who was only ringing when the network stopped, which is the lab too, may ring again; who has picked up may not.
    answered = Counter(call["to"] for call in books if call["answeredAt"])
    assert answered == Counter(one.phone for one in PEOPLE)
    assert {call["endedBy"] for call in books if not call["answeredAt"]} <= {"lab"}
    assert after.total() == len(PEOPLE)
    assert after[Outcome.COMPLETED] > before[Outcome.COMPLETED]
    assert after[Outcome.UNREACHABLE] == len(alerts)  # whose conversation the move cut

    async with at(openers[target], tmp_path / "new") as store:
        manifest = await export_all(store, tmp_path / "back", mid_round=False)
    async with at(openers[source], tmp_path / "third") as store:
        await import_all(store, tmp_path / "back")
        assert (await export_all(store, tmp_path / "again")).digest == manifest.digest
