"""What was heard since the last words came back, so that a broken socket loses nothing. Pure: no socket, no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Segment:
    """Audio up to one commit. `start` is where its first byte would be if none had been let go."""

    audio: bytearray = field(default_factory=bytearray)
    start: int = 0
    committed: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next thing to send: audio, or a commit when there is none."""

    audio: bytes

    @property
    def is_commit(self) -> bool:
        return not self.audio


class Tape:
    """Audio and commits in the order given, read in chunks, and read again after `rewind`.

    `chunk_bytes` is the size in which audio is handed out (less only right before a commit); `keep_bytes` bounds what is kept
    for another reading: beyond it the oldest audio is let go.
    """

    def __init__(self, *, chunk_bytes: int, keep_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._keep_bytes = keep_bytes
        self._segments: deque[_Segment] = deque([_Segment()])
        self._kept = 0
        self._reading = 0  # index of the segment being read
        self._position = 0  # in that segment, counted like `start`

    def append(self, audio: bytes) -> None:
        """Record the next audio."""
        self._segments[-1].audio += audio
        self._kept += len(audio)
        for index, segment in enumerate(self._segments):
            surplus = self._kept - self._keep_bytes
            if surplus <= 0:
                break
            gone = min(surplus, len(segment.audio))
            del segment.audio[:gone]
            segment.start += gone
            self._kept -= gone
            if index == self._reading:
                self._position = max(self._position, segment.start)

    def commit(self) -> bool:
        """Record a commit; False, and nothing is recorded, when there was no audio since the last one."""
        last = self._segments[-1]
        if not last.audio and not last.start:
            return False
        last.committed = True
        self._segments.append(_Segment())
        return True

    def ready(self) -> bool:
        """Whether `read` would give something."""
        segment = self._segments[self._reading]
        unread = segment.start + len(segment.audio) - self._position
        return segment.committed or unread >= self._chunk_bytes

    def read(self) -> Chunk | None:
        """The next chunk, or None until there is more."""
        if not self.ready():
            return None
        segment = self._segments[self._reading]
        at = self._position - segment.start
        audio = bytes(segment.audio[at : at + self._chunk_bytes])
        self._position += len(audio)
        if not audio:
            self._reading += 1
            self._position = self._segments[self._reading].start
        return Chunk(audio)

    def rewind(self) -> None:
        """Read everything that is kept again, from its beginning."""
        self._reading = 0
        self._position = self._segments[0].start

    @property
    def outstanding(self) -> bool:
        """Whether a commit was read whose words have not come back."""
        return self._reading > 0

    def answered(self) -> bool:
        """The words of the oldest commit came back: let it go. False when no commit that was read is waiting for words."""
        if not self.outstanding:
            return False
        self._kept -= len(self._segments.popleft().audio)
        self._reading -= 1
        return True
