"""`careflow demo`: a hospital's morning round on a virtual morning, followed live, with every patient accounted for."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

from cyclopts import Parameter

from careflow.cli.context import Json
from careflow.cli.output import local, print_json, print_table
from careflow.errors import CareflowError
from careflow.settings import Settings, load_settings

if TYPE_CHECKING:
    from careflow.app import Assembly
    from careflow.clock import Pace, VirtualClock
    from careflow.core.calls import Call
    from careflow.core.rounds import Round

HOUR = 8
BUSY_STEP = 0.12  # virtual seconds at a time while somebody is on the telephone: six frames of sound
IDLE_STEP = 20.0  # virtual seconds at a time while nobody is


@dataclass(slots=True)
class Morning:
    """The demo's time: it runs fast while a telephone is in use, and jumps while none is."""

    speed: float
    is_busy: Callable[[], bool]
    is_open: bool = False

    def pace(self) -> Pace:
        from careflow.clock import Pace

        if self.is_open and not self.is_busy():
            return Pace(speed=1e6, step=IDLE_STEP)
        return Pace(speed=self.speed, step=BUSY_STEP)


@dataclass(slots=True)
class Progress:
    """Says what happens as it happens, on standard error, so that standard output stays a document."""

    quiet: bool
    zone: str
    seen: set[str] = field(default_factory=set)
    last: str = ""

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def standing(self, now: datetime, standing: Counter[str]) -> None:
        text = ", ".join(f"{count} {name}" for name, count in sorted(standing.items()))
        if text != self.last:
            self.last = text
            self.say(f"  {local(now, self.zone)[11:19]}  {text}")


async def demo(
    *,
    speed: Annotated[
        float, Parameter(help="Virtual seconds a real second, at most; a busy machine slows it down.")
    ] = 60.0,
    data_dir: Annotated[
        Path | None, Parameter(help="An empty or new directory (default: a new one under careflow-data).")
    ] = None,
    json: Json = False,
) -> None:
    """Run the morning round of a hospital with 45 synthetic patients, on free ports, and show what came of it."""
    from careflow.telemetry import configure_logging

    started = time.monotonic()
    settings = _settings(data_dir)
    settings.data_dir.mkdir(parents=True)
    progress = Progress(quiet=json, zone=settings.time_zone)
    with (settings.data_dir / "log.jsonl").open("w") as log_file:
        clock = _virtual_morning(settings)
        configure_logging("demo", level=settings.log_level, clock=clock, stream=log_file)
        result = await _morning_round(settings, clock, speed, progress)
    if json:
        print_json(result | {"seconds": round(time.monotonic() - started, 1)})
    else:
        print(f"\n{time.monotonic() - started:.0f} s in all; everything is in {settings.data_dir}")
        print("Look further:")
        for words in (
            "rounds list",
            "calls list",
            "calls show CALL --transcript --audio call.wav",
            "alerts list",
        ):
            print(f"  careflow {words} --data-dir {settings.data_dir}")


def _settings(data_dir: Path | None) -> Settings:
    directory = data_dir or Path("careflow-data") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if directory.exists():
        raise CareflowError(f"--data-dir {directory}: it exists; the demo wants a directory of its own")
    return load_settings(
        data_dir=directory,
        pulse_port=0,
        caller_port=0,
        lab_port=0,
        twilio_account_sid="",  # whatever the environment says: the demo rings nobody's telephone
        calls_in_flight=10,
    )


def _virtual_morning(settings: Settings) -> VirtualClock:
    """Today at a quarter past eight, less half a minute."""
    from careflow.clock import VirtualClock

    zone = ZoneInfo(settings.time_zone)
    today = datetime.now(zone).replace(hour=8, minute=14, second=30, microsecond=0)
    return VirtualClock(today.astimezone(UTC))


