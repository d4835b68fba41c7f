"""`careflow alerts`: who needs a person now."""

from __future__ import annotations

import getpass
from typing import Annotated

from cyclopts import App, Parameter

from careflow.cli.context import DataDir, Hospital, Json, NotFound, clock_of, opened
from careflow.cli.output import local, print_json, print_table

app = App(name="alerts", help="List and acknowledge alerts.", default_parameter=Parameter(negative=()))


@app.command(name="list")
async def list_(
    *,
    all_: Annotated[bool, Parameter(name="--all", help="Also those that are acknowledged.")] = False,
    round_id: Annotated[str | None, Parameter(name="--round", help="Only this round's.")] = None,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """List alerts, oldest first."""
    async with opened(data_dir, hospital) as context:
        alerts = await context.store.alerts(context.hospital_id, open_only=not all_, round_id=round_id)
        if json:
            print_json({"alerts": alerts})
            return
        zone = context.settings.time_zone
        print_table(
            "Alerts",
            ("raised", "kind", "code", "patient", "call", "acknowledged", "id"),
            [
                (
                    local(alert.raised_at, zone),
                    alert.kind,
                    alert.code,
                    alert.patient_id,
                    alert.call_id,
                    alert.acknowledged_by,
                    alert.id,
                )
                for alert in alerts
            ],
            empty="nobody is waiting",
        )
        if any(alert.acknowledged_at is None for alert in alerts):
            print("Next: careflow calls show CALL --transcript, then careflow alerts ack ID")


@app.command
async def ack(
    alert_id: Annotated[str, Parameter(help="The alert's id, as `alerts list` shows it.")],
    /,
    *,
    by: Annotated[str | None, Parameter(help="Who acknowledges (default: your login name).")] = None,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Acknowledge an alert. Safe to repeat."""
    async with opened(data_dir, hospital) as context:
        known = {alert.id: alert for alert in await context.store.alerts(context.hospital_id)}
        if alert_id not in known:
            raise NotFound(
                f"there is no alert {alert_id!r} in hospital {context.hospital_id!r}; see careflow alerts list --all"
            )
        now = clock_of(context.settings).now()
        name = by or getpass.getuser()
        done = await context.store.acknowledge_alert(context.hospital_id, alert_id, by=name, at=now)
        if json:
            print_json({"id": alert_id, "acknowledged": True, "changed": done})
        elif done:
            print(f"acknowledged {alert_id} by {name}")
        else:
            print(f"{alert_id} was acknowledged before, by {known[alert_id].acknowledged_by}")
