"""`careflow alerts`: who needs a person now."""

from __future__ import annotations

import getpass
from typing import Annotated

from cyclopts import App, Parameter

from careflow.cli.context import Context, DataDir, Hospital, Json, NotFound, clock_of, opened
from careflow.cli.output import count, local, print_json, print_table
from careflow.core.checkins import Alert, AlertKind
from careflow.core.patients import Patient

app = App(
    name="alerts", help="Who needs a person now; acknowledge.", default_parameter=Parameter(negative=())
)

URGENCY = (
    AlertKind.RED_FLAG,
    AlertKind.INTERRUPTED,
    AlertKind.CALLBACK,
    AlertKind.WARNING,
    AlertKind.UNREACHABLE,
    AlertKind.WRONG_NUMBER,
)


@app.command(name="list")
async def list_(
    *,
    all_: Annotated[bool, Parameter(name="--all", help="Also those that are acknowledged.")] = False,
    round_id: Annotated[str | None, Parameter(name="--round", help="Only this round's.")] = None,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Who needs a person now: open alerts, the most urgent first, and of these the oldest."""
    async with opened(data_dir, hospital) as context:
        if round_id is not None and await context.store.round(context.hospital_id, round_id) is None:
            raise NotFound(f"there is no round {round_id!r} in hospital {context.hospital_id!r}")
        found = await context.store.alerts(context.hospital_id, open_only=not all_, round_id=round_id)
        alerts = sorted(found, key=_urgency)
        if json:
            print_json({"alerts": alerts})
            return
        waiting = [alert for alert in alerts if alert.acknowledged_at is None]
        red = sum(alert.kind is AlertKind.RED_FLAG for alert in waiting)
        if waiting:
            patients = len({alert.patient_id for alert in waiting})
            flagged = f", {count(red, 'red flag')} first" if red else ""
            print(
                f"{count(patients, 'patient')} {'waits' if patients == 1 else 'wait'} for a person{flagged}."
            )
        await _print(context, alerts)
        if waiting:
            first = waiting[0]
            print(
                f"Next: careflow calls show {first.call_id} --transcript; then careflow alerts ack {first.id}"
            )


def _urgency(alert: Alert) -> tuple[bool, int, object]:
    return alert.acknowledged_at is not None, URGENCY.index(alert.kind), alert.raised_at


async def _print(context: Context, alerts: list[Alert]) -> None:
    zone = context.settings.time_zone
    people = {alert.patient_id for alert in alerts}
    known = {one: await context.store.patient(context.hospital_id, one) for one in people}
    print_table(
        "Alerts",
        ("kind", "code", "name", "telephone", "raised", "acknowledged by", "id"),
        [
            (
                alert.kind,
                alert.code,
                _name(known[alert.patient_id]) or alert.patient_id,
                getattr(known[alert.patient_id], "phone", None),
                local(alert.raised_at, zone),
                alert.acknowledged_by,
                alert.id,
            )
            for alert in alerts
        ],
        empty="nobody is waiting",
    )


def _name(patient: Patient | None) -> str:
    return f"{patient.given_name} {patient.family_name}".strip() if patient else ""


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
