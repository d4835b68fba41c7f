"""The Firestore store when answers are lost, others are first, callers go away, or the database does."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from google.api_core.exceptions import GoogleAPICallError, from_grpc_status

from careflow.core.attempts import AttemptState, Disposition, end, move
from careflow.core.calls import CallState, wait_again
from careflow.core.checkins import Alert, AlertKind
from careflow.core.patients import DoNotCall
from careflow.core.rounds import Trigger, round_for
from careflow.errors import StoreUnavailable
from careflow.lab.firestore_emulator import find_emulator, running_emulator
from careflow.ports import Began
from careflow.store.firestore import FirestoreStore
from emulated import emulator_address, open_firestore, project_of, require_emulator
from firestore_day import NOW, PHONE, attempt_of, calling, interaction_of, patient

MINUTE = timedelta(minutes=1)


def failure(code):
    return from_grpc_status(code, "told by a test")


class Line:
    """Stands between a store and its commits: each is as the next word says, and done once there are no more."""

    def __init__(self, store, *words):
        self._commit = store._connection._commit
        self.words = list(words)
        self.late = []
        store._connection._commit = self

    async def __call__(self, request, **options):
        word = self.words.pop(0) if self.words else "done"
        if word == "late":  # the answer is lost now, the commit is done while others look
            self.late.append((type(request).FromString(request.SerializeToString()), options))
            raise failure(grpc.StatusCode.DEADLINE_EXCEEDED)
        if self.late:
            earlier, others = self.late.pop()
            with suppress(GoogleAPICallError):  # a transaction that was rolled back can't be committed late
                await self._commit(earlier, **others)
        if word == "lost":
            raise failure(grpc.StatusCode.UNAVAILABLE)
        result = await self._commit(request, **options)
        if word == "unanswered":
            raise failure(grpc.StatusCode.UNAVAILABLE)
        return result


async def no_pause(seconds):
    await asyncio.sleep(0)


@pytest.fixture
async def stores(tmp_path):
    """Two stores on the same data, that do not wait between tries."""
    opened = [
        await FirestoreStore.open(
            project=project_of(tmp_path), emulator=emulator_address(), sleep=no_pause, random=lambda: 0.0
        )
        for _ in range(2)
    ]
    yield opened
    for store in opened:
        await store.close()


def yes(patient, barred):
    return None


async def ready(store, *patients, hospital_id="h1"):
    """Stored calls whose first attempts may be begun."""
    await store.put_patients([patient(name, hospital_id) for name in patients])
    calls = [calling(name, hospital_id) for name in patients]
    await store.create_calls(calls)
    return calls


async def put(store):
    counts = await store.put_patients([patient("p1"), patient("p2")])
    return (counts.created, counts.updated, counts.unchanged), await store.roster_revision("h1")


async def create(store):
    return await store.create_calls([calling("p1"), calling("p2")])


async def open_round(store):
    trigger = Trigger(
        schedule_hour=8, time_zone="UTC", trigger_type="t", source="s", environment="e", hospital_id="h1"
    )
    round_ = await store.open_round(round_for(trigger, NOW, (8, 12, 20)))
    return await store.update_round(replace(round_, closed_at=NOW)), len(await store.rounds("h1"))


async def claim(store):
    await store.create_calls([replace(calling("p1"), state=CallState.WAITING)])
    call = await store.claim_call("h1", calling("p1").id, owner="w", now=NOW, lease_until=NOW + MINUTE)
    return call.version, await store.update_call(wait_again(call, NOW + MINUTE))


async def begin(store):
    (call,) = await ready(store, "p1")
    return (await store.begin_attempt(attempt_of(call), yes)).result


async def dial(store):
    (call,) = await ready(store, "p1")
    await store.begin_attempt(attempt_of(call), yes)
    return await store.update_attempt(move(attempt_of(call), AttemptState.DIALLED, NOW, call_sid="CA1"))


async def finish(store):
    (call,) = await ready(store, "p1")
    await store.begin_attempt(attempt_of(call), yes)
    ended = end(attempt_of(call), NOW, Disposition.BUSY)
    entry = DoNotCall(hospital_id="h1", phone=PHONE, patient_id=None, attempt_id=ended.id, since=NOW)
    return (
        await store.end_attempt(ended, interaction=interaction_of(ended), do_not_call=entry),
        len(await store.interactions("h1")),
        (await store.attempt(ended.id)).version,
        await store.on_do_not_call("h1", "nobody", PHONE),
    )


async def alert(store):
    attempt = attempt_of(calling("p1"))
    raised = Alert(
        id="a1",
        hospital_id="h1",
        round_id="r1",
        call_id=attempt.call_id,
        attempt_id=attempt.id,
        patient_id="p1",
        kind=AlertKind.WARNING,
        code="c",
        raised_at=NOW,
    )
    return await store.add_alert(raised), await store.acknowledge_alert("h1", "a1", by="n", at=NOW)


WORK = {
    put: ((2, 0, 0), 1),
    create: 2,
    open_round: (True, 1),
    claim: (1, True),
    begin: Began.BEGUN,
    dial: True,
    finish: (True, 1, 1, True),
    alert: (True, True),
}


@pytest.mark.parametrize("word", ["lost", "unanswered", "late"])
@pytest.mark.parametrize("which", range(5))  # the first makes the secret of the ids
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
async def test_a_commit_whose_answer_is_lost_is_done_once_and_told_right(stores, work, which, word):
    Line(stores[0], *["done"] * which, word)
    assert await work(stores[0]) == WORK[work]


async def test_whoever_loses_an_answer_does_not_take_anothers_change_for_its_own(stores):
    (call,) = await ready(stores[0], "p1")
    Line(stores[0], "lost")
    theirs = asyncio.create_task(stores[1].update_call(replace(call, reason="theirs")))
    mine = await stores[0].update_call(replace(call, reason="mine"))
    assert sorted([mine, await theirs]) == [False, True]
    assert (await stores[0].call("h1", call.id)).reason == ("mine" if mine else "theirs")


async def test_contention_is_tried_again_within_bounds(stores):
    (call,) = await ready(stores[0], "p1")
    aborted = stores[0]._connection._commit
    tries = []

    async def contended(request, **options):
        tries.append(request)
        if len(tries) < 6:
            raise failure(grpc.StatusCode.ABORTED)
        return await aborted(request, **options)

    stores[0]._connection._commit = contended
    assert (await stores[0].begin_attempt(attempt_of(call), yes)).result is Began.BEGUN


async def test_contention_without_end_is_unavailable_and_changes_nothing(stores):
    (call,) = await ready(stores[0], "p1")

    async def contended(request, **options):
        raise failure(grpc.StatusCode.ABORTED)

    stores[0]._connection._commit = contended
    with pytest.raises(StoreUnavailable, match="8 tries: ABORTED"):
        await stores[0].begin_attempt(attempt_of(call), yes)
    assert await stores[1].open_attempts() == []
    assert (await stores[1].begin_attempt(attempt_of(call), yes)).result is Began.BEGUN


async def test_of_two_hospitals_that_want_one_number_at_once_one_may_dial(stores):
    for number in range(12):
        phone = f"+121255501{number:02}"
        attempts = []
        for store, hospital_id in zip(stores, ("h1", "h2"), strict=True):
            await store.put_patients([patient(f"p{number}", hospital_id, phone=phone)])
            call = calling(f"p{number}", hospital_id, f"round-of-{hospital_id}")
            await store.create_calls([call])
            attempts.append(attempt_of(call, phone))
        begun = await asyncio.gather(
            *(
                store.begin_attempt(attempt, yes)
                for store, attempt in zip(stores, attempts, strict=True)
                for _ in range(2)
            )
        )
        assert [one.result for one in begun].count(Began.BEGUN) == 1
        assert {one.result for one in begun} <= {Began.BEGUN, Began.EXISTS, Began.LINE_BUSY}


async def test_a_bar_that_is_raised_while_an_attempt_begins_is_seen_or_waits(stores):
    """Whoever is told that the number is barred will not see it begun afterwards."""
    (call,) = await ready(stores[0], "p1")
    entry = DoNotCall(hospital_id="h1", phone=PHONE, patient_id=None, attempt_id="x", since=NOW)
    told = []
    line = Line(stores[0])
    commit = line._commit

    async def slow(request, **options):
        barring = asyncio.create_task(stores[1].add_do_not_call(entry))
        await asyncio.sleep(0.3)
        told.append(barring.done())
        result = await commit(request, **options)
        await barring
        return result

    line._commit = slow
    result = await stores[0].begin_attempt(
        attempt_of(call), lambda p, barred: "opted-out" if barred else None
    )
    assert (told, result.result) == ([False], Began.BEGUN)


@pytest.mark.parametrize("at", range(6))
async def test_a_caller_who_goes_away_leaves_all_or_nothing_and_no_lock(stores, at):
    (call,) = await ready(stores[0], "p1")
    attempt = attempt_of(call)
    reached = asyncio.Event()
    connection = stores[0]._connection
    left = at

    def stopping(method, after):
        async def call(request, **options):
            nonlocal left
            left -= 1
            if left == -1 and not after:
                reached.set()
                await asyncio.sleep(0.2)
            result = await method(request, **options)
            if left == -1:
                reached.set()
                await asyncio.sleep(0.2)
            return result

        return call

    left = at // 2
    connection._collect = stopping(connection._collect, bool(at % 2))
    connection._commit = stopping(connection._commit, bool(at % 2))
    asking = asyncio.create_task(stores[0].begin_attempt(attempt, yes))
    await reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    started = time.monotonic()
    stored = await stores[1].attempt(attempt.id)
    assert bool(stored) is (at == 5)
    assert await stores[1].update_call(replace(call, reason="not locked"))
    again = await stores[1].begin_attempt(attempt, yes)
    assert again.result is (Began.EXISTS if stored else Began.BEGUN)
    assert time.monotonic() - started < 1.5  # the emulator gives a lock up after two


async def test_a_store_that_is_closing_finishes_what_was_asked(stores):
    (call,) = await ready(stores[0], "p1")
    beginning = asyncio.create_task(stores[0].begin_attempt(attempt_of(call), yes))
    await asyncio.sleep(0)
    await stores[0].close()
    assert (await beginning).result is Began.BEGUN
    with pytest.raises(StoreUnavailable, match="closed"):
        await stores[0].open_attempts()


async def test_a_database_that_is_gone_is_told_within_seconds_and_found_again(tmp_path):
    require_emulator()
    async with running_emulator() as address:
        port = int(address.rsplit(":", 1)[1])
        store = await FirestoreStore.open(project="p", emulator=address)
        await store.put_patients([patient("p1")])
    for ask in (store.check, lambda: store.patient("h1", "p1")):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await ask()
        assert time.monotonic() - started < 8
    async with running_emulator(find_emulator(), port=port):
        until = time.monotonic() + 10
        while True:
            try:
                await store.check()
                break
            except StoreUnavailable:
                assert time.monotonic() < until
        assert await store.patient("h1", "p1") is None  # it keeps nothing: this is another one
        await store.close()


async def test_a_store_that_could_not_get_at_the_secret_asks_again(stores):
    Line(stores[0], *["lost"] * 8)
    with pytest.raises(StoreUnavailable, match="8 tries: UNAVAILABLE"):
        await stores[0].put_patients([patient("p1")])
    assert (await stores[1].put_patients([patient("p1")])).created == 1
    assert await stores[0].patient("h1", "p1") == patient("p1")


async def test_an_error_tells_nothing_of_anybody(tmp_path):
    require_emulator()
    async with running_emulator() as address:
        store = await FirestoreStore.open(project="p", emulator=address, sleep=no_pause)
    person = patient("MRN-77", given_name="Ada", phone="+12125550177")
    for ask in (
        lambda: store.put_patients([person]),
        lambda: store.patient("h1", "MRN-77"),
        lambda: store.on_do_not_call("h1", "MRN-77", "+12125550177"),
        lambda: store.candidates("h1", 8, after="MRN-77"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await ask()
        assert not {"MRN-77", "Ada", "2125550177"} & set(str(caught.value).replace("'", " ").split())
        assert "2125550177" not in str(caught.value)
    await store.close()


async def test_without_an_index_the_operator_is_told_what_to_do(tmp_path):
    store = await open_firestore(project_of(tmp_path))

    def refused(request, **options):
        raise failure(grpc.StatusCode.FAILED_PRECONDITION)

    store._connection._query = refused
    with pytest.raises(Exception, match="deploy infra/firestore"):
        await store.patients("h1")
    await store.close()
