"""The unpleasant behaviours of real providers, each with the chance that it happens. Seeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from random import Random

from careflow.errors import CareflowError


class BadFaults(CareflowError):
    """The faults are not usable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The chance (0 to 1) of each fault, per occasion. The speech faults are read by the lab's ElevenLabs side."""

    # the telephone provider's REST API
    lost_create_response: float = 0.0  # the call is made, but the answer is a 500 or the connection is cut
    create_429: float = 0.0  # 20429, nothing was done
    create_500: float = 0.0  # a 500, nothing was done
    # its webhooks
    duplicate_callback: float = 0.0  # delivered twice
    out_of_order_callback: float = 0.0  # delivered after the next one
    delayed_callback: float = 0.0  # delivered up to ten seconds late
    # its media streams
    missing_stop: float = 0.0  # per stream: the socket breaks without `stop`
    late_media: float = 0.0  # per second of a stream: frames are held back and arrive in a bunch
    dropped_frame: float = 0.0  # per frame: one never arrives
    # the speech provider's text-to-speech, per request
    speech_429: float = 0.0
    speech_500: float = 0.0
    speech_cut: float = 0.0  # the connection breaks in the middle of the sound
    # and its speech-to-text
    stt_rate_limited: float = 0.0  # per session: refused
    late_transcript: float = 0.0  # per commit: three to eight seconds late
    duplicate_transcript: float = 0.0  # per commit: comes twice
    tripled_words: float = 0.0  # per commit: "yes yes yes"
    empty_transcript: float = 0.0  # per commit: nothing was understood
    transcriber_error: float = 0.0  # per commit: an error and the socket's end
    speech_disconnect: float = 0.0  # per second of audio: the socket breaks
    unknown_message: float = 0.0  # per second of audio: a message of a type that nobody knows

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: object) -> Faults:
        """The faults named in a JSON object of chances; the others never happen. Raises BadFaults."""
        if not isinstance(document, Mapping):
            raise BadFaults("faults: a JSON object of name -> chance is accepted")
        known = {field.name for field in fields(cls)}
        for name, chance in document.items():
            if name not in known:
                raise BadFaults(f"faults: {name!r} is not one of {', '.join(sorted(known))}")
            if isinstance(chance, bool) or not isinstance(chance, (int, float)) or not 0 <= chance <= 1:
                raise BadFaults(f"faults: {name} is {chance!r}: a number from 0 to 1 is accepted")
        return cls(**{name: float(chance) for name, chance in document.items()})


class FaultSource:
    """Decides whether a fault happens now. `chances` may be replaced at any time."""

    def __init__(self, rng: Random, chances: Faults | None = None) -> None:
        self._rng = rng
        self.chances = chances or Faults()

    def happens(self, name: str) -> bool:
        """Whether the fault with this name happens on this occasion."""
        chance: float = getattr(self.chances, name)
        # No draw for an impossible fault: switching one on does not change when the others happen.
        return chance > 0 and self._rng.random() < chance

    def seconds(self, lowest: float, highest: float) -> float:
        """How long something is held back."""
        return self._rng.uniform(lowest, highest)
