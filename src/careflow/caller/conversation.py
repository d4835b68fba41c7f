"""One telephone conversation: events from the wire, the ear and the desk go into the dialogue, its effects are carried out.

The runner takes one event at a time and carries each effect out to its end before the next one: that is what makes a red
flag's alert durable before the next word is spoken (invariant 5). Everything that must not wait runs beside it:
the reader of the socket, the ear, the voice, and the watch over the attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from careflow.caller.conversation_ports import (
    NORMAL_CLOSURES,
    SERVICE_RESTART,
    Alerts,
    Desk,
    Talk,
    Watching,
    Wire,
    WireClosed,
)
from careflow.caller.hearing import Hearing, HearingConfig
from careflow.caller.media_protocol import Key, MarkBack, Media, MediaStream, Stop
from careflow.caller.playback import Playback, PlaybackConfig
from careflow.caller.stream_pass import StreamPass
from careflow.core.attempts import Attempt, AttemptState, Ending
from careflow.core.checkins import CheckIn
from careflow.core.conversation import (
    Await,
    Effect,
    Event,
    Finished,
    Heard,
    HungUp,
    MachineAnswered,
    Pressed,
    RaiseAlert,
    Resumed,
    Save,
    Say,
    Spoken,
    Started,
    StopSpeaking,
    Waited,
)
from careflow.errors import CareflowError, ProviderError, StoreUnavailable
from careflow.ports import Clock, Speech

log = structlog.get_logger(__name__)


class Left(CareflowError):
    """The conversation is left as it is, to go on from its checkpoint on another stream."""


class StreamLost(Left):
    """The socket broke, and nobody said that the call is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationConfig:
    """`alert_seconds` is how long a prompt waits for its alert to become durable, `save_seconds` how long for a checkpoint,
    `record_seconds` how long the end is tried, `speaking_on_seconds` how much longer an answer may take that was begun in
    time, `lost_seconds` how long after a broken socket the desk is told, `keep_seconds` how often the desk is reminded that
    somebody holds the conversation, and `quiet_seconds` how long a handover waits for the patient to finish speaking.
    """

    hearing: HearingConfig = field(default_factory=HearingConfig)
    playback: PlaybackConfig = field(default_factory=PlaybackConfig)
    alert_seconds: float = 3.0
    speaking_on_seconds: float = 15.0
    lost_seconds: float = 1.0
    keep_seconds: float = 10.0
    quiet_seconds: float = 2.0
    save_tries: int = 2
    save_seconds: float = 3.0
    record_seconds: float = 60.0
    inbox_events: int = 256
    say_tries: int = 2


@dataclass(slots=True)
class Background:
    """Work that outlives its conversation, e.g. an alert that the store refused at first."""

    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


@dataclass(frozen=True, slots=True, eq=False)
class _Expired:
    """The time of an `Await` is over."""

    mark: str


@dataclass(frozen=True, slots=True)
class _Quiet:
    """Everything that was said is told: the moment to hand the conversation over."""


