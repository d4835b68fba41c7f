"""The far end of a telephone call: what it hears is the audio that reached it, what it says is audio again. Pure.

Time is counted in frames of 20 ms: `step` is called once for each with what is played to the ear, and answers what the
microphone picks up. Nothing here reads a clock, and chance comes from the `Random` that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from careflow.lab.mulaw import FRAME_BYTES, SILENCE
from careflow.lab.voice import Ear, Utterance, Voice, mumble

FRAMES_PER_SECOND = 50
_SETTLED = 30  # frames of silence after which a person takes it that the other has finished
_EAR_FINISHES = 40  # and after which words that were cut off are given up
_TONE_FRAMES = 15  # between two keys


@dataclass(frozen=True, slots=True)
class Speak:
    """Say this; `unclear` when it comes out slurred."""

    text: str
    unclear: bool = False


@dataclass(frozen=True, slots=True)
class Press:
    """Press these keys, one after the other."""

    digits: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """Put the handset down, `after` seconds from now unless something is heard before when `patient`."""

    after: float = 0.0


Act = Speak | Press | HangUp


@dataclass(frozen=True, slots=True)
class Note:
    """For the books: `kind` is "heard", "said" or "pressed"."""

    kind: str
    text: str


class Mind(Protocol):
    """Who holds the handset."""

    def react(self, heard: str) -> Sequence[Act]:
        """What is done about these words of the agent, all that were said since the last reaction; called once for them."""
        ...

    def interrupts(self, heard: str) -> bool:
        """Whether to react now although the agent is still speaking."""
        ...

    def silence(self, times: int) -> Sequence[Act]:
        """What is done when nobody has said anything for a while, `times` in a row."""
        ...


class Terminal(Protocol):
    """Whatever picked up."""

    notes: list[Note]
    pressed: list[str]
    hung_up: bool

    def step(self, played: bytes) -> bytes:
        """Hear one frame and give one. `notes` and `pressed` grow; the reader empties them. After `hung_up` the line is dead."""
        ...

    def machine_ready(self) -> bool | None:
        """None for a person; for a machine whether its greeting is over."""
        ...

    def cut(self) -> None:
        """The line is dead: what was heard up to now goes into `notes`."""
        ...


class Handset:
    """A telephone in a person's hand."""

    _IMPATIENCE = 8 * FRAMES_PER_SECOND  # frames of mutual silence before "Hello?"

    def __init__(self, mind: Mind, voice: Voice, rng: Random, *, voice_name: str) -> None:
        self.notes: list[Note] = []
        self.pressed: list[str] = []
        self.hung_up = False
        self._mind = mind
        self._voice = voice
        self._voice_name = voice_name
        self._rng = rng
        self._ear = Ear()
        self._frame = 0
        self._quiet = 0  # frames since the agent made a sound
        self._agent_spoke = False
        self._heard: list[str] = []  # not yet reacted to
        self._react_at: int | None = None
        self._acts: list[Act] = []
        self._act_at = 0
        self._speech = b""
        self._spoken = 0
        self._idle = 0
        self._silences = 0

    def machine_ready(self) -> bool | None:
        return None

    def cut(self) -> None:
        self._ear.feed(SILENCE)
        self._take(self._ear.finish())

    def step(self, played: bytes) -> bytes:
        self._frame += 1
        if played == SILENCE:
            self._listen_to_silence()
        else:
            self._listen(played)
        if self._react_at is not None and self._frame >= self._react_at:
            self._react()
        if self._acts and self._frame >= self._act_at and not self._speech:
            self._act()
        if not self._speech:
            return SILENCE
        frame = self._speech[self._spoken : self._spoken + FRAME_BYTES]
        self._spoken += FRAME_BYTES
        if self._spoken >= len(self._speech):
            self._speech, self._spoken = b"", 0
            self._act_at = self._frame + 10
        return frame

    def _listen(self, played: bytes) -> None:
        self._ear.feed(played)
        self._quiet = self._idle = self._silences = 0
        self._agent_spoke = True
        if self._react_at is not None:
            self._react_at = None  # the agent goes on: wait for the end
        if self._frame % 25 == 0 and not self._acts and not self._speech:
            self._take(self._ear.take())
            so_far = " ".join((*self._heard, self._ear.partial()))
            if self._mind.interrupts(so_far):
                self._take(self._ear.finish())
                self._react()

    def _listen_to_silence(self) -> None:
        self._quiet += 1
        if self._agent_spoke:
            if self._quiet == 1 or self._quiet == _EAR_FINISHES:
                self._ear.feed(SILENCE)
            if self._quiet == _SETTLED:
                self._take(self._ear.take())
            if self._quiet == _EAR_FINISHES:
                self._take(self._ear.finish())
                self._agent_spoke = False
                self._react_at = self._frame + round(self._rng.uniform(0.0, 0.8) * FRAMES_PER_SECOND)
            return
        if self._speech or self._acts or self._react_at is not None:
            self._idle = 0
            return
        self._idle += 1
        if self._idle >= self._IMPATIENCE:
            self._idle = 0
            self._silences += 1
            self._plan(self._mind.silence(self._silences))

    def _take(self, utterances: Sequence[Utterance]) -> None:
        for utterance in utterances:
            if utterance.text:
                self._heard.append(utterance.text)
                self.notes.append(Note("heard", utterance.text))

    def _react(self) -> None:
        self._react_at = None
        heard, self._heard = " ".join(self._heard), []
        self._plan(self._mind.react(heard))

    def _plan(self, acts: Sequence[Act]) -> None:
        self._acts = list(acts)
        if acts:
            first = acts[0]
            self._act_at = self._frame + (
                round(first.after * FRAMES_PER_SECOND) if isinstance(first, HangUp) else 0
            )

    def _act(self) -> None:
        act = self._acts.pop(0)
        match act:
            case Speak(text, unclear):
                self.notes.append(Note("said", text))
                self._speech = self._voice.speak(text, voice=self._voice_name)
                if unclear:
                    self._speech = mumble(self._speech, self._rng)
            case Press(digits):
                self.notes.append(Note("pressed", digits[0]))
                self.pressed.append(digits[0])
                self._act_at = self._frame + _TONE_FRAMES
                if digits[1:]:
                    self._acts.insert(0, Press(digits[1:]))
                    return
            case HangUp():
                self.hung_up = True
        if self._acts and isinstance(self._acts[0], HangUp):
            spoken = len(self._speech) // FRAME_BYTES
            self._act_at = self._frame + spoken + round(self._acts[0].after * FRAMES_PER_SECOND)


