"""What this machine says of itself: settings, files, packages, the data directory, and the clock beside the services'."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path

from careflow.auth.verify import LEEWAY
from careflow.clock import SystemClock
from careflow.doctor.findings import Finding, doubtful, not_seen, well, wrong
from careflow.doctor.set_up import NoAnswer, SetUp
from careflow.safety import PRODUCTION, role_problems, setting_of
from careflow.settings import Settings

_FULL, _NEARLY_FULL = 50 * 2**20, 500 * 2**20  # bytes free
_EXTRAS = {  # a module of each extra's packages
    "caller": "twilio",
    "roster": "phonenumbers",
    "scheduler": "google.cloud.scheduler_v1",
    "firestore": "google.cloud.firestore_v1",
    "cloud-tasks": "google.cloud.tasks_v2",
}


def refused_settings(message: str) -> Sequence[Finding]:
    """One finding a problem of settings that do not load, whose error says `message`."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    problems = lines[1:] if len(lines) > 1 else lines
    return [
        wrong(
            problem.partition(":")[0],
            problem.partition(":")[2].strip() or problem,
            "No service starts with these settings; docs/settings.md says what each accepts.",
            f"unset {problem.partition(':')[0]}   # or set it to what is accepted",
            blocks=True,
        )
        for problem in problems
    ]


async def settings(set_up: SetUp) -> AsyncIterator[Finding]:
    """They have loaded; do they suit the services that this machine would run?"""
    from careflow.app import roles_here

    given = set_up.settings
    yield well(
        "settings",
        f"environment {given.environment}, store {given.store}, queue {given.queue}, tokens of {given.oidc_issuer}",
        project=given.project,
        location=given.location,
    )
    if set_up.cloud:
        yield not_seen(
            "services' own settings",
            "each service in the cloud has its own, checked when it starts",
            *set_up.remedies.logs("careflow-agent"),
        )
    else:
        for problem in role_problems(given, roles_here(given)):
            yield wrong(
                setting_of(problem.fields[0]),
                problem.text,
                "`careflow up` refuses to serve with this, because it is not safe.",
                f"unset {setting_of(problem.fields[0])}   # or set it to what is accepted",
            )
    for name, path in _files(given).items():
        if not os.access(path, os.R_OK):
            yield wrong(
                name,
                f"{path} cannot be read",
                "A service that needs the file does not start.",
                f"ls -l {path}",
            )
    if given.environment == PRODUCTION and given.firestore_emulator:
        yield doubtful(
            "FIRESTORE_EMULATOR_HOST",
            "set in production",
            "This shell reads and writes an emulator, not the hospital's database.",
            "unset FIRESTORE_EMULATOR_HOST",
        )


def _files(given: Settings) -> dict[str, Path]:
    named = {"CAREFLOW_CLOCK_FILE": given.clock_file}
    if given.oidc_jwks and "://" not in given.oidc_jwks:
        named["CAREFLOW_OIDC_JWKS"] = Path(given.oidc_jwks)
    return {name: path for name, path in named.items() if path is not None}


async def packages(set_up: SetUp) -> AsyncIterator[Finding]:
    """Which extras are installed, and which of them these settings need."""
    given = set_up.settings
    wanted = {name for name, on in {"firestore": given.store == "firestore"}.items() if on}
    wanted |= {"cloud-tasks"} if given.queue == "cloud-tasks" else {"caller"} if not set_up.cloud else set()
    missing = [extra for extra, module in _EXTRAS.items() if not _has(module)]
    if not missing:
        yield well("packages", "all extras are installed")
    for extra in missing:
        install = f"pip install 'careflow-pulse[{extra}]'   # in a checkout, make demo installs everything"
        said = f"the extra {extra!r} is not installed (no module {_EXTRAS[extra]})"
        if extra in wanted:
            yield wrong(
                extra, said, "The settings ask for what it brings; a service would not start.", install
            )
        else:
            yield doubtful(
                extra, said, "Commands and services that need it say so and stop; others work.", install
            )


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


async def data_directory(set_up: SetUp) -> AsyncIterator[Finding]:
    """Where this machine keeps things: is it there, can it be written, how full is it, who runs on it?"""
    directory = set_up.settings.data_dir
    if set_up.cloud:
        yield not_seen(str(directory), "in the cloud nothing is kept on a disk")
        return
    if not directory.is_dir():
        yield wrong(
            str(directory),
            "there is no such directory",
            "Nothing has run here yet, or CAREFLOW_DATA_DIR or --data-dir names the wrong place.",
            set_up.remedies.careflow("roster", "import", "--sample"),
            *set_up.remedies.start("careflow-agent"),
            blocks=set_up.settings.store == "sqlite",
        )
        return
    if not os.access(directory, os.W_OK | os.X_OK):
        yield wrong(
            str(directory),
            "cannot be written",
            "No round can be recorded, so none is begun.",
            f"ls -ld {directory}",
            f'sudo chown -R "$USER" {directory}',
        )
    free = shutil.disk_usage(directory).free
    told = f"{free / 2**20:,.0f} MiB free"
    if free < _NEARLY_FULL:
        finding = wrong if free < _FULL else doubtful
        yield finding(
            str(directory),
            told,
            "On a full disk no call is made: each is recorded first.",
            f"du -sh {directory}/*",
        )
    else:
        yield well(str(directory), f"can be written, {told}")
    holders = dict(_holders(directory))
    if "up" in holders or {"pulse", "caller"} <= holders.keys():
        yield well("who runs", ", ".join(f"{role}: process {pid}" for role, pid in sorted(holders.items())))
    else:
        yield doubtful(
            "who runs",
            f"running: {', '.join(sorted(holders)) or 'nobody'}",
            "Pulse and the Caller both have to run for a round, here or on another machine.",
            *set_up.remedies.start("careflow-agent"),
        )


def _holders(directory: Path) -> Sequence[tuple[str, str]]:
    """(role, pid) of the lock files whose process lives. To try the locks themselves might turn away who is starting."""
    found = []
    for path in sorted(directory.glob("*.lock")):
        try:
            pid = int(path.read_text().strip())
            os.kill(pid, 0)
        except PermissionError:
            found.append((path.stem, "of another user"))
        except (OSError, ValueError, OverflowError):
            continue
        else:
            found.append((path.stem, str(pid)))
    return found


async def clocks(set_up: SetUp) -> AsyncIterator[Finding]:
    """How far this machine's clock is from Pulse's. Tokens are refused beyond half a minute."""
    url = set_up.settings.pulse_url
    answer = await set_up.ask("GET", f"{url}/healthz")
    if isinstance(answer, NoAnswer) or "date" not in answer.headers:
        yield not_seen("clock", f"{url} answers with no time")
        return
    skew = abs(parsedate_to_datetime(answer.headers["date"]) - SystemClock().now())
    told = f"{skew.total_seconds():.0f} s apart from {url}"
    if skew <= LEEWAY + timedelta(seconds=1):  # the header has whole seconds
        yield well("clock", told)
    else:
        yield wrong(
            "clock",
            told,
            f"Tokens are refused (401) when two clocks differ by more than {LEEWAY.total_seconds():.0f} s.",
            "sudo timedatectl set-ntp true",
            "timedatectl",
        )
