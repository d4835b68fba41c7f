"""`careflow demo`: a hospital's morning round on a virtual morning, followed live, with every patient accounted for."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from zoneinfo import ZoneInfo

from cyclopts import Parameter
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from careflow.cli.context import Hospital, Interrupted, Json, hospital_of, same_place
from careflow.cli.demo_result import Result
from careflow.cli.output import local, print_json
from careflow.cli.progress import Progress, followed
from careflow.errors import CareflowError, SettingsError
from careflow.settings import Settings, load_settings

if TYPE_CHECKING:
    from careflow.clock import Pace, VirtualClock

HOUR = 8
TAKEN = (  # from the environment
    *("hospital_id", "hospitals", "time_zone", "clinic_name", "clinic_phone", "log_level"),
    "FIRESTORE_EMULATOR_HOST",
)
MOST_PATIENTS = 45  # that the sample roster has
FASTEST = 1000
BESIDE_OTHERS = 20.0  # speed at most, where an emulator or a queue in between has its own time
BUSY_STEP = 0.12  # virtual seconds at a time while somebody is on the telephone: six frames of sound
IDLE_STEP = 20.0  # virtual seconds at a time while nobody is


@dataclass(slots=True)
class Morning:
    """The demo's time: it runs fast while a telephone is in use, and jumps while none is."""

    speed: float
    leap: float  # the speed while nobody is on the telephone
    is_busy: Callable[[], bool]
    is_open: bool = False

    def pace(self) -> Pace:
        from careflow.clock import Pace

        if self.is_open and not self.is_busy():
            return Pace(speed=self.leap, step=IDLE_STEP)
        return Pace(speed=self.speed, step=BUSY_STEP)


