"""Two instances on one store: whichever hears of something, a conversation has one holder and one end, a patient one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from caller_support import HOSPITAL, FakePhone, World, world
from careflow.caller.attempts import AttemptDesk, Step
from careflow.caller.stream_pass import StreamPass
from careflow.caller.watch import Pace, Watch
from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending
from careflow.core.checkins import CheckIn, Triage
from careflow.core.conversation import Finished
from careflow.core.retry import NEVER_CREATED
from careflow.ports import AttemptOrder
from careflow.store.sqlite import SqliteStore

COMPLETE = Finished(ending=Ending.COMPLETE)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def other(here: World) -> AsyncIterator[AttemptDesk]:
    """The desk of a second instance, with a connection of its own to the same store."""
    store = await SqliteStore.open(here.data_dir)
    yield here.desk(store)
    await store.close()


async def talking(here: World, desk: AttemptDesk) -> tuple[AttemptOrder, str, int]:
    """An attempt whose conversation the desk's instance holds: order, call SID and number of the stream."""
    order = await here.ready()
    begun = await desk.begin(order)
    assert begun.attempt is not None
    sid = begun.attempt.call_sid
    assert sid is not None
    here.phone.becomes(sid, "in-progress")
    return order, sid, await connected(desk, order, sid)


async def connected(desk: AttemptDesk, order: AttemptOrder, sid: str) -> int:
    step = await desk.answered(order.attempt_id, sid)
    assert step.attempt is not None
    begun = await desk.stream_started(order.attempt_id, step.attempt.stream_token, sid)
    assert begun is not None
    return StreamPass.parse(begun.stream_token).streams


def check_in(attempt: Attempt) -> CheckIn:
    return CheckIn(
        id=attempt.id,
        hospital_id=attempt.hospital_id,
        round_id=attempt.round_id,
        call_id=attempt.call_id,
        patient_id=attempt.patient_id,
        script="morning",
        script_version="1",
        language="en",
        identity_confirmed=True,
        triage=Triage.GREEN,
        started_at=attempt.intended_at,
        ended_at=attempt.intended_at,
    )


class TestTheHolderTellsTheEnd:
    async def test_the_status_that_another_instance_hears_waits_for_the_holder_as_long_as_it_lives(
        self, here: World, other: AttemptDesk
    ) -> None:
        holder = here.desk()
        order, sid, stream = await talking(here, holder)
        here.phone.becomes(sid, "completed")
        reported = asyncio.ensure_future(other.status(order.attempt_id, sid, "completed"))
        for _ in range(20):  # far longer than one hold: a store that is slow, words that are being understood
            await here.settled_loop(reported.done)
            here.clock.advance(1)
            assert await holder.keep(order.attempt_id, stream=stream)
        await other.settle_all()
        assert not reported.done()
        left = check_in(await here.attempt(order))
        await holder.conversation_over(order.attempt_id, COMPLETE, left, stream=stream)
        ended = await here.pass_time(reported)
        assert ended.ending is Ending.COMPLETE
        assert await here.store.check_in(HOSPITAL, order.attempt_id) == left

    async def test_a_holder_that_died_is_waited_for_no_longer_than_it_said(
        self, here: World, other: AttemptDesk
    ) -> None:
        order, sid, _ = await talking(here, here.desk())
        here.phone.becomes(sid, "completed")
        ended = await here.pass_time(other.status(order.attempt_id, sid, "completed"))
        assert ended.ending is Ending.INTERRUPTED
        assert ended.ended_at - ended.intended_at <= here.limits.hold + timedelta(seconds=2)

    async def test_a_holder_that_never_comes_to_an_end_is_not_waited_for_for_ever(
        self, here: World, other: AttemptDesk
    ) -> None:
        here.limits = replace(here.limits, last_words=timedelta(seconds=20))
        other = here.desk()
        holder = here.desk()
        order, sid, stream = await talking(here, holder)
        here.phone.becomes(sid, "completed")
        reported = asyncio.ensure_future(other.status(order.attempt_id, sid, "completed"))
        for _ in range(25):
            await holder.keep(order.attempt_id, stream=stream)
            await here.settled_loop(reported.done)
            here.clock.advance(1)
        assert reported.done()
        assert (await here.attempt(order)).ending is Ending.INTERRUPTED

    async def test_a_cancel_at_another_instance_reaches_the_holder(
        self, here: World, other: AttemptDesk
    ) -> None:
        holder = here.desk()
        order, _, stream = await talking(here, holder)
        watch = Watch(here.store, here.clock)
        seen = asyncio.ensure_future(ended_in(watch, order.attempt_id))
        assert await other.cancel(order.attempt_id)
        assert (await here.pass_time(seen, at_most=5)).disposition is Disposition.CANCELLED
        assert here.phone.live == []
        await holder.conversation_over(order.attempt_id, COMPLETE, None, stream=stream)
        assert (await here.attempt(order)).disposition is Disposition.CANCELLED

    async def test_a_cancel_that_the_provider_did_not_hear_is_carried_out_though_the_call_is_held(
        self, here: World, other: AttemptDesk
    ) -> None:
        order, _, _ = await talking(here, here.desk())
        here.phone.down = True
        assert await other.cancel(order.attempt_id)
        here.phone.down = False
        await other.settle_all()
        assert (await here.attempt(order)).disposition is Disposition.CANCELLED


