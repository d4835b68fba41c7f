"""A whole day of two hospitals on Firestore and Cloud Tasks, with instances that are killed all through it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from careflow.core.attempts import Ending
from careflow.core.hospitals import Hospital
from careflow.core.rounds import Round
from careflow.core.slots import local_instant
from faults.deployment import NEVER
from faults.fleet import Fleet
from faults.kills import AGENTS, Killed, kill_all, plan_kills
from faults.town import DAWN, DAY, HOSPITALS, ROUND_HOURS, Town, town
from faults.trial import Entry, Evidence, Left, books_of, closed, deliver_some_again
from faults.verdict import nothing_private_said, one_at_a_time, violations

SPEED = 40.0
PATIENCE = 0.2  # so many talk at once that the machine is behind before a process is
ATTEMPTS_A_CALL = 1.3  # about, to spread the kills over the day
PUT = 2000  # patients in one commit
# Callbacks come twice, late and out of order, and the answer to an order is lost; nothing that may cut a conversation.
FAULTS = {
    "duplicate_callback": 0.1,
    "out_of_order_callback": 0.05,
    "delayed_callback": 0.05,
    "lost_create_response": 0.02,
}


@dataclass(frozen=True, slots=True)
class Day:
    """What came of it. `wrong` are the violations of every round and of the day; empty when all invariants hold."""

    wrong: Sequence[str]
    patients: int
    rounds: Sequence[Evidence]
    kills: Sequence[Killed]
    dialled: int
    personas: Counter[str]
    conversations: int  # that somebody saw through to its end
    seconds: float  # real ones, from the first trigger to the last round's close

    def summary(self) -> str:
        """A few lines for a person."""
        calls = sum(len(one.calls) for one in self.rounds)
        outcomes: Counter[str] = Counter()
        for one in self.rounds:
            outcomes.update(dict(one.round.outcomes))
        stops = sum(kill.gently for kill in self.kills)
        return "\n".join(
            (
                f"{self.patients} patients, {len(self.rounds)} rounds, {calls} calls, {self.dialled} telephone calls,"
                f" {self.conversations} conversations to their end, in {self.seconds:.0f} s"
                f" ({self.dialled / self.seconds:.1f} telephone calls a second)",
                f"{len(self.kills) - stops} kills and {stops} stops, of {sum(len(kill.names) for kill in self.kills)} instances;"
                f" {sum(kill.in_the_dark for kill in self.kills)} attempts had an intent and no SID just then",
                "outcomes: " + ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items())),
                "picked up by: "
                + ", ".join(f"{name} {count}" for name, count in self.personas.most_common()),
                f"violations: {len(self.wrong)}",
                *self.wrong[:50],
            )
        )


async def run_day(
    folder: Path,
    emulator: str,
    *,
    patients: int,
    kills: int,
    seed: int,
    limit: float,
    tell: Callable[[str], None] = print,
) -> Day:
    """A day of so many patients with about so many kills, which must be over after `limit` real seconds."""
    rng = Random(seed)
    people = town(patients, rng)
    fleet = Fleet(
        folder,
        DAWN,
        callers=2,
        pulses=2,
        speed=SPEED,
        patience=PATIENCE,
        rng=Random(seed),
        store="firestore",
        firestore_emulator=emulator,
        queue="cloud-tasks",
        project="careflow-day",
        hospitals=_profiles(folder),
        calls_per_second=100,
        calls_in_flight=60,
    )
    plan = plan_kills(
        rng, kills, AGENTS, several=True, every=round(people.calls * ATTEMPTS_A_CALL * 0.8 / kills)
    )
    async with fleet.running():
        store = fleet.store
        fleet.is_held = True
        await fleet.put_lab("subscribers", [one.to_json() for one in people.subscribers])
        await fleet.put_lab("faults", FAULTS)
        for start in range(0, patients, PUT):
            for hospital in HOSPITALS:
                part = [one for one in people.patients[start : start + PUT] if one.hospital_id == hospital.id]
                await store.put_patients(part)
        triggers: dict[tuple[str, int], list[asyncio.Task[dict[str, Any]]]] = defaultdict(list)
        deliveries: list[asyncio.Task[int]] = []
        latest: list[tuple[Hospital, int]] = []

        async def again() -> None:
            hospital, hour = latest[-1]
            if rng.random() < 0.5:
                triggers[hospital.id, hour].append(asyncio.create_task(fleet.trigger(hour, hospital)))
            else:
                deliveries.extend(await deliver_some_again(fleet, hospital.id, rng))

        async def is_planning() -> bool:
            return bool(await store.unclosed_rounds())

        over = asyncio.Event()
        began = time.monotonic()
        killer = asyncio.create_task(kill_all(fleet, plan, rng, over, is_planning=is_planning, again=again))
        telling = asyncio.create_task(_tell(fleet, began, tell))
        for at, hospital, hour in _slots():
            fleet.is_held, fleet.wait_for = False, at
            await fleet.clock.sleep((at - fleet.clock.now()).total_seconds())
            fleet.is_held = True  # a scheduler's trigger is answered in seconds
            latest.append((hospital, hour))
            for _ in range(rng.choice((1, 2))):
                triggers[hospital.id, hour].append(asyncio.create_task(fleet.trigger(hour, hospital)))
            answer = await triggers[hospital.id, hour][0]
            tell(f"{fleet.clock.now():%H:%M} UTC {answer['roundId']}: {answer['callsInitiated']} calls")
        fleet.is_held, fleet.wait_for = False, NEVER
        answers = {key: await asyncio.gather(*tasks) for key, tasks in triggers.items()}
        rounds: dict[tuple[str, int], Round] = {}
        for (hospital_id, hour), told in answers.items():
            left = limit - (time.monotonic() - began)
            rounds[hospital_id, hour] = await closed(
                fleet, hospital_id, told[0]["roundId"], killer, seconds=left
            )
        over.set()
        killed = await killer
        seconds = time.monotonic() - began
        await asyncio.gather(*deliveries)
        telling.cancel()
        tell(f"over after {seconds:.0f} s; asking")
        # Once more, long after: what was added meanwhile by `again` is in `triggers`.
        for key, tasks in triggers.items():
            answers[key] = await asyncio.gather(*tasks)
        left_of = {key: await Left.of(store, round_) for key, round_ in rounds.items()}
        dialled = await books_of(fleet)
        return _judged(fleet, people, seed, rounds, answers, left_of, dialled, killed, seconds)


def _judged(
    fleet: Fleet,
    people: Town,
    seed: int,
    rounds: dict[tuple[str, int], Round],
    answers: dict[tuple[str, int], list[dict[str, Any]]],
    left_of: dict[tuple[str, int], Left],
    dialled: list[dict[str, Any]],
    killed: Sequence[Killed],
    seconds: float,
) -> Day:
    """Every round by itself, and what goes across them."""
    round_of = {call.id: key for key, left in left_of.items() for call in left.calls}
    entries: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    wrong = []
    for entry in dialled:
        key = round_of.get(entry["attempt"].rpartition("-")[0])
        if key is None:
            wrong.append(f"call {entry['sid']} is of no call on record")
        else:
            entries[key].append(entry)
    wrong += [f"in all rounds: {found}" for found in one_at_a_time(dialled)]
    hospitals = {one.id: one for one in HOSPITALS}
    found = []
    output, dead = fleet.output, fleet.dead_tasks()
    for (hospital_id, hour), round_ in rounds.items():
        left = left_of[hospital_id, hour]
        evidence = Evidence(
            seed=seed,
            people=people.rounds[hospital_id, hour],
            kills=killed,
            answers=answers[hospital_id, hour],
            dialled=entries[hospital_id, hour],
            round=round_,
            calls=left.calls,
            attempts=left.attempts,
            alerts=left.alerts,
            interactions=left.interactions,
            dead_tasks=dead,
            output="",  # asked once, below
            has_faults=False,
            hospital=hospitals[hospital_id],
            others=[one for one in HOSPITALS if one.id != hospital_id],
        )
        wrong += [f"{round_.id}: {one}" for one in violations(evidence)]
        found.append(evidence)
    wrong += list(nothing_private_said(output))
    return Day(
        wrong=wrong,
        patients=len(people.patients),
        rounds=found,
        kills=killed,
        dialled=sum(entry["dialledAt"] is not None for entry in dialled),
        personas=Counter(entry["persona"] for entry in dialled if entry["answeredAt"]),
        conversations=sum(
            attempt.ending in (Ending.COMPLETE, Ending.ESCALATED)
            for left in left_of.values()
            for attempt in left.attempts
        ),
        seconds=seconds,
    )


def _slots() -> list[tuple[datetime, Hospital, int]]:
    """When each round of each hospital is triggered, in order: a quarter of a minute after its hour."""
    slots = [
        (
            local_instant(DAY, time_of_day(hour), ZoneInfo(hospital.time_zone)) + timedelta(seconds=15),
            hospital,
            hour,
        )
        for hospital in HOSPITALS
        for hour in ROUND_HOURS
    ]
    return sorted(slots, key=lambda slot: slot[0])


def _profiles(folder: Path) -> Path:
    """The file of hospitals."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hospitals.json"
    entries = [
        {
            "id": one.id,
            "name": one.name,
            "phone": one.phone,
            "fromNumber": one.from_number,
            "timeZone": one.time_zone,
            "roundHours": list(one.round_hours),
        }
        for one in HOSPITALS
    ]
    path.write_text(json.dumps({"hospitals": entries}))
    return path


async def _tell(fleet: Fleet, began: float, tell: Callable[[str], None]) -> None:
    """Every half minute, how far it is."""
    while True:
        await asyncio.sleep(30)
        ended = fleet.books.events.count("ended")
        tell(
            f"{time.monotonic() - began:.0f} s: {fleet.clock.now():%H:%M} UTC, {fleet.books.orders} orders,"
            f" {ended} ended, {len(fleet.books.open)} open, instances {' '.join(fleet.units)}"
        )
