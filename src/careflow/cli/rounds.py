"""`careflow rounds`: trigger a round, list rounds, show one."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from cyclopts import App, Parameter

from careflow.cli.context import DataDir, Hospital, Json, NotFound, clock_of, opened, settings_for
from careflow.cli.output import local, print_json, print_table
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
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Trigger a round on the running Pulse, as the scheduler does: a signed POST. Safe to repeat."""
    from careflow.app import trigger_round

    settings = settings_for(data_dir, hospital)
    status, body = await trigger_round(settings, hour, clock_of(settings), trigger_type="manual")
    if status != 200:
        message = body.get("error", {}).get("message", body)
        raise TriggerRefused(f"Pulse at {settings.pulse_url} answered {status}: {message}")
    if json:
        print_json(body)
        return
    print(
        f"round {body['roundId']}: {body['patientsQueried']} patients queried, {body['callsInitiated']} calls initiated"
    )
    print(f"Next: careflow rounds show {body['roundId']}")


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
