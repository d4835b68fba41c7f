"""What the bridge's tests share: a small questionnaire, a desk, an ear that reads bytes, a telephone that plays."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from careflow.caller.media_protocol import FRAME_MS
from careflow.clock import VirtualClock
from careflow.core.attempts import Attempt, AttemptState, Ending
from careflow.core.checkins import AlertKind, CheckIn
from careflow.core.conversation import (
    Await,
    BargedIn,
    DeafNow,
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
from careflow.errors import ProviderError, StoreUnavailable
from careflow.ports import Listening, Transcript

MORNING = datetime(2026, 3, 2, 13, 0, tzinfo=UTC)
STREAM, CALL, TOKEN = "MZ" + "0" * 32, "CA" + "0" * 32, "secret-1"
QUESTIONS = ("Question one", "Question two")
GOODBYE = "Goodbye and take care"
EMERGENCY = "Please call the emergency number now"
QUIET = b"\xff" * 160


def attempt(**changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "id": "call1-1",
        "hospital_id": "h1",
        "round_id": "r1",
        "call_id": "call1",
        "patient_id": "p1",
        "number": 1,
        "phone": "+12125550123",
        "script": "morning",
        "stream_token": TOKEN,
        "intended_at": MORNING,
        "not_after": MORNING,
        "state": AttemptState.ANSWERED,
        "call_sid": CALL,
    }
    return Attempt(**{**fields, **changes})


class Questionnaire:
    """A dialogue small enough to be seen right: it asks, listens, asks once again, and says goodbye."""

    def __init__(self, trace: list[object], checkpoint: str = "") -> None:
        self.trace = trace
        self.asked = int(checkpoint or 0)
        self.answers: list[str] = []
        self.reasks = 0
        self.deaf = False
        self.last: Say | None = None
        self.ending: Ending | None = None
        self.says = 0

    def step(self, event: Event, now: datetime) -> Sequence[Effect]:
        self.trace.append(event)
        effects = list(self._effects(event))
        for effect in effects:
            self.trace.append(effect)
        return effects

    def checkpoint(self) -> str:
        return str(self.asked)

    def check_in(self, attempt: Attempt, ended_at: datetime) -> CheckIn | None:
        return None

    def _effects(self, event: Event) -> list[Effect]:
        match event:
            case HungUp():
                return [Finished(Ending.HUNG_UP)]
            case Started() | Resumed():
                return [self._ask()]
            case MachineAnswered(ready) if ready:
                return [StopSpeaking(), self._part("Please call us back", Ending.DECLINED)]
            case Heard(text, late) if late:
                return self._red_flag() if "PAIN" in text else []
            case _ if self.ending is not None:
                spoken = isinstance(event, Spoken) and self.last and event.mark == self.last.mark
                return [Finished(self.ending)] if spoken else []
            case Spoken(mark) if self.last and mark == self.last.mark:
                return [Await(mark, 6.0)]
            case BargedIn():
                return [StopSpeaking(), Await("barged", 6.0)]
            case Heard(text) if "PAIN" in text:
                return self._red_flag()
            case Heard("") | Waited():
                self.reasks += 1
                if self.reasks > 4:
                    return [self._part("We will try later", Ending.NOT_UNDERSTOOD)]
                return [self._ask()]
            case Heard(text):
                return self._answered(text)
            case Pressed(digit):
                return [StopSpeaking(), *self._answered(digit)]
            case DeafNow():
                self.deaf = True
        return []

    def _answered(self, text: str) -> list[Effect]:
        self.answers.append(text)
        self.asked += 1
        if self.asked < len(QUESTIONS):
            return [Save(), self._ask()]
        return [Save(), self._part(GOODBYE, Ending.COMPLETE)]

    def _red_flag(self) -> list[Effect]:
        return [
            StopSpeaking(),
            RaiseAlert(AlertKind.RED_FLAG, "chest-pain"),
            Save(),
            self._part(EMERGENCY, Ending.ESCALATED),
        ]

    def _ask(self) -> Say:
        return self._say(QUESTIONS[self.asked] + (", by key" if self.deaf else ""))

    def _part(self, text: str, ending: Ending) -> Say:
        self.ending = ending
        return self._say(text)

    def _say(self, text: str) -> Say:
        self.says += 1
        self.last = Say(f"m{self.says}", text, "en")
        return self.last


class FakeDesk:
    """Keeps what it is told, in one trace with the wire; refuses as often as it is told to."""

    def __init__(self, clock: VirtualClock, trace: list[object], *, stored: Attempt | None = None) -> None:
        self.clock = clock
        self.trace = trace
        self.stored = stored or attempt()
        self.token = TOKEN
        self.alert_seconds = 0.0
        self.save_seconds = 0.0
        self.refusals: deque[str] = deque()
        self.ends: list[object] = []
        self.kept_at: list[datetime] = []
        self.handed_over: list[str] = []
        self.left_alerts: list[tuple[AlertKind, str]] = []
        self.changed = asyncio.Event()

    def change(self, stored: Attempt) -> None:
        self.stored = stored
        self.changed.set()

    async def changes(self, attempt_id: str, after_version: int = -1) -> AsyncIterator[Attempt]:
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield self.stored

    async def stream_started(self, attempt_id: str, token: str, call_sid: str) -> Attempt | None:
        if attempt_id != self.stored.id or token != self.token:
            return None
        self.token = ""
        return self.stored

    async def checkpoint(self, attempt_id: str, text: str, *, stream: int) -> bool:
        self._refuse("checkpoint")
        await self.clock.sleep(self.save_seconds)
        self.trace.append(("saved", text))
        return True

    async def keep(self, attempt_id: str, *, stream: int) -> bool:
        self._refuse("keep")
        self.kept_at.append(self.clock.now())
        return True

    async def hand_over(self, attempt_id: str, text: str, *, stream: int) -> bool:
        self._refuse("hand over")
        self.handed_over.append(text)
        return True

    async def raise_alert(self, attempt_id: str, kind: AlertKind, code: str) -> None:
        self._refuse("alert")
        await self.clock.sleep(self.alert_seconds)
        self.trace.append(("alert stored", kind, code))

    async def conversation_over(
        self,
        attempt_id: str,
        finished: Finished,
        check_in: CheckIn | None,
        alerts: Sequence[tuple[AlertKind, str]],
        *,
        stream: int,
    ) -> None:
        self._refuse("over")
        self.left_alerts = list(alerts)
        self.trace.append(("over", finished.ending))
        self.ends.append(finished.ending)

    async def conversation_broken(
        self,
        attempt_id: str,
        check_in: CheckIn | None,
        alerts: Sequence[tuple[AlertKind, str]] = (),
        *,
        stream: int,
    ) -> None:
        self.trace.append("broken")
        self.ends.append("broken")

    async def stream_lost(self, attempt_id: str, *, stream: int) -> None:
        self.ends.append("lost")

    def _refuse(self, what: str) -> None:
        if self.refusals and self.refusals[0] == what:
            self.refusals.popleft()
            raise StoreUnavailable


def spoken_by_patient(text: str, *, seconds: float = 0.6) -> list[bytes]:
    """Frames of a patient's words: loud, and legible only when every one of them arrives once and in order."""
    count = round(seconds * 1000 / FRAME_MS)
    return [f"{i}/{count} {text}".encode().ljust(160, b"\x00") for i in range(count)]


