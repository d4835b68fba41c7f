"""The patient's voice: frames in, answers out.

`Utterances` is the pure bookkeeping of which committed text belongs to which speech; `Hearing` is the shell around it that
keeps one speech-to-text session fed. The reader of the socket calls `frame` and is never held up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from careflow.caller.endpointing import Edge, EndpointConfig, Endpointer
from careflow.caller.media_protocol import FRAME_MS, Media
from careflow.caller.mulaw import level
from careflow.core.conversation import BargedIn, DeafNow, Event, Heard
from careflow.errors import ProviderError
from careflow.ports import Clock, Listening, Speech


@dataclass(frozen=True, slots=True, kw_only=True)
class HearingConfig:
    """`final_seconds` is how long the final words of a speech are waited for; `lost_seconds` when they count as never coming."""

    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    batch_frames: int = 5  # 100 ms to speech-to-text at once
    final_seconds: float = 3.0
    lost_seconds: float = 8.0
    backlog_batches: int = 300  # 30 s: a session that is further behind is of no use


@dataclass(slots=True)
class HearingCounts:
    """What became of the patient's speech."""

    utterances: int = 0
    heard: int = 0
    unanswered: int = 0  # no final words in time
    late: int = 0  # words that were said to an earlier prompt
    unasked: int = 0  # words nobody had committed
    deaf: bool = False
    deaf_because: str = ""  # the provider's code


@dataclass(slots=True, eq=False)
class _Utterance:
    question: int  # the prompt that it answers
    interrupted: int | None = None  # a later prompt that gave way to it
    is_cut: bool = False  # the rest of the sentence is heard elsewhere
    committed_at: datetime | None = None
    settled: bool = False  # the dialogue has gone on without its words


class Utterances:
    """Which words belong to which speech. Final texts carry no id, but come in the order of the commits.

    Words that were begun before the present prompt are late: they must not answer its question. So are words that nobody
    committed: a repeat, or half of a long speech that the provider committed by itself. So is the first half of a sentence
    that goes on elsewhere ("no, I have no pain, but"). A commit whose words have not come for `lost` is forgotten, or every
    later answer would be taken for the one before it.
    """

    def __init__(self, lost: timedelta, counts: HearingCounts) -> None:
        self._lost = lost
        self._counts = counts
        self._question = 0
        self._current: _Utterance | None = None
        self._committed: deque[_Utterance] = deque()

    @property
    def pending(self) -> bool:
        """Whether speech that the dialogue waits for goes on, or its words are still to come."""
        return any(item and self._is_owed(item) for item in (self._current, *self._committed))

    def new_prompt(self) -> None:
        self._question += 1

    def started(self) -> None:
        self._counts.utterances += 1
        self._current = _Utterance(self._question)

    def barged_in(self) -> None:
        if self._current is not None:
            self._current.interrupted = self._question

    def ended(self, *, is_cut: bool = False) -> _Utterance | None:
        ended, self._current = self._current, None
        if ended is not None:
            ended.is_cut = is_cut
            self._committed.append(ended)
        return ended

    def forget(self) -> None:
        """The final texts that are still owed will not come: the next one is for the next commit."""
        while self._committed and self._committed[0].committed_at is not None:
            self._committed.popleft().settled = True

    def final(self, text: str, now: datetime) -> list[Event]:
        """The events that a final text makes."""
        while self._committed and self._is_lost(self._committed[0], now):
            self._committed.popleft()
        if not self._committed or self._committed[0].committed_at is None:
            self._counts.unasked += 1
            return [Heard(text, late=True)] if text.strip() else []
        utterance = self._committed.popleft()
        if utterance.question == self._question and not utterance.is_cut:
            # Though given up: nothing was asked since.
            self._counts.heard += 1
            return [Heard(text)]
        self._counts.late += 1
        late: list[Event] = [Heard(text, late=True)] if text.strip() else []
        return late + self._nothing_heard(utterance)

    def give_up(self, utterance: _Utterance) -> list[Event]:
        """Its time is over: the dialogue goes on as if nothing was understood."""
        if utterance.settled or utterance not in self._committed:
            return []
        self._counts.unanswered += 1
        return self._nothing_heard(utterance)

    def _nothing_heard(self, utterance: _Utterance) -> list[Event]:
        is_missed = self._is_owed(utterance) and not utterance.is_cut
        utterance.settled = True
        return [Heard("")] if is_missed else []

    def _is_owed(self, utterance: _Utterance) -> bool:
        return not utterance.settled and self._question in (utterance.question, utterance.interrupted)

    def _is_lost(self, utterance: _Utterance, now: datetime) -> bool:
        return utterance.committed_at is not None and now - utterance.committed_at > self._lost


@dataclass(frozen=True, slots=True)
class _Language:
    """A change of language, in its place between the sounds."""

    code: str


