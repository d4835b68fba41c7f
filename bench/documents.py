"""Documents that Firestore bills: for a round, for a call, for an attempt nobody answers, for a sweep, for an idle hour.

Counted while the real services work on the official emulator, never reckoned. What grows with the patients is counted at two
sizes, and told apart from what does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.cloud_world import World, cloud_world, people
from bench.figures import Figure
from bench.meter import KINDS, OWN_LOOP, Meter
from bench.roster import HOSPITAL
from careflow.core.calls import Outcome
from careflow.errors import CareflowError
from careflow.lab.personas import Persona

PART = "firestore"
SIZES = (100, 400)
CALLS = 5  # at a time, and in all
SPEEDS = (
    15.0,
    8.0,
    4.0,
)  # the slower, the less a busy machine disturbs: nobody waits here for a process that lags behind
NOT_DUE = "America/Los_Angeles"  # at a quarter past eight in New York nobody there is phoned for three hours
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the work used, divided by `among`."""

    what: str
    used: Meter
    among: float = 1.0

    def figures(self) -> list[Figure]:
        """Reads, writes and deletes, as far as there are any."""
        return [
            Figure(PART, f"{self.what}: {kind}", "documents", (self.used.total(kind) / self.among,))
            for kind in KINDS
            if self.used.total(kind)
        ]

    def lines(self) -> list[str]:
        """Who used it; and the largest shares, by who, for what, through which method of the store."""
        return [
            f"{self.what}: {self._listed(*names)}"
            for names in (("service",), ("service", "cause", "method"))
            if self.used.documents
        ]

    def _listed(self, *names: str) -> str:
        shares = list(self.used.by(*names).items())[:SHOWN]
        return "; ".join(
            f"{' '.join(who)} "
            + ", ".join(f"{count / self.among:.3g} {kind}" for kind, count in kinds.items())
            for who, kinds in shares
        )


def measure(folder: Path, emulator: str) -> tuple[list[Figure], list[str]]:
    """All of it, on the emulator at host:port; and who used what."""
    return asyncio.run(_measure(folder, emulator))


async def _measure(folder: Path, emulator: str) -> tuple[list[Figure], list[str]]:
    figures: list[Figure] = []
    notes: list[str] = []
    for parts, more in (
        await _answered(_new(folder / "answered"), emulator),
        await _not_answered(_new(folder / "not-answered"), emulator),
        await _planned(folder, emulator, SIZES),
    ):
        for part in parts:
            figures += part.figures()
            notes += part.lines()
        figures += more
    return figures, notes


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


class _Disturbed(Exception):
    """A call was not what it was meant to be: the machine was too busy for the clock's speed."""


async def _answered(folder: Path, emulator: str) -> tuple[list[Part], list[Figure]]:
    """Everybody picks up and answers everything; then the round closes, and an hour passes in which nothing happens."""
    for speed in SPEEDS:
        with suppress(_Disturbed):
            return await _answered_at(_new(folder / f"{speed:.0f}"), emulator, speed)
    raise CareflowError(
        f"calls were disturbed even at {SPEEDS[-1]:g} times real time: the machine is too busy"
    )


async def _answered_at(folder: Path, emulator: str, speed: float) -> tuple[list[Part], list[Figure]]:
    async with cloud_world(folder, emulator, speed=speed, calls_in_flight=CALLS) as world:
        await world.enrol(people(CALLS), Persona.WELL)
        before, written = world.meter.copy(), world.log.stat().st_size
        round_id = await world.trigger()
        await world.until(_all_ended(world, round_id))
        used, logged = world.meter.since(before), world.log.stat().st_size - written
        calls = await world.store.calls(HOSPITAL, round_id)
        if any((call.attempts, call.outcome) != (1, Outcome.COMPLETED) for call in calls):
            raise _Disturbed
        own, asked = _only(used, OWN_LOOP), _calling(used)
        minutes = await _minutes(world, round_id)
        closing = await _close(world, round_id)
        quiet = await _over(world, lambda: world.pass_time(3600))
        sweep = await _over(world, world.sweep)
        requests = [
            Figure(
                PART, f"a call answered at once: requests to {name}", "requests", (asked.asked(name) / CALLS,)
            )
            for name in ("pulse", "caller", "twilio")
        ]
        parts = [
            Part("a call answered at once", asked, CALLS),
            Part("a call answered at once: the Callers' own looking after attempts", own, CALLS),
            Part(f"closing a round of {CALLS} ended calls", _without(closing, OWN_LOOP)),
            Part("an hour without a round, one instance of each service", quiet),
            Part("a sweep that finds nothing", sweep),
        ]
        return parts, [
            *requests,
            Figure(PART, "a call answered at once: conversation", "minutes", (minutes,)),
            Figure(PART, "a call answered at once: log lines", "bytes", (logged / CALLS,)),
        ]


