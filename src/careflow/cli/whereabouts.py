"""Where a running deployment can be reached: one small file a service in the data directory, for the commands beside it.

`{data_dir}/pulse.url` holds Pulse's base URL while it runs. A killed process leaves its file; the next start overwrites it,
and until then whoever follows it finds nobody there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from careflow.settings import Settings


@contextmanager
def announced(data_dir: Path, urls: Mapping[str, str]) -> Iterator[None]:
    """Say where each service is, until the end of the block."""
    data_dir.mkdir(parents=True, exist_ok=True)
    for role, url in urls.items():
        draft = data_dir / f".{role}.url-{os.getpid()}"
        draft.write_text(f"{url}\n")
        draft.replace(_file(data_dir, role))
    try:
        yield
    finally:
        for role in urls:
            _file(data_dir, role).unlink(missing_ok=True)


def reached(settings: Settings) -> Settings:
    """The settings with the services' URLs: as the environment says, else as they do, else by host and port."""
    usual = {
        "pulse": settings.pulse_port,
        "caller": settings.caller_port,
        "scheduler": settings.scheduler_port,
    }
    urls = {
        f"{role}_url": said(settings.data_dir, role) or f"http://{settings.host}:{port}"
        for role, port in usual.items()
        if f"{role}_url" not in settings.model_fields_set
    }
    return settings.model_copy(update=urls)


def _file(data_dir: Path, role: str) -> Path:
    return data_dir / f"{role}.url"


def said(data_dir: Path, role: str) -> str | None:
    """Where the service says that it is; None when it says nothing."""
    try:
        url = _file(data_dir, role).read_text().strip()
    except (OSError, ValueError):
        return None
    return url if urlsplit(url).scheme in ("http", "https") else None
