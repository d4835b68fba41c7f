"""What only the embedded queue promises: giving up, restarts, one dispatcher at a time, idling cheaply."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from careflow.clock import VirtualClock
from careflow.ports import Task
from careflow.store.sqlite import SqliteStore
from careflow.tasks.embedded import EmbeddedQueue
from careflow.tasks.pacing import Answer, Pace, QueueLimits, backoff

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


def task(name="t1", queue="rounds", after=0.0):
    return Task(queue=queue, name=name, path="/tasks/x", due_at=NOW + timedelta(seconds=after))


class Receiver:
    def __init__(self, answer=None):
        self.answer = answer or Answer(200)
        self.delivered = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self, task, number):
        self.delivered.append((task.name, number))
        await self.hold.wait()
        return self.answer


def queue_on(store, clock, deliver, **limits):
    return EmbeddedQueue(
        store.database,
        clock,
        deliver,
        calls_per_second=1000,
        calls_in_flight=10,
        random=lambda: 0.0,
        limits={"rounds": QueueLimits(**limits)} if limits else {},
    )


@asynccontextmanager
async def running(queue):
    runner = asyncio.create_task(queue.run())
    try:
        yield runner
    finally:
        runner.cancel()
        await asyncio.wait([runner])


async def until(clock, done, step=0.5, turns=2000):
    for _ in range(turns):
        if done():
            return
        await asyncio.sleep(0.001)
        clock.advance(step)
    raise AssertionError("it never came to pass")


async def eventually(clock, ask, expected):
    """Let time pass until what is asked for is so."""
    for _ in range(2000):
        if await ask() == expected:
            return
        await asyncio.sleep(0.001)
        clock.advance(0.5)
    raise AssertionError("it never came to pass")


async def turns(clock, count=30, step=0.5):
    for _ in range(count):
        await asyncio.sleep(0.001)
        clock.advance(step)


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def clock():
    return VirtualClock(NOW)


async def test_a_task_is_given_up_after_its_last_delivery_and_is_seen(store, clock):
    receiver = Receiver(Answer(500))
    queue = queue_on(store, clock, receiver, max_deliveries=3)
    await queue.enqueue([task()])
    async with running(queue):
        await until(clock, lambda: len(receiver.delivered) == 3)
        await eventually(clock, lambda: queue.depth("rounds"), 0)
        await turns(clock, step=10)
    assert receiver.delivered == [("t1", 1), ("t1", 2), ("t1", 3)]
    (dead,) = await queue.dead()
    dead = replace(dead, task=replace(dead.task, due_at=NOW))  # it was put off in between
    assert (dead.task, dead.deliveries) == (task(), 3)
    assert await queue.depth("rounds") == 0
    assert not await queue.cancel("rounds", "t1")


async def test_a_dead_task_that_is_enqueued_again_starts_afresh(store, clock):
    receiver = Receiver(Answer(500))
    queue = queue_on(store, clock, receiver, max_deliveries=1)
    async with running(queue):
        await queue.enqueue([task()])
        await until(clock, lambda: receiver.delivered)
        await eventually(clock, lambda: queue.depth("rounds"), 0)
        receiver.answer = Answer(200)
        assert await queue.enqueue([task()]) == 1
        await until(clock, lambda: len(receiver.delivered) == 2)
    assert receiver.delivered == [("t1", 1), ("t1", 1)]
    assert await queue.dead() == []


async def test_a_delivery_that_was_cut_off_is_made_again_after_a_restart(store, clock):
    receiver = Receiver()
    receiver.hold.clear()
    queue = queue_on(store, clock, receiver)
    await queue.enqueue([task()])
    async with running(queue):
        await until(clock, lambda: receiver.delivered)
    after = Receiver()
    async with running(queue_on(store, clock, after)):
        await until(clock, lambda: after.delivered)
        await eventually(clock, lambda: queue.depth("rounds"), 0)
    assert after.delivered == [("t1", 2)]


async def test_a_second_dispatcher_stands_by_until_the_first_is_gone(store, clock, tmp_path):
    other_store = await SqliteStore.open(tmp_path)
    first, second = Receiver(), Receiver()
    first.hold.clear()
    queue = queue_on(store, clock, first)
    await queue.enqueue([task("t1")])
    async with running(queue):
        await until(clock, lambda: first.delivered)
        async with running(queue_on(other_store, clock, second)):
            await queue_on(other_store, clock, second).enqueue([task("t2")])
            await until(
                clock, lambda: len(first.delivered) == 2
            )  # noticed though another process enqueued it
            await turns(clock)
            assert second.delivered == []
    async with running(queue_on(other_store, clock, second)):
        await until(clock, lambda: len(second.delivered) == 2)
    assert set(second.delivered) == {("t1", 2), ("t2", 2)}
    await other_store.close()


async def test_an_enqueue_wakes_the_dispatcher_without_any_time_passing(store, clock):
    receiver = Receiver()
    queue = queue_on(store, clock, receiver)
    async with running(queue):
        await turns(clock)
        await queue.enqueue([task()])
        await until(clock, lambda: receiver.delivered, step=0)


async def test_a_receiver_that_breaks_counts_as_no_answer(store, clock):
    async def broken(task, number):
        if number < 3:
            raise RuntimeError("boom")
        done.append(number)
        return Answer(200)

    done = []
    queue = queue_on(store, clock, broken)
    await queue.enqueue([task()])
    async with running(queue):
        await until(clock, lambda: done)


async def test_retry_after_is_honoured(store, clock):
    at = []

    async def busy(task, number):
        at.append(clock.now())
        return Answer(200) if number == 2 else Answer(503, timedelta(seconds=90))

    queue = queue_on(store, clock, busy)
    await queue.enqueue([task()])
    async with running(queue):
        await until(clock, lambda: len(at) == 2)
    assert at[1] - at[0] >= timedelta(seconds=90)


async def test_an_idle_dispatcher_asks_at_most_once_a_second_of_the_clock(store, clock):
    reads = []
    ask = store.database.read

    async def counted(work):
        reads.append(clock.now())
        return await ask(work)

    store.database.read = counted
    queue = queue_on(store, clock, Receiver())
    await queue.enqueue([task(f"t{number}", after=3600) for number in range(5000)])
    async with running(queue):
        await turns(clock, 10)
        await asyncio.sleep(0.05)
        before = len(reads)
        await asyncio.sleep(0.05)
        assert len(reads) - before <= 4  # no time passes, nothing is asked but what was under way
        await turns(clock, 60, step=0.5)
        assert len(reads) - before <= 2 * 31 + 2  # two queues, 30 s


async def test_the_result_of_a_delivery_is_kept_until_the_store_takes_it(store, clock, monkeypatch):
    receiver = Receiver()
    receiver.hold.clear()
    queue = queue_on(store, clock, receiver)
    await queue.enqueue([task()])
    async with running(queue):
        await until(clock, lambda: receiver.delivered)
        connection = store.database._connections[0]
        connection.execute("PRAGMA query_only = ON")
        receiver.hold.set()
        await turns(clock, 10)
        connection.execute("PRAGMA query_only = OFF")
        await eventually(clock, lambda: queue.depth("rounds"), 0)
    assert receiver.delivered == [("t1", 1)]


# --- the decisions


def test_backoff_grows_within_its_bounds_and_spreads():
    limits = QueueLimits()

    def wait(deliveries, drawn):
        return backoff(limits, deliveries, Answer(500), lambda: drawn).total_seconds()

    assert [wait(number, 0.0) for number in (1, 2, 3, 4, 5, 30, 1000)] == [2, 4, 8, 16, 30, 30, 30]
    assert [wait(number, 1.0) for number in (1, 2, 3, 4, 5, 30)] == [4, 8, 16, 32, 60, 60]


def test_a_longer_retry_after_wins_and_a_shorter_does_not():
    limits = QueueLimits()
    assert backoff(limits, 1, Answer(429, timedelta(minutes=5)), lambda: 0.0) == timedelta(minutes=5)
    assert backoff(limits, 1, Answer(429, timedelta(0)), lambda: 0.0) == timedelta(seconds=2)


def test_an_unused_second_is_not_saved_up():
    pace = Pace(2)
    pace.started(NOW)
    later = NOW + timedelta(seconds=60)
    assert pace.allowed(later, 5) == 1
    pace.started(later)
    assert pace.allowed(later, 5) == 0
    assert pace.wait(later) == 0.5


def test_a_clock_that_is_set_back_does_not_stop_the_deliveries():
    pace = Pace(2)
    pace.started(NOW)
    earlier = NOW - timedelta(hours=1)
    assert pace.wait(earlier) == 0.5
    assert pace.allowed(earlier + timedelta(seconds=0.5), 1) == 1


def test_no_rate_means_no_bound():
    pace = Pace(QueueLimits().per_second)
    pace.started(NOW)
    assert pace.allowed(NOW, 7) == 7


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"per_second": 0}, "per_second"),
        ({"in_flight": -1}, "in_flight"),
        ({"max_deliveries": 0}, "max_deliveries"),
        ({"min_backoff": timedelta(minutes=2)}, "min_backoff"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(limits, named):
    with pytest.raises(ValueError, match=named):
        QueueLimits(**limits)