def words_in(audio: bytes) -> str:
    """The words of the frames, "" for silence, "GARBLED" when a frame is missing, doubled or moved."""
    frames = [audio[i : i + 160] for i in range(0, len(audio), 160)]
    loud = [frame.rstrip(b"\x00").decode() for frame in frames if frame != QUIET]
    if not loud:
        return ""
    numbers, texts = zip(*(frame.split(" ", 1) for frame in loud), strict=True)
    count = len(numbers)
    whole = list(numbers) == [f"{i}/{count}" for i in range(count)] and len(set(texts)) == 1
    return texts[0] if whole else "GARBLED"


class FakeListening:
    def __init__(self, speech: FakeSpeech) -> None:
        self._speech = speech
        self._audio = b""
        self._out: asyncio.Queue[Transcript | ProviderError] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, audio: bytes) -> None:
        self._audio += audio
        self._speech.bytes_heard += len(audio)
        if self._speech.chatter:
            self._out.put_nowait(Transcript("yes", final=False))

    async def commit(self) -> None:
        self._speech.commits += 1
        text, self._audio = words_in(self._audio), b""
        delays = self._speech.final_delays.popleft() if self._speech.final_delays else (0.3,)
        for delay in delays:
            task = asyncio.ensure_future(self._later(delay, text))
            self._tasks.add(task)

    async def _later(self, delay: float, text: str) -> None:
        await self._speech.clock.sleep(delay)
        self._out.put_nowait(Transcript(text, final=True))

    def says(self, text: str) -> None:
        """A final text without a commit of ours."""
        self._out.put_nowait(Transcript(text, final=True))

    def die(self) -> None:
        self._out.put_nowait(ProviderError("gone", code="quota_exceeded", permanent=True))

    async def transcripts(self) -> AsyncIterator[Transcript]:
        while True:
            item = await self._out.get()
            if isinstance(item, ProviderError):
                raise item
            yield item

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._speech.closed += 1


