"""One morning round under fire, and all that there is to be asked of a round in the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from careflow.core.attempts import Attempt
from careflow.core.calls import Call, attempt_id
from careflow.core.checkins import Alert, Interaction
from careflow.core.hospitals import Hospital
from careflow.core.rounds import Round
from careflow.lab.books import Books
from careflow.ports import Store
from faults.deployment import Deployment
from faults.kills import Kill, Killed, kill_all
from faults.people import HOSPITAL, People, people

SPEED = 60.0  # virtual seconds a real second while somebody is on the telephone
CLOSE_SECONDS = 300.0  # real ones, in which a round must come to its end
PAGE = 1000
AT_ONCE = 32  # reads of the store

Entry = Mapping[str, Any]  # a call as the lab's books show it


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a round left: the lab's books first, and what our store and our logs say.

    `others` are hospitals served beside its own.
    """

    seed: int
    people: People
    kills: Sequence[Killed]
    answers: Sequence[dict[str, Any]]  # to every trigger
    dialled: Sequence[Entry]  # the lab's books, as GET /lab/calls shows them
    round: Round
    calls: Sequence[Call]
    attempts: Sequence[Attempt]
    alerts: Sequence[Alert]
    interactions: Sequence[Interaction]
    dead_tasks: int
    output: str
    has_faults: bool
    hospital: Hospital | None = None
    others: Sequence[Hospital] = ()


async def run_trial(
    deployment: Deployment, seed: int, plan: Callable[[Random], Sequence[Kill]], *, faults: dict[str, float]
) -> Evidence:
    """A round of `people` with the kills planned; fewer when it is over before."""
    rng = Random(seed)
    roster = people()
    async with deployment.running():
        store = deployment.store
        deployment.is_held = True  # until the round is open, time only creeps
        await store.put_patients(roster.everybody)
        await deployment.put_lab("subscribers", [one.to_json() for one in roster.subscribers])
        await deployment.put_lab("faults", faults)
        kills = plan(rng)
        triggers = [asyncio.create_task(deployment.trigger()) for _ in range(rng.choice((1, 2)))]
        deliveries: list[asyncio.Task[int]] = []

        async def again() -> None:
            """A duplicate of the trigger, or of a task."""
            if rng.random() < 0.5:
                triggers.append(asyncio.create_task(deployment.trigger()))
            else:
                deliveries.extend(await deliver_some_again(deployment, HOSPITAL, rng))

        async def is_planning() -> bool:
            rounds = await store.rounds(HOSPITAL, limit=1)
            return bool(rounds and await store.calls(HOSPITAL, rounds[0].id, limit=1))

        over = asyncio.Event()
        killer = asyncio.create_task(
            kill_all(deployment, kills, rng, over, is_planning=is_planning, again=again)
        )
        answer = await triggers[0]
        deployment.is_held = False
        round_ = await closed(deployment, HOSPITAL, answer["roundId"], killer, seconds=CLOSE_SECONDS)
        over.set()
        killed = await killer
        triggers.append(asyncio.create_task(deployment.trigger()))  # long after its round
        answers = await asyncio.gather(*triggers)
        await asyncio.gather(*deliveries)
        left = await Left.of(store, round_)
        dialled = await books_of(deployment)
        return Evidence(
            seed=seed,
            people=roster,
            kills=killed,
            answers=answers,
            dialled=dialled,
            round=round_,
            calls=left.calls,
            attempts=left.attempts,
            alerts=left.alerts,
            interactions=left.interactions,
            dead_tasks=deployment.dead_tasks(),
            output=deployment.output,
            has_faults=bool(faults),
        )


async def deliver_some_again(
    deployment: Deployment, hospital_id: str, rng: Random
) -> Iterable[asyncio.Task[int]]:
    """Deliver the tasks of some open calls once more; the deliveries."""
    (round_,) = await deployment.store.rounds(hospital_id, limit=1)
    calls = await deployment.store.calls(hospital_id, round_.id, limit=50, open_only=True)
    chosen = rng.sample(list(calls), min(3, len(calls)))
    return [asyncio.create_task(deployment.deliver_again(call)) for call in chosen]


async def closed(
    deployment: Deployment, hospital_id: str, round_id: str, killer: asyncio.Task[Any], *, seconds: float
) -> Round:
    """The round, once it is closed, which may take so many real seconds."""
    limit = time.monotonic() + seconds
    while True:
        round_ = await deployment.store.round(hospital_id, round_id)
        if round_ is not None and round_.closed_at is not None:
            return round_
        if killer.done():
            killer.result()
        assert time.monotonic() < limit, f"the round is not closed; it is {deployment.clock.now()}"
        await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Left:
    """What a round left in the store."""

    calls: Sequence[Call]
    attempts: Sequence[Attempt]
    alerts: Sequence[Alert]
    interactions: Sequence[Interaction]

    @classmethod
    async def of(cls, store: Store, round_: Round) -> Left:
        calls: list[Call] = []
        while page := await store.calls(
            round_.hospital_id, round_.id, after=calls[-1].id if calls else "", limit=PAGE
        ):
            calls += page
        # By their ids: the emulator looks at every attempt there is to answer a query for one call's.
        ids = [attempt_id(call, number) for call in calls for number in range(1, call.attempts + 1)]
        attempts = await _each(store.attempt, ids)
        return cls(
            calls,
            [one for one in attempts if one is not None],
            list(await store.alerts(round_.hospital_id, round_id=round_.id)),
            list(await store.interactions(round_.hospital_id, round_id=round_.id)),
        )


async def _each(
    read: Callable[[str], Awaitable[Attempt | None]], ids: Sequence[str]
) -> Sequence[Attempt | None]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(wanted: str) -> Attempt | None:
        async with gate:
            return await read(wanted)

    return await asyncio.gather(*map(one, ids))


async def books_of(deployment: Deployment) -> list[dict[str, Any]]:
    """The lab's books, when nobody writes in them any more: every process is killed."""
    await deployment.kill_all()
    books = Books(deployment.data_dir / "lab")
    try:
        return [json.loads(json.dumps(call.to_json())) for call in books.calls.values()]
    finally:
        books.close()
