"""POST /tasks/close and the start: a round ends even if every process died in the middle."""

from __future__ import annotations

import asyncio
from datetime import time, timedelta
from typing import Any

from careflow.core.attempts import Attempt
from careflow.core.calls import Outcome
from careflow.core.checkins import AlertKind
from careflow.core.rounds import Trigger, plan, round_for
from careflow.errors import StoreUnavailable
from careflow.pulse.recovery import EVERY
from pulse_world import (
    ANSWERED,
    CLOSE_TASK,
    EIGHT_FIFTEEN,
    HOSPITAL,
    ROUND_ID,
    WINDOW_END,
    Crash,
    World,
    patient,
    world,
)

CLOSE = {"hospitalId": HOSPITAL, "roundId": ROUND_ID}
GRACE = timedelta(minutes=20)


async def closed_round(it: World) -> Any:
    return await it.store.round(HOSPITAL, ROUND_ID)


async def dialled_and_never_heard_of(it: World) -> None:
    """One call whose attempt was dialled just before the window's end, by a Pulse that then died."""
    await it.trigger()
    it.caller.script = lambda _: None
    it.clock.advance((WINDOW_END - it.clock.now()).total_seconds() - 60)
    (task,) = [task for task in it.queue.waiting.values() if task.queue == "calls"]
    await it.deliver(task)
    it.queue.waiting.clear()


async def test_calls_never_claimed_end_unreachable_with_an_alert() -> None:
    async with world([patient(1), patient(2)]) as it:
        await it.trigger()
        it.queue.waiting.clear()
        it.clock.advance((WINDOW_END - it.clock.now()).total_seconds())
        assert (await it.post("/tasks/close", CLOSE)).json() == {"status": "closed"}
        assert [(call.outcome, call.reason) for call in await it.calls()] == [
            (Outcome.UNREACHABLE, "window-over")
        ] * 2
        assert [alert.kind for alert in await it.store.alerts(HOSPITAL)] == [AlertKind.UNREACHABLE] * 2
        assert (await closed_round(it)).outcomes == (("unreachable", 2),)


async def test_a_call_that_a_slow_planner_adds_at_the_last_moment_keeps_the_round_open() -> None:
    async with world([patient(1)]) as it:
        await it.trigger()
        added = plan(await closed_round(it), patient(2), EIGHT_FIFTEEN, do_not_call=False)
        assert added is not None
        counts = it.store.count_calls

        async def late(hospital_id: str, round_id: str) -> Any:
            await it.store.create_calls([added])
            return await counts(hospital_id, round_id)

        it.queue.waiting.clear()
        it.clock.advance((WINDOW_END - it.clock.now()).total_seconds())
        it.store.count_calls = late  # type: ignore[method-assign]
        it.restart()
        assert (await it.post("/tasks/close", CLOSE)).status_code == 409
        assert (await closed_round(it)).closed_at is None
        assert (await it.post("/tasks/close", CLOSE)).json() == {"status": "closed"}
        assert [call.outcome for call in await it.calls()] == [Outcome.UNREACHABLE] * 2


async def test_closing_again_changes_nothing() -> None:
    async with world([patient(1)]) as it:
        await it.trigger()
        await it.drain(WINDOW_END + timedelta(minutes=1))
        before = await closed_round(it)
        it.clock.advance(60)
        assert (await it.post("/tasks/close", CLOSE)).status_code == 200
        assert before.closed_at is not None
        assert await closed_round(it) == before


async def test_a_round_is_not_closed_before_its_window_is_over() -> None:
    async with world([patient(1)]) as it:
        await it.trigger()
        assert (await it.post("/tasks/close", CLOSE)).status_code == 409
        it.queue.waiting.clear()
        assert (await it.post("/tasks/close", CLOSE)).json() == {"status": "later"}
        assert ("rounds", CLOSE_TASK) in it.queue.waiting
        assert (await closed_round(it)).closed_at is None


async def test_a_conversation_that_began_in_time_may_end_in_its_own_time() -> None:
    async with world([patient(1)]) as it:
        await dialled_and_never_heard_of(it)
        it.clock.advance(60 + 600)
        response = await it.post("/tasks/close", CLOSE)
        assert (response.status_code, "Retry-After" in response.headers) == (409, True)
        assert it.caller.cancelled == []
        await it.caller.end(it.caller.dialled[0][1], ANSWERED)
        assert (await it.post("/tasks/close", CLOSE)).status_code == 200
        assert (await it.only_call()).outcome is Outcome.COMPLETED


async def test_after_the_grace_the_callers_attempt_is_cancelled() -> None:
    async with world([patient(1)]) as it:
        await dialled_and_never_heard_of(it)
        it.clock.advance(60 + GRACE.total_seconds())
        assert (await it.post("/tasks/close", CLOSE)).status_code == 200
        assert len(it.caller.cancelled) == 1
        assert (await it.only_call()).outcome is Outcome.CANCELLED
        assert [one.kind for one in await it.store.alerts(HOSPITAL)] == [AlertKind.UNREACHABLE]


