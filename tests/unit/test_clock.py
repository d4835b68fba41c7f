"""The virtual clock: order of waking, the step that keeps it from outrunning, and following it from elsewhere."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

from careflow.clock import FollowedClock, Pace, SystemClock, VirtualClock, wait_until

START = datetime(2026, 11, 23, 13, 14, tzinfo=UTC)


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_sleepers_wake_in_the_order_of_their_time() -> None:
    clock, woken = VirtualClock(START), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (3, 1, 2)]
    await settle()
    clock.advance(2.5)
    await settle()
    assert woken == [1, 2]
    clock.advance(0.5)
    await asyncio.gather(*tasks)
    assert clock.now() == START + timedelta(seconds=3)


async def test_a_running_clock_never_takes_more_than_its_step_at_once() -> None:
    clock = VirtualClock(START)
    seen = []

    def pace() -> Pace:
        seen.append(clock.now())
        return Pace(speed=1e9, step=0.25)

    runner = asyncio.create_task(clock.run(pace, tick=0))
    await clock.sleep(2)
    runner.cancel()
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) == timedelta(seconds=0.25)


async def test_another_process_follows_the_published_time(tmp_path: Path) -> None:
    clock = VirtualClock(START, path=tmp_path / "clock")
    follower = FollowedClock(tmp_path / "clock")
    runner = asyncio.create_task(follower.run(tick=0))
    sleeping = asyncio.create_task(follower.sleep(60))
    await settle()
    clock.advance(59)
    await settle()
    assert not sleeping.done()
    clock.advance(1)
    await asyncio.wait_for(sleeping, 5)
    assert follower.now() == clock.now()
    runner.cancel()


async def test_waiting_for_an_event_ends_with_the_event_or_with_the_time() -> None:
    clock, event = VirtualClock(START), asyncio.Event()
    first = asyncio.create_task(wait_until(clock, 10, event))
    await settle()
    clock.advance(10)
    assert await first is False
    second = asyncio.create_task(wait_until(clock, 10, event))
    await settle()
    event.set()
    assert await second is True


async def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)