class Hearing:
    """One call's ear. `run` must be running; `tell` gets the events, in order."""

    def __init__(
        self,
        speech: Speech,
        language: str,
        clock: Clock,
        config: HearingConfig,
        *,
        prompt_playing: Callable[[], bool],
        tell: Callable[[Event], None],
    ) -> None:
        self.counts = HearingCounts()
        self.speech_ended_at: datetime | None = None
        self._speech = speech
        self._language = language
        self._clock = clock
        self._config = config
        self._prompt_playing = prompt_playing
        self._tell = tell
        self._endpointer = Endpointer(config.endpoint)
        self._utterances = Utterances(timedelta(seconds=config.lost_seconds), self.counts)
        self._batch: list[bytes] = []
        self._outbox: asyncio.Queue[bytes | _Utterance | _Language] = asyncio.Queue(config.backlog_batches)
        self._overrun = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether an answer is being spoken, or its words are awaited."""
        return not self.counts.deaf and self._utterances.pending

    @property
    def in_mid_word(self) -> bool:
        """Whether the patient was speaking in the very last moment."""
        return self._endpointer.speaking and self._endpointer.voiced

    def new_prompt(self) -> None:
        """A prompt begins: what was said before it does not answer it."""
        self._utterances.new_prompt()

    def listen_in(self, language: str) -> None:
        """From here on the patient is expected to speak `language`; does nothing when that is so already."""
        if language != self._language and not self.counts.deaf:
            self._language = language
            self._put(_Language(language))

    def frame(self, media: Media) -> None:
        """Take one frame. Never blocks."""
        if self.counts.deaf:
            return
        self._batch.append(media.audio)
        edges = self._endpointer.feed(
            media.timestamp_ms,
            len(media.audio) // 8 or FRAME_MS,
            level(media.audio),
            prompt_playing=self._prompt_playing(),
        )
        if Edge.SPEECH_ENDED in edges or len(self._batch) >= self._config.batch_frames:
            self._put(b"".join(self._batch))
            self._batch.clear()
        for edge in edges:
            match edge:
                case Edge.SPEECH_STARTED:
                    self._utterances.started()
                case Edge.BARGED_IN:
                    self._utterances.barged_in()
                    self._tell(BargedIn())
                case Edge.SPEECH_ENDED:
                    self.speech_ended_at = self._clock.now()
                    if (utterance := self._utterances.ended()) is not None:
                        self._put(utterance)

    async def last_words(self, *, cut_off: bool = False) -> None:
        """Nothing more will come: have what was said last understood; returns when it is, or is waited for no more.

        `cut_off` when the patient speaks on and is only not heard here: half a sentence may raise an alert, but answers nothing.
        """
        if self.counts.deaf:
            return
        if (utterance := self._utterances.ended(is_cut=cut_off)) is not None:
            self._put(b"".join(self._batch))
            self._batch.clear()
            self._put(utterance)
        began = self._clock.now()
        while self.busy and (self._clock.now() - began).total_seconds() < self._config.final_seconds:
            await self._clock.sleep(0.05)

    def _put(self, item: bytes | _Utterance | _Language) -> None:
        try:
            self._outbox.put_nowait(item)
        except asyncio.QueueFull:
            self._overrun.set()

    async def run(self) -> None:
        """Listen until cancelled, or until speech-to-text cannot go on: then `DeafNow`, and the call goes on by keypad."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._fail_when_overrun())
                language: str | None = self._language
                while language is not None:
                    language = await self._session(language, group)
        except* ProviderError as failures:
            self.counts.deaf = True
            self.counts.deaf_because = ",".join(_codes(failures))
        self._tell(DeafNow())

    async def _fail_when_overrun(self) -> None:
        await self._overrun.wait()
        raise ProviderError("speech-to-text is too far behind", code="overrun")

    async def _session(self, language: str, group: asyncio.TaskGroup) -> str:
        """Listen in one language until another is asked for: that one. What was said and not yet understood is given up."""
        listening = await self._speech.listen(language)
        receiving = group.create_task(self._receive(listening))
        try:
            while True:
                match await self._outbox.get():
                    case bytes(audio):
                        await listening.send(audio)
                    case _Language(other):
                        self._utterances.forget()
                        return other
                    case utterance:
                        utterance.committed_at = self._clock.now()
                        await listening.commit()
                        group.create_task(self._await_final(utterance))
        finally:
            receiving.cancel()
            await listening.close()

    async def _await_final(self, utterance: _Utterance) -> None:
        await self._clock.sleep(self._config.final_seconds)
        self._tell_all(self._utterances.give_up(utterance))

    async def _receive(self, listening: Listening) -> None:
        async for transcript in listening.transcripts():
            if transcript.final:
                self._tell_all(self._utterances.final(transcript.text, self._clock.now()))
        raise ProviderError("the speech-to-text session ended", code="ended")

    def _tell_all(self, events: list[Event]) -> None:
        for event in events:
            self._tell(event)


def _codes(failures: BaseExceptionGroup[ProviderError]) -> list[str]:
    """The provider's codes, never its words: they can quote the patient."""
    codes = []
    for failure in failures.exceptions:
        codes += _codes(failure) if isinstance(failure, BaseExceptionGroup) else [failure.code]
    return codes