async def test_an_attempt_nobody_can_ask_about_is_given_up_after_twice_the_grace_with_an_alert() -> None:
    async with world([patient(1)]) as it:
        await dialled_and_never_heard_of(it)
        it.caller.unreachable = True
        it.clock.advance(60 + GRACE.total_seconds())
        assert (await it.post("/tasks/close", CLOSE)).status_code == 409
        it.clock.advance(GRACE.total_seconds())
        assert (await it.post("/tasks/close", CLOSE)).status_code == 200
        call = await it.only_call()
        assert (call.outcome, call.reason) == (Outcome.UNREACHABLE, "unsettled")
        assert [one.kind for one in await it.store.alerts(HOSPITAL)] == [AlertKind.INTERRUPTED]


async def test_an_ordered_attempt_that_turns_up_while_its_call_is_ended_is_not_overlooked() -> None:
    async with world([patient(1)]) as it:
        task_of = await it.trigger()
        assert task_of.status_code == 200
        call = await it.only_call()
        it.caller.unreachable = True  # the order is recorded, and nobody knows whether it arrived
        (task,) = [task for task in it.queue.waiting.values() if task.queue == "calls"]
        await it.deliver(task)
        it.queue.waiting.clear()
        held = await it.store.claim_call(
            HOSPITAL,
            call.id,
            owner="dead",
            now=it.clock.now() + timedelta(hours=1),
            lease_until=it.clock.now() + timedelta(hours=1),
        )
        assert held is not None
        it.clock.advance((WINDOW_END - it.clock.now()).total_seconds())
        it.caller.unreachable = False
        it.caller.script = lambda _: None
        attempt_read = it.store.attempt

        async def arrives_between_reading_and_ending(attempt_id: str) -> Attempt | None:
            found = await attempt_read(attempt_id)
            if found is None and not it.caller.dialled:
                order = it.caller.orders or [await order_of(it, attempt_id)]
                assert order
            return found

        it.store.attempt = arrives_between_reading_and_ending  # type: ignore[method-assign]
        it.restart()
        assert (await it.post("/tasks/close", CLOSE)).status_code == 409
        await it.caller.end(it.caller.dialled[0][1], ANSWERED)
        assert (await it.post("/tasks/close", CLOSE)).status_code == 200
        assert (await it.only_call()).outcome is Outcome.COMPLETED


async def order_of(it: World, attempt_id: str) -> Any:
    """The lost order reaches the Caller now."""
    from careflow.errors import ProviderError
    from careflow.ports import AttemptOrder

    call = await it.only_call()
    order = AttemptOrder(
        attempt_id=attempt_id,
        number=1,
        call_id=call.id,
        round_id=ROUND_ID,
        hospital_id=HOSPITAL,
        patient_id=call.patient_id,
        script="morning",
        not_after=WINDOW_END,
    )
    try:
        async for _ in it.caller.follow(order):
            pass
    except ProviderError:
        pass
    return order


async def test_a_round_whose_planning_never_finished_is_planned_and_closed_with_its_skips_on_record() -> None:
    async with world([patient(1), patient(2)]) as it:
        trigger = Trigger(
            schedule_hour=8,
            time_zone="America/New_York",
            trigger_type="scheduled",
            source="test",
            environment="test",
            hospital_id=HOSPITAL,
        )
        await it.store.open_round(round_for(trigger, it.clock.now(), (8, 12, 20)))
        it.clock.advance((WINDOW_END - it.clock.now()).total_seconds())
        assert (await it.post("/tasks/close", CLOSE)).status_code == 200
        assert (await closed_round(it)).outcomes == (("skipped", 2),)


async def test_the_next_trigger_has_older_rounds_closed() -> None:
    async with world([patient(1)]) as it:
        await it.trigger()
        it.queue.waiting.clear()
        it.clock.advance((WINDOW_END - it.clock.now()).total_seconds() + 900)
        await it.trigger(scheduleHour=12)
        await it.drain(it.clock.now())
        assert (await closed_round(it)).closed_at is not None


async def test_a_start_gives_every_open_call_and_round_its_task_again() -> None:
    async with world([patient(1), patient(2)]) as it:
        await it.trigger()
        before = set(it.queue.waiting)
        it.queue.waiting.clear()
        it.restart()
        await it.app.state.recovery.recover()
        assert set(it.queue.waiting) == before
        await it.app.state.recovery.recover()
        assert set(it.queue.waiting) == before


