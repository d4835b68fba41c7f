"""One telephone call from its dialling to its end: the network, the far end, the TwiML and the media stream together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urljoin

from careflow.clock import wait_until
from careflow.lab.books import BookedCall, Books
from careflow.lab.faults import FaultSource
from careflow.lab.handset import AnsweringMachine, Handset, Terminal
from careflow.lab.media import MediaStream, StreamFailed, StreamProtocol
from careflow.lab.orders import CreateOrder, Hook
from careflow.lab.personas import Patient, Persona, Subscriber
from careflow.lab.playback import Playback
from careflow.lab.recording import record
from careflow.lab.twiml import Gather, Hangup, Pause, Redirect, Say, Stream, TwimlError, Verb, parse_twiml
from careflow.lab.voice import Voice
from careflow.lab.webhooks import Answer, CallbackLine, Webhooks
from careflow.ports import Clock

_FRAME_SECONDS = 0.02
_MAX_DOCUMENTS = 50  # of one call: a redirect that never ends is cut
_SIP = {"busy": 486, "no-answer": 480, "failed": 404, "canceled": 487, "completed": 200}
_GREETING = {
    "en": "Hello, nobody can take your call now. Please leave a message after the tone.",
    "es": "Hola, ahora no podemos atender su llamada. Por favor deje un mensaje después del tono.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What all calls of one lab share."""

    account_sid: str
    books: Books
    clock: Clock
    webhooks: Webhooks
    faults: FaultSource
    voice: Voice
    recordings: Path
    new_id: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Document:
    """TwiML and the URL it came from, against which relative ones are resolved."""

    text: str
    url: str


