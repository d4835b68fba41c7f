"""Attempts in the store: every change is compare-and-store, tried again on the newest version, and announced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from careflow.caller.verdicts import Verdict
from careflow.caller.watch import Watch
from careflow.core import attempts
from careflow.core.attempts import Attempt, AttemptState
from careflow.core.checkins import Alert, AlertKind, CheckIn, Interaction
from careflow.core.patients import DoNotCall
from careflow.errors import StoreError
from careflow.ports import Clock, Store
from careflow.telemetry import log_alert

_TRIES = 100  # a change that loses so often is refused for another reason than a race


class AttemptRecords:
    """Reads and writes attempts for the desk. Two processes that change the same attempt never undo each other."""

    def __init__(self, store: Store, clock: Clock, watch: Watch) -> None:
        self.store = store
        self.clock = clock
        self.watch = watch

    async def change(self, attempt_id: str, changed: Callable[[Attempt], Attempt | None]) -> Attempt | None:
        """Store `changed(attempt)`, or nothing when that is None. The attempt as now stored; None when it is unknown."""
        for _ in range(_TRIES):
            attempt = await self.store.attempt(attempt_id)
            if attempt is None:
                return None
            wanted = changed(attempt)
            if wanted is None:
                return attempt
            if await self.store.update_attempt(wanted):
                self.watch.notify(attempt_id)
                return replace(wanted, version=attempt.version + 1)
        raise StoreError(
            f"attempt {attempt_id}: not stored in {_TRIES} tries, each time another change was first"
        )

    async def end(
        self,
        attempt_id: str,
        verdict: Callable[[Attempt], Verdict | None],
        *,
        check_in: CheckIn | None = None,
        do_not_call: Callable[[Attempt], DoNotCall | None] = lambda _: None,
        alerts: Sequence[tuple[AlertKind, str]] = (),
    ) -> Attempt | None:
        """End the attempt with everything it leaves, unless it had ended or `verdict` is None. The attempt as now stored."""
        while True:
            attempt = await self.store.attempt(attempt_id)
            if attempt is None or attempt.state is AttemptState.ENDED:
                return attempt
            decided = verdict(attempt)
            if decided is None:
                return attempt
            ended = attempts.end(
                attempt,
                self.clock.now(),
                decided.disposition,
                ending=decided.ending,
                failure=decided.failure,
            )
            raised = [alert_of(ended, kind, code, self.clock.now()) for kind, code in alerts]
            if await self.store.end_attempt(
                ended,
                interaction=interaction(ended, check_in),
                check_in=check_in,
                do_not_call=do_not_call(ended),
                alerts=raised,
            ):
                for alert in raised:
                    log_alert(structlog.get_logger("careflow.caller"), alert)
                self.watch.notify(attempt_id)
                return replace(ended, version=attempt.version + 1)

    async def others(self, attempt: Attempt, call_sids: Sequence[str]) -> set[str]:
        """Those of the SIDs that are stored with another attempt."""
        owners = [(sid, await self.store.attempt_of_call_sid(sid)) for sid in call_sids]
        return {sid for sid, owner in owners if owner is not None and owner.id != attempt.id}


def alert_of(attempt: Attempt, kind: AlertKind, code: str, now: datetime) -> Alert:
    """The attempt's alert; the same cause has the same id, and so is raised once."""
    return Alert(
        id=f"{attempt.id}-{kind.value}-{code}",
        hospital_id=attempt.hospital_id,
        round_id=attempt.round_id,
        call_id=attempt.call_id,
        attempt_id=attempt.id,
        patient_id=attempt.patient_id,
        kind=kind,
        code=code,
        raised_at=now,
    )


def interaction(attempt: Attempt, check_in: CheckIn | None) -> Interaction:
    """The ended attempt as an entry of the patient's record."""
    if attempt.ended_at is None or attempt.disposition is None:
        raise ValueError(f"attempt {attempt.id} has not ended: {attempt.state}")
    seconds = (attempt.ended_at - attempt.answered_at).total_seconds() if attempt.answered_at else 0
    return Interaction(
        id=attempt.id,
        hospital_id=attempt.hospital_id,
        round_id=attempt.round_id,
        call_id=attempt.call_id,
        patient_id=attempt.patient_id,
        started_at=attempt.dialled_at or attempt.intended_at,
        ended_at=attempt.ended_at,
        disposition=attempt.disposition.value,
        ending=attempt.ending.value if attempt.ending else "",
        triage=check_in.triage.value if check_in else "",
        answered_seconds=max(0, round(seconds)),
    )