async def test_a_start_finishes_a_planning_that_was_cut_off() -> None:
    async with world([patient(number) for number in range(1, 8)], planning_batch=3) as it:
        create, batches = it.store.create_calls, 0

        async def dies_at_the_second(calls: Any) -> int:
            nonlocal batches
            batches += 1
            if batches == 2:
                raise Crash
            return await create(calls)

        it.store.create_calls = dies_at_the_second  # type: ignore[method-assign]
        it.restart()
        assert (await it.trigger()).status_code == 500
        it.store.create_calls = create  # type: ignore[method-assign]
        it.restart()
        await it.app.state.recovery.recover()
        assert len(it.queue.waiting) == 7 + 1
        assert (await it.trigger()).json()["callsInitiated"] == 7


async def test_a_lifespan_recovers_beside_the_first_requests() -> None:
    async with world([patient(1)]) as it:
        await it.trigger()
        it.queue.waiting.clear()
        await it.drain(EIGHT_FIFTEEN + timedelta(minutes=1))
        from careflow.pulse.app import create_pulse

        app = create_pulse(
            store=it.store,
            queue=it.queue,
            caller=it.caller,
            clock=it.clock,
            settings=it.settings,
            ids=lambda: "x",
        )
        async with app.router.lifespan_context(app):
            for _ in range(200):
                if len(it.queue.waiting) == 2:
                    break
                await asyncio.sleep(0.005)
        assert len(it.queue.waiting) == 2


async def test_a_call_that_cannot_be_settled_keeps_no_other_open() -> None:
    async with world([patient(1), patient(2), patient(3)]) as it:
        await it.trigger()
        it.queue.waiting.clear()
        it.clock.advance((WINDOW_END - it.clock.now()).total_seconds())
        first = (await it.calls())[0].id
        add = it.store.add_alert

        async def breaks_for_the_first(alert: Any) -> bool:
            if alert.call_id == first:
                raise RuntimeError("defect")
            return await add(alert)

        it.store.add_alert = breaks_for_the_first  # type: ignore[method-assign]
        it.restart()
        assert (await it.post("/tasks/close", CLOSE)).status_code == 409
        assert [call.outcome for call in await it.calls()] == [None] + [Outcome.UNREACHABLE] * 2


async def test_a_task_that_the_queue_gave_up_comes_back_while_pulse_runs() -> None:
    async with world([patient(1)]) as it:
        recovering = asyncio.create_task(it.app.state.recovery.run())
        try:
            await it.trigger()
            given_up = set(it.queue.waiting)
            it.queue.waiting.clear()  # an outage lasted longer than the queue's retries
            for _ in range(200):
                if set(it.queue.waiting) == given_up:
                    break
                it.clock.advance(10)
                await asyncio.sleep(0.005)
            assert set(it.queue.waiting) == given_up
            assert it.clock.now() - EIGHT_FIFTEEN <= timedelta(minutes=10)
        finally:
            recovering.cancel()


async def test_recovery_goes_on_after_any_failure() -> None:
    async with world([patient(1)]) as it:
        await it.trigger()
        unclosed, failures = (
            it.store.unclosed_rounds,
            iter([StoreUnavailable("full"), RuntimeError("defect")]),
        )

        async def fails_twice() -> Any:
            for error in failures:
                raise error
            return await unclosed()

        it.store.unclosed_rounds = fails_twice  # type: ignore[method-assign]
        it.restart()
        it.queue.waiting.clear()
        recovering = asyncio.create_task(it.app.state.recovery.run())
        for _ in range(200):
            if it.queue.waiting:
                break
            it.clock.advance(10)
            await asyncio.sleep(0.005)
        recovering.cancel()
        assert len(it.queue.waiting) == 2


async def test_a_call_that_is_held_or_not_due_for_long_is_left_to_its_task() -> None:
    async with world([patient(1), patient(2, times=(time(11),)), patient(3)]) as it:
        await it.trigger()
        held = next(call for call in await it.calls() if call.patient_id == patient(1).id)
        now = it.clock.now()
        until = now + timedelta(minutes=6)
        assert await it.store.claim_call(HOSPITAL, held.id, owner="x", now=now, lease_until=until)
        it.queue.waiting.clear()
        it.clock.advance(EVERY.total_seconds())
        await it.app.state.recovery.recover(overdue_only=True)
        calls = [task for task in it.queue.waiting.values() if task.queue == "calls"]
        overdue = next(call for call in await it.calls() if call.patient_id == patient(3).id)
        assert [task.body["callId"] for task in calls] == [overdue.id]
        it.clock.advance(60 + EVERY.total_seconds())
        await it.app.state.recovery.recover(overdue_only=True)
        assert held.id in [task.body.get("callId") for task in it.queue.waiting.values()]


async def test_an_unknown_round_is_404() -> None:
    async with world() as it:
        assert (await it.post("/tasks/close", CLOSE)).status_code == 404
