"""Rounds: identity, the trigger that opens them, and what a patient's part in one is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from careflow.core.calls import Call, CallState, Outcome, call_id
from careflow.core.patients import Patient, SkipReason, bar
from careflow.core.slots import Window, due_moment, first_dialable, round_window, slot_date

SCRIPT_OF_HOUR = {8: "morning", 12: "noon", 20: "evening"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """The seed's request payload, checked. `hospital_id` is the deployment's default when the payload has none."""

    schedule_hour: int
    time_zone: str
    trigger_type: str
    source: str
    environment: str
    hospital_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One pass over the patients due for one slot.

    `planned_at` is set when planning has once run to its end; `planned_revision` is the roster revision it saw.
    `patients_queried`, `calls_initiated` and `skipped` (reason -> count) are the answer every duplicate trigger gets.
    `closed_at` is set when every call has its outcome and the window is over; `outcomes` (outcome -> count) then hold
    the summary.
    """

    id: str
    hospital_id: str
    environment: str
    local_date: date
    schedule_hour: int
    time_zone: str
    window_start: datetime
    window_end: datetime
    script: str
    opened_at: datetime
    planned_at: datetime | None = None
    planned_revision: int = -1
    patients_queried: int = 0
    calls_initiated: int = 0
    skipped: tuple[tuple[str, int], ...] = ()
    closed_at: datetime | None = None
    outcomes: tuple[tuple[str, int], ...] = ()
    version: int = 0

    @property
    def window(self) -> Window:
        return Window(self.window_start, self.window_end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One received trigger and what came of it; the operator's answer to "did the 8:15 run happen?"."""

    id: str
    hospital_id: str
    round_id: str
    received_at: datetime
    finished_at: datetime
    trigger_type: str
    source: str
    schedule_hour: int
    job_name: str = ""
    patients_queried: int = 0
    calls_initiated: int = 0
    skipped: int = 0


def round_for(trigger: Trigger, now: datetime, round_hours: tuple[int, ...]) -> Round:
    """The round that this trigger means at `now` (docs/rounds.md): the same one for the same trigger, late or early."""
    zone = ZoneInfo(trigger.time_zone)
    day = slot_date(trigger.schedule_hour, zone, now)
    window = round_window(day, trigger.schedule_hour, round_hours, zone)
    return Round(
        id=f"{trigger.environment}-{trigger.hospital_id}-{day:%Y%m%d}-{trigger.schedule_hour:02d}",
        hospital_id=trigger.hospital_id,
        environment=trigger.environment,
        local_date=day,
        schedule_hour=trigger.schedule_hour,
        time_zone=trigger.time_zone,
        window_start=window.start,
        window_end=window.end,
        script=SCRIPT_OF_HOUR.get(trigger.schedule_hour, "noon"),
        opened_at=now,
    )


def unplanned(round_: Round, patient_id: str, now: datetime) -> Call:
    """The call of a patient whose record cannot be planned with: on record as skipped, so that nobody is lost."""
    return Call(
        id=call_id(round_.id, patient_id),
        hospital_id=round_.hospital_id,
        round_id=round_.id,
        patient_id=patient_id,
        due_at=now,
        not_after=round_.window_end,
        state=CallState.ENDED,
        outcome=Outcome.SKIPPED,
        reason=SkipReason.UNUSABLE.value,
        created_at=now,
        ended_at=now,
    )


def plan(round_: Round, patient: Patient, now: datetime, *, do_not_call: bool) -> Call | None:
    """The patient's call in this round: waiting, or ended as skipped with the reason; None when the patient is not due.

    Whoever is paused now and not any more when due is not skipped: dialling asks again.
    """
    due = due_moment(patient, round_.schedule_hour, round_.local_date, round_.window)
    if due is None:
        return None
    wanted = max(now, due, round_.window_start)
    dialable = first_dialable(patient, wanted, round_.window_end)
    reason: SkipReason | None = bar(patient, do_not_call=do_not_call, now=dialable or wanted)
    if reason is None and dialable is None:
        reason = SkipReason.OUTSIDE_HOURS
    return Call(
        id=call_id(round_.id, patient.id),
        hospital_id=round_.hospital_id,
        round_id=round_.id,
        patient_id=patient.id,
        due_at=dialable if reason is None and dialable is not None else now,
        not_after=round_.window_end,
        state=CallState.WAITING if reason is None else CallState.ENDED,
        outcome=None if reason is None else Outcome.SKIPPED,
        reason="" if reason is None else reason.value,
        created_at=now,
        ended_at=None if reason is None else now,
    )
