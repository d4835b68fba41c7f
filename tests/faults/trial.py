"""One morning round under fire: kills at seeded moments, restarts, and in the end all that there is to be asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

from careflow.core.attempts import Attempt
from careflow.core.calls import Call
from careflow.core.checkins import Alert, Interaction
from careflow.core.rounds import Round
from faults.deployment import Deployment
from faults.people import HOSPITAL, START, People, people

SPEED = 60.0  # virtual seconds a real second while somebody is on the telephone
CLOSE_SECONDS = 150.0  # real ones, in which a round must come to its end
PLANNING = "planning"
# What the lab books just before a process dies. "created" matters most: the telephone network has the call, and
# nobody here knows its SID yet.
MOMENTS = ("created", "created", "created", "initiated", "ringing", "in-progress", "said", "heard", "ended")
ENOUGH = 15  # entries of any kind, when the moment does not come


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill `units` `delay` real seconds after the lab booked `moment` for the `nth` time from now; start them
    `pause` seconds later, of the deployment's own clock.

    At the moment "planning" the first calls of the round are in the ledger.
    """

    units: Sequence[str]
    moment: str
    nth: int
    delay: float
    pause: float


@dataclass(frozen=True, slots=True)
class Killed:
    """A kill that happened, by the deployment's clock; `in_the_dark` attempts had an intent and no call SID then."""

    units: Sequence[str]
    moment: str
    at: datetime
    back_at: datetime
    in_the_dark: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a round left: the lab's books first, and what our store and our logs say."""

    seed: int
    people: People
    kills: Sequence[Killed]
    answers: Sequence[dict[str, Any]]  # to every trigger
    dialled: Sequence[dict[str, Any]]  # the lab's books, as GET /lab/calls shows them
    round: Round
    calls: Sequence[Call]
    attempts: Sequence[Attempt]
    alerts: Sequence[Alert]
    interactions: Sequence[Interaction]
    dead_tasks: int
    output: str
    has_faults: bool


def plan_kills(rng: Random, count: int, *, whole: bool) -> list[Kill]:
    """Seeded kills; the first may hit the planning."""
    kills = []
    for place in range(count):
        units = (
            ("up",)
            if whole
            else rng.choice((("pulse",), ("caller",), ("pulse",), ("caller",), ("pulse", "caller")))
        )
        moment = rng.choice(MOMENTS)
        # Most gaps that matter are of milliseconds; some are not.
        delay = rng.choice((0.0, rng.uniform(0, 0.01), rng.uniform(0, 0.05), rng.uniform(0, 0.5)))
        pause = rng.choice((0.0, 0.0, rng.uniform(0, 15), rng.uniform(15, 90)))
        if place == 0 and rng.random() < 0.5:
            units, moment, delay = ("up",) if whole else ("pulse",), PLANNING, rng.uniform(0, 0.03)
        kills.append(Kill(units, moment, rng.choice((1, 2, 3)), delay, pause))
    return kills


async def run_trial(
    folder: Path, seed: int, count: int, *, whole: bool, faults: dict[str, float]
) -> Evidence:
    """A round of `people` with up to `count` kills; fewer when it is over before."""
    rng = Random(seed)
    roster = people()
    deployment = Deployment(folder, START, whole=whole)
    async with deployment.running(SPEED):
        await deployment.store.put_patients(roster.everybody)
        await deployment.put_lab("subscribers", [one.to_json() for one in roster.subscribers])
        await deployment.put_lab("faults", faults)
        kills = plan_kills(rng, count, whole=whole)
        triggers = [asyncio.create_task(deployment.trigger()) for _ in range(rng.choice((1, 2)))]
        over = asyncio.Event()
        killer = asyncio.create_task(_kill_all(deployment, kills, triggers, rng, over))
        answer = await triggers[0]
        deployment.is_held = False
        round_ = await _closed(deployment, answer["roundId"], killer)
        over.set()
        killed = await killer
        triggers.append(asyncio.create_task(deployment.trigger()))  # long after its round
        answers = await asyncio.gather(*triggers)
        return await _evidence(deployment, seed, roster, killed, answers, round_, bool(faults))


async def _kill_all(
    deployment: Deployment,
    kills: Sequence[Kill],
    triggers: list[asyncio.Task[dict[str, Any]]],
    rng: Random,
    over: asyncio.Event,
) -> list[Killed]:
    """Kill and start again, until it was often enough or the round is over; what was done."""
    done: list[Killed] = []
    for kill in kills:
        if not await _moment(deployment, kill, over):
            break
        units = [deployment.units[name] for name in kill.units]
        at = deployment.clock.now()
        for unit in units:
            await unit.kill()
        in_the_dark = await deployment.count("attempts WHERE state = 'intended'")
        await deployment.clock.sleep(kill.pause)
        for unit in units:
            await unit.start()
        if rng.random() < 0.8:  # otherwise the next kill may meet a process that is only starting
            for unit in units:
                await unit.ready()
        done.append(Killed(kill.units, kill.moment, at, deployment.clock.now(), in_the_dark))
        if rng.random() < 0.3:
            triggers.append(asyncio.create_task(deployment.trigger()))  # a duplicate
    for unit in deployment.units.values():
        await unit.ready()
    return done


async def _moment(deployment: Deployment, kill: Kill, over: asyncio.Event) -> bool:
    """Wait for the kill's moment; False when the round was over first."""
    books = deployment.books
    books.catch_up()
    before = len(books.events)
    while not over.is_set():
        await asyncio.sleep(0.001)
        if kill.moment == PLANNING:
            if await deployment.count("calls"):
                break
        else:
            books.catch_up()
            since = books.events[before:]
            if since.count(kill.moment) >= kill.nth or len(since) >= ENOUGH:
                break
    await asyncio.sleep(kill.delay)
    return not over.is_set()


async def _closed(deployment: Deployment, round_id: str, killer: asyncio.Task[Any]) -> Round:
    limit = time.monotonic() + CLOSE_SECONDS
    while True:
        round_ = await deployment.store.round(HOSPITAL, round_id)
        if round_ is not None and round_.closed_at is not None:
            return round_
        if killer.done():
            killer.result()
        assert time.monotonic() < limit, f"the round is not closed; it is {deployment.clock.now()}"
        await asyncio.sleep(0.02)


async def _evidence(
    deployment: Deployment,
    seed: int,
    roster: People,
    killed: Sequence[Killed],
    answers: Sequence[dict[str, Any]],
    round_: Round,
    has_faults: bool,
) -> Evidence:
    from careflow.lab.books import Books as LabBooks

    store = deployment.store
    calls = list(await store.calls(HOSPITAL, round_.id, limit=10_000))
    attempts = [attempt for call in calls for attempt in await store.attempts(HOSPITAL, call.id)]
    dead = await store.database.read(
        lambda connection: connection.execute(
            "SELECT count(*) FROM tasks WHERE dead_at IS NOT NULL"
        ).fetchone()[0]
    )
    for unit in deployment.units.values():
        await unit.kill()  # nothing is written any more
    books = LabBooks(deployment.settings.data_dir / "lab")
    try:
        dialled = [json.loads(json.dumps(call.to_json())) for call in books.calls.values()]
    finally:
        books.close()
    return Evidence(
        seed=seed,
        people=roster,
        kills=killed,
        answers=answers,
        dialled=dialled,
        round=round_,
        calls=calls,
        attempts=attempts,
        alerts=list(await store.alerts(HOSPITAL, round_id=round_.id)),
        interactions=list(await store.interactions(HOSPITAL, round_id=round_.id)),
        dead_tasks=dead,
        output=deployment.output,
        has_faults=has_faults,
    )
