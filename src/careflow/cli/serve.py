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
from careflow.cli.whereabouts import announced
from careflow.errors import SettingsError

if TYPE_CHECKING:
    from careflow.clock import VirtualClock
    from careflow.ports import Clock
    from careflow.settings import Settings

FASTEST = 1000  # virtual seconds a real one
STEP_SECONDS = 0.1  # of virtual time: five frames of sound

Speed = Annotated[
    float, Parameter(help="Virtual seconds a real second; a busy machine slows it down. Practice only.")
]


async def up(
    *, speed: Speed = 1.0, data_dir: DataDir = None, hospital: Hospital = None, json: Json = False
) -> None:
    """Start everything on this machine and keep it running until Ctrl-C.

    On a terminal the log goes to log.jsonl in the data directory, and what a person should know is told; elsewhere the
    log goes to standard error.
    """
    from careflow.app import roles_here

    settings = settings_for(data_dir, hospital)
    await _run(settings, roles_here(settings), speed, json)


async def serve(
    role: Annotated[Literal["pulse", "caller", "lab", "tasks", "scheduler"], Parameter(help="The service.")],
    /,
    *,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Run one service alone, as its container does. Several on one data directory make one deployment."""
    settings = settings_for(data_dir, hospital)
    if _lives_ahead(settings):
        raise SettingsError(
            f"{settings.data_dir} has lived faster than real time: start it with careflow up, use another data directory, or "
            "name the clock to follow in CAREFLOW_CLOCK_FILE"
        )
    await _run(settings, (role,), 1.0, json)


def _lives_ahead(settings: Settings) -> bool:
    """Whether `--speed` has brought this data directory into a time that the machine has not reached."""
    from careflow.clock import published_time

    published = published_time(settings.data_dir / "clock")
    return settings.clock_file is None and published is not None and published > datetime.now(UTC)


def _clock(settings: Settings, speed: float) -> Clock:
    """The clock that the settings name; with a speed, a virtual one that goes on where the last one stopped."""
    from careflow.app import clock_for
    from careflow.clock import VirtualClock, published_time
    from careflow.safety import practises

    if not 1 <= speed <= FASTEST:
        raise SettingsError(f"--speed {speed}: accepted are numbers from 1 to {FASTEST}")
    path = settings.clock_file or settings.data_dir / "clock"
    now = datetime.now(UTC)
    ahead = _lives_ahead(settings)
    if speed == 1.0 and not ahead:
        return clock_for(settings)
    if not practises(settings):
        raise SettingsError(
            f"{settings.data_dir} has lived faster than real time, and real telephones do not: use another data directory"
            if ahead
            else "--speed: only the lab's patients live at another speed; real telephones do not"
        )
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return VirtualClock(max(now, published_time(path) or now), path=path)


async def _run(settings: Settings, roles: Sequence[str], speed: float, json: bool) -> None:
    from careflow.app import assembled, bind
    from careflow.backends import store_named
    from careflow.cli.terminal import logging_beside
    from careflow.clock import VirtualClock
    from careflow.hosting import running, url_of
    from careflow.store.locks import hold_role

    async with AsyncExitStack() as stack:
        if len(roles) > 1:
            stack.enter_context(
                hold_role(settings.data_dir, "up")
            )  # before the ports: it knows who is in the way
        clock = _clock(settings, speed)  # not earlier: the clock's file may be another process's
        stack.enter_context(logging_beside(settings, "+".join(roles), clock))
        settings, sockets = bind(settings, roles)
        assembly = await stack.enter_async_context(assembled(settings, sockets, clock))
        if len(roles) > 1:  # a service alone waits for its store behind /readyz; a person wants to know now
            with store_named(settings):
                await assembly.store.check()
        if isinstance(clock, VirtualClock):
            ticking = asyncio.create_task(_tick(clock, speed))
            stack.callback(ticking.cancel)
        stop = await stack.enter_async_context(running(assembly.services))
        urls = {service.name: url_of(service.socket) for service in assembly.services}
        stack.enter_context(announced(settings.data_dir, urls))
        if json:
            print_json({"ready": True, "services": urls, "dataDir": str(settings.data_dir)})
        else:
            for name, url in urls.items():
                print(f"{name:10} {url}", file=sys.stderr)
            if isinstance(clock, VirtualClock):
                print(
                    f"time    {clock.now():%Y-%m-%d %H:%M:%S} UTC, {speed:g} times as fast", file=sys.stderr
                )
            print(f"data in {settings.data_dir}; Ctrl-C stops, the next start continues", file=sys.stderr)
            if len(roles) > 1:
                print("Next, in another terminal: careflow roster import --sample", file=sys.stderr)
        await stop.wait()
        print("stopping", file=sys.stderr)


async def _tick(clock: VirtualClock, speed: float) -> None:
    from careflow.clock import Pace

    await clock.run(lambda: Pace(speed=speed, step=STEP_SECONDS))
