"""Builds the agents' images and runs them, on a machine without a container engine or an image registry.

`make build` with buildah builds the real Dockerfiles, on a base that debootstrap makes of Debian's packages in place of the
official Python image (same interpreter version, other paths). runc then runs what was built as Cloud Run would: the image's
own entrypoint, user and environment, a read-only file system, /tmp in memory, no capabilities. Only the network is the
machine's own, so that the service listens on 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import START_SECONDS, free_port, is_ready
from careflow.errors import CareflowError

ROOT = Path(__file__).parents[1]
AGENTS = {"pulse": "careflow-agent", "caller": "caller-agent"}
PYTHON = (3, 11)  # of the images, whose wheels pip fetches here
DEBIAN = "bookworm"  # from wherever debootstrap fetches by itself
_TOOLS = ("buildah", "runc", "debootstrap", "make")
_BASE = "localhost/careflow-python:rehearsal"


def lacking() -> str:
    """Why images cannot be rehearsed here; empty when they can."""
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if absent:
        return (
            f"not installed: {', '.join(absent)} (apt-get install --no-install-recommends {' '.join(_TOOLS)})"
        )
    if os.geteuid() != 0:
        return "mounting takes root"
    if sys.version_info[:2] != PYTHON:
        return f"the images have Python {'.'.join(map(str, PYTHON))}, this is {sys.version.split()[0]}"
    return ""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image. `root` is its file system, mounted; sizes are in bytes, those of `ours` without the base."""

    role: str
    root: Path
    config: Mapping[str, Any]
    base_bytes: int
    ours_bytes: int
    ours_compressed_bytes: int


