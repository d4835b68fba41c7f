"""Spoken prompts on disk, found by what determines how they sound."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_MAGIC = b"careflow-audio-1"
_DIGEST_BYTES = 32


def speech_key(
    *, model: str, voice: str, settings: Mapping[str, object], audio_format: str, language: str, text: str
) -> str:
    """The content address of a spoken text: equal when everything that decides its sound is equal."""
    document = json.dumps(
        [model, voice, dict(settings), audio_format, language, text], sort_keys=True, ensure_ascii=False
    )
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()


class AudioCache:
    """A folder of audio files. Vendors do not promise the same sound twice, so these bytes are the record of what was said.

    A file is written under another name, made durable and then renamed, so a crash leaves a whole file or none. One that does
    not have the digest it was written with counts as absent.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, key: str) -> bytes | None:
        """The audio of a key from `speech_key`, or None when it is absent or damaged."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        digest, audio = content[len(_MAGIC) :][:_DIGEST_BYTES], content[len(_MAGIC) + _DIGEST_BYTES :]
        intact = content.startswith(_MAGIC) and audio and digest == hashlib.sha256(audio).digest()
        return audio if intact else None

    def put(self, key: str, audio: bytes) -> None:
        """Keep the audio durably. Raises OSError when the disk does not take it; what was there stays."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(audio).digest() + audio)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _make_durable(path.parent)

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / key[2:]


def _make_durable(directory: Path) -> None:
    """A rename is safe from a power cut only when its folder is synced too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
