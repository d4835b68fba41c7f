"""Kills and stops at seeded moments: which are planned, and carrying them out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from careflow.core.attempts import AttemptState
from faults.deployment import Deployment

PLANNING = "planning"
# What the lab books just before a process dies. "created" matters most: the telephone network has the call, and
# nobody here knows its SID yet.
MOMENTS = ("created", "created", "created", "initiated", "ringing", "in-progress", "said", "heard", "ended")
ENOUGH = 15  # entries of any kind, when the moment does not come

AGENTS = (("pulse",), ("caller",), ("pulse",), ("caller",), ("pulse", "caller"))
NETWORK = ("network",)  # to the store: it is only cut
SERVICES = (
    ("pulse",),
    ("twilio",),
    ("caller",),
    ("twilio",),
    ("pulse", "twilio"),
    ("caller", "twilio"),
    NETWORK,
)
WHOLE = (("up",),)


@dataclass(frozen=True, slots=True)
class Kill:
    """After `after` more orders end a process of each of `roles`, `delay` real seconds after the lab booked `moment` for the
    `nth` time from then; start `successors` for each `pause` seconds later, of the deployment's own clock.

    At the moment "planning" the first calls of a round are in the ledger. `gently` is SIGTERM, else it is SIGKILL.
    """

    roles: Sequence[str]
    moment: str
    nth: int
    delay: float
    pause: float
    gently: bool = False
    successors: int = 1
    after: int = 0


@dataclass(frozen=True, slots=True)
class Killed:
    """What happened, by the deployment's clock; `in_the_dark` attempts had an intent and no call SID then."""

    names: Sequence[str]
    moment: str
    at: datetime
    back_at: datetime
    in_the_dark: int
    gently: bool = False


def plan_kills(
    rng: Random, count: int, roles: Sequence[Sequence[str]], *, several: bool = False, every: int = 0
) -> list[Kill]:
    """Seeded kills; the first may hit the planning.

    Where there are `several` of a role every third is a stop, and instances are added and removed. `every` so many orders
    about there is one.
    """
    kills = []
    for place in range(count):
        struck = rng.choice(roles)
        moment = rng.choice(MOMENTS)
        # Most gaps that matter are of milliseconds; some are not.
        delay = rng.choice((0.0, rng.uniform(0, 0.01), rng.uniform(0, 0.05), rng.uniform(0, 0.5)))
        pause = rng.choice((0.0, 0.0, rng.uniform(0, 15), rng.uniform(15, 90)))
        if struck == NETWORK:
            pause /= 10  # seconds of real pace
        if place == 0 and rng.random() < 0.5:
            struck, moment, delay = roles[0], PLANNING, rng.uniform(0, 0.03)
        kills.append(
            Kill(
                struck,
                moment,
                rng.choice((1, 2, 3)),
                delay,
                pause,
                gently=several and struck != NETWORK and rng.random() < 1 / 3,
                successors=rng.choice((0, 1, 1, 1, 2)) if several else 1,
                after=round(rng.uniform(0.5, 1.5) * every),
            )
        )
    return kills


async def kill_all(
    deployment: Deployment,
    kills: Sequence[Kill],
    rng: Random,
    over: asyncio.Event,
    *,
    is_planning: Callable[[], Awaitable[bool]],
    again: Callable[[], Awaitable[None]],
) -> list[Killed]:
    """Carry the kills out until the last or until it is over; what was done. After some something is delivered `again`."""
    done: list[Killed] = []
    for kill in kills:
        if not await _moment(deployment, kill, over, is_planning):
            break
        at = deployment.clock.now()
        names = await asyncio.gather(*(deployment.down(role, gently=kill.gently) for role in kill.roles))
        opened = await deployment.store.open_attempts()
        in_the_dark = sum(one.state is AttemptState.INTENDED for one in opened)
        await deployment.clock.sleep(kill.pause)
        for name in names:
            await deployment.back(name, kill.successors)
        if rng.random() < 0.8:  # otherwise the next kill may meet a process that is only starting
            await deployment.ready()
        done.append(Killed(names, kill.moment, at, deployment.clock.now(), in_the_dark, kill.gently))
        if rng.random() < 0.3:
            await again()
    await deployment.ready()
    return done


async def _moment(
    deployment: Deployment, kill: Kill, over: asyncio.Event, is_planning: Callable[[], Awaitable[bool]]
) -> bool:
    """Wait for the kill's moment; False when all was over first."""
    books = deployment.books
    books.catch_up()
    wanted = books.orders + kill.after
    while books.orders < wanted and not over.is_set():
        await asyncio.sleep(0.01)
        books.catch_up()
    before = len(books.events)
    while not over.is_set():
        await asyncio.sleep(0.001)
        if kill.moment == PLANNING:
            if await is_planning():
                break
        else:
            books.catch_up()
            since = books.events[before:]
            if since.count(kill.moment) >= kill.nth or len(since) >= ENOUGH:
                break
    await asyncio.sleep(kill.delay)
    return not over.is_set()
