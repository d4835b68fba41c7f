"""How attempts progress and end by what is known of their calls, when no conversation says it better."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from careflow.caller.dialling import Dialler, Limits
from careflow.caller.records import AttemptRecords
from careflow.caller.recovery import Left, Recovery
from careflow.caller.stream_pass import StreamPass
from careflow.caller.verdicts import CANCELLED, INTERRUPTED, PROGRESS, Verdict, failed, final_verdict
from careflow.core.attempts import MOVES, Attempt, AttemptState, Disposition, Ending, move
from careflow.core.checkins import AlertKind, CheckIn
from careflow.core.conversation import Finished
from careflow.core.patients import DoNotCall
from careflow.errors import ProviderError
from careflow.ports import Phone, PhoneCall

log = logging.getLogger(__name__)


class Endings:
    """Moves and ends attempts for the desk."""

    def __init__(
        self, records: AttemptRecords, dialler: Dialler, phone: Phone, recovery: Recovery, limits: Limits
    ) -> None:
        self._records = records
        self._dialler = dialler
        self._phone = phone
        self._recovery = recovery
        self._limits = limits

    async def progress(self, attempt_id: str, status: str) -> Attempt | None:
        """Move the attempt forward to where its live call is; never back."""
        to = PROGRESS.get(status)

        def moved(attempt: Attempt) -> Attempt | None:
            return move(attempt, to, self._records.clock.now()) if to in MOVES[attempt.state] and to else None

        return await self._records.change(attempt_id, moved)

    async def over(self, attempt: Attempt, status: str, sip_code: str) -> Attempt | None:
        """The provider's call has ended. Whoever holds the conversation ends the attempt better than we can: wait for it."""
        spoken_to = StreamPass.parse(attempt.stream_token).streams > 0
        if spoken_to:
            told = await self._as_its_holder_tells_it(attempt)
            if told is None or told.state is AttemptState.ENDED:
                return told
        answered_by = attempt.answered_by
        if not answered_by and not spoken_to and status == "completed" and attempt.call_sid is not None:
            call = await self.fetch(attempt.call_sid)
            answered_by = call.answered_by if call else ""
        return await self.end(
            attempt,
            lambda now: final_verdict(
                now, status, sip_code=sip_code, answered_by=now.answered_by or answered_by
            ),
        )

    async def _as_its_holder_tells_it(self, attempt: Attempt) -> Attempt | None:
        """The attempt once its holder ended it, or as it is when nobody holds it any more, or has held it for too long."""
        now: Attempt | None = attempt
        deadline = self._records.clock.now() + self._limits.last_words
        while now is not None and held(now, self._records.clock.now()):
            at_most = min(now.held_until or deadline, deadline) - self._records.clock.now()
            if at_most <= timedelta(0):
                break
            now = await self._records.watch.ended(attempt.id, at_most.total_seconds())
        return now

    async def take_back(self, attempt: Attempt) -> Attempt | None:
        """The provider kept the call in its queue until dialling was no longer allowed."""
        return await self.hang_up_and_end(attempt, failed("queued-too-long"))

    async def hang_up_and_end(self, attempt: Attempt, verdict: Verdict) -> Attempt | None:
        """End the call and then the attempt, which stays open when the provider does not say that the call is over."""
        if attempt.call_sid is None or not await self._dialler.hang_up(attempt.call_sid):
            return attempt
        return await self.end(attempt, lambda _: verdict)

    async def interrupted(
        self,
        attempt: Attempt,
        check_in: CheckIn | None = None,
        alerts: Sequence[tuple[AlertKind, str]] = (),
    ) -> Attempt | None:
        """End the attempt as failed on our side in the middle of the conversation."""
        return await self.end(
            attempt, lambda now: CANCELLED if now.cancel_requested_at else INTERRUPTED, check_in, alerts
        )

    async def end(
        self,
        attempt: Attempt,
        verdict: Callable[[Attempt], Verdict | None],
        check_in: CheckIn | None = None,
        alerts: Sequence[tuple[AlertKind, str]] = (),
    ) -> Attempt | None:
        """End the attempt with what its last checkpoint holds: the check-in so far, and an end decided but not stored.

        Whom the dialogue knew for the patient was no machine, whatever detection says: a machine would be dialled again.
        """
        while True:
            stored = await self._records.store.attempt(attempt.id) or attempt
            left = await self._recovery.left(self._records.store, stored, self._records.clock.now())
            ended = await self._end_as_left(stored, left, verdict, check_in, alerts)
            if ended is None or ended.state is AttemptState.ENDED or ended.checkpoint == stored.checkpoint:
                return ended
            # The conversation went on since: what it left now may be that the patient will not be phoned again.

    async def _end_as_left(
        self,
        stored: Attempt,
        left: Left,
        verdict: Callable[[Attempt], Verdict | None],
        check_in: CheckIn | None,
        alerts: Sequence[tuple[AlertKind, str]],
    ) -> Attempt | None:
        """End the attempt, unless its checkpoint is another one than what is `left` was read from."""

        def decided(now: Attempt) -> Verdict | None:
            if now.checkpoint != stored.checkpoint:
                return None
            wanted = verdict(now)
            known = left.check_in is not None and left.check_in.identity_confirmed
            if known and wanted is not None and wanted.disposition is Disposition.VOICEMAIL:
                wanted = INTERRUPTED
            cut = wanted is not None and wanted.ending in (Ending.INTERRUPTED, Ending.HUNG_UP)
            if cut and left.finished is not None:
                return Verdict(disposition=Disposition.ANSWERED, ending=left.finished.ending)
            return wanted

        return await self._records.end(
            stored.id,
            decided,
            check_in=check_in or left.check_in,
            do_not_call=lambda ended: opt_out(ended, left.finished),
            alerts=alerts,
        )

    async def fetch(self, call_sid: str) -> PhoneCall | None:
        """The provider's call; None also when the provider cannot be asked."""
        try:
            return await self._phone.fetch(call_sid)
        except ProviderError as error:
            log.warning("call %s: cannot be asked for, code %s", call_sid, error.code)
            return None


def held(attempt: Attempt, now: datetime) -> bool:
    """Whether some process holds the attempt's conversation, as far as anybody can know."""
    return (
        attempt.state is not AttemptState.ENDED
        and attempt.held_until is not None
        and now < attempt.held_until
    )


def opt_out(ended: Attempt, finished: Finished | None) -> DoNotCall | None:
    """The entry that somebody on the telephone asked for."""
    if finished is None or ended.ended_at is None:
        return None
    if not (finished.opted_out_patient or finished.opted_out_number):
        return None
    return DoNotCall(
        hospital_id=ended.hospital_id,
        phone=ended.phone,
        patient_id=ended.patient_id if finished.opted_out_patient else None,
        attempt_id=ended.id,
        since=ended.ended_at,
    )