class LiveCall:
    """A call that is not over. `run` carries it to its end; the other methods may be called at any time meanwhile."""

    def __init__(
        self,
        network: Network,
        call: BookedCall,
        order: CreateOrder,
        *,
        subscriber: Subscriber | None,
        engaged: bool,
        rng: Random,
    ) -> None:
        self._network = network
        self._books = network.books
        self._clock = network.clock
        self._call = call
        self._order = order
        self._subscriber = subscriber
        self._engaged = engaged  # the number is on the telephone already
        self._rng = rng
        self._over = asyncio.Event()
        self._callbacks = CallbackLine(network.webhooks, network.clock, network.faults, self._callback_failed)
        self._playback = Playback()
        self._stream: MediaStream | None = None
        self._script: asyncio.Task[None] | None = None
        self._digits = ""
        self._key_came = asyncio.Event()
        self._seconds = order.time_limit
        self._documents = 0
        self._error: BaseException | None = None

    # --- from outside ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Dial, ring, talk, end; returns when the last callback was delivered.

        Cancelled, it leaves the call in the books as it is: the next start settles it.
        """
        try:
            if await self._rings_through():
                await self._talk()
        except asyncio.CancelledError:
            self._callbacks.drop()
            raise
        self._ended()
        await self._callbacks.drained()
        if self._error is not None:
            raise self._error

    async def settle(self, by: str) -> None:
        """End a call that was cut off when the lab was, and tell our server."""
        self.end(by)
        self._ended()
        await self._callbacks.drained()

    def end(self, by: str, status: str = "") -> None:
        """Over, because of `by`; booked at once. Does nothing when it was over."""
        call = self._call
        if not call.over:
            if not status:
                status = (
                    "completed" if call.status == "in-progress" else "failed" if by == "lab" else "canceled"
                )
            sip = _SIP[status] if by != "lab" else 500
            self._enter("status", status=status, by=by, sip=sip)
        self._over.set()

    def redirect(self, voice: Hook | None, twiml: str) -> None:
        """Replace what the call is doing by another document (reference/twilio section 1.3)."""
        old = self._script
        if old is not None:
            old.cancel()
        self._playback.clear()
        self._script = self._begin(self._run_script(voice or Document(twiml, ""), after=old))

    def limit(self, seconds: int) -> None:
        """End the call `seconds` after it was answered."""
        self._seconds = seconds

    # --- ringing -----------------------------------------------------------------------------------------------

    async def _rings_through(self) -> bool:
        """Whether somebody or something picked up."""
        who = self._subscriber
        persona = who.persona if who else Persona.NOT_ANSWERING
        late = who is not None and self._books.times_dialled(self._call.to) + 1 < who.answers_on_attempt
        self._status("initiated", persona=persona.value if who else "")
        if await self._wait(self._rng.uniform(0.8, 2.5)):
            return False
        if persona is Persona.INVALID_NUMBER:
            self.end("network", "failed")
            return False
        if persona is Persona.BUSY or self._engaged:
            self.end("network", "busy")
            return False
        self._status("ringing")
        machine = persona is Persona.VOICEMAIL
        picks_up = self._rng.uniform(12.0, 18.0) if machine else self._rng.uniform(2.0, 9.0)
        answers = persona is not Persona.NOT_ANSWERING and not late and picks_up < self._order.ring_seconds
        if await self._wait(picks_up if answers else self._order.ring_seconds):
            return False
        if not answers:
            self.end("network", "no-answer")
        return answers

    async def _wait(self, seconds: float) -> bool:
        """Let time pass; whether the call ended meanwhile."""
        return await wait_until(self._clock, seconds, self._over)

    # --- talking -----------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        self._status("in-progress", "answered")
        terminal = self._pick_up()
        order = self._order
        sound = self._begin(self._carry_sound(terminal, self._clock.now()))
        detection = None
        if order.machine_detection and order.async_amd:
            detection = self._begin(self._detect(terminal))
        self._script = self._begin(
            self._run_script(
                order.voice or Document(order.twiml, ""),
                detect=terminal if order.machine_detection and not order.async_amd else None,
            )
        )
        try:
            await self._over.wait()
            self._script.cancel()
            await asyncio.wait([sound])  # to its end: it writes the recording
        finally:
            tasks = [task for task in (sound, detection, self._script) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a part of the call; when it breaks, so does the call."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
            self.end("lab")

    def _pick_up(self) -> Terminal:
        who, voice = self._subscriber, self._network.voice
        assert who is not None, "a number without a subscriber is never answered"
        if who.persona is Persona.VOICEMAIL:
            return AnsweringMachine(voice.speak(_GREETING[who.language], voice="mailbox"))
        return Handset(Patient(who, self._rng), voice, self._rng, voice_name=f"patient {who.seed % 2}")

    async def _carry_sound(self, terminal: Terminal, start: datetime) -> None:
        """Move audio both ways, 50 frames a second of the clock, all that are due at each waking."""
        agent, patient = bytearray(), bytearray()
        done = 0
        playback = self._playback
        while not self._over.is_set():
            await self._clock.sleep(_FRAME_SECONDS)
            due = int((self._clock.now() - start).total_seconds() / _FRAME_SECONDS)
            stream = self._stream
            for _ in range(due - done):
                played, marks = playback.pull()
                spoken = terminal.step(played)
                agent += played
                patient += spoken
                if stream is not None:
                    if marks:
                        stream.marks(marks)
                    stream.frame(spoken)
                if terminal.pressed:
                    self._pressed(terminal, stream)
                if terminal.hung_up:
                    break
            done = due
            if terminal.notes:
                self._note(terminal)
            if stream is not None:
                await stream.flush()
            if terminal.hung_up:
                self.end("patient")
            elif done * _FRAME_SECONDS >= self._seconds:
                self.end("network")
        terminal.cut()
        self._note(terminal)
        (self._network.recordings / f"{self._call.sid}.wav").write_bytes(record(bytes(agent), bytes(patient)))
        self._enter("recorded", seconds=round(len(agent) / 8000))

    def _pressed(self, terminal: Terminal, stream: MediaStream | None) -> None:
        for digit in terminal.pressed:
            if stream is not None:
                stream.key(digit)
            else:
                self._digits += digit
                self._key_came.set()
        terminal.pressed.clear()

    def _note(self, terminal: Terminal) -> None:
        for note in terminal.notes:
            self._enter(note.kind, text=note.text)
        terminal.notes.clear()

    # --- answering-machine detection (reference/twilio section 7) --------------------------------------------------

    async def _detect(self, terminal: Terminal) -> None:
        """The verdict, when it is known; told to our server when it asked for that."""
        began = self._clock.now()
        verdict = await self._verdict(terminal, float(self._order.machine_detection_timeout))
        self._enter("answered-by", verdict=verdict)
        if self._order.amd is not None:
            took = round((self._clock.now() - began).total_seconds() * 1000)
            self._callbacks.send(
                "amd",
                self._order.amd,
                {
                    "AccountSid": self._network.account_sid,
                    "CallSid": self._call.sid,
                    "AnsweredBy": verdict,
                    "MachineDetectionDuration": str(took),
                },
            )

    async def _verdict(self, terminal: Terminal, limit: float) -> str:
        if terminal.machine_ready() is None:
            verdict, seconds = "human", self._rng.uniform(2.0, 4.0)
        elif self._order.machine_detection == "Enable":
            verdict, seconds = "machine_start", self._rng.uniform(2.6, 4.5)
        else:
            waited = 0.0
            while not terminal.machine_ready() and waited < limit:
                await self._clock.sleep(0.2)
                waited += 0.2
            return "machine_end_beep" if terminal.machine_ready() else "unknown"
        await self._clock.sleep(min(seconds, limit))
        return verdict if seconds < limit else "unknown"

    # --- TwiML -------------------------------------------------------------------------------------------------

    async def _run_script(
        self,
        source: Hook | Document,
        *,
        after: asyncio.Task[None] | None = None,
        detect: Terminal | None = None,
    ) -> None:
        """Carry out documents until there is nothing left to do, then hang up."""
        if after is not None:
            await asyncio.wait([after])
        if detect is not None:
            await self._detect(detect)
        fallback = self._order.fallback
        step: Hook | Document | None = source
        extra: dict[str, str] = {}
        while step is not None:
            try:
                document = await self._fetch(step, extra) if isinstance(step, Hook) else step
                step, extra = await self._carry_out(parse_twiml(document.text), document.url)
            except TwimlError as error:
                self._warn(error.code, str(error))
                extra = {"ErrorCode": str(error.code), "ErrorUrl": step.url if step else ""}
                step, fallback = fallback, None
        self.end("agent")

    async def _fetch(self, hook: Hook, extra: dict[str, str]) -> Document:
        self._documents += 1
        if self._documents > _MAX_DOCUMENTS:
            raise TwimlError(f"more than {_MAX_DOCUMENTS} documents were asked for in one call", 11215)
        parameters = self._parameters(self._call.status) | extra
        if self._call.answered_by:
            parameters["AnsweredBy"] = self._call.answered_by
        answer = await self._network.webhooks.ask(hook, parameters)
        if answer.error:
            raise TwimlError(f"the document could not be fetched: {answer.error}", 11200)
        if answer.content_type.partition(";")[0].strip() not in ("text/xml", "application/xml", "text/html"):
            raise TwimlError(f"the content type {answer.content_type!r} is not text/xml", 12300)
        return Document(answer.text, hook.url)

    async def _carry_out(self, verbs: list[Verb], base: str) -> tuple[Hook | None, dict[str, str]]:
        """Do the verbs in order; where to go on, and what is told there."""
        for verb in verbs:
            match verb:
                case Say() | Pause():
                    await self._prompt(verb)
                case Stream():
                    await self._connect(verb)
                    if verb.action is not None:
                        return _resolved(verb.action, base), {}
                case Gather():
                    digits = await self._gather(verb)
                    if digits or verb.action_on_empty:
                        action = verb.action or Hook(base)
                        return _resolved(action, base), {"Digits": digits, "msg": "Gather End"}
                case Redirect(hook):
                    return _resolved(hook, base), {}
                case Hangup():
                    return None, {}
        return None, {}

    async def _prompt(self, verb: Say | Pause) -> None:
        if isinstance(verb, Pause):
            await self._clock.sleep(verb.seconds)
            return
        audio = self._network.voice.speak(verb.text, voice="provider") * max(1, verb.loop)
        self._playback.push(audio)
        await self._clock.sleep(len(audio) / 8000 + 0.2)

    async def _gather(self, verb: Gather) -> str:
        self._digits = ""
        self._key_came.clear()
        prompts = asyncio.ensure_future(self._prompts(verb))
        try:
            await asyncio.wait(
                [prompts, waiter := asyncio.ensure_future(self._key_came.wait())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            waiter.cancel()
        finally:
            prompts.cancel()
        if self._digits:
            self._playback.clear()  # a key stops the prompt
        while True:
            self._key_came.clear()
            digits, found, _ = (
                self._digits.partition(verb.finish_on_key) if verb.finish_on_key else (self._digits, "", "")
            )
            if found or (verb.digits and len(digits) >= verb.digits):
                return digits[: verb.digits] if verb.digits else digits
            if not await wait_until(self._clock, verb.timeout, self._key_came):
                return self._digits

    async def _prompts(self, verb: Gather) -> None:
        for prompt in verb.prompts:
            await self._prompt(prompt)

    async def _connect(self, verb: Stream) -> None:
        """Run the stream until our server closes it; the next verb is what happens then, also after a crash of our server."""
        network = self._network
        sid = "MZ" + network.new_id()
        protocol = StreamProtocol(
            account_sid=network.account_sid,
            call_sid=self._call.sid,
            stream_sid=sid,
            playback=self._playback,
            warn=self._warn,
        )
        signature = network.webhooks.signature(verb.url, {})
        try:
            stream = await MediaStream.open(verb, protocol, self._playback, network.faults, signature)
        except StreamFailed as error:
            self._warn(error.code, str(error))
            self._stream_callback(verb, sid, "stream-error", error=str(error))
            return
        self._stream_callback(verb, sid, "stream-started")
        self._stream = stream
        try:
            await stream.closed.wait()
        finally:
            self._stream = None
            await stream.end()
            if protocol.rejected:
                self._enter("stream-rejections", count=protocol.rejected)
            self._stream_callback(verb, sid, "stream-stopped")

    # --- telling our server --------------------------------------------------------------------------------------

    def _stream_callback(self, verb: Stream, sid: str, event: str, error: str = "") -> None:
        if verb.status is None:
            return
        parameters = {
            "AccountSid": self._network.account_sid,
            "CallSid": self._call.sid,
            "StreamSid": sid,
            "StreamName": verb.name or sid,
            "StreamEvent": event,
            "Timestamp": self._clock.now().isoformat(),
        }
        if error:
            parameters["StreamError"] = error
        self._callbacks.send("stream", verb.status, parameters)

    def _status(self, status: str, event: str = "", **details: object) -> None:
        """Book a status and tell our server when it asked for the event."""
        self._enter("status", status=status, **details)
        self._progress(event or status, status)

    def _ended(self) -> None:
        call, order = self._call, self._order
        extra = {}
        if order.record and call.recorded_seconds is not None:
            extra = {
                "RecordingSid": "RE" + call.sid[2:],
                "RecordingUrl": f"/2010-04-01/Accounts/{self._network.account_sid}/Recordings/RE{call.sid[2:]}",
                "RecordingDuration": str(call.recorded_seconds),
            }
            if order.recording_status is not None and "completed" in order.recording_events:
                about = {
                    "AccountSid": self._network.account_sid,
                    "CallSid": call.sid,
                    "RecordingStatus": "completed",
                }
                self._callbacks.send("recording", order.recording_status, about | extra)
        if call.answered_by:
            extra["AnsweredBy"] = call.answered_by
        extra["CallDuration"] = str(call.duration_seconds)
        extra["Duration"] = str(-(-call.duration_seconds // 60))
        extra["SipResponseCode"] = str(call.sip or 200)
        self._progress("completed", call.status, extra)

    def _progress(self, event: str, status: str, extra: dict[str, str] | None = None) -> None:
        order = self._order
        if order.status is None or event not in order.status_events:
            return
        parameters = self._parameters(status) | {
            "Timestamp": format_datetime(self._clock.now()),
            "SequenceNumber": str(self._call.changes - 1),
            "CallbackSource": "call-progress-events",
        }
        self._callbacks.send(event, order.status, parameters | (extra or {}))

    def _parameters(self, status: str) -> dict[str, str]:
        call = self._call
        return {
            "AccountSid": self._network.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": call.sid,
            "CallStatus": status,
            "Called": call.to,
            "Caller": call.from_,
            "Direction": "outbound-api",
            "From": call.from_,
            "To": call.to,
        }

    def _callback_failed(self, what: str, answer: Answer) -> None:
        self._warn(11200, f"the {what} callback failed: {answer.error}")

    def _warn(self, code: int, text: str) -> None:
        self._enter("warning", code=str(code), text=text)

    def _enter(self, kind: str, **details: object) -> None:
        self._books.enter(self._call, self._clock.now(), kind, **details)


def _resolved(hook: Hook, base: str) -> Hook:
    return Hook(urljoin(base, hook.url), hook.method)
