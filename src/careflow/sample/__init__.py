"""The sample roster: 45 synthetic patients. README.md says how it was made."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def roster_path() -> Path:
    """The file with the sample roster (a FHIR R4 transaction Bundle)."""
    return Path(str(resources.files(__package__).joinpath("roster.json")))
