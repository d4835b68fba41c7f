"""What should have happened and has not: rounds that nobody triggered or closed, alerts that nobody acknowledged.

What does not happen writes no log line by itself. So a pass over the ledger says it, again at every pass until it is put
right; the alert policies of infra/monitoring wait for these lines. They are warnings: an ERROR is a fault of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from careflow.core.checkins import Alert, AlertKind
from careflow.core.rounds import Round, Trigger, plan, round_for
from careflow.ports import Candidate, Clock, Store
from careflow.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long is too long: for a trigger from its round's hour, for closing from the window's end, for an open alert."""

    round_grace: timedelta
    closing: timedelta
    red_flag: timedelta
    alert: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            round_grace=settings.round_grace,
            closing=3 * settings.attempt_deadline,  # closing itself gives up an attempt after twice as long
            red_flag=settings.red_flag_overdue,
            alert=settings.alert_overdue,
        )

    def of_alert(self, kind: AlertKind) -> timedelta:
        return self.red_flag if kind is AlertKind.RED_FLAG else self.alert


def expected_rounds(
    hospital_id: str,
    *,
    environment: str,
    time_zone: str,
    round_hours: tuple[int, ...],
    now: datetime,
    grace: timedelta,
) -> Sequence[Round]:
    """The rounds of the hospital that are under way at `now` and should have been triggered by now.

    A round that is over is not among them: nobody can be phoned for it any more.
    """
    wanted = (
        round_for(
            Trigger(
                schedule_hour=hour,
                time_zone=time_zone,
                trigger_type="scheduled",
                source="sweep",
                environment=environment,
                hospital_id=hospital_id,
            ),
            now,
            round_hours,
        )
        for hour in round_hours
    )
    return [one for one in wanted if one.window_start + grace <= now < one.window_end]


def late_by(round_: Round, grace: timedelta) -> timedelta | None:
    """How long after its hour the round was opened, when that is longer than `grace`."""
    late = round_.opened_at - round_.window_start
    return late if late > grace else None


def overdue_alerts(alerts: Sequence[Alert], now: datetime, limits: Limits) -> Sequence[Sequence[Alert]]:
    """Open alerts older than their limit, of each kind those of it, the oldest first."""
    late = [
        one
        for one in sorted(alerts, key=lambda alert: alert.raised_at)
        if one.acknowledged_at is None and now - one.raised_at >= limits.of_alert(one.kind)
    ]
    return [of_kind for kind in AlertKind if (of_kind := [one for one in late if one.kind is kind])]


def would_be_phoned(round_: Round, candidate: Candidate) -> bool:
    """Whether planning the round at its hour would give this patient a call to make."""
    try:
        call = plan(round_, candidate.patient, round_.window_start, do_not_call=candidate.do_not_call)
    except Exception:  # noqa: BLE001 - a record that cannot be planned with is phoned by no round (planning.py)
        return False
    return call is not None and call.outcome is None


class Overdue:
    """One pass over every hospital. Changes nothing."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, *, batch: int) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._limits = Limits.of(settings)
        self._batch = batch
        self._log = structlog.get_logger("careflow.pulse")

    async def report(self, unclosed: Sequence[Round]) -> int:
        """Log what is overdue now, `unclosed` being the rounds not closed; how many lines that were. Raises StoreUnavailable."""
        lines = self._unclosed(unclosed)
        for hospital_id in await self._store.hospitals():
            lines += await self._missing(hospital_id)
            lines += await self._alerts(hospital_id)
        return lines

    def _unclosed(self, rounds: Sequence[Round]) -> int:
        over = self._clock.now() - self._limits.closing
        late = [one for one in rounds if one.window_end <= over]
        for round_ in late:
            self._log.warning(
                "Round not closed",
                hospitalId=round_.hospital_id,
                roundId=round_.id,
                scheduleHour=round_.schedule_hour,
                seconds=self._since(round_.window_end),
            )
        return len(late)

    async def _missing(self, hospital_id: str) -> int:
        if hospital_id not in self._settings.served:
            return 0
        hospital = self._settings.served[hospital_id]
        expected = expected_rounds(
            hospital_id,
            environment=self._settings.environment,
            time_zone=hospital.time_zone,
            round_hours=hospital.round_hours,
            now=self._clock.now(),
            grace=self._limits.round_grace,
        )
        missing = [
            one
            for one in expected
            if await self._store.round(hospital_id, one.id) is None and await self._has_patients(one)
        ]
        for round_ in missing:
            self._log.warning(
                "Round missing",
                hospitalId=hospital_id,
                roundId=round_.id,
                scheduleHour=round_.schedule_hour,
                seconds=self._since(round_.window_start),
            )
        return len(missing)

    async def _has_patients(self, round_: Round) -> bool:
        """Whether anybody would have been phoned: a hospital whose patients want no call at noon lacks no noon round."""
        after = ""
        while page := await self._store.candidates(
            round_.hospital_id, round_.schedule_hour, after=after, limit=self._batch
        ):
            if any(would_be_phoned(round_, one) for one in page):
                return True
            after = page[-1].patient.id
        return False

    async def _alerts(self, hospital_id: str) -> int:
        waiting = await self._store.alerts(hospital_id, open_only=True)
        late = overdue_alerts(waiting, self._clock.now(), self._limits)
        for of_kind in late:
            oldest = of_kind[0]
            self._log.warning(
                "Alert not acknowledged",
                hospitalId=hospital_id,
                roundId=oldest.round_id,
                callId=oldest.call_id,
                kind=oldest.kind.value,
                count=len(of_kind),
                seconds=self._since(oldest.raised_at),
            )
        return len(late)

    def _since(self, moment: datetime) -> float:
        return round((self._clock.now() - moment).total_seconds(), 1)