class Container:
    """A running one, by the init process that its image names."""

    def __init__(self, run: subprocess.Popen[bytes], pid: int, url: str, seconds_to_ready: float) -> None:
        self._run = run
        self.pid = pid
        self.url = url
        self.seconds_to_ready = seconds_to_ready

    def status(self, key: str) -> str:
        """A line of /proc/PID/status, such as Uid or CapEff."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))

    def stop(self) -> tuple[float, int]:
        """SIGTERM to the service, as Cloud Run sends it: seconds to its end, and its exit code."""
        began = time.perf_counter()
        os.kill(self.pid, signal.SIGTERM)
        code = self._run.wait(timeout=60)
        return time.perf_counter() - began, code


@contextmanager
def workshop(folder: Path) -> Iterator[Workshop]:
    """A place to build in, with the base image made; nothing of it is left. Raises CareflowError saying what is lacking."""
    if reason := lacking():
        raise CareflowError(f"images cannot be rehearsed here: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    made = Workshop(folder)
    try:
        made.lay_base()
        yield made
    finally:
        made.clear()


class Workshop:
    """buildah with a storage of its own, and what the builds are given in place of the network."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wheels = folder / "wheels"
        self._storage = folder / "storage"
        self._base_bytes = 0
        conf = folder / "storage.conf"
        conf.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self._storage}"\nrunroot = "{folder / "run"}"\n'
        )
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
            "CONTAINERS_STORAGE_CONF": str(conf),
            "BUILDAH_ISOLATION": "chroot",
        }

    def lay_base(self) -> None:
        """Debian with its Python, as an image."""
        base = self._folder / "base"
        self._do(
            "debootstrap",
            "--variant=minbase",
            "--include=python3,python3-venv,ca-certificates",
            DEBIAN,
            str(base),
        )
        for left in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(base / left)
        self._base_bytes = size_of(base)
        container = self._do("buildah", "from", "scratch").strip()
        self._do("buildah", "add", "--quiet", container, str(base), "/")
        self._do("buildah", "commit", "--quiet", container, _BASE)
        self._do("buildah", "rm", container)
        shutil.rmtree(base)

    def build(self, role: str) -> Image:
        """`make build` of the agent, with wheels that were fetched and checked before in place of an index."""
        self._fetch("build", role)
        pip = self._folder / "pip.conf"
        pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        name = f"localhost/careflow/{role}:rehearsal"
        given = f"--volume {self._wheels}:/wheels:ro --volume {pip}:/etc/pip.conf:ro"
        self._do(
            "make",
            "-C",
            str(ROOT / "careflow-agents" / AGENTS[role]),
            "build",
            "BUILDER=buildah",
            f"IMAGE={name}",
            f"PYTHON_IMAGE={_BASE}",
            f"BUILD_OPTIONS=--pull=never --layers=false --network=host {given}",
        )
        container = self._do("buildah", "from", "--pull-never", name).strip()
        root = Path(self._do("buildah", "mount", container).strip())
        described = json.loads(self._do("buildah", "inspect", "--type", "image", name))
        return Image(
            role,
            root,
            described["OCIv1"]["config"],
            self._base_bytes,
            size_of(root / "opt/careflow"),
            self._compressed(name),
        )

    @contextmanager
    def running(self, image: Image, settings: Mapping[str, str]) -> Iterator[Container]:
        """The image's entrypoint in a container, ready; `settings` are added to its environment. Ended at the end."""
        port = free_port()
        bundle = self._folder / f"{image.role}-{port}"
        bundle.mkdir()
        ours = {"CAREFLOW_HOST": "127.0.0.1", f"CAREFLOW_{image.role.upper()}_PORT": str(port)}
        self._do("runc", "spec", "--bundle", str(bundle))
        spec = bundle / "config.json"
        spec.write_text(
            json.dumps(_cloud_run_like(json.loads(spec.read_text()), image, ours | dict(settings)))
        )
        log = bundle / "log"
        with log.open("wb") as said:
            began = time.perf_counter()
            run = subprocess.Popen(
                ["runc", "--root", str(self._folder / "runc"), "run", "--bundle", str(bundle), bundle.name],
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
            )
            try:
                while not is_ready(port, "/readyz"):
                    if run.poll() is not None or time.perf_counter() - began > START_SECONDS:
                        raise CareflowError(f"{image.role} did not become ready:\n{log.read_text()[-3000:]}")
                    time.sleep(0.002)
                seconds = time.perf_counter() - began
                state = json.loads(
                    self._do("runc", "--root", str(self._folder / "runc"), "state", bundle.name)
                )
                yield Container(run, state["pid"], f"http://127.0.0.1:{port}", seconds)
            finally:
                if run.poll() is None:
                    run.terminate()  # runc hands it on
                    run.wait(timeout=60)
                shutil.rmtree(bundle)

    def clear(self) -> None:
        """Unmount and remove everything."""
        for words in (("umount", "--all"), ("rm", "--all")):
            subprocess.run(["buildah", *words], env=self._environment, capture_output=True)
        if os.path.ismount(mounted := self._storage / "overlay"):
            subprocess.run(["umount", "--lazy", str(mounted)], check=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fetch(self, *locks: str) -> None:
        for lock in locks:
            asked = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(self._wheels)]
            self._do(sys.executable, "-m", "pip", "download", "-q", *asked, "-r", f"requirements/{lock}.txt")

    def _compressed(self, name: str) -> int:
        """Bytes of the last layer as a registry would keep it."""
        place = self._folder / "pushed"
        self._do(
            "buildah", "push", "--quiet", "--format=oci", "--compression-format=gzip", name, f"dir:{place}"
        )
        layers = json.loads((place / "manifest.json").read_text())["layers"]
        shutil.rmtree(place)
        size: int = layers[-1]["size"]
        return size

    def _do(self, *words: str) -> str:
        done = subprocess.run(words, cwd=ROOT, env=self._environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise CareflowError(
                f"{' '.join(words[:3])}: exit {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}"
            )
        return done.stdout


def size_of(folder: Path) -> int:
    """Bytes of the files below, each counted once."""
    seen = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            state = path.lstat()
            seen[state.st_ino] = state.st_size
    return sum(seen.values())


def _cloud_run_like(spec: dict[str, Any], image: Image, settings: Mapping[str, str]) -> dict[str, Any]:
    """runc's own example made stricter: what the image says, nothing writable but /tmp, no capability to lose."""
    config = image.config
    environment = dict(line.split("=", 1) for line in config["Env"]) | dict(settings)
    user, group = (int(part) for part in config["User"].split(":"))
    spec["root"] = {"path": str(image.root), "readonly": True}
    spec["process"] |= {
        "args": [*config["Entrypoint"], *config.get("Cmd", [])],
        "capabilities": {},
        "cwd": config["WorkingDir"],
        "env": [f"{name}={value}" for name, value in environment.items()],
        "noNewPrivileges": True,
        "terminal": False,
        "user": {"uid": user, "gid": group},
    }
    memory = {
        "destination": "/tmp",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "mode=1777"],
    }
    spec["mounts"].append(memory)
    apart = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [one for one in apart if one["type"] != "network"]
    return spec
