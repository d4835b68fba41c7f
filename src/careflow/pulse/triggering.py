"""What a trigger does, whichever way it came: settle what is overdue, plan the round, keep a record of the execution."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import structlog

from careflow.core.rounds import Execution, Round, Trigger
from careflow.ports import Clock, Store
from careflow.pulse.closing import Closer
from careflow.pulse.overdue import late_by
from careflow.pulse.planning import Planner


class Triggering:
    """Carries triggers out. The same one again, late or at the same time, changes nothing that the first has done."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        closer: Closer,
        clock: Clock,
        *,
        ids: Callable[[], str],
        grace: timedelta,
    ) -> None:
        self._store = store
        self._planner = planner
        self._closer = closer
        self._clock = clock
        self._ids = ids
        self._grace = grace
        self._log = structlog.get_logger("careflow.pulse")

    async def receive(self, wanted: Trigger, *, job_name: str = "") -> Round:
        """The trigger's round, planned and durable. Raises StoreUnavailable; then the trigger can come again."""
        received_at = self._clock.now()
        await self._closer.settle_older_rounds()
        round_ = await self._planner.run(wanted)
        execution = Execution(
            id=self._ids(),
            hospital_id=round_.hospital_id,
            round_id=round_.id,
            received_at=received_at,
            finished_at=self._clock.now(),
            trigger_type=wanted.trigger_type,
            source=wanted.source,
            schedule_hour=wanted.schedule_hour,
            job_name=job_name[:500],
            patients_queried=round_.patients_queried,
            calls_initiated=round_.calls_initiated,
            skipped=sum(count for _, count in round_.skipped),
        )
        await self._store.add_execution(execution)
        self._log.info(
            "Scheduled rounds triggered",
            source=wanted.source,
            scheduleHour=wanted.schedule_hour,
            patientsQueried=round_.patients_queried,
            callsInitiated=round_.calls_initiated,
            roundId=round_.id,
            executionId=execution.id,
            environment=wanted.environment,
            hospitalId=round_.hospital_id,
            triggerType=wanted.trigger_type,
            seconds=round((execution.finished_at - received_at).total_seconds(), 3),
        )
        late = late_by(round_, self._grace)
        if late is not None and round_.opened_at >= received_at:  # by this trigger, and not by one before
            self._log.warning(
                "Round late",
                roundId=round_.id,
                hospitalId=round_.hospital_id,
                scheduleHour=round_.schedule_hour,
                seconds=round(late.total_seconds(), 1),
            )
        return round_
