"""The desk where attempts are begun, heard of and ended. Everything it knows is in the store: any process can go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import structlog

from careflow.caller.dialling import Dialler, Limits
from careflow.caller.endings import Endings, held, opt_out
from careflow.caller.records import AttemptRecords, alert_of
from careflow.caller.recovery import Recovery
from careflow.caller.stream_pass import StreamPass, same_token
from careflow.caller.verdicts import (
    CANCELLED,
    FINAL,
    INTERRUPTED,
    Verdict,
    failed,
    machine,
)
from careflow.caller.watch import Watch
from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending, move
from careflow.core.checkins import AlertKind, CheckIn
from careflow.core.conversation import Finished
from careflow.core.patients import Patient, SkipReason, bar
from careflow.core.slots import local_instant, within_calling_hours
from careflow.errors import CareflowError, ProviderError
from careflow.ports import AttemptOrder, Began, BeginResult, Clock, Phone, Store
from careflow.telemetry import log_alert

log = logging.getLogger(__name__)
T = TypeVar("T")
Alerts = Sequence[tuple[AlertKind, str]]

_NUMBER_CHANGED = "number-changed"
_LATE_START = timedelta(seconds=10)  # a call still queued so long after `not_after` is taken back


class Step(StrEnum):
    """What to tell a connected call to do."""

    CONNECT = "connect"  # open a media stream to the bridge
    APOLOGISE = "apologise"  # our side cannot go on: say so and hang up
    HANG_UP = "hang-up"  # the attempt is over, or the call is not the attempt's


@dataclass(frozen=True, slots=True)
class CallStep:
    """The step, and the attempt unless the call must simply end."""

    step: Step
    attempt: Attempt | None = None


class AttemptDesk:
    """Begins attempts, takes what the provider and the bridge report of them, ends them, and settles what a crash left.

    `tokens_factory` makes unguessable stream secrets; `recovery` reads the checkpoints of dead conversations. All methods
    may be called for the same attempt in any order, repeatedly and from several processes; an attempt ends once, and its
    disposition never changes. Raises StoreUnavailable.

    The process with an attempt's latest media stream holds its conversation: it says so with every checkpoint, `keep`s saying
    so in between, and the others leave the end to it. What a holder of the past says (`stream`) is not heard any more.
    """

    def __init__(
        self,
        store: Store,
        phone: Phone,
        clock: Clock,
        watch: Watch,
        *,
        recovery: Recovery,
        tokens_factory: Callable[[], str],
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._phone = phone
        self._clock = clock
        self._watch = watch
        self._recovery = recovery
        self._tokens = tokens_factory
        self._limits = limits or Limits()
        self._records = AttemptRecords(store, clock, watch)
        self._dialler = Dialler(self._records, phone, self._limits)
        self._endings = Endings(self._records, self._dialler, phone, recovery, self._limits)
        self._dialling: set[str] = set()
        self._work: set[asyncio.Task[Any]] = set()

    @property
    def scripts(self) -> frozenset[str]:
        """The names of the scripts that an order may ask for."""
        return frozenset(self._recovery.scripts)

    # beginning

    async def begin(self, order: AttemptOrder) -> BeginResult:
        """Store the intent and dial, or find the attempt that was begun before. Goes on when the asker goes away.

        Returns when the SID is stored, or when it is known that there will be none.
        """
        return await self._shielded(self._begin(order))

    async def _begin(self, order: AttemptOrder) -> BeginResult:
        result = await self._record_intent(order)
        attempt = result.attempt
        if attempt is None or result.result not in (Began.BEGUN, Began.EXISTS):
            return result
        if result.result is Began.BEGUN:
            self._watch.notify(attempt.id)
            self._dialling.add(attempt.id)
            try:
                await self._dialler.dial(attempt)
            except ProviderError as error:
                log.warning("attempt %s: not known whether it was dialled, code %s", attempt.id, error.code)
            finally:
                self._dialling.discard(attempt.id)
        elif attempt.call_sid is None:
            await self.settle(attempt)
        return replace(result, attempt=await self._store.attempt(attempt.id))

    async def _record_intent(self, order: AttemptOrder) -> BeginResult:
        while True:
            patient = await self._store.patient(order.hospital_id, order.patient_id)
            if patient is None:
                existing = await self._store.attempt(order.attempt_id)
                if existing is not None:
                    return BeginResult(Began.EXISTS, existing)
                return BeginResult(Began.REFUSED, reason=SkipReason.INACTIVE.value)
            now = self._clock.now()
            attempt = Attempt(
                id=order.attempt_id,
                hospital_id=order.hospital_id,
                round_id=order.round_id,
                call_id=order.call_id,
                patient_id=order.patient_id,
                number=order.number,
                phone=patient.phone or "",
                script=order.script,
                stream_token=StreamPass(secret=self._tokens()).token(),
                intended_at=now,
                not_after=min(order.not_after, _end_of_calling_hours(patient, now)),
            )
            result = await self._store.begin_attempt(attempt, self._guard(order, attempt.phone))
            if result.reason != _NUMBER_CHANGED:
                return result

    def _guard(self, order: AttemptOrder, phone: str) -> Callable[[Patient, bool], str | None]:
        """Invariant 4, looked at in the transaction that stores the intent."""

        def refusal(patient: Patient, do_not_call: bool) -> str | None:
            now = self._clock.now()
            reason = bar(patient, do_not_call=do_not_call, now=now)
            if reason is None and (now >= order.not_after or not within_calling_hours(patient, now)):
                reason = SkipReason.OUTSIDE_HOURS
            if reason is None and patient.phone != phone:
                return _NUMBER_CHANGED
            return reason.value if reason else None

        return refusal

    # what the provider reports

    async def status(
        self, attempt_id: str, call_sid: str, status: str, *, sip_code: str = "", answered_by: str = ""
    ) -> Attempt | None:
        """Take a status callback. Late, repeated and unknown ones change nothing; the attempt, None when it is unknown.

        The first callback of an attempt without SID proves its call's creation; a call that is not the attempt's is hung up.
        A final status returns when the attempt has ended, after its conversation had time to record itself.
        """
        attempt = await self._dialler.adopt(attempt_id, call_sid, live=status not in FINAL)
        if attempt is None or attempt.state is AttemptState.ENDED:
            return attempt or await self._store.attempt(attempt_id)
        if answered_by:
            await self.machine(attempt_id, answered_by, call_sid)
        if status in FINAL:
            return await self._endings.over(attempt, status, sip_code)
        if status in ("queued", "initiated") and self._clock.now() >= attempt.not_after + _LATE_START:
            return await self._endings.take_back(attempt)
        return await self._endings.progress(attempt_id, status)

    async def machine(self, attempt_id: str, answered_by: str, call_sid: str) -> Attempt | None:
        """Store what answering-machine detection says of the attempt's call; the attempt, None when it is unknown."""
        await self._dialler.adopt(attempt_id, call_sid)

        def heard(attempt: Attempt) -> Attempt | None:
            if attempt.state is AttemptState.ENDED or attempt.call_sid != call_sid:
                return None
            return replace(attempt, answered_by=answered_by) if attempt.answered_by != answered_by else None

        return await self._records.change(attempt_id, heard)

    async def answered(self, attempt_id: str, call_sid: str) -> CallStep:
        """The call was picked up and asks what to do."""
        attempt = await self._dialler.adopt(attempt_id, call_sid)
        if attempt is not None:
            attempt = await self._endings.progress(attempt_id, "in-progress")
        if attempt is None or attempt.state is AttemptState.ENDED or attempt.cancel_requested_at is not None:
            return CallStep(Step.HANG_UP)
        return CallStep(Step.CONNECT, attempt)

    async def resumed(self, attempt_id: str, call_sid: str) -> CallStep:
        """The call's media stream ended or could not be opened, and the call asks what to do."""
        step = await self.answered(attempt_id, call_sid)
        if step.attempt is None:
            return step
        went_on = False

        def again(attempt: Attempt) -> Attempt | None:
            nonlocal went_on
            known = StreamPass.parse(attempt.stream_token)
            went_on = attempt.state is not AttemptState.ENDED and known.resumes < self._limits.resumes
            return replace(attempt, stream_token=known.resumed(self._tokens()).token()) if went_on else None

        attempt = await self._records.change(attempt_id, again)
        if attempt is None or attempt.state is AttemptState.ENDED:
            return CallStep(Step.HANG_UP)
        if went_on:
            return CallStep(Step.CONNECT, attempt)
        # Not hung up from here: the apology is still to be spoken, and the document hangs up after it.
        await self._endings.interrupted(attempt)
        return CallStep(Step.APOLOGISE, attempt)

    # what the bridge reports

    async def stream_started(self, attempt_id: str, token: str, call_sid: str) -> Attempt | None:
        """Accept a media stream: the attempt, now ANSWERED and held by this process, or None when the stream is refused.

        A token opens one stream. The attempt's `checkpoint` is not empty when an earlier stream broke in the conversation.
        """
        attempt = await self._store.attempt(attempt_id)
        if attempt is None or not same_token(attempt.stream_token, token):
            return None
        if await self._dialler.adopt(attempt_id, call_sid) is None:
            return None
        accepted = False

        def begun(attempt: Attempt) -> Attempt | None:
            nonlocal accepted
            accepted = (
                attempt.state is not AttemptState.ENDED
                and attempt.cancel_requested_at is None
                and same_token(attempt.stream_token, token)  # of two streams with one token, the first
            )
            if not accepted:
                return None
            opened = replace(
                attempt,
                stream_token=StreamPass.parse(token).accepted(self._tokens()).token(),
                held_until=self._clock.now() + self._limits.hold,
            )
            if attempt.state is AttemptState.ANSWERED:
                return opened
            return move(opened, AttemptState.ANSWERED, self._clock.now())

        attempt = await self._records.change(attempt_id, begun)
        return attempt if accepted else None

    async def stream_lost(self, attempt_id: str, *, stream: int | None = None) -> None:
        """The stream broke without a word of its end, and this process holds the conversation no more.

        A call that lives on comes back with `resumed`; one that is over is ended here, as hung up by the patient.
        """
        attempt = await self._store.attempt(attempt_id)
        if attempt is None or attempt.call_sid is None or not _speaks_for(stream, attempt):
            return
        call = await self._endings.fetch(attempt.call_sid)
        if call is not None and call.status in FINAL:
            hung_up = Verdict(disposition=Disposition.ANSWERED, ending=Ending.HUNG_UP)

            def verdict(now: Attempt) -> Verdict | None:
                if not _speaks_for(stream, now):
                    return None
                return CANCELLED if now.cancel_requested_at else hung_up

            await self._endings.end(attempt, verdict)

    async def checkpoint(self, attempt_id: str, text: str, *, stream: int | None = None) -> bool:
        """Store the dialogue's state; False when the attempt has ended, or goes on elsewhere, and nothing was stored."""
        until = self._clock.now() + self._limits.hold
        return await self._say(
            attempt_id, stream, lambda now: replace(now, checkpoint=text, held_until=until)
        )

    async def keep(self, attempt_id: str, *, stream: int | None = None) -> bool:
        """Go on holding the conversation, when no checkpoint was due for a while; False when it is somebody else's, or over."""
        until = self._clock.now() + self._limits.hold
        return await self._say(attempt_id, stream, lambda now: replace(now, held_until=until))

    async def hand_over(self, attempt_id: str, text: str, *, stream: int | None = None) -> bool:
        """Give the conversation up, to go on in another process, whose `resumed` then counts as no failure.

        An empty text leaves the checkpoint as it is.
        """

        def given(attempt: Attempt) -> Attempt:
            token = StreamPass.parse(attempt.stream_token).handed_over(self._tokens()).token()
            return replace(
                attempt, stream_token=token, held_until=None, checkpoint=text or attempt.checkpoint
            )

        return await self._say(attempt_id, stream, given)

    async def _say(self, attempt_id: str, stream: int | None, said: Callable[[Attempt], Attempt]) -> bool:
        """Store what the holder of the conversation says; False when the stream holds it no more."""
        heard = False

        def changed(attempt: Attempt) -> Attempt | None:
            nonlocal heard
            heard = _speaks_for(stream, attempt)
            return said(attempt) if heard else None

        await self._records.change(attempt_id, changed)
        return heard

    async def raise_alert(self, attempt_id: str, kind: AlertKind, code: str) -> None:
        """Store the alert; it is durable when this returns. The same cause of the same attempt raises one alert."""
        attempt = await self._store.attempt(attempt_id)
        if attempt is None:
            raise CareflowError(f"attempt {attempt_id!r} is unknown: no alert can be raised for it")
        alert = alert_of(attempt, kind, code, self._clock.now())
        if await self._store.add_alert(alert):
            log_alert(structlog.get_logger("careflow.caller"), alert)

    async def conversation_over(
        self,
        attempt_id: str,
        finished: Finished,
        check_in: CheckIn | None,
        alerts: Alerts = (),
        *,
        stream: int | None = None,
    ) -> Attempt | None:
        """Store the conversation's result with everything it leaves, then hang up. `alerts` are those not stored before."""
        return await self._shielded(self._conversation_over(attempt_id, finished, check_in, alerts, stream))

    async def _conversation_over(
        self,
        attempt_id: str,
        finished: Finished,
        check_in: CheckIn | None,
        alerts: Alerts,
        stream: int | None,
    ) -> Attempt | None:
        def verdict(attempt: Attempt) -> Verdict | None:
            if not _speaks_for(stream, attempt):
                return None
            identified = check_in is not None and check_in.identity_confirmed
            if finished.voicemail or (
                finished.ending is Ending.HUNG_UP and machine(attempt.answered_by) and not identified
            ):
                return Verdict(disposition=Disposition.VOICEMAIL)
            if finished.ending is Ending.HUNG_UP and attempt.cancel_requested_at is not None:
                return CANCELLED
            return Verdict(disposition=Disposition.ANSWERED, ending=finished.ending or Ending.INTERRUPTED)

        attempt = await self._records.end(
            attempt_id,
            verdict,
            check_in=check_in,
            do_not_call=lambda attempt: opt_out(attempt, finished),
            alerts=alerts,
        )
        return await self._hung_up_when_over(attempt)

    async def conversation_broken(
        self,
        attempt_id: str,
        check_in: CheckIn | None = None,
        alerts: Alerts = (),
        *,
        stream: int | None = None,
    ) -> Attempt | None:
        """Our side failed for good in the middle: store what there is, then hang up. A nurse takes over from here."""
        return await self._shielded(self._conversation_broken(attempt_id, check_in, alerts, stream))

    async def _conversation_broken(
        self, attempt_id: str, check_in: CheckIn | None, alerts: Alerts, stream: int | None
    ) -> Attempt | None:
        def verdict(now: Attempt) -> Verdict | None:
            if not _speaks_for(stream, now):
                return None
            return CANCELLED if now.cancel_requested_at else INTERRUPTED

        attempt = await self._store.attempt(attempt_id)
        if attempt is not None:
            attempt = await self._endings.end(attempt, verdict, check_in, alerts)
        return await self._hung_up_when_over(attempt)

    async def _hung_up_when_over(self, attempt: Attempt | None) -> Attempt | None:
        """Hang up the call of an ended attempt; one that goes on elsewhere is left alone."""
        if attempt is not None and attempt.state is AttemptState.ENDED and attempt.call_sid is not None:
            await self._dialler.hang_up(attempt.call_sid)
        return attempt

    # stopping

    async def cancel(self, attempt_id: str) -> bool:
        """End the attempt because somebody asked for it; False when it had ended or is unknown.

        Of an attempt that is just being dialled the wish is stored, and whoever learns its SID hangs up.
        """
        wanted = False

        def requested(attempt: Attempt) -> Attempt | None:
            nonlocal wanted
            wanted = attempt.state is not AttemptState.ENDED
            if not wanted or attempt.cancel_requested_at is not None:
                return None
            return replace(attempt, cancel_requested_at=self._clock.now())

        attempt = await self._records.change(attempt_id, requested)
        if wanted and attempt is not None and attempt.call_sid is not None:
            await self._shielded(self._endings.hang_up_and_end(attempt, CANCELLED))
        return wanted

    # settling

    async def settle(self, attempt: Attempt) -> None:
        """Bring an attempt that nobody reports on to where its call is. Harmless for any attempt, and in two processes."""
        now = self._clock.now()
        if attempt.id in self._dialling or attempt.state is AttemptState.ENDED:
            return
        if held(attempt, now) and attempt.cancel_requested_at is None:
            return  # its holder hears of everything first
        age = now - attempt.intended_at
        try:
            if attempt.call_sid is None:
                await self._dialler.reconcile(attempt)
                found = await self._store.attempt(attempt.id)
                if found is None or found.call_sid is None:
                    return
                attempt = found
            if attempt.call_sid is not None and attempt.state is not AttemptState.ENDED:
                await self._settle_call(attempt, attempt.call_sid, age)
        except ProviderError as error:
            log.warning("attempt %s: cannot be settled now, code %s", attempt.id, error.code)

    async def _settle_call(self, attempt: Attempt, call_sid: str, age: timedelta) -> None:
        call = await self._phone.fetch(call_sid)
        if call is None:
            if age >= self._limits.unknown_for:  # before that it may only not be found yet, and be ringing
                await self._endings.end(
                    attempt, lambda now: CANCELLED if now.cancel_requested_at else failed("unknown-call")
                )
        elif call.status in FINAL:
            if call.answered_by:
                await self.machine(attempt.id, call.answered_by, call_sid)
            await self._endings.over(attempt, call.status, "")
        elif attempt.cancel_requested_at is not None:
            await self._endings.hang_up_and_end(attempt, CANCELLED)
        elif age >= self._limits.attempt_deadline:
            picked_up = attempt.state is AttemptState.ANSWERED or call.status == "in-progress"
            await self._endings.hang_up_and_end(attempt, INTERRUPTED if picked_up else failed("deadline"))
        elif call.status in ("queued", "initiated") and self._clock.now() >= attempt.not_after:
            await self._endings.take_back(attempt)
        else:
            await self._endings.progress(attempt.id, call.status)

    async def settle_all(self) -> None:
        """Settle every attempt that has not ended, a few at a time."""
        gate = asyncio.Semaphore(8)

        async def one(attempt: Attempt) -> None:
            async with gate:
                await self.settle(attempt)

        await asyncio.gather(*[one(attempt) for attempt in await self._store.open_attempts()])

    async def run(self) -> None:
        """Settle at once and then every `limits.settle_every`, until cancelled. No failure ends it."""
        while True:
            try:
                await self.settle_all()
            except Exception as error:  # noqa: BLE001 - the next pass may succeed; the text is no log's business
                log.error("settling failed: %s", type(error).__name__)
            await self._clock.sleep(self._limits.settle_every.total_seconds())

    async def close(self) -> None:
        """Wait for what was begun and must not be cut: creates in flight, results being stored."""
        while self._work:
            await asyncio.wait(set(self._work))

    async def _shielded(self, work: Coroutine[Any, Any, T]) -> T:
        """Await the work; it goes on to its end when the awaiting task is cancelled."""
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)


def _speaks_for(stream: int | None, attempt: Attempt) -> bool:
    """Whether the conversation on this stream, counted from 1, is the attempt's; None when it is no matter which."""
    latest = stream is None or stream == StreamPass.parse(attempt.stream_token).streams
    return latest and attempt.state is not AttemptState.ENDED


def _end_of_calling_hours(patient: Patient, now: datetime) -> datetime:
    """The instant today at which the patient's calling hours end; a call that the provider queued must not ring after it."""
    zone = ZoneInfo(patient.time_zone)
    return local_instant(now.astimezone(zone).date(), patient.calling_until, zone)
