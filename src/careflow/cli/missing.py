"""Packages that only a part of CareFlow needs: which extra brings the one that is not installed."""

from __future__ import annotations

from careflow.errors import CareflowError

EXTRA_OF = {
    "fhir": "roster",
    "google": "gcp",
    "grpc": "gcp",
    "h11": "scheduler",
    "phonenumbers": "roster",
    "twilio": "caller",
    "yaml": "local",
}
"""Top-level module -> the extra of pyproject.toml that has its package."""


class PackageMissing(CareflowError):
    """A package that this command or service needs was not installed with CareFlow."""


def missing(error: ImportError) -> PackageMissing | None:
    """What to install, or None when the module is none of an extra's and its absence is a defect.

    The last part of a name that several packages share, as google.cloud, is missing without its error being a
    ModuleNotFoundError.
    """
    extra = EXTRA_OF.get((error.name or "").partition(".")[0])
    if extra is None:
        return None
    return PackageMissing(
        f"the package with the module {error.name} is not installed: pip install 'careflow-pulse[{extra}]'"
        " (in a checkout, make demo installs everything)"
    )