async def _not_answered(folder: Path, emulator: str) -> tuple[list[Part], list[Figure]]:
    """Nobody ever picks up: three attempts each."""
    async with cloud_world(folder, emulator, calls_in_flight=CALLS) as world:
        await world.enrol(people(CALLS), Persona.NOT_ANSWERING)
        before = world.meter.copy()
        round_id = await world.trigger()
        await world.until(_all_ended(world, round_id))
        asked = _calling(world.meter.since(before))
        calls = await world.store.calls(HOSPITAL, round_id)
        attempts = sum(call.attempts for call in calls)
        name = f"an attempt nobody answers, of {attempts / len(calls):.3g} a call"
        return [Part(name, asked, attempts)], [
            Figure(PART, f"{name}: requests to {unit}", "requests", (asked.asked(unit) / attempts,))
            for unit in ("pulse", "caller", "twilio")
        ]


async def _planned(folder: Path, emulator: str, sizes: Sequence[int]) -> tuple[list[Part], list[Figure]]:
    """Rounds of two sizes, planned, triggered again, swept, and closed without a single telephone call."""
    smaller, larger = [await _plan(_new(folder / f"plan-{size}"), emulator, size) for size in sizes]
    more = sizes[1] - sizes[0]
    figures = []
    for what, few in smaller.items():
        for kind in KINDS:
            slope = (larger[what].total(kind) - few.total(kind)) / more
            fixed = few.total(kind) - slope * sizes[0]
            if slope or fixed:
                figures += [
                    Figure(PART, f"{what}: {kind} for each patient", "documents", (slope,)),
                    Figure(PART, f"{what}: {kind} besides", "documents", (fixed,)),
                ]
    return [], figures


async def _plan(folder: Path, emulator: str, size: int) -> dict[str, Meter]:
    # So fast that one sweep looks at all calls that are left.
    async with cloud_world(folder, emulator, calls_per_second=10) as world:
        await world.enrol(people(size, time_zone=NOT_DUE), Persona.NOT_ANSWERING)
        before = world.meter.copy()
        round_id = await world.trigger()
        planning = _without(world.meter.since(before), OWN_LOOP)
        again = await _over(world, world.trigger)
        sweep = await _over(world, world.sweep)
        round_ = await world.round(round_id)
        await world.pause_calls()
        world.clock.advance((round_.window_end - world.clock.now() - timedelta(minutes=15)).total_seconds())
        left = await _over(world, world.sweep)
        world.clock.advance((round_.window_end - world.clock.now() + timedelta(seconds=1)).total_seconds())
        closing = await _over(world, lambda: world.until(_is_closed(world, round_id)))
    return {
        "planning a round": planning,
        "the same trigger again": _without(again, OWN_LOOP),
        "a sweep while no call is left": _without(sweep, OWN_LOOP),
        "a sweep while all calls are left": _without(left, OWN_LOOP),
        "closing a round of calls nobody made": _only(closing, "/tasks/close"),
    }


async def _close(world: World, round_id: str) -> Meter:
    """What is used from the window's end until the round is closed."""
    round_ = await world.round(round_id)
    left = (round_.window_end - world.clock.now()).total_seconds() - 1
    if left > 0:
        world.clock.advance(left)
        await asyncio.sleep(0.5)  # real time: the loops that were due look once

    return await _over(world, lambda: world.until(_is_closed(world, round_id)))


def _is_closed(world: World, round_id: str) -> Callable[[], Awaitable[bool]]:
    async def closed() -> bool:
        return (await world.round(round_id)).closed_at is not None

    return closed


async def _over(world: World, work: Callable[[], Awaitable[object]]) -> Meter:
    before = world.meter.copy()
    await work()
    return world.meter.since(before)


def _all_ended(world: World, round_id: str) -> Callable[[], Awaitable[bool]]:
    async def ended() -> bool:
        return not await world.open_calls(round_id)

    return ended


async def _minutes(world: World, round_id: str) -> float:
    """The mean length of a conversation."""
    talks = await world.store.interactions(HOSPITAL, round_id=round_id)
    return sum((talk.ended_at - talk.started_at).total_seconds() for talk in talks) / len(talks) / 60


def _only(meter: Meter, cause: str) -> Meter:
    return meter.where(lambda line: line.cause == cause)


def _calling(meter: Meter) -> Meter:
    """Without planning and without what happens anyway: what calls cost."""
    return meter.where(lambda line: line.cause != OWN_LOOP and (line.service, line.cause) != ("pulse", "/"))


def _without(meter: Meter, cause: str) -> Meter:
    return meter.where(lambda line: line.cause != cause)