class Conversation:
    """Runs one conversation on one socket, from the stream's start to its recorded end."""

    def __init__(
        self,
        attempt: Attempt,
        language: str,
        talk: Talk,
        stream: MediaStream,
        wire: Wire,
        *,
        desk: Desk,
        watch: Watching,
        speech: Speech,
        clock: Clock,
        config: ConversationConfig,
        background: Background,
    ) -> None:
        self._attempt = attempt
        self._talk = talk
        self._stream = stream
        self._wire = wire
        self._desk = desk
        self._watch = watch
        self._speech = speech
        self._clock = clock
        self._config = config
        self._background = background
        self._stream_number = _streams(attempt)
        self._inbox: asyncio.Queue[Event | _Expired | _Quiet] = asyncio.Queue()
        self._dropped_events = 0
        self._machine_ready: bool | None = None
        self._finished: Finished | None = None
        self._end_dealt_with = False
        self._hung_up = False
        self._unstored: list[RaiseAlert] = []
        self._storing: list[asyncio.Task[None]] = []
        self._timer: asyncio.Task[None] | None = None
        self._awaited: _Expired | None = None  # the Await in force
        self._overdue = False  # its time is over, but the patient is speaking
        self._said_so_at = clock.now()  # when the desk last heard of us
        self._leaving = asyncio.Event()
        self._handing_over = asyncio.Event()
        self._over = asyncio.Event()
        self._opened_at = clock.now()
        self._first_prompt_ms: int | None = None
        self._answer_ms: list[int] = []
        self._playback = Playback(
            stream.stream_sid,
            wire.send,
            clock,
            config.playback,
            spoken=lambda mark: self._tell(Spoken(mark)),
            first_byte=self._note_first_byte,
        )
        self._spoken_language = language
        self._hearing = Hearing(
            speech,
            language,
            clock,
            config.hearing,
            prompt_playing=lambda: self._playback.playing,
            tell=self._tell,
        )

    async def run(self) -> None:
        """Hold the conversation and record its end.

        When this process shuts down, or another stream takes over, nothing is recorded: the checkpoint stays for the resume.
        A failure of ours or of a provider is reported to the desk as broken.
        """
        how = "cut"
        try:
            how = await self._hold()
            if how == "broken":
                await self._record(
                    lambda: self._desk.conversation_broken(
                        self._attempt.id,
                        self._check_in(),
                        self._unstored_alerts(),
                        stream=self._stream_number,
                    )
                )
            elif how == "lost":
                # When the patient hung up, Twilio itself knows it only a moment after the socket broke.
                await self._clock.sleep(self._config.lost_seconds)
                await self._record(
                    lambda: self._desk.stream_lost(self._attempt.id, stream=self._stream_number)
                )
        finally:
            self._log_end(how)
            self._over.set()

    async def leave(self) -> None:
        """Give the attempt up to another stream; returns when this one does nothing any more."""
        self._leaving.set()
        await self.over()

    async def over(self) -> None:
        """Wait until the conversation does nothing any more."""
        await self._over.wait()

    def hand_over(self) -> None:
        """Ask for the conversation to be left to another process, between two turns. It ends by itself when it is at its end."""
        self._handing_over.set()

    async def _hold(self) -> str:
        """How it ended: over, broken, lost or left."""
        failures: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(work)
                    for work in (
                        self._read(),
                        self._hearing.run(),
                        self._playback.run(),
                        self._follow(),
                        self._keep(),
                        self._leave_when_told(),
                        self._hand_over_when_told(),
                    )
                ]
                await self._converse(group)
                for task in helpers:
                    task.cancel()
        # A defect of ours must end as broken too, or the patient would hear nothing any more.
        except* Exception as group_of_failures:  # noqa: BLE001
            failures = _flat(group_of_failures)
        if self._end_dealt_with:
            return "over"
        if any(isinstance(failure, StreamLost) for failure in failures):
            return "lost"
        if any(isinstance(failure, Left) for failure in failures):
            return "left"
        log.error(
            "conversation broken", attempt_id=self._attempt.id, because=[_place(each) for each in failures]
        )
        return "broken"

    async def _leave_when_told(self) -> None:
        await self._leaving.wait()
        if self._finished is None:
            raise Left

    async def _keep(self) -> None:
        """Tell the desk that the conversation is held, whenever it has heard nothing of it for a while."""
        while True:
            silent = (self._clock.now() - self._said_so_at).total_seconds()
            if silent < self._config.keep_seconds:
                await self._clock.sleep(self._config.keep_seconds - silent)
                continue
            self._said_so_at = self._clock.now()
            with suppress(StoreUnavailable):  # until the next time
                await self._desk.keep(self._attempt.id, stream=self._stream_number)

    async def _hand_over_when_told(self) -> None:
        """Wait for the patient to finish speaking, not for long, and for the words to be understood."""
        await self._handing_over.wait()
        told_at = self._clock.now()
        while (
            self._hearing.busy and (self._clock.now() - told_at).total_seconds() < self._config.quiet_seconds
        ):
            await self._clock.sleep(0.05)
        await self._hearing.last_words(cut_off=True)
        self._inbox.put_nowait(_Quiet())

    async def _give_away(self) -> None:
        await self._playback.stop()
        await self._alerts_stored(self._config.alert_seconds)
        text = "" if self._unstored else self._talk.checkpoint()
        for _ in range(self._config.save_tries):
            try:
                await self._desk.hand_over(self._attempt.id, text, stream=self._stream_number)
                break
            except StoreUnavailable:
                await self._clock.sleep(0.2)
        raise Left

    # --- events ------------------------------------------------------------------------------------------------

    async def _converse(self, group: asyncio.TaskGroup) -> None:
        await self._feed(Resumed() if self._attempt.checkpoint else Started(), group)
        self._notice(self._attempt)
        while self._finished is None:
            event, enough = await self._inbox.get(), False
            if isinstance(event, _Quiet):
                await self._give_away()
            elif isinstance(event, _Expired):
                enough = self._overdue and event is self._awaited
                self._overdue = self._overdue or event is self._awaited
            else:
                await self._feed(event, group)
            patient_is_silent = enough or not self._hearing.busy
            if self._overdue and self._awaited and patient_is_silent and self._finished is None:
                awaited, self._awaited, self._overdue = self._awaited, None, False
                await self._feed(Waited(awaited.mark), group)

    async def _feed(self, event: Event, group: asyncio.TaskGroup) -> None:
        if isinstance(event, HungUp):
            self._hung_up = True
        for effect in self._talk.step(event, self._clock.now()):
            await self._carry_out(effect, group)
        if self._hung_up and self._finished is None:
            await self._finish(Finished(Ending.HUNG_UP))

    def _tell(self, event: Event | _Expired) -> None:
        # Words are never dropped: a red flag may be in them, and they come no faster than people speak.
        if self._inbox.qsize() >= self._config.inbox_events and not isinstance(event, HungUp | Heard):
            self._dropped_events += 1
        else:
            self._inbox.put_nowait(event)

    async def _read(self) -> None:
        """Read the socket and never wait for anything else: when we read slowly, Twilio drops audio (warning 31930)."""
        try:
            while True:
                for message in self._stream.receive(await self._wire.receive()):
                    match message:
                        case Media():
                            self._hearing.frame(message)
                        case Key(digit):
                            self._tell(Pressed(digit))
                        case MarkBack(name):
                            self._playback.mark_returned(name)
                        case Stop():
                            await self._gone()
        except WireClosed as closed:
            if self._finished is not None:
                return
            if closed.code == SERVICE_RESTART:
                raise Left from closed
            if closed.code not in NORMAL_CLOSURES:
                await self._hearing.last_words(cut_off=self._hearing.in_mid_word)
                raise StreamLost from closed
            await self._gone()  # a stream whose `stop` was forgotten

    async def _gone(self) -> None:
        """The patient hung up. The last words before that may be a red flag, and are still on their way to us."""
        await self._hearing.last_words()
        self._tell(HungUp())

    async def _follow(self) -> None:
        while True:
            try:
                async for attempt in self._watch.changes(self._attempt.id, self._attempt.version):
                    self._notice(attempt)
                return
            except StoreUnavailable:
                await self._clock.sleep(1.0)

    def _notice(self, attempt: Attempt) -> None:
        """Tell the dialogue what others found out about the attempt, each thing once.

        A stream that another process accepted has the patient; this one hears nobody, and would end the call for silence.
        """
        if _streams(attempt) > self._stream_number:
            self._leaving.set()
        answered_by = attempt.answered_by or ""
        if answered_by.startswith("machine") or answered_by == "fax":
            ready = answered_by.startswith("machine_end")
            if self._machine_ready is None or (ready and not self._machine_ready):
                self._machine_ready = ready
                self._tell(MachineAnswered(ready))
        if attempt.cancel_requested_at is not None or attempt.state is AttemptState.ENDED:
            self._tell(HungUp())

    # --- effects -----------------------------------------------------------------------------------------------

    async def _carry_out(self, effect: Effect, group: asyncio.TaskGroup) -> None:
        match effect:
            case Say():
                self._stop_waiting()
                if not self._hung_up:
                    audio = await self._voice(effect)
                    self._hearing.new_prompt()
                    self._playback.play(effect.mark, audio)
                    self._spoken_language = effect.language
            case StopSpeaking():
                await self._playback.stop()
            case Await(mark, seconds):
                self._stop_waiting()
                # Of the greeting's two languages the last is the question's, and the answer's.
                self._hearing.listen_in(self._spoken_language)
                self._awaited = _Expired(mark)
                self._timer = group.create_task(self._expire(self._awaited, seconds))
            case RaiseAlert():
                await self._raise(effect)
            case Save():
                await self._save()
            case Finished():
                await self._finish(effect)

    async def _voice(self, say: Say) -> bytes:
        for _ in range(self._config.say_tries - 1):
            try:
                return await self._speech.say(say.text, say.language)
            except ProviderError as error:
                log.warning("speech failed", attempt_id=self._attempt.id, mark=say.mark, code=error.code)
        return await self._speech.say(say.text, say.language)

    def _stop_waiting(self) -> None:
        self._awaited, self._overdue = None, False
        if self._timer is not None:
            self._timer.cancel()

    async def _expire(self, awaited: _Expired, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._tell(awaited)
        await self._clock.sleep(self._config.speaking_on_seconds)
        self._tell(awaited)

    async def _raise(self, alert: RaiseAlert) -> None:
        """Store the alert before anything else, but for a store that is down do not keep the patient from the emergency wording.

        The storing goes on in the background until it succeeds, whatever becomes of this conversation.
        """
        self._unstored.append(alert)
        storing = self._background.start(self._store_alert(alert))
        self._storing.append(storing)
        if not await self._alerts_stored(self._config.alert_seconds) or storing.exception() is not None:
            log.critical(
                "alert not stored yet",
                attempt_id=self._attempt.id,
                kind=alert.kind.value,
                given_up=storing.done(),
            )

    async def _alerts_stored(self, seconds: float) -> bool:
        """Wait so long for the alerts that are being stored; whether none is any more."""
        storing = [task for task in self._storing if not task.done()]
        if storing:
            timer = asyncio.ensure_future(self._clock.sleep(seconds))
            everything = asyncio.ensure_future(asyncio.wait(storing))
            try:
                await asyncio.wait({everything, timer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                everything.cancel()
                timer.cancel()
        return all(task.done() for task in storing)

    async def _store_alert(self, alert: RaiseAlert) -> None:
        delay = 0.25
        while True:
            try:
                await self._desk.raise_alert(self._attempt.id, alert.kind, alert.code)
                self._unstored.remove(alert)
                return
            except StoreUnavailable:
                await self._clock.sleep(delay)
                delay = min(delay * 2, 30.0)

    async def _save(self) -> None:
        """Store where the dialogue is, if that does not take long: the patient is waiting."""
        if self._unstored:
            return  # a checkpoint says that its alerts are stored: a resume must raise this one again
        saving = asyncio.ensure_future(self._saved())
        timer = asyncio.ensure_future(self._clock.sleep(self._config.save_seconds))
        try:
            await asyncio.wait({saving, timer}, return_when=asyncio.FIRST_COMPLETED)
            if saving.done() and saving.result():
                return
        finally:
            saving.cancel()
            timer.cancel()
        # A resume would ask the last question again; that is better than silence now.
        log.error("checkpoint not stored", attempt_id=self._attempt.id)

    async def _saved(self) -> bool:
        for _ in range(self._config.save_tries):
            try:
                await self._desk.checkpoint(
                    self._attempt.id, self._talk.checkpoint(), stream=self._stream_number
                )
                self._said_so_at = self._clock.now()
                return True
            except StoreUnavailable:
                await self._clock.sleep(0.2)
        return False

    async def _finish(self, finished: Finished) -> None:
        self._finished = finished
        self._stop_waiting()
        check_in = self._check_in()
        await self._alerts_stored(self._config.record_seconds)
        await self._record(
            lambda: self._desk.conversation_over(
                self._attempt.id, finished, check_in, self._unstored_alerts(), stream=self._stream_number
            )
        )
        self._end_dealt_with = True

    def _unstored_alerts(self) -> Alerts:
        return [(alert.kind, alert.code) for alert in self._unstored]

    def _check_in(self) -> CheckIn | None:
        return self._talk.check_in(self._attempt, self._clock.now())

    async def _record(self, write: Callable[[], Awaitable[object]]) -> None:
        """Write the end, again while the store refuses. When it never accepts, the settling of open attempts finds this one."""
        began, delay = self._clock.now(), 0.25
        while True:
            try:
                await write()
                return
            except StoreUnavailable:
                if (self._clock.now() - began).total_seconds() > self._config.record_seconds:
                    log.critical("conversation's end not stored", attempt_id=self._attempt.id)
                    return
                await self._clock.sleep(delay)
                delay = min(delay * 2, 10.0)

    # --- measures ----------------------------------------------------------------------------------------------

    def _note_first_byte(self) -> None:
        now = self._clock.now()
        if self._first_prompt_ms is None:
            self._first_prompt_ms = _ms(self._opened_at, now)
        if self._hearing.speech_ended_at is not None:
            self._answer_ms.append(_ms(self._hearing.speech_ended_at, now))
            self._hearing.speech_ended_at = None

    def _log_end(self, how: str) -> None:
        frames, heard, answers = self._stream.counts, self._hearing.counts, sorted(self._answer_ms)
        log.info(
            "media stream over",
            attempt_id=self._attempt.id,
            call_sid=self._stream.call_sid,
            how=how,
            ending=self._finished.ending.value if self._finished and self._finished.ending else "",
            seconds=round((self._clock.now() - self._opened_at).total_seconds(), 1),
            frames=frames.audio,
            frames_lost=frames.lost,
            frames_duplicate=frames.duplicate,
            frames_late=frames.late,
            frames_reordered=frames.reordered,
            frames_malformed=frames.malformed,
            utterances=heard.utterances,
            heard=heard.heard,
            unanswered=heard.unanswered,
            late=heard.late,
            unasked=heard.unasked,
            deaf=heard.deaf,
            deaf_because=heard.deaf_because,
            events_dropped=self._dropped_events,
            first_prompt_ms=self._first_prompt_ms,
            answer_ms_median=answers[len(answers) // 2] if answers else None,
            answer_ms_max=answers[-1] if answers else None,
        )


def _streams(attempt: Attempt) -> int:
    return StreamPass.parse(attempt.stream_token).streams


def _ms(earlier: datetime, later: datetime) -> int:
    return round((later - earlier).total_seconds() * 1000)


def _flat(failures: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    flat: list[BaseException] = []
    for failure in failures.exceptions:
        flat += _flat(failure) if isinstance(failure, BaseExceptionGroup) else [failure]
    return flat


def _place(failure: BaseException) -> str:
    """The failure's class and the place in our code, never its text, which may quote the patient."""
    trace = failure.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    return type(failure).__name__ + where
