"""POST /tasks/call: a call from its task to its outcome, and what happens when something dies in between."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from careflow.core.attempts import Disposition, Ending
from careflow.core.calls import CallState, Outcome
from careflow.core.checkins import AlertKind
from careflow.core.next_step import LINE_BUSY_WAIT
from careflow.core.patients import DoNotCall
from careflow.core.retry import NEVER_CREATED
from careflow.ports import Task
from pulse_world import (
    ANSWERED,
    EIGHT_FIFTEEN,
    HOSPITAL,
    NO_ANSWER,
    ROUND_ID,
    WINDOW_END,
    Crash,
    World,
    patient,
    world,
)

ENDED = CallState.ENDED


async def planned(it: World) -> Task:
    """The one call task of a round that was just planned."""
    await it.trigger()
    (task,) = [task for task in it.queue.waiting.values() if task.queue == "calls"]
    return task


def call_tasks(it: World) -> list[Task]:
    return [task for task in it.queue.waiting.values() if task.queue == "calls"]


async def test_an_answered_attempt_completes_the_call() -> None:
    async with world([patient(1)]) as it:
        assert await it.deliver(await planned(it)) == 200
        call = await it.only_call()
        assert (call.state, call.outcome, call.attempts, call.counted) == (ENDED, Outcome.COMPLETED, 1, 1)
        assert call_tasks(it) == []


async def test_the_order_carries_the_ids_the_script_and_the_windows_end() -> None:
    async with world([patient(1)]) as it:
        await it.deliver(await planned(it))
        (_, order), call = it.caller.orders[0], await it.only_call()
        assert (order.attempt_id, order.number, order.call_id) == (f"{call.id}-1", 1, call.id)
        assert (order.round_id, order.patient_id) == (ROUND_ID, "p00001")
        assert (order.script, order.not_after) == ("morning", WINDOW_END)


async def test_the_attempt_is_stored_with_the_call_before_the_caller_hears_of_it() -> None:
    async with world([patient(1)]) as it:
        seen: list[Any] = []
        follow = it.caller.follow

        async def watched(order: Any) -> Any:
            seen.append((await it.only_call()).attempt_id)
            async for view in follow(order):
                yield view

        it.caller.follow = watched  # type: ignore[method-assign]
        await it.deliver(await planned(it))
        assert seen == [f"{(await it.only_call()).id}-1"]


async def test_nobody_answering_is_tried_three_times_a_quarter_of_an_hour_apart() -> None:
    async with world([patient(1)]) as it:
        it.caller.script = lambda _: NO_ANSWER
        await it.trigger()
        await it.drain(EIGHT_FIFTEEN + timedelta(hours=2))
        times = [(at - EIGHT_FIFTEEN) // timedelta(minutes=1) for at, _ in it.caller.dialled]
        call = await it.only_call()
        assert times == [0, 15, 30]
        assert (call.outcome, call.reason, call.counted) == (Outcome.UNREACHABLE, "no-answer", 3)
        (alert,) = await it.store.alerts(HOSPITAL)
        assert (alert.kind, alert.code, alert.call_id) == (AlertKind.UNREACHABLE, "no-answer", call.id)


async def test_an_attempt_that_was_never_created_does_not_count() -> None:
    async with world([patient(1)]) as it:
        lost = (Disposition.FAILED, None, NEVER_CREATED)
        it.caller.script = lambda attempt: lost if attempt.number == 1 else NO_ANSWER
        await it.trigger()
        await it.drain(EIGHT_FIFTEEN + timedelta(hours=2))
        call = await it.only_call()
        assert (call.attempts, call.counted) == (4, 3)


@pytest.mark.parametrize(
    ("end", "outcome", "alert"),
    [
        ((Disposition.ANSWERED, Ending.OPTED_OUT, ""), Outcome.OPTED_OUT, None),
        ((Disposition.ANSWERED, Ending.DECLINED, ""), Outcome.DECLINED, None),
        ((Disposition.ANSWERED, Ending.WRONG_PERSON, ""), Outcome.UNREACHABLE, AlertKind.WRONG_NUMBER),
        ((Disposition.ANSWERED, Ending.INTERRUPTED, ""), Outcome.UNREACHABLE, AlertKind.INTERRUPTED),
        ((Disposition.FAILED, None, "invalid-number"), Outcome.UNREACHABLE, AlertKind.WRONG_NUMBER),
        ((Disposition.CANCELLED, None, ""), Outcome.CANCELLED, AlertKind.UNREACHABLE),
    ],
)
async def test_a_final_end_is_the_calls_outcome_and_alerts_once(
    end: Any, outcome: Outcome, alert: AlertKind | None
) -> None:
    async with world([patient(1)]) as it:
        it.caller.script = lambda _: end
        task = await planned(it)
        await it.deliver(task)
        await it.deliver(task)
        assert (await it.only_call()).outcome is outcome
        assert len(it.caller.dialled) == 1
        assert [one.kind for one in await it.store.alerts(HOSPITAL)] == ([alert] if alert else [])


async def test_a_task_delivered_again_after_the_end_is_accepted_and_orders_nothing() -> None:
    async with world([patient(1)]) as it:
        task = await planned(it)
        assert [await it.deliver(task), await it.deliver(task)] == [200, 200]
        assert len(it.caller.orders) == 1


async def test_a_call_held_by_another_delivery_is_409_and_not_ordered_twice() -> None:
    async with world([patient(1)]) as it:
        task = await planned(it)
        first, second = await asyncio.gather(
            it.post(task.path, dict(task.body)), it.post(task.path, dict(task.body))
        )
        assert sorted([first.status_code, second.status_code]) == [200, 409]
        assert len(it.caller.dialled) == 1


async def test_when_the_holder_died_the_next_delivery_after_the_lease_follows_the_same_attempt() -> None:
    async with world([patient(1)]) as it:
        task = await planned(it)
        it.caller.script = lambda _: None
        follow = it.caller.follow

        async def dies(order: Any) -> Any:
            async for view in follow(order):
                yield view
                raise Crash

        it.caller.follow = dies  # type: ignore[method-assign]
        assert await it.deliver(task) == 500
        it.caller.follow, it.caller.script = follow, lambda _: ANSWERED  # type: ignore[method-assign]
        assert await it.deliver(task) == 409
        it.clock.advance(61)
        assert await it.deliver(task) == 200
        call = await it.only_call()
        assert (call.outcome, call.attempts, len(it.caller.dialled)) == (Outcome.COMPLETED, 1, 1)


async def test_the_lease_is_renewed_while_a_long_conversation_goes_on() -> None:
    async with world([patient(1)]) as it:
        task = await planned(it)
        go_on = asyncio.Event()
        follow = it.caller.follow

        async def slowly(order: Any) -> Any:
            async for view in follow(order):
                yield view
                await go_on.wait()

        it.caller.follow = slowly  # type: ignore[method-assign]
        holding = asyncio.ensure_future(it.post(task.path, dict(task.body)))
        while not it.caller.dialled:
            await asyncio.sleep(0.001)
        for _ in range(12):
            it.clock.advance(20)
            await asyncio.sleep(0.01)
        assert (await it.post(task.path, dict(task.body))).status_code == 409
        go_on.set()
        assert (await holding).status_code == 200


async def test_an_unreachable_caller_leaves_the_call_waiting_with_a_new_task() -> None:
    async with world([patient(1)]) as it:
        task = await planned(it)
        it.caller.unreachable = True
        assert await it.deliver(task) == 200
        call = await it.only_call()
        assert (call.state, call.due_at) == (CallState.WAITING, it.clock.now() + timedelta(seconds=60))
        it.caller.unreachable = False
        await it.drain(EIGHT_FIFTEEN + timedelta(minutes=5))
        call = await it.only_call()
        assert (call.outcome, call.attempts) == (Outcome.COMPLETED, 1)


async def test_a_caller_that_dies_after_dialling_is_asked_for_the_same_attempt_again() -> None:
    async with world([patient(1)]) as it:
        it.caller.die_after_begin = True
        await it.trigger()
        await it.drain(EIGHT_FIFTEEN + timedelta(minutes=5))
        assert len(it.caller.dialled) == 1
        assert (await it.only_call()).outcome is Outcome.COMPLETED


async def test_a_busy_line_waits_a_minute_without_spending_an_attempt() -> None:
    async with world([patient(1)]) as it:
        it.caller.refuse = "line-busy"
        assert await it.deliver(await planned(it)) == 200
        call = await it.only_call()
        assert (call.state, call.due_at) == (CallState.WAITING, EIGHT_FIFTEEN + LINE_BUSY_WAIT)
        it.caller.refuse = ""
        await it.drain(EIGHT_FIFTEEN + timedelta(minutes=5))
        call = await it.only_call()
        assert (call.outcome, call.attempts) == (Outcome.COMPLETED, 1)


async def test_a_line_that_stays_busy_ends_unreachable_within_the_window() -> None:
    async with world([patient(1)]) as it:
        it.caller.refuse = "line-busy"
        await it.trigger()
        await it.drain(WINDOW_END + timedelta(minutes=1))
        call = await it.only_call()
        assert (call.outcome, call.reason) == (Outcome.UNREACHABLE, "line-busy")


@pytest.mark.parametrize("reason", ["opted-out", "deceased", "no-consent"])
async def test_what_the_caller_refuses_is_skipped_with_its_reason(reason: str) -> None:
    async with world([patient(1)]) as it:
        it.caller.refuse = reason
        await it.deliver(await planned(it))
        call = await it.only_call()
        assert (call.outcome, call.reason) == (Outcome.SKIPPED, reason)


async def test_a_caller_that_says_the_call_is_over_is_believed_by_reading_again() -> None:
    async with world([patient(1)]) as it:
        it.caller.refuse = "call-over"
        assert await it.deliver(await planned(it)) == 409


async def test_who_opts_out_between_planning_and_calling_is_not_ordered() -> None:
    async with world([patient(1)]) as it:
        task = await planned(it)
        barred = DoNotCall(
            hospital_id=HOSPITAL,
            phone=patient(1).phone or "",
            patient_id="p00001",
            attempt_id="x",
            since=it.clock.now(),
        )
        await it.store.add_do_not_call(barred)
        await it.deliver(task)
        call = await it.only_call()
        assert (call.outcome, call.reason, it.caller.orders) == (Outcome.SKIPPED, "opted-out", [])


async def test_a_task_that_comes_before_the_call_is_due_comes_back() -> None:
    async with world([patient(1)]) as it:
        task = await planned(it)
        call = await it.only_call()
        await it.store.update_call(replace(call, due_at=it.clock.now() + timedelta(minutes=9)))
        assert await it.deliver(task) == 200  # the missing task of the later moment was made
        (later,) = call_tasks(it)
        assert later.due_at == it.clock.now() + timedelta(minutes=9)
        assert await it.deliver(later) == 409  # it is that task itself: ending it would lose the call
        assert it.caller.orders == []


async def test_a_task_of_an_earlier_spell_is_done_with_when_the_call_has_its_new_one() -> None:
    async with world([patient(1)]) as it:
        it.caller.script = lambda _: NO_ANSWER
        task = await planned(it)
        assert await it.deliver(task) == 200
        (later,) = call_tasks(it)
        assert (
            await it.deliver(task) == 200
        )  # its holder died before it could say so: it must not come back for ever
        assert await it.deliver(later) == 409
        assert call_tasks(it) == [replace(later, due_at=it.clock.now() + timedelta(seconds=45))]
        assert len(it.caller.dialled) == 1


async def test_a_crash_between_waiting_again_and_its_task_is_repaired_by_the_redelivery() -> None:
    async with world([patient(1)]) as it:
        it.caller.script = lambda _: NO_ANSWER
        task = await planned(it)
        enqueue = it.queue.enqueue

        async def dies(_tasks: Any) -> int:
            raise Crash

        it.queue.enqueue = dies  # type: ignore[method-assign]
        it.restart()
        assert await it.deliver(task) == 500
        it.queue.enqueue = enqueue  # type: ignore[method-assign]
        it.restart()
        assert await it.deliver(task) == 200
        (later,) = call_tasks(it)
        assert later.due_at == EIGHT_FIFTEEN + timedelta(minutes=15)


async def test_an_unknown_call_is_404_and_one_of_another_hospital_too() -> None:
    async with world([patient(1)]) as it:
        task = await planned(it)
        unknown = dict(task.body) | {"callId": "0" * 24}
        foreign = dict(task.body) | {"hospitalId": "hosp-001"}
        assert (await it.post(task.path, unknown)).status_code == 404
        assert (await it.post(task.path, foreign)).status_code == 404


async def test_a_task_body_is_refused_by_the_same_rules_as_a_trigger() -> None:
    async with world() as it:
        response = await it.post("/tasks/call", {"hospitalId": HOSPITAL, "roundId": ROUND_ID})
        assert (response.status_code, response.json()["error"]["field"]) == (400, "callId")
