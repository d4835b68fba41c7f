"""The contract of `ports.TaskQueue`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest


async def test_a_task_is_delivered_once_it_is_due_with_its_body(harness, make):
    await harness.queue.enqueue([make.task("t1", after=5, hospitalId="h1", roundId="r1")])
    await harness.until(lambda: harness.delivered)
    await harness.for_seconds(2)
    ((name, number, at),) = harness.delivered
    assert (name, number) == ("t1", 1)
    assert timedelta(seconds=5) <= at - make.now <= timedelta(seconds=6.5)
    assert harness.tasks[0] == make.task("t1", after=5, hospitalId="h1", roundId="r1")


async def test_2xx_ends_a_task(harness, make):
    harness.answers["t1"] = [204]
    await harness.queue.enqueue([make.task("t1")])
    assert await harness.queue.depth("rounds") == 1
    await harness.until(lambda: harness.delivered)
    await harness.for_seconds(120, step=5)
    assert harness.names() == ["t1"]
    assert await harness.queue.depth("rounds") == 0


@pytest.mark.parametrize("answer", [None, 500, 503, 429, 404, 302, 100])
async def test_anything_else_is_delivered_again(harness, make, answer):
    harness.answers["t1"] = [answer, answer]
    await harness.queue.enqueue([make.task("t1")])
    await harness.until(lambda: len(harness.delivered) == 3, step=0.5)
    assert [number for _, number, _ in harness.delivered] == [1, 2, 3]
    first, second, third = (at for _, _, at in harness.delivered)
    assert second - first >= timedelta(seconds=2)
    assert third - second > second - first


async def test_a_name_that_waits_is_not_added_again(harness, make):
    task = make.task("t1", after=5, a="1")
    assert await harness.queue.enqueue([task, make.task("t2", after=5)]) == 2
    assert await harness.queue.enqueue([replace(task, body={"a": "2"}), make.task("t3", after=5)]) == 1
    assert await harness.queue.enqueue([make.task("t4", after=5), make.task("t4", after=5)]) == 1
    assert await harness.queue.enqueue([]) == 0
    assert await harness.queue.depth("rounds") == 4
    await harness.until(lambda: len(harness.delivered) == 4)
    assert next(task.body for task in harness.tasks if task.name == "t1") == {"a": "1"}


async def test_a_name_being_delivered_is_not_added_again(harness, make):
    harness.held["t1"] = asyncio.Event()
    await harness.queue.enqueue([make.task("t1")])
    await harness.until(lambda: harness.delivered)
    assert await harness.queue.enqueue([make.task("t1")]) == 0
    assert await harness.queue.depth("rounds") == 1
    harness.held["t1"].set()
    await harness.for_seconds(2)
    assert await harness.queue.depth("rounds") == 0
    assert harness.names() == ["t1"]


async def test_one_name_in_two_queues_is_two_tasks(harness, make):
    assert (
        await harness.queue.enqueue([make.task("t1", "rounds", after=9), make.task("t1", "calls", after=9)])
        == 2
    )
    assert await harness.queue.depth("calls") == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"queue": "faxes"}, "faxes"),
        ({"name": "no/slash"}, "no/slash"),
        ({"name": ""}, "''"),
        ({"name": "é"}, "é"),
    ],
)
async def test_a_task_that_no_queue_would_take_is_refused_with_all_of_its_batch(
    harness, make, changes, named
):
    with pytest.raises(ValueError, match=named):
        await harness.queue.enqueue([make.task("t1", after=9), replace(make.task("t2"), **changes)])
    assert await harness.queue.depth("rounds") == 0


async def test_a_waiting_task_can_be_forgotten(harness, make):
    await harness.queue.enqueue([make.task("t1", after=3), make.task("t2", after=3)])
    assert await harness.queue.cancel("rounds", "t1")
    assert not await harness.queue.cancel("rounds", "t1")
    assert not await harness.queue.cancel("calls", "t2")
    await harness.until(lambda: harness.delivered)
    await harness.for_seconds(2)
    assert harness.names() == ["t2"]


async def test_a_task_that_is_being_delivered_is_not_forgotten(harness, make):
    harness.held["t1"] = asyncio.Event()
    harness.answers["t1"] = [500]
    await harness.queue.enqueue([make.task("t1")])
    await harness.until(lambda: harness.delivered)
    assert not await harness.queue.cancel("rounds", "t1")
    harness.held.pop("t1").set()
    await harness.until(lambda: len(harness.delivered) == 2)


async def test_the_first_due_comes_first(harness, make):
    await harness.queue.enqueue(
        [make.task(f"t{due}", "calls", after=due / 10 - 1) for due in (5, 3, 4, 1, 2)]
    )
    await harness.until(lambda: len(harness.delivered) == 5)
    assert harness.names() == ["t1", "t2", "t3", "t4", "t5"]


async def test_calls_start_at_most_so_many_a_second(harness, make):
    await harness.queue.enqueue([make.task(f"t{number}", "calls") for number in range(8)])
    await harness.until(lambda: len(harness.delivered) == 8)
    starts = [at for _, _, at in harness.delivered]
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert min(gaps) >= timedelta(seconds=0.9)  # one step of the test's clock may lie between leave and start
    assert starts[-1] - starts[0] < timedelta(seconds=10)


async def test_only_so_many_deliveries_are_under_way(harness, make):
    gate = asyncio.Event()
    for queue, count in (("calls", 6), ("rounds", 9)):
        for number in range(count):
            harness.held[f"{queue}{number}"] = gate
    await harness.queue.enqueue([make.task(f"calls{number}", "calls") for number in range(6)])
    await harness.for_seconds(10, step=0.5)
    assert harness.now_delivering == 3
    await harness.queue.enqueue([make.task(f"rounds{number}", "rounds") for number in range(9)])
    await harness.for_seconds(10, step=0.5)
    assert harness.now_delivering == 3 + 4
    gate.set()
    await harness.until(lambda: len(harness.delivered) == 15, step=0.5)
    assert harness.most_delivering == 7


async def test_a_failing_task_does_not_hold_up_the_others(harness, make):
    harness.answers["bad"] = [500] * 10
    await harness.queue.enqueue(
        [make.task("bad"), *(make.task(f"t{number}", after=1) for number in range(5))]
    )
    await harness.until(lambda: {"t0", "t1", "t2", "t3", "t4"} <= set(harness.names()), at_most=10)
