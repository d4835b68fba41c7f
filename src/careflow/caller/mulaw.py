"""G.711 mu-law as it crosses the bridge: 8 kHz mono, one byte a sample (ITU-T G.711 table 2)."""

from __future__ import annotations

RATE_HZ = 8000
BYTES_PER_MS = RATE_HZ // 1000
FRAME_BYTES = 20 * BYTES_PER_MS  # one Twilio media message
_LOUDNESS = bytes(127 - (byte & 0x7F) for byte in range(256))


def silence(ms: int) -> bytes:
    """So many milliseconds of silence."""
    return b"\xff" * (ms * BYTES_PER_MS)


def duration_ms(audio: bytes) -> float:
    """How long the audio lasts, in milliseconds."""
    return len(audio) / BYTES_PER_MS


def level(audio: bytes) -> float:
    """How loud the audio is, from 0 (silence) to 127 (full scale); 0 when there is none.

    It is the mean of the mu-law steps without their sign. The scale is logarithmic: sixteen steps are 6 dB, speech on a
    telephone is mostly between 30 and 90, the noise of a quiet line below 15.
    """
    return sum(audio.translate(_LOUDNESS)) / len(audio) if audio else 0.0
