"""A deployment's records on their way from one store to another: whole, exact, and never over what is there."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, attempt_id, call_id
from careflow.core.checkins import Alert
from careflow.core.patients import DoNotCall, Patient, RosterRevision
from careflow.moving.archive import ArchiveDirectory, ArchiveUnusable
from careflow.moving.contents import KINDS, NotMoved, survey
from careflow.moving.restore import verify
from careflow.ports import Record, Store
from contract.conftest import Records
from emulated import open_emulated, open_sqlite, require_emulator
from moving_kit import (
    HEADING,
    NOW,
    WAYS,
    Cut,
    Cutting,
    a_day,
    all_records,
    at,
    export_all,
    fill,
    import_all,
    on_the_way,
    quiet,
)
from property.test_store_codec import records


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


@pytest.fixture(params=WAYS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    async with on_the_way(request.param, tmp_path) as stores:
        yield stores


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
