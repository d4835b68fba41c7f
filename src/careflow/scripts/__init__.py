"""The check-in scripts: YAML that a clinician can read, checked when it is loaded."""

from __future__ import annotations

from careflow.scripts.loader import load_scripts

__all__ = ["load_scripts"]
