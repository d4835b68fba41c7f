"""Where the patient's speech begins and ends: our own decision, on the energy of the audio and in media time.

The speech-to-text vendor's partial transcripts are no evidence of speech (they come in silence too) and its own voice
detection is slow (reference/elevenlabs section 6.4), so the end of speech is found here and committed by hand.
Everything is measured by the frames' own timestamps: a bunch of frames after a network stall changes nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto


class Edge(Enum):
    """What a frame changed."""

    SPEECH_STARTED = auto()
    BARGED_IN = auto()  # enough speech over our own prompt to give way to it; follows SPEECH_STARTED
    SPEECH_ENDED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """All times in milliseconds of media time. `voiced_level` is a value of `mulaw.level` for one frame."""

    voiced_level: float = 18.0  # above the noise of a quiet line (15), below a faint voice (20)
    above_noise: float = 12.0  # and so far above the line's own noise
    noise_rise_per_s: float = 4.0  # how fast lasting sound becomes noise; speech pauses long before that
    start_frames: int = 3  # this many voiced frames ...
    start_window: int = 5  # ... among the last so many begin speech
    end_silence_ms: int = 600
    barge_in_ms: int = 200  # voiced time over a playing prompt
    longest_ms: int = 20_000  # a commit is due at the latest after so long (elevenlabs section 6.4)


class Endpointer:
    """Feed it every frame in order; it says where speech starts and ends. Holds no audio and reads no clock."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._noise = 0.0
        self._recent: deque[bool] = deque(maxlen=config.start_window)
        self._speaking = False
        self._started_at = 0
        self._last_voiced = 0
        self._over_prompt_ms = 0
        self._barged_in = False

    @property
    def speaking(self) -> bool:
        return self._speaking

    @property
    def voiced(self) -> bool:
        """Whether any of the last few frames was voiced: in speech, that a word is not over yet."""
        return any(self._recent)

    def feed(self, timestamp_ms: int, duration_ms: int, level: float, *, prompt_playing: bool) -> list[Edge]:
        """The edges at this frame, in order. `prompt_playing` says whether our own voice is in the patient's ear now."""
        voiced = self._is_voiced(level, duration_ms)
        self._recent.append(voiced)
        now = timestamp_ms + duration_ms
        if voiced:
            self._last_voiced = now
        edges: list[Edge] = []
        if not self._speaking:
            if not voiced or sum(self._recent) < self._config.start_frames:
                return edges
            self._begin(now, sum(self._recent) * duration_ms if prompt_playing else 0)
            edges.append(Edge.SPEECH_STARTED)
        elif voiced and prompt_playing:
            self._over_prompt_ms += duration_ms
        if not self._barged_in and prompt_playing and self._over_prompt_ms >= self._config.barge_in_ms:
            self._barged_in = True
            edges.append(Edge.BARGED_IN)
        silent_for = now - self._last_voiced
        if silent_for >= self._config.end_silence_ms or now - self._started_at >= self._config.longest_ms:
            self._speaking = False
            self._recent.clear()
            edges.append(Edge.SPEECH_ENDED)
        return edges

    def _is_voiced(self, level: float, duration_ms: int) -> bool:
        """Above the line's noise: its quietest moments, forgotten slowly. A television must not talk for the patient for ever."""
        self._noise = min(level, self._noise + self._config.noise_rise_per_s * duration_ms / 1000)
        return level >= max(self._config.voiced_level, self._noise + self._config.above_noise)

    def _begin(self, now: int, over_prompt_ms: int) -> None:
        self._speaking = True
        self._started_at = now
        self._over_prompt_ms = over_prompt_ms
        self._barged_in = False
