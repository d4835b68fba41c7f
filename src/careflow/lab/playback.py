"""What waits to be played to the telephone: audio and marks, in order (reference/twilio section 5.2). Pure."""

from __future__ import annotations

from collections import deque

from careflow.lab.mulaw import FRAME_BYTES, SILENCE


class Playback:
    """The queue between what our server sends and the patient's ear."""

    def __init__(self) -> None:
        self._queue: deque[bytes | str] = deque()  # audio, or the name of a mark
        self._offset = 0  # bytes of the first piece that are played

    @property
    def empty(self) -> bool:
        return not self._queue

    def push(self, audio: bytes) -> None:
        """Queue audio of any length."""
        if audio:
            self._queue.append(audio)

    def mark(self, name: str) -> list[str]:
        """Queue a mark; it is returned at once when nothing is ahead of it."""
        if not self._queue:
            return [name]
        self._queue.append(name)
        return []

    def clear(self) -> list[str]:
        """Drop everything; the marks that were waiting, which come back although nobody heard what was ahead of them."""
        marks = [piece for piece in self._queue if isinstance(piece, str)]
        self._queue.clear()
        self._offset = 0
        return marks

    def pull(self) -> tuple[bytes, list[str]]:
        """The next 20 ms to play, filled up with silence, and the marks whose audio is now played."""
        queue = self._queue
        if not queue:
            return SILENCE, []
        frame, marks = b"", list[str]()
        while queue and (len(frame) < FRAME_BYTES or isinstance(queue[0], str)):
            piece = queue[0]
            if isinstance(piece, str):
                marks.append(piece)
                queue.popleft()
                continue
            taken = piece[self._offset : self._offset + FRAME_BYTES - len(frame)]
            frame = frame + taken if frame else taken
            self._offset += len(taken)
            if self._offset >= len(piece):
                queue.popleft()
                self._offset = 0
        return (frame if len(frame) == FRAME_BYTES else frame.ljust(FRAME_BYTES, b"\xff")), marks