async def demo(
    *,
    speed: Annotated[
        float, Parameter(help="Virtual seconds a real second, at most; a busy machine slows it down.")
    ] = 60.0,
    data_dir: Annotated[
        Path | None, Parameter(help="An empty or new directory (default: a new one under careflow-data).")
    ] = None,
    store: Annotated[
        Literal["sqlite", "firestore"],
        Parameter(
            help="What keeps the records: SQLite, or Google's Firestore emulator (started here, or at FIRESTORE_EMULATOR_HOST)."
        ),
    ] = "sqlite",
    queue: Annotated[
        Literal["embedded", "cloud-tasks"],
        Parameter(
            help="What carries the calls: our own queue, or Google's client on a Cloud Tasks work-alike."
        ),
    ] = "embedded",
    patients: Annotated[int, Parameter(help="How many of the 45 patients.")] = 45,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Run the morning round of a hospital with 45 synthetic patients, on free ports, and show what came of it."""
    from careflow.telemetry import configure_logging

    started = time.monotonic()
    if not 1 <= speed <= FASTEST:
        raise SettingsError(f"--speed {speed}: accepted are numbers from 1 to {FASTEST}")
    if not 1 <= patients <= MOST_PATIENTS:
        raise SettingsError(f"--patients {patients}: accepted are numbers from 1 to {MOST_PATIENTS}")
    usual = _settings(hospital)
    async with _firestore(store, usual.firestore_emulator) as emulator:
        settings = _settings(
            hospital,
            data_dir=_own_directory(data_dir),
            store=store,
            firestore_emulator=emulator.address,
            queue=queue,
            project=f"demo-{secrets.token_hex(6)}",  # one's own, in an emulator that others may use
        )
        with Progress(quiet=json) as progress, (settings.data_dir / "log.jsonl").open("w") as log_file:
            clock = _virtual_morning(settings)
            configure_logging("demo", level=settings.log_level, clock=clock, stream=log_file)
            result = await _morning_round(settings, clock, speed, patients, progress)
    if json:
        print_json(result.document | {"seconds": round(time.monotonic() - started, 1)})
    else:
        result.print()
        print(f"\n{time.monotonic() - started:.0f} s in all; everything is in {settings.data_dir}")
        lives_on = store == "sqlite" or emulator.outlives_us
        _lead_on(settings, result, lives_on=lives_on, where=same_place(settings.data_dir, hospital))


def _lead_on(settings: Settings, result: Result, *, lives_on: bool, where: str) -> None:
    if not lives_on:
        print("The emulator has ended and its records with it: start one yourself and name it in")
        print("FIRESTORE_EMULATOR_HOST, and the demo leaves them there to look at.")
        return
    print("Look further:")
    if settings.store == "firestore":
        print(f"  export CAREFLOW_STORE=firestore CAREFLOW_PROJECT={settings.project}")
        print(f"  export FIRESTORE_EMULATOR_HOST={settings.firestore_emulator}")
    for words in (
        "alerts list",
        "calls list",
        f"calls show {result.worth_hearing} --transcript --audio call.wav",
        f"rounds show {result.round.id}",
    ):
        print(f"  careflow {words}{where}")


def _own_directory(data_dir: Path | None) -> Path:
    directory = data_dir or Path("careflow-data") / f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if directory.exists():
        raise CareflowError(f"--data-dir {directory}: it exists; the demo wants a directory of its own")
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise CareflowError(f"--data-dir {directory} cannot be made: {error.strerror}") from error
    return directory


@dataclass(frozen=True, slots=True)
class Emulator:
    """Where the Firestore emulator is, if one is wanted, and whether it goes on when the demo ends."""

    address: str = ""
    outlives_us: bool = False


@asynccontextmanager
async def _firestore(store: str, running: str) -> AsyncIterator[Emulator]:
    """The emulator that is `running` (FIRESTORE_EMULATOR_HOST), else one for as long as the demo runs."""
    if store != "firestore":
        yield Emulator()
    elif running:
        yield Emulator(running, outlives_us=True)
    else:
        from careflow.lab.firestore_emulator import running_emulator

        async with running_emulator() as address:
            yield Emulator(address)


class _Settings(Settings):
    """Of the environment a demo takes whose hospital it is, and no deployment: it rings nobody's telephone, sends nothing to
    anybody's Pulse and keeps nothing in anybody's cloud."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        taken = {name: value for name, value in env_settings().items() if name in TAKEN}
        return init_settings, InitSettingsSource(settings_cls, taken)


def _settings(hospital: str | None, **words: object) -> Settings:
    """Raises SettingsError, and NotFound for a hospital that is not in the file of hospitals."""
    words |= {f"{role}_port": 0 for role in ("pulse", "caller", "lab", "tasks")}
    if hospital is not None:
        words["hospital_id"] = hospital
    settings = load_settings(_Settings, **words)
    # The demo brings its own morning, whatever the hospital's hours are.
    hours = settings.round_hours
    profiles = tuple(one.model_copy(update={"round_hours": hours}) for one in settings.hospitals)
    return settings.model_copy(
        update={"hospitals": profiles, "time_zone": hospital_of(settings).time_zone},
    )


def _virtual_morning(settings: Settings) -> VirtualClock:
    """Today at a quarter past eight, less half a minute."""
    from careflow.clock import VirtualClock

    zone = ZoneInfo(settings.time_zone)
    today = datetime.now(zone).replace(hour=8, minute=14, second=30, microsecond=0)
    return VirtualClock(today.astimezone(UTC))


async def _morning_round(
    settings: Settings, clock: VirtualClock, speed: float, patients: int, progress: Progress
) -> Result:
    from careflow.app import assembled, bind, roles_here
    from careflow.backends import store_named
    from careflow.clock import wait_until
    from careflow.fhir.notes import RosterDefaults
    from careflow.fhir.roster import import_paths
    from careflow.hosting import running
    from careflow.operating import trigger_round
    from careflow.sample import roster_path

    roles = [role for role in roles_here(settings) if role != "scheduler"]  # it fires by hand, once
    settings, sockets = bind(settings, roles)
    async with AsyncExitStack() as stack:
        assembly = await stack.enter_async_context(assembled(settings, sockets, clock))
        with store_named(settings):
            await assembly.store.check()
        lab = assembly.lab
        assert lab is not None
        # The clock waits for a busy process, and cannot for another one that ours waits for: patients would find us slow.
        is_alone = settings.store == "sqlite" and settings.queue == "embedded"
        morning = Morning(
            speed=speed if is_alone else min(speed, BESIDE_OTHERS),
            leap=1e6 if is_alone else 2000.0,
            is_busy=lambda: lab.live_calls + assembly.in_flight() > 0,
        )
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
        roster = sorted(reading.patients, key=lambda patient: patient.id)[:patients]
        await assembly.store.put_patients(roster)
        progress.happened(f"roster: {len(roster)} patients from FHIR bundles")
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
        return await Result.of(assembly.store, round_, body["skipped"])


def _quarter_past(clock: VirtualClock) -> datetime:
    return clock.now().replace(second=0, microsecond=0) + timedelta(minutes=1)