async def ended_in(watch: Watch, attempt_id: str) -> Attempt:
    return [attempt async for attempt in watch.changes(attempt_id)][-1]


class TestOneHolder:
    """A instance that believes it holds a conversation which went on elsewhere."""

    @pytest.mark.parametrize("last_word", ["checkpoint", "keep", "hand-over", "over", "broken", "lost"])
    async def test_what_a_former_holder_says_changes_nothing(
        self, here: World, other: AttemptDesk, last_word: str
    ) -> None:
        former = here.desk()
        order, sid, first = await talking(here, former)
        await former.checkpoint(order.attempt_id, "old", stream=first)
        assert (await other.resumed(order.attempt_id, sid)).step is Step.CONNECT
        second = await connected(other, order, sid)
        assert await other.checkpoint(order.attempt_id, "new", stream=second)
        before = await here.attempt(order)
        match last_word:
            case "checkpoint":
                assert not await former.checkpoint(order.attempt_id, "old", stream=first)
            case "keep":
                assert not await former.keep(order.attempt_id, stream=first)
            case "hand-over":
                assert not await former.hand_over(order.attempt_id, "old", stream=first)
            case "over":
                await former.conversation_over(
                    order.attempt_id, Finished(ending=Ending.HUNG_UP), None, stream=first
                )
            case "broken":
                await former.conversation_broken(order.attempt_id, stream=first)
            case "lost":
                here.phone.becomes(
                    sid, "completed"
                )  # the patient hung up, in the conversation with the other
                await former.stream_lost(order.attempt_id, stream=first)
                here.phone.becomes(sid, "in-progress")
        assert await here.attempt(order) == before
        assert here.phone.live == [sid], "the patient is still talking with the other instance"

    async def test_a_token_opens_one_stream_at_two_instances(self, here: World, other: AttemptDesk) -> None:
        holder = here.desk()
        order = await here.ready()
        begun = await holder.begin(order)
        assert begun.attempt is not None
        sid = begun.attempt.call_sid
        assert sid is not None
        token = begun.attempt.stream_token
        opened = await asyncio.gather(
            *(desk.stream_started(order.attempt_id, token, sid) for desk in (holder, other))
        )
        assert sum(attempt is not None for attempt in opened) == 1


class TestHandover:
    async def test_it_may_happen_any_number_of_times_and_is_no_failure(
        self, here: World, other: AttemptDesk
    ) -> None:
        order, sid, stream = await talking(here, here.desk())
        for turn in range(5):
            assert await here.desk().hand_over(order.attempt_id, f"{turn}", stream=stream)
            step = await other.resumed(order.attempt_id, sid)
            assert step.step is Step.CONNECT
            assert step.attempt is not None
            assert step.attempt.checkpoint == f"{turn}"
            stream = await connected(other, order, sid)
        for _ in range(here.limits.resumes):  # all of them are still there for real failures
            assert (await other.resumed(order.attempt_id, sid)).step is Step.CONNECT
        assert (await other.resumed(order.attempt_id, sid)).step is Step.APOLOGISE

    async def test_an_empty_text_keeps_the_checkpoint(self, here: World) -> None:
        desk = here.desk()
        order, _, stream = await talking(here, desk)
        await desk.checkpoint(order.attempt_id, "before the alert", stream=stream)
        assert await desk.hand_over(order.attempt_id, "", stream=stream)
        assert (await here.attempt(order)).checkpoint == "before the alert"

    async def test_nobody_waits_for_a_holder_that_gave_its_conversation_up(
        self, here: World, other: AttemptDesk
    ) -> None:
        desk = here.desk()
        order, sid, stream = await talking(here, desk)
        await desk.hand_over(order.attempt_id, "", stream=stream)
        here.phone.becomes(sid, "completed")  # nobody was there to take it
        await other.settle_all()
        assert (await here.attempt(order)).ending is Ending.INTERRUPTED


class SlowAnswer(FakePhone):
    """Creates the call at once; its answer to the create comes when `answer` is set."""

    answer: asyncio.Event

    async def dial(self, attempt: Attempt) -> str:
        sid = await super().dial(attempt)
        await self.answer.wait()
        return sid