class FakeSpeech:
    """Says words as their own bytes, a second for ten letters; hears what `spoken_by_patient` said.

    `final_delays` holds for each commit when its final text comes, in seconds: once, repeatedly, or (empty) never.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.final_delays: deque[Sequence[float]] = deque()
        self.chatter = False
        self.listen_error: ProviderError | None = None
        self.say_errors: deque[ProviderError] = deque()
        self.listenings: list[FakeListening] = []
        self.bytes_heard = 0
        self.commits = 0
        self.closed = 0

    async def say(self, text: str, language: str) -> bytes:
        if self.say_errors:
            raise self.say_errors.popleft()
        return text.encode().ljust(800 * len(text), b"\x7f")

    async def listen(self, language: str) -> Listening:
        if self.listen_error is not None:
            raise self.listen_error
        self.listenings.append(FakeListening(self))
        return self.listenings[-1]


class Telephone:
    """Twilio's end of the socket with a patient at it, on virtual time: plays, returns marks, sends a frame every 20 ms.

    `played` is what the patient heard, as (text, whole); `answer` maps a prompt's text to the patient's frames or keys.
    """

    def __init__(self, clock: VirtualClock, send: Any, trace: list[object]) -> None:
        self.clock = clock
        self.send_text = send
        self.trace = trace
        self.answers: dict[str, Any] = {}
        self.speaking: deque[bytes] = deque()
        self.heard: list[tuple[str, bool]] = []
        self.lose: set[int] = set()
        self.double: set[int] = set()
        self.swap: set[int] = set()
        self.returns_marks = True
        self.most_queued_seconds = 0.0
        self._queue: deque[tuple[str, float] | str] = deque()
        self._sequence = 1
        self._text = ""

    async def send(self, **frame: Any) -> None:
        self._sequence += 1
        await self.send_text(
            json.dumps({"sequenceNumber": str(self._sequence), "streamSid": STREAM, **frame})
        )

    async def connect(self, **parameters: str) -> None:
        await self.send_text(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await self.send(
            event="start",
            start={
                "streamSid": STREAM,
                "accountSid": "AC" + "0" * 32,
                "callSid": CALL,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"attempt": "call1-1", "token": TOKEN, **parameters},
            },
        )

    def take(self, text: str) -> None:
        """One frame from the bridge."""
        frame = json.loads(text)
        assert set(frame) <= {"event", "streamSid", "media", "mark"}
        assert frame["streamSid"] == STREAM
        match frame["event"]:
            case "media":
                audio = base64.b64decode(frame["media"]["payload"], validate=True)
                self.trace.append(("media", words_of(audio)))
                self._queue.append((words_of(audio), len(audio) / 8000))
                queued = sum(item[1] for item in self._queue if isinstance(item, tuple))
                self.most_queued_seconds = max(self.most_queued_seconds, queued)
            case "mark":
                self._queue.append(frame["mark"]["name"])
            case "clear":
                self.trace.append("clear")
                if self._text:
                    self.heard.append((self._text, False))
                self._text = ""
                self._queue = deque(item for item in self._queue if isinstance(item, str))
            case other:
                raise AssertionError(f"Twilio knows no {other}")

    async def live(self) -> None:
        """Play and speak until cancelled."""
        began, frames, playing_left = self.clock.now(), 0, 0.0
        while True:
            await self.clock.sleep(FRAME_MS / 1000)
            due = int((self.clock.now() - began).total_seconds() * 1000 / FRAME_MS)
            while frames < due:
                frames += 1
                playing_left = await self._play(playing_left)
                await self._speak(frames)

    async def _play(self, left: float) -> float:
        left -= FRAME_MS / 1000
        while left <= 1e-9 and self._queue:
            item = self._queue.popleft()
            if isinstance(item, tuple):
                self._text += item[0]
                left = max(left, 0.0) + item[1]
            elif self.returns_marks:
                text, self._text = self._text, ""
                if text:
                    self.heard.append((text, True))
                    await self._react(text)
                await self.send(event="mark", mark={"name": item})
        return max(left, 0.0)

    async def _react(self, text: str) -> None:
        answer = self.answers.get(text)
        if isinstance(answer, list) and answer and not isinstance(answer[0], bytes):
            answer = answer.pop(0)
        if isinstance(answer, str):
            await self.send(event="dtmf", dtmf={"track": "inbound_track", "digit": answer})
        elif answer:
            self.speaking.extend([QUIET] * 20 + answer)

    async def _speak(self, number: int) -> None:
        audio = self.speaking.popleft() if self.speaking else QUIET
        if number in self.lose:
            return
        if number in self.swap:
            self._held = (number, audio)
            return
        await self._media(number, audio)
        if number in self.double:
            await self._media(number, audio)
        if number - 1 in self.swap:
            await self._media(*self._held)

    async def _media(self, number: int, audio: bytes) -> None:
        await self.send(
            event="media",
            media={
                "track": "inbound",
                "chunk": str(number),
                "timestamp": str((number - 1) * FRAME_MS),
                "payload": base64.b64encode(audio).decode(),
            },
        )


def words_of(audio: bytes) -> str:
    """The words that this piece of our own voice begins with; "" in the middle of a prompt."""
    return audio.rstrip(b"\x7f").decode()
