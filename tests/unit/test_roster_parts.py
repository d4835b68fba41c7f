"""A roster goes into a store part by part; who is broken off is told how far it went, and goes on."""

from __future__ import annotations

import asyncio

import pytest

from careflow.cli.context import Interrupted
from careflow.cli.progress import Progress
from careflow.cli.roster import put
from careflow.errors import StoreUnavailable
from careflow.ports import PutCounts
from careflow.store.codec import CODEC_OF
from careflow.store.parts import PART_BYTES, in_parts
from careflow.store.sqlite import SqliteStore
from firestore_day import patient

ROSTER = [patient(f"p{number:04}", conditions=("x" * 500,)) for number in range(1000)]
FIRST = len(next(in_parts(ROSTER)))


@pytest.fixture
async def store(tmp_path):
    opened = await SqliteStore.open(tmp_path)
    yield opened
    await opened.close()


def breaking(store, error):
    """Let the second part fail, once."""
    errors = [None, error]
    put_patients = store.put_patients

    async def put_or_fail(patients):
        if errors and (failure := errors.pop(0)):
            raise failure
        return await put_patients(patients)

    store.put_patients = put_or_fail


class TestParts:
    def test_all_are_in_one_part_each_in_their_order(self):
        assert [one for part in in_parts(ROSTER) for one in part] == ROSTER

    def test_no_part_is_larger_than_a_write(self):
        sizes = [sum(len(CODEC_OF[type(one)].dumps(one)) for one in part) for part in in_parts(ROSTER)]
        assert len(sizes) > 2
        assert max(sizes) < PART_BYTES

    def test_what_is_larger_than_a_part_goes_alone(self):
        large = patient("large", conditions=("x" * PART_BYTES,))
        assert [len(part) for part in in_parts([ROSTER[0], large, ROSTER[1]])] == [1, 1, 1]

    def test_of_nothing_there_is_no_part(self):
        assert list(in_parts([])) == []


class TestImport:
    async def test_the_counts_are_those_of_all_parts(self, store):
        changed = [patient("p0000"), *ROSTER[1:], patient("new")]
        assert await put(store, ROSTER, Progress(quiet=True)) == PutCounts(1000, 0, 0)
        assert await put(store, changed, Progress(quiet=True)) == PutCounts(1, 1, 999)

    @pytest.mark.parametrize(
        ("error", "told"),
        [(StoreUnavailable("the disk is full"), StoreUnavailable), (asyncio.CancelledError(), Interrupted)],
    )
    async def test_who_is_broken_off_is_told_how_many_are_in_and_goes_on(self, store, error, told):
        breaking(store, error)
        with pytest.raises(told, match=f"at least {FIRST} of 1,000 patients are in; the same import again"):
            await put(store, ROSTER, Progress(quiet=True))
        assert len(await store.patients("h1")) == FIRST
        assert await put(store, ROSTER, Progress(quiet=True)) == PutCounts(1000 - FIRST, 0, FIRST)
