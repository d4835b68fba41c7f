"""One Firestore emulator for all tests of a pytest process, started when the first needs it. Each test has a project in it."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import time
import urllib.request
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from careflow.lab.firestore_emulator import EmulatorMissing, find_emulator
from careflow.store.firestore import FirestoreStore


def require_emulator():
    """The emulator of this machine. Skips the test where there is none; in CI there must be one."""
    try:
        return find_emulator()
    except EmulatorMissing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@cache
def _address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        find_emulator().command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    atexit.register(lambda: (process.kill(), process.wait()))
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return f"127.0.0.1:{port}"
        except OSError:
            assert process.poll() is None, f"the emulator ended with {process.returncode}"
            time.sleep(0.05)
    raise AssertionError("the Firestore emulator does not answer after 60 s")


def emulator_address() -> str:
    """Its host:port."""
    require_emulator()
    return _address()


def project_of(data_dir: Path) -> str:
    """The project that stands for a data directory: the same for the same, and another's for every other."""
    return f"test-{sha256(str(data_dir).encode()).hexdigest()[:16]}"


async def open_firestore(project: str) -> FirestoreStore:
    """A store on the project, in the emulator of this pytest process."""
    return await FirestoreStore.open(project=project, emulator=emulator_address())
