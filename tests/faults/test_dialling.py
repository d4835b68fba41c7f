"""Whatever dies or gets lost between the intent and the call SID, one attempt is one call (invariants 1, 2 and 4)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from caller_support import NOW, Crash, CrashingStore, World, lost, patient, world
from careflow.core.attempts import AttemptState, Disposition, Ending
from careflow.core.retry import NEVER_CREATED
from careflow.errors import ProviderError
from careflow.ports import Began


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_a_begun_attempt_has_its_sid_before_the_asker_hears_of_it(here: World) -> None:
    order = await here.ready()
    result = await here.desk().begin(order)
    assert result.result is Began.BEGUN
    assert result.attempt is not None
    assert (result.attempt.state, result.attempt.call_sid) == (AttemptState.DIALLED, *here.phone.calls)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 9))
async def test_a_crash_at_any_store_call_never_makes_a_second_call(here: World, at: int, done: bool) -> None:
    order = await here.ready()
    dying = here.desk(CrashingStore(here.store, at, done=done))
    with contextlib.suppress(Crash):
        await dying.begin(order)
    fresh = here.desk()
    await here.pass_time(fresh.settle_all())
    result = await here.pass_time(fresh.begin(order))
    attempt = await here.attempt(order)
    assert here.phone.creates <= 1
    assert len(here.phone.calls) <= 1
    assert result.result in (Began.BEGUN, Began.EXISTS)
    if here.phone.calls:
        assert attempt.call_sid in here.phone.calls
    else:
        assert (attempt.state, attempt.failure) == (AttemptState.ENDED, NEVER_CREATED)


@pytest.mark.parametrize("created", [False, True])
async def test_a_crash_in_the_create_is_settled_by_listing(here: World, created: bool) -> None:
    order = await here.ready()
    here.phone.answers = [(Crash(), created)]
    with pytest.raises(Crash):
        await here.desk().begin(order)
    await here.pass_time(here.desk().settle_all())
    attempt = await here.attempt(order)
    assert here.phone.creates == 1
    assert (attempt.call_sid is not None) is created
    assert (attempt.failure == NEVER_CREATED) is not created


@pytest.mark.parametrize("hidden", [0, 1, 2])
async def test_a_lost_answer_is_looked_for_more_than_once(here: World, hidden: int) -> None:
    order = await here.ready()
    here.phone.answers = [(lost(), True)]
    here.phone.hidden_listings = hidden
    result = await here.pass_time(here.desk().begin(order))
    assert here.phone.creates == 1
    assert result.attempt.call_sid in here.phone.calls


async def test_a_call_is_not_declared_missing_while_its_create_may_still_arrive(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(lost(), False)]
    await here.pass_time(here.desk().begin(order))
    attempt = await here.attempt(order)
    assert attempt.failure == NEVER_CREATED
    assert attempt.ended_at is not None
    assert attempt.ended_at - attempt.intended_at >= here.limits.unknown_for
    assert here.phone.listings >= 2


async def test_a_call_that_shows_up_after_it_was_given_up_is_hung_up(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(lost(), False)]
    desk = here.desk()
    await here.pass_time(desk.begin(order))
    late = here.phone.add("+12125550123", status="ringing")
    await desk.status(order.attempt_id, late, "ringing")
    assert here.phone.live == []
    assert (await here.attempt(order)).failure == NEVER_CREATED


async def test_of_two_calls_the_older_is_kept_and_the_other_cancelled(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(lost(), True)]
    second = here.phone.add("+12125550123", created_at=NOW + timedelta(seconds=9))
    await here.pass_time(here.desk().begin(order))
    attempt = await here.attempt(order)
    assert attempt.call_sid is not None
    assert attempt.call_sid != second
    assert here.phone.live == [attempt.call_sid]


async def test_an_earlier_attempts_call_is_never_adopted(here: World) -> None:
    first = await here.ready()
    desk = here.desk()
    await desk.begin(first)
    [earlier] = here.phone.calls
    await desk.status(first.attempt_id, earlier, "busy")
    second = await here.ready(number=2)
    here.phone.answers = [(lost(), False)]
    await here.pass_time(desk.begin(second))
    assert (await here.attempt(second)).failure == NEVER_CREATED
    assert (await here.attempt(first)).call_sid == earlier


async def test_calls_of_another_day_are_not_taken_for_this_attempts(here: World) -> None:
    order = await here.ready()
    here.phone.add("+12125550123", created_at=NOW - timedelta(days=1), status="completed")
    here.phone.answers = [(lost(), False)]
    here.phone.undated = True
    await here.pass_time(here.desk().begin(order))
    assert (await here.attempt(order)).failure == NEVER_CREATED


async def test_a_call_created_long_after_the_intent_is_still_this_attempts(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(lost(), False)]
    late = here.phone.add("+12125550123", created_at=NOW + timedelta(minutes=10))
    await here.pass_time(here.desk().begin(order))
    assert (await here.attempt(order)).call_sid == late


async def test_a_callback_with_the_attempts_id_proves_the_call(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(lost(), True)]
    here.phone.hidden_listings = 10**6
    desk = here.desk()
    beginning = asyncio.ensure_future(desk.begin(order))
    while not here.phone.listings:
        await asyncio.sleep(0.001)
    [sid] = here.phone.calls
    await desk.status(order.attempt_id, sid, "ringing")
    await here.pass_time(beginning)
    attempt = await here.attempt(order)
    assert (attempt.state, attempt.call_sid) == (AttemptState.RINGING, sid)


async def test_the_asker_going_away_does_not_stop_the_dialling(here: World) -> None:
    order = await here.ready()
    here.phone.gate = asyncio.Event()
    desk = here.desk()
    asker = asyncio.ensure_future(desk.begin(order))
    while not here.phone.creates:
        await asyncio.sleep(0.001)
    asker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker
    here.phone.gate.set()
    await desk.close()
    assert (await here.attempt(order)).call_sid in here.phone.calls


async def test_ten_askers_at_two_processes_make_one_call(here: World) -> None:
    order = await here.ready()
    one, other = here.desk(), here.desk()
    askers = [desk.begin(order) for desk in (one, other) for _ in range(5)]
    results = await here.pass_time(asyncio.gather(*askers))
    assert [result.result for result in results].count(Began.BEGUN) == 1
    assert len(here.phone.calls) == 1
    assert (await here.attempt(order)).call_sid in here.phone.calls


async def test_two_processes_settling_the_same_attempt_do_no_harm(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(Crash(), True)]
    with pytest.raises(Crash):
        await here.desk().begin(order)
    await here.pass_time(asyncio.gather(here.desk().settle_all(), here.desk().settle_all()))
    assert (await here.attempt(order)).call_sid in here.phone.live


async def test_a_sid_that_comes_back_after_the_attempt_was_ended_is_hung_up(here: World) -> None:
    order = await here.ready()
    here.phone.gate = asyncio.Event()
    slow = here.desk()
    dialling = asyncio.ensure_future(slow.begin(order))
    while not here.phone.creates:
        await asyncio.sleep(0.001)
    await here.pass_time(here.desk().settle_all())  # another process gives it up
    here.phone.gate.set()
    await dialling
    assert here.phone.live == []
    assert (await here.attempt(order)).failure == NEVER_CREATED


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"consent": False}, "no-consent"),
        ({"deceased": True}, "deceased"),
        ({"opted_out": True}, "opted-out"),
        ({"active": False}, "inactive"),
        ({"phone": None}, "no-number"),
        ({"paused_until": NOW + timedelta(days=1)}, "paused"),
        ({"time_zone": "Asia/Tokyo"}, "outside-calling-hours"),  # midnight there
    ],
)
async def test_nobody_is_dialled_whom_the_stored_record_protects(
    here: World, fields: dict[str, object], reason: str
) -> None:
    order = await here.ready()
    await here.store.put_patients([patient(**fields)])
    result = await here.desk().begin(order)
    assert (result.result, result.reason) == (Began.REFUSED, reason)
    assert here.phone.creates == 0


async def test_a_number_corrected_in_the_last_moment_is_the_one_dialled(here: World) -> None:
    order = await here.ready()

    class Corrected:
        """The roster changes between the reading of the patient and the storing of the intent."""

        def __getattr__(self, name: str) -> Any:
            return getattr(here.store, name)

        async def begin_attempt(self, *args: Any) -> Any:
            await here.store.put_patients([patient(phone="+12125550199")])
            return await here.store.begin_attempt(*args)

    await here.desk(Corrected()).begin(order)
    assert [call.to for call in here.phone.calls.values()] == ["+12125550199"]


async def test_an_order_past_its_time_is_refused(here: World) -> None:
    order = replace(await here.ready(), not_after=NOW)
    result = await here.desk().begin(order)
    assert (result.result, result.reason) == (Began.REFUSED, "outside-calling-hours")


async def test_two_patients_with_one_number_are_never_dialled_at_once(here: World) -> None:
    first = await here.ready()
    second = await here.ready(patient(id="p2"))
    desk = here.desk()
    await desk.begin(first)
    assert (await desk.begin(second)).result is Began.LINE_BUSY
    assert here.phone.creates == 1


async def test_a_call_still_queued_when_its_time_is_over_is_taken_back(here: World) -> None:
    order = replace(await here.ready(), not_after=NOW + timedelta(minutes=2))
    desk = here.desk()
    await desk.begin(order)
    here.clock.advance(121)
    await here.pass_time(desk.settle_all())
    attempt = await here.attempt(order)
    assert (attempt.disposition, attempt.failure) == (Disposition.FAILED, "queued-too-long")
    assert here.phone.live == []


async def test_dialling_may_not_begin_after_the_patients_own_evening(here: World) -> None:
    order = replace(
        await here.ready(patient(calling_until=NOW.replace(hour=10, minute=30, tzinfo=None).time())),
    )
    await here.desk().begin(order)
    assert (await here.attempt(order)).not_after == NOW + timedelta(minutes=30)


async def test_an_attempt_nobody_hears_of_is_hung_up_at_its_deadline(here: World) -> None:
    order = await here.ready()
    desk = here.desk()
    await desk.begin(order)
    [sid] = here.phone.calls
    here.phone.becomes(sid, "ringing")
    here.clock.advance(here.limits.attempt_deadline.total_seconds())
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).failure == "deadline"
    assert here.phone.live == []


async def test_an_unreachable_provider_leaves_the_attempt_open(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(lost(), True)]
    here.phone.down = True
    desk = here.desk()
    await here.pass_time(desk.begin(order))
    assert (await here.attempt(order)).state is AttemptState.INTENDED
    here.phone.down = False
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).call_sid in here.phone.live


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ProviderError("refused", code="21211", permanent=True), "invalid-number"),
        (ProviderError("refused", code="21215", permanent=True), "not-permitted"),
        (ProviderError("refused", code="20003", permanent=True), "20003"),
        (ProviderError("busy", code="20429"), NEVER_CREATED),
    ],
)
async def test_a_refused_create_ends_the_attempt(here: World, error: ProviderError, failure: str) -> None:
    order = await here.ready()
    here.phone.answers = [(error, False)]
    await here.desk().begin(order)
    attempt = await here.attempt(order)
    assert (attempt.disposition, attempt.failure) == (Disposition.FAILED, failure)
    assert here.phone.listings == 0


async def test_a_cancel_while_dialling_hangs_up_as_soon_as_the_sid_is_known(here: World) -> None:
    order = await here.ready()
    here.phone.gate = asyncio.Event()
    desk = here.desk()
    dialling = asyncio.ensure_future(desk.begin(order))
    while not here.phone.creates:
        await asyncio.sleep(0.001)
    assert await here.desk().cancel(order.attempt_id)  # from another process
    here.phone.gate.set()
    await dialling
    assert (await here.attempt(order)).disposition is Disposition.CANCELLED
    assert here.phone.live == []


async def test_a_conversation_whose_process_died_is_not_phoned_again(here: World) -> None:
    order = await here.ready()
    dead = here.desk()
    begun = await dead.begin(order)
    assert begun.attempt is not None
    [sid] = here.phone.calls
    assert await dead.stream_started(order.attempt_id, begun.attempt.stream_token, sid)
    here.phone.becomes(sid, "completed")
    here.let_go()
    await here.pass_time(here.desk().settle_all())
    attempt = await here.attempt(order)
    assert (attempt.disposition, attempt.ending) == (Disposition.ANSWERED, Ending.INTERRUPTED)
    assert len(await here.store.interactions("h1")) == 1


async def test_the_settling_loop_outlives_a_failing_store(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(Crash(), True)]
    with pytest.raises(Crash):
        await here.desk().begin(order)

    class Failing:
        failures = 2

        def __getattr__(self, name: str) -> object:
            if name == "open_attempts" and Failing.failures:
                Failing.failures -= 1
                raise OSError("no")
            return getattr(here.store, name)

    running = asyncio.ensure_future(here.desk(Failing()).run())

    async def settled() -> None:
        while (await here.attempt(order)).call_sid is None:
            await asyncio.sleep(0.001)

    await here.pass_time(settled(), step=5.0)
    running.cancel()
