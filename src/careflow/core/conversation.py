"""What a conversation is fed and what it asks for: the events and effects of `core.dialogue`.

The shell (the media bridge) carries the effects out strictly in order, each to its end before the next begins to take effect:
a `RaiseAlert` is durable before a later `Say` puts its first byte on the wire (invariant 5).
"""

from __future__ import annotations

from dataclasses import dataclass

from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind

# --- events ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The media stream is up: somebody or something picked up."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The media stream is up again after ours broke; the dialogue goes on from its checkpoint."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """The prompt with this mark was played to its end (its mark came back and was not cleared)."""

    mark: str


@dataclass(frozen=True, slots=True)
class Heard:
    """Final words of the patient. May be empty or repeated.

    `late` words were begun before the present prompt: a red flag or a wish in them counts, but they answer nothing.
    """

    text: str
    late: bool = False


@dataclass(frozen=True, slots=True)
class BargedIn:
    """The patient began to speak while a prompt was playing (by our own endpointing)."""


@dataclass(frozen=True, slots=True)
class Pressed:
    """A key: one of 0-9, * and #."""

    digit: str


@dataclass(frozen=True, slots=True)
class Waited:
    """The time of the last `Await` with this mark is over and nothing was heard."""

    mark: str


@dataclass(frozen=True, slots=True)
class MachineAnswered:
    """Answering-machine detection says machine; `ready` when the greeting is over and a message may be left."""

    ready: bool


@dataclass(frozen=True, slots=True)
class DeafNow:
    """Speech-to-text cannot go on: from here on the keypad is all there is."""


@dataclass(frozen=True, slots=True)
class HungUp:
    """The other side hung up, or the call was ended from outside."""


Event = Started | Resumed | Spoken | Heard | BargedIn | Pressed | Waited | MachineAnswered | DeafNow | HungUp

# --- effects ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Speak `text` in `language`, then send `mark`; `Spoken(mark)` comes when it was heard to its end."""

    mark: str
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class StopSpeaking:
    """Drop what is queued or playing; its `Spoken` will not come."""


@dataclass(frozen=True, slots=True)
class Await:
    """Wait at most `seconds` for an answer, then `Waited(mark)`. A new Await or Say replaces it."""

    mark: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RaiseAlert:
    """Store the alert now, before anything else is done. `code` is a symptom code or a question id."""

    kind: AlertKind
    code: str


@dataclass(frozen=True, slots=True)
class Save:
    """Store the dialogue's checkpoint now."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The conversation is over: record it and hang up. `voicemail` when a machine took the call."""

    ending: Ending | None
    voicemail: bool = False
    opted_out_patient: bool = False
    opted_out_number: bool = False


Effect = Say | StopSpeaking | Await | RaiseAlert | Save | Finished
