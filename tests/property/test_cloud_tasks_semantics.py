"""Pulse on a queue that promises what Cloud Tasks promises and no more: no patient is missed, nobody is phoned twice.

Every create stands alone and may fail before or after it was done; a name is refused for a day after its task is gone; a
delivery may come twice, at once or later; the queue itself may not be there for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from careflow.clock import VirtualClock
from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending
from careflow.core.calls import CallState, Outcome
from careflow.errors import StoreUnavailable
from careflow.ports import Task
from careflow.pulse.recovery import EVERY
from pulse_world import HOSPITAL, ROUND_ID, WINDOW_END, HandQueue, World, patient, world

DAY = timedelta(hours=24)
NEVER = datetime.min.replace(tzinfo=UTC)
FINE, NOT_DONE, DONE_UNHEARD = "fine", "not-done", "done-unheard"


class CloudTasksLike(HandQueue):
    """HandQueue with Cloud Tasks' manners. `troubles` says how each create ends; after the last all is fine."""

    def __init__(self, clock: VirtualClock, troubles: Sequence[str]) -> None:
        super().__init__()
        self._clock = clock
        self._troubles = iter(troubles)
        self.gone: dict[tuple[str, str], datetime] = {}

    async def enqueue(self, tasks: Sequence[Task]) -> int:
        added = 0
        for task in tasks:
            trouble = next(self._troubles, FINE)
            if trouble == NOT_DONE:
                raise StoreUnavailable
            if self.gone.get((task.queue, task.name), NEVER) <= self._clock.now():
                added += await super().enqueue([task])
            if trouble == DONE_UNHEARD:
                raise StoreUnavailable
        return added

    def done(self, task: Task) -> None:
        self.gone[task.queue, task.name] = self._clock.now() + DAY


async def live_through(it: World, queue: CloudTasksLike, doubled: Iterator[str]) -> None:
    """Until two hours after the window, with Pulse's recovery every `EVERY`."""
    while (await it.trigger()).status_code != 200:
        it.clock.advance(60)  # as the scheduler tries again
    recovery_at = it.clock.now()
    while it.clock.now() < WINDOW_END + timedelta(hours=2):
        task = min(queue.waiting.values(), key=lambda one: (one.due_at, one.name), default=None)
        at = recovery_at if task is None else min(task.due_at, recovery_at)
        it.clock.advance(max(0.0, (at - it.clock.now()).total_seconds()))
        if task is None or recovery_at <= task.due_at:
            recovery_at = it.clock.now() + EVERY
            try:
                await it.app.state.recovery.recover(overdue_only=True)
            except StoreUnavailable:
                continue  # as `run` does: it comes again
        else:
            how = next(doubled, "once")
            if how == "at-once":
                statuses = await asyncio.gather(it.deliver(task), it.deliver(task))
            elif how == "later":
                statuses = [await it.deliver(task), await it.deliver(task)]
            else:
                statuses = [await it.deliver(task)]
            if any(200 <= status < 300 for status in statuses):
                queue.waiting.pop((task.queue, task.name), None)
                queue.done(task)


@settings(max_examples=20, deadline=None)
@given(
    silences=st.lists(st.integers(0, 2), min_size=1, max_size=4),
    troubles=st.lists(st.sampled_from([FINE, FINE, NOT_DONE, DONE_UNHEARD]), max_size=40),
    doubled=st.lists(st.sampled_from(["once", "at-once", "later"]), max_size=30),
)
@example(silences=[0, 1], troubles=[NOT_DONE] * 30, doubled=[])  # the queue is not there for half an hour
@example(silences=[2, 2], troubles=[FINE, FINE, FINE, DONE_UNHEARD] * 5, doubled=["at-once", "later"] * 5)
def test_a_queue_that_breaks_off_forgets_names_late_and_doubles_misses_nobody(
    silences: list[int], troubles: list[str], doubled: list[str]
) -> None:
    """Each patient is silent so many times before answering: with three attempts, all of them are reached in the end."""
    roster = [patient(number, phone=f"+1212555010{number}") for number in range(len(silences))]
    silent = {one.id: times for one, times in zip(roster, silences, strict=True)}

    async def play() -> None:
        async with world(roster) as it:
            queue = CloudTasksLike(it.clock, troubles)
            it.queue = queue
            it.restart()

            def end_of(attempt: Attempt) -> tuple[Disposition, Ending | None, str]:
                if attempt.number <= silent[attempt.patient_id]:
                    return (Disposition.NO_ANSWER, None, "")
                return (Disposition.ANSWERED, Ending.COMPLETE, "")

            it.caller.script = end_of
            await live_through(it, queue, iter(doubled))

            round_ = await it.store.round(HOSPITAL, ROUND_ID)
            assert round_ is not None
            assert round_.closed_at is not None
            calls = await it.calls()
            assert {call.patient_id for call in calls} == {one.id for one in roster}
            for call in calls:
                assert (call.state, call.outcome) == (CallState.ENDED, Outcome.COMPLETED)
                attempts = await it.store.attempts(HOSPITAL, call.id)
                assert len(attempts) == silent[call.patient_id] + 1
                assert all(one.state is AttemptState.ENDED for one in attempts)
            assert len(it.caller.dialled) == sum(silences) + len(silences)

    asyncio.run(play())