async def _morning_round(
    settings: Settings, clock: VirtualClock, speed: float, progress: Progress
) -> dict[str, Any]:
    from careflow.app import assembled, bind, trigger_round
    from careflow.fhir.notes import RosterDefaults
    from careflow.fhir.roster import import_paths
    from careflow.hosting import running
    from careflow.sample import roster_path

    settings, sockets = bind(settings, ("lab", "caller", "pulse"))
    async with AsyncExitStack() as stack:
        assembly = await stack.enter_async_context(assembled(settings, sockets, clock))
        lab = assembly.lab
        assert lab is not None
        queue = assembly.queue
        assert queue is not None
        morning = Morning(speed=speed, is_busy=lambda: lab.live_calls + queue.in_flight > 0)
        ticking = asyncio.create_task(clock.run(morning.pace))
        stack.callback(ticking.cancel)
        stop = await stack.enter_async_context(running(assembly.services))
        progress.say(f"Pulse {settings.pulse_url}, Caller {settings.caller_url}, lab {settings.twilio_url}")
        reading = import_paths(
            [roster_path()],
            hospital_id=settings.hospital_id,
            defaults=RosterDefaults(time_zone=settings.time_zone),
            now=clock.now(),
        )
        await assembly.store.put_patients(reading.patients)
        progress.say(f"roster: {len(reading.patients)} patients from FHIR bundles")
        await clock.sleep((_quarter_past(clock) - clock.now()).total_seconds())
        status, body = await trigger_round(
            settings, HOUR, clock, trigger_type="scheduled", source="careflow-demo"
        )
        if status != 200:
            raise CareflowError(f"Pulse refused the trigger with {status}: {body}")
        progress.say(
            f"{local(clock.now(), settings.time_zone)}: round {body['roundId']}, {body['patientsQueried']} patients"
            f" queried, {body['callsInitiated']} calls initiated"
        )
        morning.is_open = True
        round_ = await _followed(assembly, body["roundId"], progress, stop)
        return await _result(assembly, round_, body, progress)


def _quarter_past(clock: VirtualClock) -> datetime:
    return clock.now().replace(second=0, microsecond=0) + timedelta(minutes=1)


async def _followed(assembly: Assembly, round_id: str, progress: Progress, stop: asyncio.Event) -> Round:
    """The closed round; what happens until then is told as it happens. Raises KeyboardInterrupt when asked to stop."""
    store, hospital = assembly.store, assembly.settings.hospital_id
    while not stop.is_set():
        counts = await store.count_calls(hospital, round_id)
        standing = Counter[str]()
        for (state, outcome, _), count in counts.items():
            standing[outcome or state] += count
        for alert in await store.alerts(hospital, round_id=round_id):
            if alert.id not in progress.seen:
                progress.seen.add(alert.id)
                progress.say(
                    f"  {local(alert.raised_at, progress.zone)[11:19]}  ALERT {alert.kind} {alert.code} (call {alert.call_id})"
                )
        progress.standing(assembly.clock.now(), standing)
        round_ = await store.round(hospital, round_id)
        if round_ is not None and round_.closed_at is not None:
            return round_
        await asyncio.sleep(0.25)
    raise KeyboardInterrupt


async def _result(
    assembly: Assembly, round_: Round, body: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    store, hospital = assembly.store, round_.hospital_id
    calls = list(await store.calls(hospital, round_.id, limit=10_000))
    alerts = await store.alerts(hospital, round_id=round_.id)
    interactions = await store.interactions(hospital, round_id=round_.id)
    outcomes = Counter(call.outcome.value for call in calls if call.outcome is not None)
    if not progress.quiet:
        _print_result(calls, Counter(f"{alert.kind}: {alert.code}" for alert in alerts), len(interactions))
    return {
        "roundId": round_.id,
        "patientsQueried": body["patientsQueried"],
        "callsInitiated": body["callsInitiated"],
        "skipped": body["skipped"],
        "outcomes": dict(sorted(outcomes.items())),
        "attempts": sum(call.attempts for call in calls),
        "alerts": len(alerts),
    }


def _print_result(calls: list[Call], alerts: Counter[str], interactions: int) -> None:
    rows = Counter((call.outcome.value if call.outcome else "open", call.reason) for call in calls)
    print_table(
        "What became of everybody",
        ("outcome", "reason", "patients"),
        [(*key, count) for key, count in sorted(rows.items())],
    )
    print_table("Alerts", ("alert", "how many"), sorted(alerts.items()))
    print(
        f"{len(calls)} patients, {sum(call.attempts for call in calls)} attempts, {interactions} interactions on record"
    )
