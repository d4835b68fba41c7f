"""The real `careflow serve pulse` in a process of its own, and what the system says of that process."""

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


@dataclass(frozen=True, slots=True)
class PulseProcess:
    """A running Pulse. `seconds_to_ready` is the time from its creation to its first 200 of /readyz."""

    pid: int
    url: str
    seconds_to_ready: float

    def resident_mb(self) -> float:
        """Memory in use now."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """The most memory that was ever in use."""
        return self._status("VmHWM")

    def _status(self, key: str) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
        if found is None:
            raise CareflowError(f"/proc/{self.pid}/status has no {key}: memory is measured on Linux only")
        return int(found[1]) / 1024


@contextmanager
def pulse(data_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[PulseProcess]:
    """Pulse, served on a free port until the end of the block; `settings` are environment variables."""
    port = _free_port()
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CAREFLOW_")}
    with (data_dir / "pulse.log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", "from careflow.cli import main; main()", "serve", "pulse"],
            env=ours
            | {"CAREFLOW_DATA_DIR": str(data_dir), "CAREFLOW_PULSE_PORT": str(port)}
            | dict(settings or {}),
            stdout=log,
            stderr=log,
        )
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                    said = (data_dir / "pulse.log").read_text()[-2000:]
                    raise CareflowError(f"Pulse did not become ready:\n{said}")
                time.sleep(0.002)
            yield PulseProcess(process.pid, f"http://127.0.0.1:{port}", time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False
