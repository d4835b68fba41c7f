"""`make lock`: resolve pyproject.toml into the hash-pinned files of requirements/, which name no index address.

    python tools/lock.py [NAME...]     # default: all of them

dev.txt is resolved first and binds the others, so that an image holds exactly what the tests ran with. What a requirement asks
for depends on the interpreter too: run this with the Python that the images have (PYTHON_IMAGE in the Dockerfiles).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = (3, 11)
OPTIONS = (
    "--quiet",
    "--allow-unsafe",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-trusted-host",
    "--no-emit-find-links",
    "--strip-extras",
    "--no-header",
    "--no-annotate",
)


def locks() -> dict[str, list[str]]:
    """What pip-compile is asked for each file, in the order in which they bind each other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # Extras of extras are left out: pip-compile would write this project itself down as one of its requirements.
    parts = [
        name
        for name, wanted in project["project"]["optional-dependencies"].items()
        if name != "bench" and not any(line.startswith("careflow-pulse[") for line in wanted)
    ]
    bound = ["--constraint=requirements/dev.txt"]
    return {
        "dev": _project(parts),
        "bench": [*_project([*parts, "bench"]), *bound],
        **{
            unit: [*_project(extras), *bound] for unit, extras in project["tool"]["careflow"]["units"].items()
        },
        "build": ["--only-build-deps", "--build-deps-for=wheel", *bound, "pyproject.toml"],
        "terraform-standin": ["requirements/terraform-standin.in"],
    }


def _project(extras: Sequence[str]) -> list[str]:
    return [*(f"--extra={extra}" for extra in extras), "pyproject.toml"]


def main(names: Sequence[str]) -> None:
    """Write the files named. Versions that still fit stay; delete a file first to renew it from nothing."""
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"the images have Python {'.'.join(map(str, PYTHON))}, this is {sys.version.split()[0]}")
    if unknown := set(names) - set(locks()):
        sys.exit(f"no such lock: {', '.join(sorted(unknown))}; accepted are {', '.join(locks())}")
    with tempfile.TemporaryDirectory(prefix="careflow-lock-") as place:
        venv.create(place, with_pip=True)
        python = Path(place, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "pip-tools"], check=True)
        for name, asked in locks().items():
            if name in (names or locks()):
                print(f"requirements/{name}.txt", flush=True)
                target = f"requirements/{name}.txt"
                subprocess.run(
                    [python, "-m", "piptools", "compile", *OPTIONS, *asked, "-o", target],
                    cwd=ROOT,
                    check=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
