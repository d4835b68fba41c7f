"""From the recorded intent to the provider's call SID, without ever creating a second call (reference/twilio section 8)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from careflow.caller.records import AttemptRecords
from careflow.caller.verdicts import CANCELLED, FINAL, Verdict, failed, refused_create
from careflow.core.attempts import Attempt, AttemptState, move
from careflow.core.retry import NEVER_CREATED
from careflow.errors import ProviderError
from careflow.ports import Phone, PhoneCall

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the desk's patience.

    `attempt_deadline` after the intent an attempt is hung up and ended. A call is declared never created after two empty
    listings `list_pause` apart, and not before `unknown_for` after the intent: longer than any create may take.
    Nobody dials later than `dial_within` after the intent: others may take the attempt for one that was never dialled.
    Who holds a conversation says so for `hold` at a time; after its call ended it gets `last_words` to record itself, as long
    as it holds on. `settle_every` is the pause between passes. `resumes` bounds how often a call whose stream broke is
    connected again.
    """

    attempt_deadline: timedelta = timedelta(minutes=20)
    list_pause: timedelta = timedelta(seconds=5)
    unknown_for: timedelta = timedelta(seconds=30)
    dial_within: timedelta = timedelta(seconds=10)
    hold: timedelta = timedelta(seconds=30)
    last_words: timedelta = timedelta(seconds=60)
    settle_every: timedelta = timedelta(seconds=30)
    resumes: int = 2


CLOCK_SKEW = timedelta(minutes=10)
"""How far our clock may be ahead of the provider's. With a call too many taken for the attempt's nobody is dialled; with its own
call overlooked the patient is dialled twice."""


class Dialler:
    """Creates the provider's call of one attempt, or finds out whether it exists."""

    def __init__(self, records: AttemptRecords, phone: Phone, limits: Limits) -> None:
        self._records = records
        self._phone = phone
        self._clock = records.clock
        self._limits = limits

    async def dial(self, attempt: Attempt) -> None:
        """Create the call of an attempt whose intent this process has just stored, and store its SID before anything else.

        Nobody else may ever call this for the same attempt: after a crash there is only `reconcile`. A process that was held
        up since the intent finds itself in the place of one that crashed.
        """
        if self._clock.now() - attempt.intended_at > self._limits.dial_within:
            log.warning("attempt %s: too late to dial, looking for the call", attempt.id)
            await self.reconcile(attempt)
            return
        try:
            call_sid = await self._phone.dial(attempt)
        except ProviderError as error:
            if error.ambiguous:
                log.warning("attempt %s: create is unanswered, looking for the call", attempt.id)
                await self.reconcile(attempt)
                return
            log.warning("attempt %s: create refused, code %s", attempt.id, error.code)
            verdict = refused_create(error.code, permanent=error.permanent)
            await self._records.end(attempt.id, lambda now: CANCELLED if now.cancel_requested_at else verdict)
            return
        await self.adopt(attempt.id, call_sid)

    async def adopt(self, attempt_id: str, call_sid: str, *, live: bool = True) -> Attempt | None:
        """Give the attempt its call. The attempt if the call is its own, else None: then the call is hung up while `live`."""
        owner = await self._records.store.attempt_of_call_sid(call_sid)
        if owner is not None and owner.id != attempt_id:
            return None  # somebody else's call: not ours to end

        def adopted(attempt: Attempt) -> Attempt | None:
            if attempt.call_sid is not None or attempt.state is AttemptState.ENDED:
                return None
            return move(attempt, AttemptState.DIALLED, self._clock.now(), call_sid=call_sid)

        attempt = await self._records.change(attempt_id, adopted)
        if attempt is None:
            return None
        if attempt.call_sid != call_sid:
            if live:
                log.error("attempt %s: call %s is not its own and is hung up", attempt_id, call_sid)
                await self.hang_up(call_sid)
            return None
        if attempt.state is AttemptState.ENDED:
            if live:
                await self.hang_up(call_sid)
        elif attempt.cancel_requested_at is not None and await self.hang_up(call_sid):
            return await self._records.end(attempt_id, lambda _: CANCELLED)
        return attempt

    async def hang_up(self, call_sid: str) -> bool:
        """End the provider's call; whether the provider said that it is over. Never raises ProviderError."""
        try:
            await self._phone.hang_up(call_sid)
        except ProviderError as error:
            log.warning("call %s: hanging up failed, code %s", call_sid, error.code)
            return False
        return True

    async def reconcile(self, attempt: Attempt) -> None:
        """Find the call of an attempt that has an intent and no SID: adopt it, or end the attempt as never created.

        Of several calls the oldest is adopted and the others are cancelled. Raises ProviderError when the provider cannot be
        asked; the attempt then stays as it is.
        """
        empty = 0
        while True:
            calls = await self._unclaimed(attempt)
            if calls:
                await self._take(attempt, calls)
                return
            empty += 1
            age = self._clock.now() - attempt.intended_at
            if empty >= 2 and age >= self._limits.unknown_for:
                break
            pause = self._limits.list_pause if empty < 2 else self._limits.unknown_for - age
            pause = min(pause, self._limits.unknown_for)  # the clock may have been set back since the intent
            await self._clock.sleep(pause.total_seconds())
            stored = await self._records.store.attempt(attempt.id)
            if stored is None or stored.call_sid is not None or stored.state is AttemptState.ENDED:
                return  # a callback brought the SID, or somebody else settled it
        await self._records.end(attempt.id, _never_created)

    async def _take(self, attempt: Attempt, calls: Sequence[PhoneCall]) -> None:
        first, *extras = calls
        if extras:
            log.error("attempt %s: the provider has %d calls for it", attempt.id, len(calls))
        await self.adopt(attempt.id, first.sid, live=first.status not in FINAL)
        stored = await self._records.store.attempt(attempt.id)
        for extra in extras:
            if extra.status not in FINAL and (stored is None or stored.call_sid != extra.sid):
                await self.hang_up(extra.sid)

    async def _unclaimed(self, attempt: Attempt) -> list[PhoneCall]:
        """Calls to the number created since the intent, that no other attempt has; oldest first.

        There is no latest moment: this number has no later attempt while this one is open, and a slow create is still ours.
        """
        calls = [await self._dated(call) for call in await self._phone.calls_to(attempt.phone)]
        earliest = attempt.intended_at - CLOCK_SKEW
        near = [call for call in calls if call.created_at is None or earliest <= call.created_at]
        taken = await self._records.others(attempt, [call.sid for call in near])
        ours = [call for call in near if call.sid not in taken]
        return sorted(ours, key=lambda call: (call.created_at or datetime.max.replace(tzinfo=UTC), call.sid))

    async def _dated(self, call: PhoneCall) -> PhoneCall:
        if call.created_at is not None:
            return call
        return await self._phone.fetch(call.sid) or call


def _never_created(attempt: Attempt) -> Verdict | None:
    if attempt.call_sid is not None:
        return None  # found in the last moment
    return CANCELLED if attempt.cancel_requested_at else failed(NEVER_CREATED)
