"""What goes into the agents' images: locked, no more than their service imports, and nothing that only the two files of a
pair could disagree about."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from careflow.cli.missing import EXTRA_OF
from distributions import PROJECT, ROOT, UNITS, asked, imports, locked, needed, owner, owners

AGENTS = {"pulse": "careflow-agent", "caller": "caller-agent"}
NOT_SERVED = {
    "pulse": ("caller", "fhir", "google_api", "lab", "peopling", "scheduler", "scripts"),
    "caller": ("fhir", "google_api", "lab", "peopling", "pulse", "scheduler", "tasks"),
}
"""What the composition root would import for another role."""
UNIMPORTED = {
    "grpcio": "the transport that Google's clients import",
    "tzdata": "data of zoneinfo",
    "websockets": "what uvicorn reads sockets with, by its name in hosting.py",
}
"""Requirements that no line of ours imports, and what they are for."""
STANDARD = sys.stdlib_module_names


def dockerfile(role: str) -> str:
    return (ROOT / "careflow-agents" / AGENTS[role] / "Dockerfile").read_text()


def reach(role: str) -> set[str]:
    """The distributions that `careflow serve ROLE` may import."""
    _, foreign = imports(
        ["careflow.cli", "careflow.cli.serve"], without=[f"careflow.{part}" for part in NOT_SERVED[role]]
    )
    named = {name: owner(name) for name in foreign if name.split(".")[0] not in STANDARD | {"__future__"}}
    return {found for found in named.values() if found}


class TestLocks:
    @pytest.mark.parametrize("name", ["bench", "build", "dev", "terraform-standin", *UNITS])
    def test_a_lock_is_versions_with_hashes_and_nothing_else(self, name: str) -> None:
        assert locked(name)

    @pytest.mark.parametrize("name", ["bench", "build", *UNITS])
    def test_an_image_holds_what_the_tests_ran_with(self, name: str) -> None:
        tested = locked("dev")
        other = {one: version for one, version in locked(name).items() if tested.get(one, version) != version}
        assert other == {}
        assert name == "bench" or locked(name).keys() <= tested.keys()

    @pytest.mark.parametrize("role", UNITS)
    def test_a_unit_s_lock_is_what_its_extras_ask_for(self, role: str) -> None:
        assert locked(role).keys() == needed(asked(UNITS[role]))

    def test_the_build_s_lock_is_the_build_backend(self) -> None:
        assert locked("build").keys() == {"setuptools"}
        assert [line.split(">")[0] for line in PROJECT["build-system"]["requires"]] == ["setuptools"]


class TestImports:
    @pytest.mark.parametrize("role", UNITS)
    def test_a_service_imports_only_what_its_image_has(self, role: str) -> None:
        assert reach(role) - locked(role).keys() == set()

    @pytest.mark.parametrize("role", UNITS)
    def test_a_unit_asks_for_nothing_that_its_service_leaves_alone(self, role: str) -> None:
        unused = {canonicalize_name(one.name) for one in asked(UNITS[role])} - reach(role) - UNIMPORTED.keys()
        assert unused == set()

    @pytest.mark.parametrize("role", UNITS)
    def test_a_service_starts_and_ends_with_its_lock_alone(self, role: str, tmp_path: Path) -> None:
        with started(role, tmp_path, "serve", role, "--json") as process:
            assert process.stdout is not None
            line = "".join(iter(process.stdout.readline, "}\n"))
            assert '"ready": true' in line
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0

    def test_a_missing_package_is_told_with_its_extra(self, tmp_path: Path) -> None:
        with started("pulse", tmp_path, "roster", "import", "--sample", "--json") as process:
            said, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        error = json.loads(said)["error"]
        assert error["code"] == "PackageMissing"
        assert "pip install 'careflow-pulse[local]'" in error["message"]

    def test_every_extra_s_packages_are_known_by_their_modules(self) -> None:
        """Each package that is not in the base has a module in EXTRA_OF, and the extra named there brings it."""
        base = needed(asked())
        for module, extra in EXTRA_OF.items():
            packages = {found for name, found in owners().items() if name.split(".")[0] == module}
            assert packages & (brought(extra) | base), f"{extra} has nothing with the module {module}"
        told = set().union(*(brought(extra) for extra in EXTRA_OF.values()))
        assert set().union(*(brought(extra) for unit in UNITS.values() for extra in unit)) <= told


def brought(extra: str) -> set[str]:
    """The distributions that an extra names, by way of the extras in it too."""
    found = set()
    for one in asked([extra])[len(asked()) :]:
        if one.name == "careflow-pulse":
            found |= set().union(*(brought(inner) for inner in one.extras))
        else:
            found.add(canonicalize_name(one.name))
    return found


def started(role: str, folder: Path, *words: str) -> subprocess.Popen[str]:
    """`careflow WORDS` where only what is in the unit's lock can be imported."""
    there = {*locked(role), "careflow-pulse"}
    absent = sorted(module for module, name in owners().items() if name not in there)
    (folder / "absent.json").write_text(json.dumps(absent))
    (folder / "only.py").write_text(
        "import json, pathlib, sys\n"
        "absent = set(json.loads((pathlib.Path(__file__).parent / 'absent.json').read_text()))\n"
        "class Lock:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in absent:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Lock())\n"
        "from careflow.cli import main\n"
        "main()\n"
    )
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CAREFLOW_")}
    return subprocess.Popen(
        [sys.executable, str(folder / "only.py"), *words],
        env=ours | {"CAREFLOW_DATA_DIR": str(folder / "data"), f"CAREFLOW_{role.upper()}_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=(folder / "said").open("w"),
        text=True,
    )


class TestDockerfiles:
    def test_the_two_differ_in_the_agent_alone(self) -> None:
        pulse, caller = (
            dockerfile(role)
            .replace(f"/{AGENTS[role]}/", "/AGENT/")
            .replace(f'"{AGENTS[role]}"', '"AGENT"')
            .replace(f"CAREFLOW_{role.upper()}_PORT", "PORT")
            .replace(f"{role}.txt", "LOCK")
            .replace(f'"{role}"]', "ROLE]")
            .replace(f"{role.capitalize()} Agent", "Agent")
            for role in ("pulse", "caller")
        )
        about = re.compile(r'description="[^"]*"')
        assert about.sub("", pulse) == about.sub("", caller)

    @pytest.mark.parametrize("role", UNITS)
    def test_what_runs_is_not_root_and_gets_its_signals_itself(self, role: str) -> None:
        text = dockerfile(role)
        last = text[text.rindex("\nFROM ") :]
        (user,) = re.findall(r"^USER (\d+):\d+$", last, re.MULTILINE)
        assert int(user) > 0
        assert re.search(rf'^ENTRYPOINT \["careflow", "serve", "{role}"\]$', last, re.MULTILINE)
        assert not re.search(r"^RUN ", last, re.MULTILINE)
        assert "PYTHONUNBUFFERED=1" in last

    @pytest.mark.parametrize("role", UNITS)
    def test_nothing_is_installed_that_is_not_locked(self, role: str) -> None:
        installs = re.findall(
            r"pip (?:--python \S+ )?install ((?:[^\n]|\\\n)*?)(?: \\\n &&|\n)", dockerfile(role)
        )
        assert len(installs) == 3
        assert all("--require-hashes" in words or "--no-index" in words for words in installs)
        assert all("--no-deps" in words for words in installs)

    def test_the_base_is_the_python_that_the_locks_are_for(self) -> None:
        (version,) = re.findall(
            r"^PYTHON = \((\d+), (\d+)\)$", (ROOT / "tools/lock.py").read_text(), re.MULTILINE
        )
        for role in AGENTS:
            (base,) = re.findall(
                r"^ARG PYTHON_IMAGE=.*/python:(\d+)\.(\d+)-slim", dockerfile(role), re.MULTILINE
            )
            assert base == version
            assert set(re.findall(r"^FROM (\S+)", dockerfile(role), re.MULTILINE)) == {"${PYTHON_IMAGE}"}

    def test_the_context_is_what_the_files_copy(self) -> None:
        copied = {
            source
            for role in AGENTS
            for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(role), re.MULTILINE)
            for source in line.split()
        }
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        assert lines[1] == "*"
        assert {line[1:] for line in lines if line.startswith("!")} == copied
        assert all((ROOT / source).exists() for source in copied)
