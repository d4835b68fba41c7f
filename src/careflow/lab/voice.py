"""Speech whose words can be recovered from its sound.

The sound is a robot's, audible to anybody; the words ride in the lowest bit of its samples. Every frame of 20 ms (160 samples,
so 160 bits, so 20 bytes) carries::

    sync 2 | utterance 4 | index 3 | count 3 | text 4 | crc 4      (big-endian; text padded with zeros)

`utterance` is the CRC-32 of the whole text. A receiver finds the sync wherever it is, so chunks may be cut anywhere, but a frame
that is lost, doubled, moved or re-encoded breaks the transcript, as it would break the sound.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from careflow.lab.mulaw import FRAME_BYTES, RATE_HZ, SILENCE
from careflow.lab.synth import Synthesiser, pause_after

_SYNC = b"\xca\x5f"
_SYNC_BITS = format(int.from_bytes(_SYNC), "016b").encode()
_FRAGMENT = 4
_PAYLOAD = FRAME_BYTES // 8
_GAP_SECONDS = 0.06  # between two words
_LOST_AFTER = RATE_HZ * 3 // 5  # so many samples without a frame, and the speaker has stopped in the middle

_WITHOUT_LOW_BIT = bytes(byte & 0xFE for byte in range(256))
_LOW_BIT = bytes(0x30 | byte & 1 for byte in range(256))  # as the digits "0" and "1"
_DIGITS = bytes(byte & 1 for byte in range(256))
_MUFFLED = bytes((byte & 0x80) | min(0x7F, (byte & 0x7F) + 0x18) for byte in range(256))
_MUFFLED_WORDS = bytes(_MUFFLED[byte] & 0xFE | byte & 1 for byte in range(256))
_PITCHES_HZ = (98, 105, 113, 122, 160, 172, 186, 200)


@dataclass(frozen=True, slots=True)
class Utterance:
    """What an ear heard. `complete` only when every frame of it came, once, in order and undamaged.

    Otherwise `text` is the words that lie wholly between damages, perhaps none.
    """

    text: str
    complete: bool


class Voice:
    """Speaks, and keeps the sound of the words it spoke."""

    def __init__(self) -> None:
        self._synthesiser = Synthesiser()

    def speak(self, text: str, *, voice: str = "agent") -> bytes:
        """The text as mu-law, a multiple of 160 bytes, about fourteen characters a second; b"" when there are no words.

        White space is collapsed. `voice` is any name; it sets the pitch, always to the same of eight.
        """
        words = text.replace("\0", " ").split()
        pitch = _PITCHES_HZ[zlib.crc32(voice.encode()) % len(_PITCHES_HZ)]
        sounds: list[bytes] = []
        fragments: list[bytes] = []
        for number, word in enumerate(words, 1):
            last = number == len(words)
            spelled = (word if last else word + " ").encode(errors="replace")
            sound = self._synthesiser.word(word, pitch)
            pause = 0 if last and sound else round((_GAP_SECONDS + pause_after(word)) * RATE_HZ)
            sound += SILENCE * max(
                round(pause / FRAME_BYTES), -(-len(spelled) // _FRAGMENT) - len(sound) // FRAME_BYTES
            )
            sounds.append(sound)
            frames = len(sound) // FRAME_BYTES
            fragments += [
                spelled[i * len(spelled) // frames : (i + 1) * len(spelled) // frames] for i in range(frames)
            ]
        return _carry(b"".join(sounds), fragments)


def _carry(sound: bytes, fragments: list[bytes]) -> bytes:
    """The sound with the fragments in its low bits."""
    if not fragments:
        return b""
    utterance = zlib.crc32(b"".join(fragments)).to_bytes(4)
    count = len(fragments).to_bytes(3)
    payload = bytearray()
    for index, fragment in enumerate(fragments):
        body = utterance + index.to_bytes(3) + count + fragment.ljust(_FRAGMENT, b"\0")
        payload += _SYNC + body + zlib.crc32(body).to_bytes(4)
    bits = format(int.from_bytes(payload), f"0{8 * len(payload)}b").encode().translate(_DIGITS)
    carried = int.from_bytes(sound.translate(_WITHOUT_LOW_BIT)) | int.from_bytes(bits)
    return carried.to_bytes(len(sound))


class Ear:
    """Hears the words of a `Voice` in a stream of mu-law, cut into chunks anywhere."""

    def __init__(self) -> None:
        self._bits = b""  # not yet understood, as digits
        self._heard: list[Utterance] = []
        self._current: _Current | None = None
        self._unheard = 0  # samples since the last good frame

    def feed(self, audio: bytes) -> None:
        """Listen to the next piece of the stream."""
        bits = self._bits + audio.translate(_LOW_BIT)
        at = 0
        while True:
            found = bits.find(_SYNC_BITS, at)
            if found < 0:
                # A sync may have begun in the last bits.
                keep = max(at, len(bits) - len(_SYNC_BITS) + 1)
                self._skip(keep - at)
                at = keep
                break
            self._skip(found - at)
            at = found
            if len(bits) < at + FRAME_BYTES:
                break
            payload = int(bits[at : at + FRAME_BYTES], 2).to_bytes(_PAYLOAD)
            body = payload[len(_SYNC) : -4]
            if zlib.crc32(body).to_bytes(4) == payload[-4:]:
                self._frame(body)
                at += FRAME_BYTES
            else:
                self._skip(1)
                at += 1
        self._bits = bits[at:]

    def take(self) -> list[Utterance]:
        """The utterances that ended since the last take, in order; one whose last frame has just come has ended."""
        if self._current and self._current.at_end():
            self._end()
        heard, self._heard = self._heard, []
        return heard

    def partial(self) -> str:
        """The whole words so far of the utterance that has not ended; "" when there is none."""
        return self._current.words() if self._current else ""

    def finish(self) -> list[Utterance]:
        """Everything up to now: `take`, and the words so far of an utterance that has not ended, as an incomplete one.

        Its rest, if it comes, is heard as another incomplete utterance that begins with the word now being spoken.
        """
        current = self._current
        if current and not current.at_end() and current.words():
            self._heard.append(Utterance(current.words(), complete=False))
            current.forget_words()
        return self.take()

    def _skip(self, samples: int) -> None:
        self._unheard += samples
        ended = samples and self._current and self._current.at_end()
        if ended or self._unheard >= _LOST_AFTER:
            self._end()

    def _frame(self, body: bytes) -> None:
        utterance, index = int.from_bytes(body[:4]), int.from_bytes(body[4:7])
        count, fragment = int.from_bytes(body[7:10]), body[10:].rstrip(b"\0")
        self._unheard = 0
        current = self._current
        if current is None or current.utterance != utterance or (index == 0 and current.next > 1):
            self._end()
            current = self._current = _Current(utterance, count)
        # Not ended at its last frame: that frame may come twice.
        current.hear(index, fragment)

    def _end(self) -> None:
        if self._current:
            heard = self._current.ended()
            if heard is not None:
                self._heard.append(heard)
            self._current = None


class _Current:
    """The utterance being heard: undamaged runs of frames, the last of them open."""

    def __init__(self, utterance: int, count: int) -> None:
        self.utterance = utterance
        self.next = 0
        self._count = count
        self._run = bytearray()
        self._saved: list[str] = []
        self._mid_word = False  # the open run may have begun inside a word
        self._whole = True
        self._told = False

    def at_end(self) -> bool:
        """Whether the last frame was the utterance's last."""
        return self.next == self._count

    def hear(self, index: int, fragment: bytes) -> None:
        if index != self.next:
            self._break()
        self._run += fragment
        self.next = index + 1

    def _break(self) -> None:
        """Frames are missing, doubled or moved here: the words at both edges are lost."""
        words = self._whole_words().split(" ")
        # The word before the damage may be the damaged one even if its last letter came.
        self._saved += words[:-1]
        self._run.clear()
        self._mid_word, self._whole = True, False

    def _whole_words(self) -> str:
        run = bytes(self._run)
        if self._mid_word:
            run = run.partition(b" ")[2]
        if self.next < self._count:
            run = run.rpartition(b" ")[0]
        return run.decode(errors="replace")

    def words(self) -> str:
        return " ".join(word for word in (*self._saved, *self._whole_words().split(" ")) if word)

    def forget_words(self) -> None:
        self._saved.clear()
        self._whole, self._told = False, True
        if b" " in self._run:
            self._run = self._run.rpartition(b" ")[2]
            self._mid_word = False

    def ended(self) -> Utterance | None:
        """What was heard of it in the end; None when nothing was and the rest had been told before."""
        if self._whole and self.next == self._count and zlib.crc32(self._run) == self.utterance:
            return Utterance(self._run.decode(), complete=True)
        words = self.words()
        return None if self._told and not words else Utterance(words, complete=False)


def mumble(audio: bytes, rng: random.Random, *, share: float = 0.5) -> bytes:
    """The speech as somebody who is hard to understand says it: quieter, and slurred so that words are lost.

    `share` is about how much of it is slurred; something always is.
    """
    frames = [audio[at : at + FRAME_BYTES] for at in range(0, len(audio), FRAME_BYTES)]
    slurred = False
    at = 0
    while at < len(frames):
        length = rng.randint(8, 20)
        if rng.random() < share or (not slurred and at + length >= len(frames)):
            for index in range(at, min(at + length, len(frames))):
                frames[index] = _slur(frames[index], rng)
            slurred = True
        at += length
    return b"".join(frames).translate(_MUFFLED_WORDS)


def _slur(frame: bytes, rng: random.Random) -> bytes:
    noise = rng.getrandbits(8 * len(frame)) & int.from_bytes(b"\x03" * len(frame))
    return (int.from_bytes(frame.translate(_MUFFLED)) ^ noise).to_bytes(len(frame))
