"""The agents' images, built by `make build` and run as Cloud Run would. Minutes: `make images`, not part of `make test`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from bench.rehearsal import AGENTS, Container, Image, Workshop, lacking, workshop
from packaging.utils import canonicalize_name

from distributions import locked

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(0),
    pytest.mark.skipif(bool(lacking()), reason=f"images cannot be built here: {lacking()}"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with workshop(tmp_path_factory.mktemp("images") / "workshop") as made:
        yield made


@pytest.fixture(scope="module", params=AGENTS)
def image(request: pytest.FixtureRequest, place: Workshop) -> Image:
    return place.build(request.param)


@pytest.fixture(scope="module")
def container(image: Image, place: Workshop) -> Iterator[Container]:
    with place.running(image, {}) as running:
        yield running


def test_it_holds_its_lock_and_this_project_alone(image: Image) -> None:
    (site,) = (image.root / "opt/careflow/lib").glob("python3.*/site-packages")
    names = (re.match(r"(.+)-[^-]+\.dist-info$", found.name) for found in site.glob("*.dist-info"))
    assert {canonicalize_name(name[1]) for name in names if name} == {*locked(image.role), "careflow-pulse"}


def test_it_holds_no_tests_history_cache_or_compiler(image: Image) -> None:
    place = image.root / "opt/careflow"
    ours = {part for path in place.rglob("*") for part in _ours(path.relative_to(place).parts)}
    unwanted = {".git", "tests", "bench", "Makefile", "requirements", "pip", "pip.conf", "__pycache__"}
    assert ours & unwanted == set()
    assert not (image.root / "build").exists()
    assert not (image.root / "root/.cache").exists()
    assert [tool for tool in ("gcc", "cc", "make", "git") if (image.root / "usr/bin" / tool).exists()] == []


def _ours(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The path, without those of other projects' packages: what they carry is theirs to say."""
    if "site-packages" not in parts:
        return parts
    inside = parts[parts.index("site-packages") + 1 :]
    return inside if inside[:1] == ("careflow",) else ()


def test_what_runs_may_change_nothing_of_it(image: Image) -> None:
    writable = [
        path for path in (image.root / "opt/careflow").rglob("*") if not path.is_symlink() and _open(path)
    ]
    assert writable == []


def _open(path: Path) -> bool:
    state = path.stat()
    return (
        state.st_uid != 0 or state.st_gid != 0 or bool(state.st_mode & 0o022) or bool(state.st_mode & 0o6000)
    )


def test_it_lives_as_nobody_without_rights(container: Container) -> None:
    assert container.status("Uid").split() == ["65532"] * 4
    assert int(container.status("CapEff"), 16) == 0
    assert container.status("NSpid").split()[-1] == "1"
    mounts = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
    (root,) = (line for line in mounts if line.split()[4] == "/")
    assert root.split()[5].split(",")[0] == "ro"


def test_it_answers(container: Container) -> None:
    for path in ("/healthz", "/readyz", "/.well-known/agent-card.json"):
        assert httpx.get(f"{container.url}{path}").status_code == 200
    assert httpx.post(container.url, json={}).status_code == 401


def test_it_ends_within_ten_seconds_of_the_signal(image: Image, place: Workshop) -> None:
    with place.running(image, {}) as running:
        seconds, code = running.stop()
    assert (seconds < 10, code) == (True, 0)
