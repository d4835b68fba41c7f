"""A small formant synthesiser: letters become sounds, sounds become mu-law. It is robotic, but it is audible speech.

Three parallel resonators are excited by a pulse train (voiced sounds), by noise (hissing sounds) or by both, and glide from the
sound before. A unit (a sound after another one, at one pitch) is rendered once and kept, so a word is a concatenation.
"""

from __future__ import annotations

import math
import random
import re
import unicodedata
from dataclasses import dataclass

from careflow.lab.mulaw import FRAME_BYTES, RATE_HZ, encode_sample

_PEAK = 11000
_BANDWIDTHS_HZ = (90.0, 130.0, 200.0)
_FORMANT_GAINS = (1.0, 0.65, 0.35)
_GLIDE = 0.4  # the part of a sound that still moves away from the one before


@dataclass(frozen=True, slots=True)
class Sound:
    """One speech sound: three formants (Hz), how much voice and hiss, loudness, length, and the closure before it (seconds)."""

    formants: tuple[float, float, float]
    seconds: float
    voice: float = 1.0
    hiss: float = 0.0
    gain: float = 1.0
    closure: float = 0.0


# Vowel formants after Peterson and Barney (1952), rounded; consonants by ear.
SOUNDS: dict[str, Sound] = {
    "a": Sound((700, 1200, 2500), 0.105),
    "e": Sound((520, 1850, 2500), 0.095),
    "i": Sound((300, 2250, 3000), 0.095),
    "o": Sound((550, 880, 2400), 0.105),
    "u": Sound((320, 900, 2250), 0.100),
    "ah": Sound((620, 1200, 2400), 0.080),
    "er": Sound((490, 1350, 1700), 0.100),
    "m": Sound((260, 1000, 2200), 0.075, gain=0.55),
    "n": Sound((260, 1500, 2500), 0.070, gain=0.55),
    "ng": Sound((260, 2000, 2700), 0.080, gain=0.55),
    "l": Sound((360, 1100, 2600), 0.065, gain=0.70),
    "r": Sound((420, 1250, 1650), 0.065, gain=0.70),
    "w": Sound((300, 700, 2200), 0.065, gain=0.70),
    "y": Sound((280, 2200, 2900), 0.060, gain=0.70),
    "v": Sound((300, 1400, 2500), 0.065, hiss=0.3, gain=0.45),
    "z": Sound((300, 1700, 3600), 0.075, voice=0.6, hiss=0.8, gain=0.45),
    "dh": Sound((300, 1400, 2700), 0.060, hiss=0.3, gain=0.45),
    "s": Sound((2600, 3300, 3800), 0.090, voice=0.0, hiss=1.0, gain=0.40),
    "sh": Sound((1900, 2500, 3100), 0.090, voice=0.0, hiss=1.0, gain=0.45),
    "f": Sound((1100, 2100, 3400), 0.080, voice=0.0, hiss=1.0, gain=0.22),
    "th": Sound((1400, 2600, 3500), 0.080, voice=0.0, hiss=1.0, gain=0.22),
    "h": Sound((700, 1500, 2500), 0.060, voice=0.0, hiss=1.0, gain=0.25),
    "p": Sound((700, 1100, 2300), 0.030, voice=0.0, hiss=1.0, gain=0.45, closure=0.045),
    "t": Sound((1800, 2700, 3600), 0.030, voice=0.0, hiss=1.0, gain=0.50, closure=0.040),
    "k": Sound((900, 1800, 2500), 0.035, voice=0.0, hiss=1.0, gain=0.50, closure=0.045),
    "b": Sound((300, 900, 2300), 0.045, hiss=0.2, gain=0.60, closure=0.025),
    "d": Sound((320, 1700, 2600), 0.045, hiss=0.2, gain=0.60, closure=0.025),
    "g": Sound((320, 1900, 2300), 0.045, hiss=0.2, gain=0.60, closure=0.030),
    "ch": Sound((1900, 2600, 3300), 0.070, voice=0.0, hiss=1.0, gain=0.50, closure=0.040),
    "j": Sound((500, 2200, 2900), 0.065, hiss=0.6, gain=0.50, closure=0.025),
}

