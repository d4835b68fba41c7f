"""Stores of both kinds with a day in them, and their export and import, for the tests of moving a deployment."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from careflow.cli import main
from careflow.core.patients import RosterRevision
from careflow.moving.archive import ArchiveDirectory, Heading, Manifest
from careflow.moving.contents import KINDS
from careflow.moving.export import export
from careflow.moving.restore import restore
from careflow.ports import Record, Store
from contract.conftest import Records
from emulated import emulator_address, open_emulated, open_sqlite, project_of

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


def in_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> Careflow:
    """Run a command in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(folder)

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


async def fill(store: Store, world: dict[type[Record], list[Any]]) -> None:
    for kind in KINDS.values():
        await store.restore(kind, world[kind])


async def all_records(store: Store) -> dict[str, list[str]]:
    return {name: sorted(map(repr, await store.records(kind))) for name, kind in KINDS.items()}


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


WAYS = ("sqlite to firestore", "firestore to sqlite")


@asynccontextmanager
async def on_the_way(way: str, folder: Path) -> AsyncIterator[tuple[Store, Store]]:
    """A store with a day in it, and an empty one of the other kind."""
    openers = (open_sqlite, open_emulated) if way.startswith("sqlite") else (open_emulated, open_sqlite)
    async with at(openers[0], folder / "old") as old, at(openers[1], folder / "new") as new:
        await fill(old, a_day())
        yield old, new


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
