"""`careflow rounds`: trigger a round, list rounds, show one."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from careflow.cli.context import (
    DataDir,
    Hospital,
    Interrupted,
    Json,
    NotFound,
    clock_of,
    must_be_there,
    opened,
    same_place,
    settings_at,
)
from careflow.cli.output import local, print_json, print_table
from careflow.cli.progress import Progress, followed
from careflow.cli.whereabouts import reached
from careflow.errors import CareflowError

app = App(
    name="rounds", help="Trigger a round, list rounds, show one.", default_parameter=Parameter(negative=())
)


class TriggerRefused(CareflowError):
    """Pulse refused the trigger."""


@app.command
async def run(
    *,
    hour: Annotated[int, Parameter(help="The round's schedule hour: 8, 12 or 20.")],
    follow: Annotated[
        bool, Parameter(help="Stay, and tell what happens, until the round is closed.")
    ] = False,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Trigger a round on the running Pulse, as the scheduler does: a signed POST. Safe to repeat."""
    from careflow.operating import trigger_round

    settings = reached(settings_at(data_dir, hospital))
    if "oidc_issuer" not in settings.model_fields_set:
        must_be_there(settings)  # with it comes the key that Pulse believes
    status, body = await trigger_round(settings, hour, clock_of(settings), trigger_type="manual")
    if status != 200:
        message = body.get("error", {}).get("message", body)
        hint = (
            f"; does that Pulse run on another data directory than {settings.data_dir}?"
            if status == 401
            else ""
        )
        raise TriggerRefused(f"Pulse at {settings.pulse_url} answered {status}: {message}{hint}")
    planned = f"round {body['roundId']}: {body['patientsQueried']} patients queried, {body['callsInitiated']} calls initiated"
    if follow:
        with Progress(quiet=json) as progress:
            progress.happened(planned)
            await _follow(data_dir, hospital, body["roundId"], progress)
        await show(body["roundId"], data_dir=data_dir, hospital=hospital, json=json)
    elif json:
        print_json(body)
    else:
        print(planned)
        print(f"Next: careflow rounds show {body['roundId']}{same_place(data_dir, hospital)}")


async def _follow(data_dir: Path | None, hospital: str | None, round_id: str, progress: Progress) -> None:
    try:
        async with opened(data_dir, hospital) as context:

            def now() -> datetime:
                return clock_of(context.settings).now()  # each time: the deployment's may be a fast one

            await followed(context.store, context.hospital_id, round_id, now, progress, asyncio.Event())
    except asyncio.CancelledError as error:
        where = same_place(data_dir, hospital)
        raise Interrupted(
            f"the round goes on without you; see careflow rounds show {round_id}{where}"
        ) from error


@app.command(name="list")
async def list_(*, data_dir: DataDir = None, hospital: Hospital = None, json: Json = False) -> None:
    """List rounds, the latest first."""
    async with opened(data_dir, hospital) as context:
        rounds = await context.store.rounds(context.hospital_id)
        if json:
            print_json({"rounds": rounds})
            return
        print_table(
            "Rounds",
            ("round", "window from", "until", "queried", "initiated", "closed"),
            [
                (
                    round_.id,
                    local(round_.window_start, round_.time_zone),
                    local(round_.window_end, round_.time_zone),
                    round_.patients_queried,
                    round_.calls_initiated,
                    local(round_.closed_at, round_.time_zone),
                )
                for round_ in rounds
            ],
            empty="no round yet; trigger one with careflow rounds run --hour 8",
        )


@app.command
async def show(
    round_id: Annotated[str, Parameter(help="The round's id, as `rounds list` shows it.")],
    /,
    *,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Show a round: what was planned, and where every patient stands."""
    async with opened(data_dir, hospital) as context:
        round_ = await context.store.round(context.hospital_id, round_id)
        if round_ is None:
            raise NotFound(f"there is no round {round_id!r} in hospital {context.hospital_id!r}")
        counts = await context.store.count_calls(context.hospital_id, round_id)
        alerts = await context.store.alerts(context.hospital_id, round_id=round_id)
        executions = [
            execution
            for execution in await context.store.executions(context.hospital_id)
            if execution.round_id == round_id
        ]
        standing = Counter[str]()
        for (state, outcome, _), count in counts.items():
            standing[outcome or state] += count
        if json:
            print_json(
                {
                    "round": round_,
                    "standing": standing,
                    "calls": [
                        {"state": state, "outcome": outcome, "reason": reason, "count": count}
                        for (state, outcome, reason), count in sorted(counts.items())
                    ],
                    "alerts": len(alerts),
                    "executions": executions,
                }
            )
            return
        print(f"{round_.id}: script {round_.script}, {round_.time_zone}")
        print(
            f"  window  {local(round_.window_start, round_.time_zone)} to {local(round_.window_end, round_.time_zone)}"
        )
        print(f"  planned {round_.patients_queried} queried, {round_.calls_initiated} initiated")
        print(
            f"  closed  {local(round_.closed_at, round_.time_zone) or 'not yet'}; triggers {len(executions)}"
        )
        print_table(
            "Calls",
            ("state", "outcome", "reason", "patients"),
            [(*key, count) for key, count in sorted(counts.items())],
        )
        print(
            f"Alerts: {len(alerts)}. Next: careflow calls list {round_.id}; careflow alerts list --round {round_.id}"
        )
