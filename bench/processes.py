"""The real services, each `careflow serve ROLE` in a process of its own, and what the system says of those processes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from careflow.errors import CareflowError

START_SECONDS = 60.0
_READY = {
    "pulse": "/readyz",
    "caller": "/readyz",
    "lab": "/lab/calls",
    "tasks": "/v2/projects/bench/locations",
}


@dataclass(frozen=True, slots=True)
class Process:
    """A running service. `seconds_to_ready` is the time from its creation to its first 200."""

    pid: int
    url: str
    seconds_to_ready: float

    def resident_mb(self) -> float:
        """Memory in use now."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """The most memory that was ever in use."""
        return self._status("VmHWM")

    def cpu_seconds(self) -> float:
        """Processor time used so far, by all threads, in the program and in the system on its behalf (proc(5), stat)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, key: str) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
        if found is None:
            raise CareflowError(f"/proc/{self.pid}/status has no {key}: memory is measured on Linux only")
        return int(found[1]) / 1024


@contextmanager
def serve(
    role: str, data_dir: Path, settings: Mapping[str, str], port: int | None = None
) -> Iterator[Process]:
    """The service on `port` (a free one) until the end of the block; `settings` are its environment variables."""
    port = free_port() if port is None else port
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CAREFLOW_")}
    place = {"CAREFLOW_DATA_DIR": str(data_dir), f"CAREFLOW_{role.upper()}_PORT": str(port)}
    said = data_dir / f"{role}.log"
    with said.open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", "from careflow.cli import main; main()", "serve", role],
            env=ours | place | dict(settings),
            stdout=log,
            stderr=log,
        )
        try:
            while not is_ready(port, _READY[role]):
                if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                    raise CareflowError(f"{role} did not become ready:\n{said.read_text()[-2000:]}")
                time.sleep(0.002)
            yield Process(process.pid, f"http://127.0.0.1:{port}", time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait(timeout=60)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_ready(port: int, path: str) -> bool:
    """Whether `path` is answered with 200 on this machine's `port`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            return b" 200 " in connection.recv(64)
    except OSError:
        return False
