"""`make build`, `push` and `deploy` of the agents: what the engines and gcloud are asked, and that the services would start."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from tests.compat.seed.terminal import Terminal, bare_environment
from tests.compat.test_seed_commands import accepted

from careflow.errors import SettingsError
from careflow.settings import check_roles, load_settings
from distributions import ROOT

AGENTS = {"pulse": "careflow-agent", "caller": "caller-agent"}
SECRETS = {"CAREFLOW_TWILIO_AUTH_TOKEN": "made-up", "CAREFLOW_ELEVENLABS_API_KEY": "made-up"}
_TOOL = """#!/bin/sh
[ "$1" = config ] && exit
[ "$1" = info ] && exit {answers}
{{ echo "{name}"; printf '%s\\n' "$@"; echo; }} >>{asked}
for word; do case $word in --env-vars-file=*) cp "${{word#*=}}" {asked}.$3.yaml; esac; done
"""


class Machine:
    """A copy of the project, where docker, podman and gcloud write down what they are asked."""

    def __init__(self, folder: Path) -> None:
        self.asked = folder / "asked"
        self._tools = folder / "tools"
        self._tools.mkdir()
        for needed in ("sh", "bash", "make", "sed", "cat", "cp", "rm", "mktemp", "grep", "sort", "env"):
            (self._tools / needed).symlink_to(str(shutil.which(needed)))
        self.terminal = Terminal.open(folder).having(PATH=str(self._tools))

    def has(self, tool: str, *, answers: bool = True) -> Machine:
        path = self._tools / tool
        path.write_text(_TOOL.format(name=tool, asked=self.asked, answers=0 if answers else 1))
        path.chmod(0o755)
        return self

    def make(self, words: str, role: str, code: int = 0) -> str:
        done = self.terminal.run(f"make {words}", f"careflow-agents/{AGENTS[role]}", code=code)
        return done.stdout + done.stderr

    def commands(self) -> list[list[str]]:
        return [one.split("\n") for one in self.asked.read_text().strip().split("\n\n")]


@pytest.fixture
def bench(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("role", AGENTS)
def test_an_engine_that_answers_builds_the_agent_s_file(role: str, bench: Machine) -> None:
    bench.has("docker", answers=False).has("podman").has("gcloud").make("build PROJECT=p TAG=t", role)
    (words,) = bench.commands()
    assert words[:2] == ["podman", "build"]
    root = bench.terminal.project
    assert words[-1] == str(root)
    told = dict(pairwise(words))
    assert told["--file"] == str(root / "careflow-agents" / AGENTS[role] / "Dockerfile")
    assert told["--tag"] == f"us-central1-docker.pkg.dev/p/careflow/{role}:t"
    assert told["--platform"] == "linux/amd64"
    assert told["--build-arg"].startswith("PYTHON_IMAGE=docker.io/library/python:3.11-")


@pytest.mark.parametrize("role", AGENTS)
def test_without_an_engine_google_builds_the_same_file(role: str, bench: Machine, tmp_path: Path) -> None:
    bench.has("docker", answers=False).has("gcloud").make("build PROJECT=p TAG=t", role)
    (words,) = bench.commands()
    assert words[:4] == ["gcloud", "builds", "submit", str(bench.terminal.project)]
    (given,) = (word.partition("=")[2] for word in words if word.startswith("--substitutions="))
    substitutions = dict(one.split("=", 1) for one in given.split(","))
    assert substitutions["_DOCKERFILE"] == f"careflow-agents/{AGENTS[role]}/Dockerfile"
    assert (ROOT / substitutions["_DOCKERFILE"]).is_file()
    config = (ROOT / "careflow-agents/cloudbuild.yaml").read_text()
    assert yaml.safe_load(config)["images"] == ["${_IMAGE}"]
    assert all(f"${{{name}}}" in config for name in substitutions)
    if shutil.which("gcloud"):
        assert accepted(" ".join(words), tmp_path)


def test_where_nothing_can_build_it_says_what_to_install(bench: Machine) -> None:
    assert "install one" in bench.make("build PROJECT=p TAG=t", "pulse", code=2)
    assert not bench.asked.exists()


def test_a_pushed_image_is_named_by_its_digest(bench: Machine, tmp_path: Path) -> None:
    bench.has("docker").has("gcloud").make("push PROJECT=p TAG=t", "caller")
    pushed, described = bench.commands()
    image = "us-central1-docker.pkg.dev/p/careflow/caller:t"
    assert pushed == ["docker", "push", image]
    assert described[:6] == ["gcloud", "artifacts", "docker", "images", "describe", image]
    assert described[-1] == "--format=value(image_summary.fully_qualified_digest)"
    if shutil.which("gcloud"):
        assert accepted(" ".join(described).replace("(", "\\(").replace(")", "\\)"), tmp_path)


@pytest.mark.parametrize(
    ("role", "service"),
    [("pulse", "careflow-agent"), ("caller", "caller-agent"), ("caller", "caller-agent-twilio")],
)
def test_a_deployed_service_would_start_with_the_example_s_settings(
    role: str, service: str, bench: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reaches Cloud Run, with what the image and Cloud Run itself add, is whole and safe."""
    bench.has("gcloud").make("deploy PROJECT=p IMAGE=i.example/x ENV_FILE=env.example.yaml", role)
    given = yaml.safe_load(Path(f"{bench.asked}.{service}.yaml").read_text())
    assert all(isinstance(value, str) for value in given.values()), "gcloud takes strings only"
    image = {"CAREFLOW_HOST": "0.0.0.0", f"CAREFLOW_{role.upper()}_PORT": "8080"}
    (words,) = (one for one in bench.commands() if one[:4] == ["gcloud", "run", "deploy", service])
    named = {word.partition("=")[2] for word in words if word.startswith("--set-secrets=")}
    secrets = {part.split("=")[0]: "made-up" for line in named for part in line.split(",")}
    assert secrets.keys() == (set() if role == "pulse" else SECRETS.keys())
    for name in [name for name in os.environ if name not in bare_environment()]:
        monkeypatch.delenv(name)
    for name, value in (given | image | secrets | {"K_SERVICE": service}).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    check_roles(settings, [role])
    known = {
        str(one.validation_alias or f"CAREFLOW_{field.upper()}")
        for field, one in type(settings).model_fields.items()
    }
    assert given.keys() <= known

    monkeypatch.setenv("CAREFLOW_PROJECT", "careflow-local")
    with pytest.raises(SettingsError, match="CAREFLOW_PROJECT"):
        load_settings()