class AnsweringMachine:
    """A carrier's mailbox: a greeting, a tone, then it records until nobody speaks, for two minutes at most."""

    def __init__(self, greeting: bytes) -> None:
        self.notes: list[Note] = []
        self.pressed: list[str] = []
        self.hung_up = False
        self._tape = SILENCE * 25 + greeting + SILENCE * 20 + _beep()
        self._frame = 0
        self._frames = len(self._tape) // FRAME_BYTES
        self._ear = Ear()
        self._quiet = 0

    def machine_ready(self) -> bool | None:
        return self._frame >= self._frames

    def cut(self) -> None:
        self._ear.feed(SILENCE)
        self.notes += [Note("heard", utterance.text) for utterance in self._ear.finish() if utterance.text]

    def step(self, played: bytes) -> bytes:
        self._frame += 1
        if played != SILENCE:
            self._ear.feed(played)
            self._quiet = 0
        else:
            self._quiet += 1
            if self._quiet == _EAR_FINISHES:
                self.cut()
        past = self._frame - self._frames
        if past == 0:
            self._quiet = 0  # whoever was silent during the greeting gets the full time for the message
        if past > 120 * FRAMES_PER_SECOND or (past > 0 and self._quiet > 10 * FRAMES_PER_SECOND):
            self.hung_up = True
        if past > 0:
            return SILENCE
        at = (self._frame - 1) * FRAME_BYTES
        return self._tape[at : at + FRAME_BYTES]


def _beep() -> bytes:
    """Half a second of a 1 kHz square tone: eight samples a period."""
    return (b"\x9f" * 4 + b"\x1f" * 4) * (FRAME_BYTES // 8) * 25
