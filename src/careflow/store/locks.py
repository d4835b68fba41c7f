"""One process a role: locks on the data directory that vanish with their holder, whatever ends it."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from types import TracebackType

from careflow.errors import StoreInUse, StoreUnavailable
from careflow.ports import Clock

_log = logging.getLogger(__name__)


class RoleLock:
    """A held role. Given up by `release`, at the end of a `with` block, or with the process (even by kill -9)."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give the role up. Does nothing when it was given up before."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> RoleLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def hold_role(data_dir: Path, role: str) -> RoleLock:
    """Be the only holder of `role` ("up", "pulse", "queue", ...) on this data directory.

    The lock is an flock on `{data_dir}/{role}.lock`, which also holds the holder's pid for people to read; the file
    stays when the lock is gone. Raises StoreInUse naming the directory and the holder, StoreUnavailable when
    the directory cannot be written.
    """
    path = data_dir / f"{role}.lock"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"data directory {data_dir} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        os.close(descriptor)
        raise StoreInUse(
            f"data directory {data_dir} is in use: process {holder} runs {role!r} on it; "
            "stop that process or choose another data directory"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise StoreUnavailable(f"data directory {data_dir} cannot be written: {error.strerror}") from error
    return RoleLock(descriptor)


async def when_free(data_dir: Path, role: str, clock: Clock, pause: float) -> RoleLock:
    """Hold the role as soon as nobody else does, asking every `pause` seconds of the clock.

    A directory that cannot be written is told to the log, and waited for as well.
    """
    while True:
        try:
            return hold_role(data_dir, role)
        except StoreInUse:
            pass
        except StoreUnavailable as error:
            _log.warning("the role %s cannot be held yet: %s", role, error)
        await clock.sleep(pause)