# fmt: off
_SPELLINGS: dict[str, tuple[str, ...]] = {letter: (letter,) for letter in "aeioumnlrwyvzsfhptkbdgj"} | {
    "c": ("k",), "q": ("k",), "x": ("k", "s"), "ñ": ("n", "y"),
    "th": ("th",), "sh": ("sh",), "ch": ("ch",), "ph": ("f",), "ng": ("ng",), "ck": ("k",), "wh": ("w",),
    "qu": ("k", "w"), "ll": ("l",), "rr": ("r",), "ss": ("s",), "tt": ("t",), "gh": ("h",),
    "ee": ("i",), "ea": ("i",), "oo": ("u",), "ou": ("a", "u"), "ow": ("o", "u"), "ai": ("e", "i"),
    "ay": ("e", "i"), "igh": ("a", "i"), "er": ("er",), "ir": ("er",), "ur": ("er",), "the": ("dh", "ah"),
    "0": ("z", "i", "r", "o"), "1": ("w", "ah", "n"), "2": ("t", "u"), "3": ("th", "r", "i"),
    "4": ("f", "o", "r"), "5": ("f", "a", "i", "v"), "6": ("s", "i", "k", "s"), "7": ("s", "e", "v", "n"),
    "8": ("e", "i", "t"), "9": ("n", "a", "i", "n"),
}
# fmt: on
_PAUSES_SECONDS = {**dict.fromkeys(",;:", 0.16), **dict.fromkeys(".?!…", 0.30)}
_LONGEST_SPELLING = 3


def sounds_of(word: str) -> list[str]:
    """The names of the word's sounds, by crude rules of spelling; every letter of any alphabet makes some sound."""
    letters = _folded(word)
    names: list[str] = []
    position = 0
    while position < len(letters):
        for length in range(_LONGEST_SPELLING, 0, -1):
            found = _SPELLINGS.get(letters[position : position + length])
            if found and (length > 1 or len(letters[position : position + 1]) == 1):
                names.extend(found)
                position += length
                break
        else:
            if letters[position].isalnum():
                names.append("aeiou"[ord(letters[position]) % 5])
            position += 1
    return names


def _folded(word: str) -> str:
    kept = word.lower().replace("ñ", "\0")
    plain = "".join(c for c in unicodedata.normalize("NFD", kept) if not unicodedata.combining(c))
    return plain.replace("\0", "ñ")


def pause_after(word: str) -> float:
    """Seconds of silence that the word's punctuation asks for, besides the gap between any two words."""
    tail = re.search(r"(\W+)$", word)
    return max((_PAUSES_SECONDS.get(mark, 0.0) for mark in tail.group(1)), default=0.0) if tail else 0.0


class Synthesiser:
    """Renders words at any of eight pitches; keeps what it rendered."""

    def __init__(self) -> None:
        self._units: dict[tuple[str, str, int], bytes] = {}
        self._words: dict[tuple[str, int], bytes] = {}

    def word(self, word: str, pitch_hz: int) -> bytes:
        """The word as mu-law, a whole number of 20 ms frames, without a pause after it; b"" when it has no sound."""
        key = (word, pitch_hz)
        if key not in self._words:
            if (
                len(self._words) >= 20_000
            ):  # a bound on memory, not a policy: prompts have a few hundred words
                self._words.clear()
            self._words[key] = self._render(sounds_of(word), pitch_hz)
        return self._words[key]

    def _render(self, names: list[str], pitch_hz: int) -> bytes:
        before = ["h", *names]
        audio = b"".join(self._unit(a, b, pitch_hz) for a, b in zip(before, names, strict=False))
        return audio + b"\xff" * (-len(audio) % FRAME_BYTES)

    def _unit(self, before: str, name: str, pitch_hz: int) -> bytes:
        key = (before, name, pitch_hz)
        if key not in self._units:
            self._units[key] = render_unit(SOUNDS[before], SOUNDS[name], pitch_hz)
        return self._units[key]


def render_unit(before: Sound, sound: Sound, pitch_hz: int) -> bytes:
    """One sound after another as mu-law: whole pitch periods, so that units join without a click."""
    period = RATE_HZ // pitch_hz
    count = max(1, round(sound.seconds * RATE_HZ / period)) * period
    noise = random.Random(repr((before, sound)))  # the same sound is the same bytes in every process
    wave = [0.0] * count
    for formant in range(3):
        _resonate(wave, before, sound, formant, period, noise)
    peak = max(map(abs, wave)) or 1.0
    scale = _PEAK * sound.gain / peak
    closure = b"\xff" * round(sound.closure * RATE_HZ)
    return closure + bytes(encode_sample(round(value * scale)) for value in wave)


def _resonate(
    wave: list[float], before: Sound, sound: Sound, formant: int, period: int, noise: random.Random
) -> None:
    """Add what one resonator answers to the excitation; its frequency is set anew at every pitch period."""
    radius = math.exp(-math.pi * _BANDWIDTHS_HZ[formant] / RATE_HZ)
    gain = _FORMANT_GAINS[formant]
    last = earlier = 0.0
    for start in range(0, len(wave), period):
        done = min(1.0, start / (_GLIDE * len(wave)))
        frequency = before.formants[formant] * (1 - done) + sound.formants[formant] * done
        feedback = 2 * radius * math.cos(2 * math.pi * frequency / RATE_HZ)
        for at in range(start, start + period):
            excitation = sound.hiss * noise.uniform(-0.15, 0.15) if sound.hiss else 0.0
            if at == start:
                excitation += sound.voice
            now = gain * excitation + feedback * last - radius * radius * earlier
            earlier, last = last, now
            wave[at] += now
