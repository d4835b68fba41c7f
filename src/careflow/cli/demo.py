"""`careflow demo`: a hospital's morning round on a virtual morning, followed live, with every patient accounted for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

from cyclopts import Parameter

from careflow.cli.context import Interrupted, Json
from careflow.cli.output import local, print_json, print_table
from careflow.cli.progress import Progress, followed
from careflow.errors import CareflowError, SettingsError
from careflow.settings import Settings, load_settings

if TYPE_CHECKING:
    from careflow.app import Assembly
    from careflow.clock import Pace, VirtualClock
    from careflow.core.calls import Call
    from careflow.core.checkins import Alert
    from careflow.core.rounds import Round

HOUR = 8
FASTEST = 1000
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
    if not 1 <= speed <= FASTEST:
        raise SettingsError(f"--speed {speed}: accepted are numbers from 1 to {FASTEST}")
    settings = _settings(data_dir)
    try:
        settings.data_dir.mkdir(parents=True)
    except OSError as error:
        raise CareflowError(f"--data-dir {settings.data_dir} cannot be made: {error.strerror}") from error
    with Progress(quiet=json) as progress, (settings.data_dir / "log.jsonl").open("w") as log_file:
        clock = _virtual_morning(settings)
        configure_logging("demo", level=settings.log_level, clock=clock, stream=log_file)
        result = await _morning_round(settings, clock, speed, progress)
    if json:
        print_json(result.document | {"seconds": round(time.monotonic() - started, 1)})
    else:
        result.print()
        print(f"\n{time.monotonic() - started:.0f} s in all; everything is in {settings.data_dir}")
        print("Look further:")
        for words in (
            "alerts list",
            "calls list",
            f"calls show {result.worth_hearing} --transcript --audio call.wav",
            f"rounds show {result.round.id}",
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


async def _morning_round(settings: Settings, clock: VirtualClock, speed: float, progress: Progress) -> Result:
    from careflow.app import assembled, bind
    from careflow.clock import wait_until
    from careflow.fhir.notes import RosterDefaults
    from careflow.fhir.roster import import_paths
    from careflow.hosting import running
    from careflow.operating import trigger_round
    from careflow.sample import roster_path

    settings, sockets = bind(settings, ("lab", "caller", "pulse"))
    async with AsyncExitStack() as stack:
        assembly = await stack.enter_async_context(assembled(settings, sockets, clock))
        lab = assembly.lab
        assert lab is not None
        morning = Morning(speed=speed, is_busy=lambda: lab.live_calls + assembly.in_flight() > 0)
        ticking = asyncio.create_task(clock.run(morning.pace))
        stack.callback(ticking.cancel)
        stop = await stack.enter_async_context(running(assembly.services))
        progress.happened(
            f"Pulse {settings.pulse_url}, Caller {settings.caller_url}, lab {settings.twilio_url}"
        )
        reading = import_paths(
            [roster_path()],
            hospital_id=settings.hospital_id,
            defaults=RosterDefaults(time_zone=settings.time_zone),
            now=clock.now(),
        )
        await assembly.store.put_patients(reading.patients)
        progress.happened(f"roster: {len(reading.patients)} patients from FHIR bundles")
        interrupted = Interrupted(
            f"the round stays as far as it came; see careflow rounds list --data-dir {settings.data_dir}"
        )
        if await wait_until(clock, (_quarter_past(clock) - clock.now()).total_seconds(), stop):
            raise interrupted
        status, body = await trigger_round(
            settings, HOUR, clock, trigger_type="scheduled", source="careflow-demo"
        )
        if status != 200:
            raise CareflowError(f"Pulse refused the trigger with {status}: {body}")
        progress.happened(
            f"{local(clock.now(), settings.time_zone)}: round {body['roundId']}, {body['patientsQueried']} patients"
            f" queried, {body['callsInitiated']} calls initiated"
        )
        morning.is_open = True
        round_ = await followed(
            assembly.store, settings.hospital_id, body["roundId"], clock.now, progress, stop
        )
        if round_ is None:
            raise interrupted
        return await _result(assembly, round_, body)


def _quarter_past(clock: VirtualClock) -> datetime:
    return clock.now().replace(second=0, microsecond=0) + timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of the round."""

    round: Round
    skipped: Mapping[str, int]
    calls: Sequence[Call]
    alerts: Sequence[Alert]
    interactions: int

    @property
    def worth_hearing(self) -> str:
        """A call with something in it: the first red flag's, else any that was held."""
        red = [alert.call_id for alert in self.alerts if alert.kind == "red-flag"]
        held = [call.id for call in self.calls if call.outcome == "completed"]
        return (red or held or ["CALL"])[0]

    @property
    def document(self) -> dict[str, Any]:
        outcomes = Counter(call.outcome.value for call in self.calls if call.outcome is not None)
        return {
            "roundId": self.round.id,
            "patientsQueried": self.round.patients_queried,
            "callsInitiated": self.round.calls_initiated,
            "skipped": self.skipped,
            "outcomes": dict(sorted(outcomes.items())),
            "attempts": sum(call.attempts for call in self.calls),
            "alerts": len(self.alerts),
        }

    def print(self) -> None:
        rows = Counter((call.outcome.value if call.outcome else "open", call.reason) for call in self.calls)
        print_table(
            "What became of everybody",
            ("outcome", "reason", "patients"),
            [(*key, number) for key, number in sorted(rows.items())],
        )
        kinds = Counter((alert.kind.value, alert.code) for alert in self.alerts)
        print_table(
            "Alerts", ("alert", "code", "how many"), [(*key, number) for key, number in sorted(kinds.items())]
        )
        print(
            f"{len(self.calls)} patients, {sum(call.attempts for call in self.calls)} attempts, "
            f"{self.interactions} interactions on record"
        )


async def _result(assembly: Assembly, round_: Round, body: dict[str, Any]) -> Result:
    store, hospital = assembly.store, round_.hospital_id
    return Result(
        round=round_,
        skipped=body["skipped"],
        calls=await store.calls(hospital, round_.id, limit=10_000),
        alerts=await store.alerts(hospital, round_id=round_.id),
        interactions=len(await store.interactions(hospital, round_id=round_.id)),
    )