class HeldUp:
    """A store after whose `begin_attempt` the process stands still for a minute."""

    def __init__(self, here: World) -> None:
        self._here = here

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._here.store, name)
        if name != "begin_attempt":
            return method

        async def late(*args: Any) -> Any:
            result = await method(*args)
            await self._here.clock.sleep(60)
            return result

        return late


class TestDialling:
    async def test_a_webhook_at_another_instance_comes_before_the_answer_to_the_create(
        self, here: World, other: AttemptDesk
    ) -> None:
        here.phone = SlowAnswer(here.clock)
        here.phone.answer = asyncio.Event()
        dialling, elsewhere = here.desk(), here.desk()
        order = await here.ready()
        begun = asyncio.ensure_future(dialling.begin(order))
        while not here.phone.calls:
            await asyncio.sleep(0.001)
        [sid] = here.phone.calls
        assert (await elsewhere.answered(order.attempt_id, sid)).step is Step.CONNECT
        here.phone.answer.set()
        result = await begun
        assert result.attempt is not None
        assert (result.attempt.state, result.attempt.call_sid) == (AttemptState.ANSWERED, sid)
        assert here.phone.hung_up == []

    async def test_who_was_held_up_after_the_intent_does_not_dial_what_others_gave_up(
        self, here: World, other: AttemptDesk
    ) -> None:
        order = await here.ready()
        late = here.desk(HeldUp(here))
        begun = asyncio.ensure_future(late.begin(order))
        while await here.store.attempt(order.attempt_id) is None:
            await asyncio.sleep(0.001)
        settling = asyncio.ensure_future(other.settle_all())
        await here.pass_time(asyncio.gather(begun, settling))
        assert here.phone.creates == 0
        assert (await here.attempt(order)).failure == NEVER_CREATED

    async def test_two_instances_that_settle_at_once_leave_one_end(
        self, here: World, other: AttemptDesk
    ) -> None:
        desk = here.desk()
        order = await here.ready()
        begun = await desk.begin(order)
        assert begun.attempt is not None
        here.phone.becomes(begun.attempt.call_sid or "", "no-answer")
        await here.pass_time(asyncio.gather(desk.settle_all(), other.settle_all()))
        assert len(await here.store.interactions(HOSPITAL)) == 1


class CountedReads:
    """A store that counts how often an attempt was read."""

    def __init__(self, store: SqliteStore) -> None:
        self.reads = 0
        self._store = store

    async def attempt(self, attempt_id: str) -> Attempt | None:
        self.reads += 1
        return await self._store.attempt(attempt_id)


class TestWatching:
    async def test_all_who_follow_one_attempt_in_a_process_read_it_once(self, here: World) -> None:
        order, _, _ = await talking(here, here.desk())
        counted: Any = CountedReads(here.store)
        watch = Watch(counted, here.clock, pace=Pace(listening=1.0))
        following = [asyncio.ensure_future(ended_in(watch, order.attempt_id)) for _ in range(5)]
        for _ in range(10):
            await here.settled_loop(lambda: False)
            here.clock.advance(1)
        await here.settled_loop(lambda: False)
        assert counted.reads <= 5 + 10  # one look of each as it begins, and one a second for all of them
        for one in following:
            one.cancel()

    async def test_a_minute_and_a_half_of_talk_costs_each_process_thirty_reads(self, here: World) -> None:
        desk = here.desk()
        order, sid, _ = await talking(here, desk)
        counted: Any = CountedReads(here.store)
        following = asyncio.ensure_future(ended_in(Watch(counted, here.clock), order.attempt_id))
        for second in range(90):
            await here.settled_loop(lambda: False)
            here.clock.advance(1)
            if second == 4:
                await desk.machine(order.attempt_id, "human", sid)
        assert counted.reads <= 30
        following.cancel()

    async def test_the_verdict_of_the_answering_machine_detection_is_seen_within_a_second(
        self, here: World, other: AttemptDesk
    ) -> None:
        order, sid, _ = await talking(here, here.desk())
        watch = Watch(here.store, here.clock)
        changes = watch.changes(order.attempt_id, after_version=(await here.attempt(order)).version)
        seen = asyncio.ensure_future(anext(changes))
        await here.settled_loop(lambda: False)
        await other.machine(order.attempt_id, "machine_start", sid)
        assert (await here.pass_time(seen, at_most=1)).answered_by == "machine_start"
        await changes.aclose()  # type: ignore[attr-defined]

    async def test_a_later_follower_sees_what_another_process_stored_before(self, here: World) -> None:
        order, _, _ = await talking(here, here.desk())
        watch = Watch(here.store, here.clock)
        following = asyncio.ensure_future(ended_in(watch, order.attempt_id))
        await here.settled_loop(lambda: False)
        await here.desk().cancel(order.attempt_id)  # with a watch of its own: the first is told nothing
        assert (await ended_in(watch, order.attempt_id)).state is AttemptState.ENDED
        await asyncio.wait_for(following, 5)
