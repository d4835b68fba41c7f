"""Running the real `terraform` where nothing is installed for it: a stand-in provider, a copy of the files, no network."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
CONFIGURATION = ROOT / "scheduler" / "terraform"
REQUIREMENTS = ROOT / "requirements" / "terraform-standin.txt"
PROVIDER = Path(__file__).with_name("standin_provider.py")
_INHERITED = ("TF_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_")


def missing(what: str) -> None:
    """Leave the tests out and say why; where CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; CI must not skip this", pytrace=False)
    pytest.skip(what)


def terraform_binary() -> str:
    found = shutil.which("terraform")
    if found is None:
        missing("there is no terraform on the PATH")
    return str(found)


def standin_python() -> Path:
    """An interpreter with what the stand-in needs, made beside this one's packages at the first call and kept."""
    version = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = Path(sys.prefix) / "terraform-standin" / version
    python = folder / "bin" / "python"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        missing(f"the stand-in provider's environment cannot be made in {sys.prefix}: {error.strerror}")
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one test run come here together
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            for command in (
                (sys.executable, "-m", "venv", folder),
                (*install, "--require-hashes", "-r", REQUIREMENTS),
            ):
                done = subprocess.run(command, capture_output=True, text=True, timeout=100)
                if done.returncode:
                    missing(f"the stand-in provider's environment cannot be made: {done.stderr[-500:]}")
            (folder / "ready").touch()
    return python


@dataclass(frozen=True, slots=True)
class Workshop:
    """A copy of the configuration, initialised, and `terraform` to run in it."""

    folder: Path
    terraform: str
    environment: Mapping[str, str]
    values: str = "vars/env.tfvars"

    @classmethod
    def open(
        cls, home: Path, python: Path, configuration: Path = CONFIGURATION, values: str = "vars/env.tfvars"
    ) -> Workshop:
        """A new one under `home`, for which `terraform init` has been run, with local state. Plans start from `values`."""
        mirror = home / "mirror"
        launcher = mirror.joinpath(
            "registry.terraform.io",
            "hashicorp",
            "google",
            "7.13.0",
            _platform(),
            "terraform-provider-google_v7.13.0",
        )
        launcher.parent.mkdir(parents=True)
        launcher.write_text(f'#!/bin/sh\nexec "{python}" "{PROVIDER}"\n')
        launcher.chmod(0o755)
        # No `direct` block: what is not in the mirror is nowhere.
        config = home / "terraform.rc"
        include = '["registry.terraform.io/hashicorp/*"]'
        config.write_text(
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n    include = {include}\n  }}\n}}\n'
        )
        folder = home / "configuration"
        shutil.copytree(configuration, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_INHERITED)}
        environment |= {"TF_CLI_CONFIG_FILE": str(config), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
        (folder / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
        shop = cls(folder, terraform_binary(), environment, values)
        shop.run("init", "-input=false")
        return shop

    def run(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """One terraform command, which must end with `code`."""
        done = subprocess.run(
            [self.terraform, *words, *(() if words[0] == "show" else ("-no-color",))],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def plan(self, **changes: Any) -> dict[str, Any]:
        """The plan with the example's values and these changes, as `terraform show -json` tells it."""
        self.run("plan", "-input=false", "-out=made.tfplan", *self._values(changes))
        return dict(json.loads(self.run("show", "-json", "made.tfplan").stdout))

    def apply(self, **changes: Any) -> dict[str, Any]:
        """What stands in the state after an apply, by address."""
        self.run("apply", "-input=false", "-auto-approve", *self._values(changes))
        return by_address(json.loads(self.run("show", "-json").stdout)["values"])

    def refusals(self, **changes: Any) -> list[str]:
        """Why a plan with these values is refused: one text for each of Terraform's errors."""
        done = self.run("plan", "-input=false", "-json", *self._values(changes), code=1)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        told = [line["diagnostic"] for line in lines if line.get("type") == "diagnostic"]
        return [f"{one['summary']}: {one['detail']}" for one in told if one["severity"] == "error"]

    def _values(self, changes: Mapping[str, Any]) -> tuple[str, ...]:
        (self.folder / "changes.tfvars.json").write_text(json.dumps(changes))
        return (f"-var-file={self.values}", "-var-file=changes.tfvars.json")


def by_address(values: Mapping[str, Any]) -> dict[str, Any]:
    return {one["address"]: one["values"] for one in values["root_module"]["resources"]}


def _platform() -> str:
    machine = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    return f"{sys.platform}_{machine.get(os.uname().machine, os.uname().machine)}"
