"""G.711 mu-law for the lab: 8 kHz mono, one byte a sample, 160 bytes a frame of 20 ms (ITU-T G.711 table 2)."""

from __future__ import annotations

RATE_HZ = 8000
FRAME_BYTES = 160
SILENCE = b"\xff" * FRAME_BYTES
_BIAS = 132
_CLIP = 32635


def encode_sample(sample: int) -> int:
    """The mu-law byte of one linear 16-bit sample; louder ones are clipped."""
    magnitude = min(abs(sample), _CLIP) + _BIAS
    exponent = magnitude.bit_length() - 8
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    return ~((0x80 if sample < 0 else 0) | exponent << 4 | mantissa) & 0xFF


def decode_byte(byte: int) -> int:
    """The linear 16-bit sample of one mu-law byte."""
    code = ~byte & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS << (code >> 4 & 0x07)) - _BIAS
    return -magnitude if code & 0x80 else magnitude


LINEAR = tuple(decode_byte(byte) for byte in range(256))
_LOW = bytes(sample & 0xFF for sample in LINEAR)
_HIGH = bytes(sample >> 8 & 0xFF for sample in LINEAR)
_LOUDNESS = bytes(127 - (byte & 0x7F) for byte in range(256))


def to_pcm16(audio: bytes) -> bytes:
    """The same sound as little-endian 16-bit linear samples."""
    pcm = bytearray(2 * len(audio))
    pcm[0::2] = audio.translate(_LOW)
    pcm[1::2] = audio.translate(_HIGH)
    return bytes(pcm)


def from_pcm16(pcm: bytes) -> bytes:
    """Little-endian 16-bit linear samples as mu-law; an odd last byte is left out."""
    samples = memoryview(pcm[: len(pcm) & ~1]).cast("h")
    return bytes(map(encode_sample, samples))


def level(audio: bytes) -> float:
    """How loud it is, from 0 (silence) to 127: the mean mu-law step, sixteen steps being 6 dB. 0 for no audio."""
    return sum(audio.translate(_LOUDNESS)) / len(audio) if audio else 0.0


def is_speech(audio: bytes, threshold: float = 20.0) -> bool:
    """Whether somebody seems to make a sound in this frame."""
    return level(audio) >= threshold
