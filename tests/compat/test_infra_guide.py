"""docs/google-cloud.md: its commands are words that the tools take, its patient can be imported. And infra/Makefile."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.compat.terraform.workshop import ROOT

from careflow.cli import build

GUIDE = (ROOT / "docs" / "google-cloud.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
LINES = [
    line.split("    #")[0].strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()
]
MAKES = [line.split()[1:] for line in LINES if line.startswith("make ")]
CAREFLOWS = [line.split()[1:] for line in LINES if line.startswith("careflow ")]


@pytest.mark.parametrize("words", MAKES, ids=" ".join)
def test_every_make_of_the_guide_names_targets_that_are_there(words: list[str]) -> None:
    assert words[0] == "-C"
    told = subprocess.run(
        ["make", "-C", words[1], "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    targets = set(re.findall(r"^([a-z-]+)\t", told.stdout, re.MULTILINE))
    named = {word for word in words[2:] if "=" not in word}
    assert named
    assert named <= targets


@pytest.mark.parametrize("words", CAREFLOWS, ids=" ".join)
def test_every_careflow_of_the_guide_is_a_command(words: list[str]) -> None:
    build().parse_args(words, exit_on_error=False, print_error=False)


def test_the_patient_of_the_guide_can_be_imported(tmp_path: Path) -> None:
    (bundle,) = re.findall(r"^```json\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    roster = tmp_path / "roster.json"
    roster.write_text(json.dumps(json.loads(bundle)))
    for words in (["import", str(roster), "--assume-consent"], ["show", "test-1"]):
        subprocess.run(
            [Path(sys.prefix, "bin", "careflow"), "roster", *words, "--data-dir", tmp_path / "data"],
            check=True,
            capture_output=True,
            timeout=60,
        )


@pytest.fixture
def infra(tmp_path: Path) -> Path:
    """The Makefile with its values, in a directory of its own beside a scheduler's."""
    folder = tmp_path / "infra"
    (folder / "vars").mkdir(parents=True)
    (tmp_path / "scheduler" / "terraform" / "vars").mkdir(parents=True)
    for name in ("Makefile", "scheduler_vars.py", "vars/staging.tfvars", "vars/prod.tfvars"):
        shutil.copy(ROOT / "infra" / name, folder / name)
    return folder


def make(folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "MAKE"))}
    done = subprocess.run(
        ["make", "-s", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestMakefile:
    def test_each_environment_has_its_own_bucket_directory_and_values(self, infra: Path) -> None:
        terraform = infra / "terraform"
        terraform.write_text('#!/bin/sh\necho "$TF_DATA_DIR" "$@"\n')
        terraform.chmod(0o755)
        for name in ("prod", "staging"):
            assert make(infra, "plan", f"ENVIRONMENT={name}", "TERRAFORM=./terraform").splitlines() == [
                f".terraform/{name} init -backend-config=bucket=careflow-{name}-000000-terraform-state",
                f".terraform/{name} plan -var-file=vars/{name}.tfvars",
            ]

    def test_the_scheduler_s_values_are_written_of_what_is_there(self, infra: Path) -> None:
        made = {
            "environment": "staging",
            "project_id": "careflow-staging-000000",
            "project_name": "careflow",
            "pulse_agent_service_name": "careflow-agent",
            "pulse_agent_url": "https://careflow-agent-123456789012.us-central1.run.app",
            "region": "us-central1",
            "timezone": "America/New_York",
        }
        (infra / "staging.outputs.json").write_text(json.dumps({"scheduler": {"value": made}}))
        make(infra, "scheduler-vars")
        written = (infra.parent / "scheduler/terraform/vars/env.tfvars").read_text()
        assert 'environments = ["staging"]' in written
        assert made["pulse_agent_url"] in written

    def test_without_outputs_the_scheduler_s_values_stay(self, infra: Path) -> None:
        kept = infra.parent / "scheduler/terraform/vars/env.tfvars"
        kept.write_text("kept")
        done = subprocess.run(
            ["make", "scheduler-vars"], cwd=infra, capture_output=True, text=True, timeout=20
        )
        assert done.returncode != 0
        assert "outputs.json" in done.stderr
        assert kept.read_text() == "kept"

    @pytest.mark.parametrize("target", ["plan", "apply", "destroy", "output"])
    def test_an_environment_that_is_not_there_is_named_with_those_that_are(
        self, infra: Path, target: str
    ) -> None:
        done = subprocess.run(
            ["make", target, "ENVIRONMENT=stagng", "TERRAFORM=false"],
            cwd=infra,
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode != 0
        assert "there is no vars/stagng.tfvars; there are: prod staging" in done.stderr

    def test_an_output_that_fails_leaves_what_was_kept(self, infra: Path) -> None:
        kept = infra / "staging.outputs.json"
        kept.write_text("kept")
        done = subprocess.run(["make", "output", "TERRAFORM=false"], cwd=infra, timeout=20, check=False)
        assert done.returncode != 0
        assert kept.read_text() == "kept"
        assert not [*infra.glob("*.new")]

    def test_an_environment_without_outputs_is_named(self, infra: Path) -> None:
        (infra / "staging.outputs.json").write_text("{}")
        done = subprocess.run(
            ["make", "scheduler-vars"], cwd=infra, capture_output=True, text=True, timeout=20
        )
        assert done.returncode != 0
        assert "staging.outputs.json has no output `scheduler`: make apply" in done.stderr
        assert not [*infra.glob("*.new")]
