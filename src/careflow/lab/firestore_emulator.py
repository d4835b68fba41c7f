"""Google's own Firestore emulator, as a process of ours: started on demand, on a free port, and ended with whoever asked.

It is part of the Google Cloud CLI and needs Java. It keeps everything in memory: its end is the data's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from careflow.errors import CareflowError

JAR_VARIABLE = "CAREFLOW_FIRESTORE_EMULATOR_JAR"
START_SECONDS = 60.0  # a loaded machine; one second is usual

_IN_SDK = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
_USUAL_SDKS = (
    "/usr/lib/google-cloud-sdk",
    "/usr/local/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/snap/google-cloud-cli/current",
    "~/google-cloud-sdk",
    "~/.local/share/google-cloud-sdk",
    "/opt/homebrew/share/google-cloud-sdk",
)
_MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"


class EmulatorMissing(CareflowError):
    """There is no Firestore emulator on this machine."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """Where the emulator is on this machine."""

    java: str
    jar: Path

    def command(self, port: int, rules: Path | None = None) -> list[str]:
        """What starts it on 127.0.0.1. `rules` are the security rules it applies to clients that are not the owner."""
        return [
            *(self.java, "-Duser.language=en", "-XX:TieredStopAtLevel=1", "-cp", str(self.jar), _MAIN),
            *("start", "--host=127.0.0.1", f"--port={port}"),
            *([f"--rules={rules}"] if rules else []),
        ]


def find_emulator(environment: Mapping[str, str] | None = None) -> Emulator:
    """The emulator that CAREFLOW_FIRESTORE_EMULATOR_JAR names, else that of the Google Cloud CLI.

    Raises EmulatorMissing, which says what is missing and how to get it.
    """
    environment = os.environ if environment is None else environment
    path = environment.get("PATH", "")
    java_home = environment.get("JAVA_HOME")
    java = (shutil.which("java", path=f"{java_home}/bin") if java_home else None) or shutil.which(
        "java", path=path
    )
    if java is None:
        raise EmulatorMissing(
            "the Firestore emulator needs Java 11 or later, and there is no java on the path"
        )
    named = environment.get(JAR_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise EmulatorMissing(f"{JAR_VARIABLE} is {named!r}, which is not a file")
        return Emulator(java, Path(named))
    gcloud = shutil.which("gcloud", path=path)
    sdks = [Path(gcloud).resolve().parent.parent] if gcloud else []
    for sdk in [*sdks, *(Path(usual).expanduser() for usual in _USUAL_SDKS)]:
        if (sdk / _IN_SDK).is_file():
            return Emulator(java, sdk / _IN_SDK)
    raise EmulatorMissing(
        f"there is no Firestore emulator next to gcloud; set {JAR_VARIABLE}, or install it with"
        " 'gcloud components install cloud-firestore-emulator'"
    )


@asynccontextmanager
async def running_emulator(
    emulator: Emulator | None = None, *, port: int = 0, rules: Path | None = None
) -> AsyncIterator[str]:
    """Run the emulator; "host:port" once it answers. Its end is certain when the block is left.

    `port` 0 takes a free one. Raises EmulatorMissing, and CareflowError when it does not start.
    """
    emulator = emulator or find_emulator()
    port = port or _free_port()
    process = await asyncio.create_subprocess_exec(
        *emulator.command(port, rules),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # an interrupt from the keyboard is ours to pass on, when the stores are closed
    )
    try:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await _answers(port):
                    if process.returncode is not None:
                        raise CareflowError(f"the Firestore emulator ended with code {process.returncode}")
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            reason = f"the Firestore emulator does not answer after {START_SECONDS:.0f} s"
            raise CareflowError(reason) from error
        yield f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.kill()  # it keeps nothing
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _answers(port: int) -> bool:
    """Whether it says Ok to a plain HTTP request."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
