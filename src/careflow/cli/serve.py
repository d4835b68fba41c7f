"""`careflow up` and `careflow serve`: the services, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from careflow.cli.context import DataDir, Hospital, Json, settings_for
from careflow.cli.output import print_json
from careflow.errors import SettingsError

if TYPE_CHECKING:
    from careflow.clock import VirtualClock
    from careflow.ports import Clock
    from careflow.settings import Settings

STEP_SECONDS = 0.1  # of virtual time: five frames of sound

Speed = Annotated[
    float, Parameter(help="Virtual seconds a real second; a busy machine slows it down. Practice only.")
]


async def up(
    *, speed: Speed = 1.0, data_dir: DataDir = None, hospital: Hospital = None, json: Json = False
) -> None:
    """Start everything on this machine and keep it running until Ctrl-C."""
    from careflow.practice import practises

    settings = settings_for(data_dir, hospital)
    roles = ("pulse", "caller", "lab") if practises(settings) else ("pulse", "caller")
    await _run(settings, roles, _clock(settings, speed), speed, json)


async def serve(
    role: Annotated[Literal["pulse", "caller", "lab"], Parameter(help="The service.")],
    /,
    *,
    speed: Speed = 1.0,
    start: Annotated[
        datetime | None,
        Parameter(help="Where this process's virtual clock starts; it is published in CAREFLOW_CLOCK_FILE."),
    ] = None,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Run one service alone, as its container does. Several on one data directory make one deployment."""
    settings = settings_for(data_dir, hospital)
    if start is None and speed == 1.0:
        from careflow.app import clock_for

        clock = clock_for(settings)
    else:
        clock = _clock(settings, speed, start)
    await _run(settings, (role,), clock, speed, json)


def _clock(settings: Settings, speed: float, start: datetime | None = None) -> Clock:
    from careflow.clock import SystemClock, VirtualClock
    from careflow.practice import practises

    if not 0 < speed <= 1000:
        raise SettingsError(f"--speed {speed}: accepted are numbers above 0, up to 1000")
    if speed == 1.0 and start is None:
        return SystemClock()
    if not practises(settings):
        raise SettingsError("--speed: only the lab's patients live at another speed; real telephones do not")
    begin = datetime.now(UTC) if start is None else start.replace(tzinfo=start.tzinfo or UTC).astimezone(UTC)
    return VirtualClock(begin, path=settings.clock_file)


async def _run(settings: Settings, roles: Sequence[str], clock: Clock, speed: float, json: bool) -> None:
    from careflow.app import assembled, bind
    from careflow.clock import VirtualClock
    from careflow.hosting import running, url_of
    from careflow.telemetry import configure_logging

    configure_logging("+".join(roles), level=settings.log_level, clock=clock)
    settings, sockets = bind(settings, roles)
    async with AsyncExitStack() as stack:
        assembly = await stack.enter_async_context(assembled(settings, sockets, clock))
        if isinstance(clock, VirtualClock):
            ticking = asyncio.create_task(_tick(clock, speed))
            stack.callback(ticking.cancel)
        stop = await stack.enter_async_context(running(assembly.services))
        urls = {service.name: url_of(service.socket) for service in assembly.services}
        if json:
            print_json({"ready": True, "services": urls, "dataDir": str(settings.data_dir)})
        else:
            for name, url in urls.items():
                print(f"{name:7} {url}", file=sys.stderr)
            print(f"data in {settings.data_dir}; Ctrl-C stops, the next start continues", file=sys.stderr)
        sys.stdout.flush()
        await stop.wait()
        print("stopping", file=sys.stderr)


async def _tick(clock: VirtualClock, speed: float) -> None:
    from careflow.clock import Pace

    await clock.run(lambda: Pace(speed=speed, step=STEP_SECONDS))
