"""Both sides of a telephone call as a file that a person can listen to."""

from __future__ import annotations

import struct

from careflow.lab.mulaw import RATE_HZ, to_pcm16

_CHANNELS = 2
_SAMPLE_BYTES = 2


def record(agent: bytes, patient: bytes) -> bytes:
    """A stereo WAV (RIFF, 16-bit linear, 8 kHz): the agent on the left, the patient on the right.

    Both are mu-law from the call's first instant; the shorter one is filled up with silence.
    """
    samples = max(len(agent), len(patient))
    left, right = (to_pcm16(side.ljust(samples, b"\xff")) for side in (agent, patient))
    block = _CHANNELS * _SAMPLE_BYTES
    sound = bytearray(samples * block)
    for position, channel in ((0, left), (2, right)):
        sound[position::block] = channel[0::2]
        sound[position + 1 :: block] = channel[1::2]
    form = struct.pack("<HHIIHH", 1, _CHANNELS, RATE_HZ, RATE_HZ * block, block, 8 * _SAMPLE_BYTES)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(sound)) + sound
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
