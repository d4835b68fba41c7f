"""`careflow doctor`: look at a set-up, say what is wrong and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from careflow.cli.context import Hospital, Json, clock_of, settings_for
from careflow.cli.output import print_json
from careflow.cli.scheduler_api import GOOGLE, NOWHERE, Where, scheduler_api
from careflow.cli.whereabouts import reached, said
from careflow.errors import SettingsError
from careflow.safety import believes_google, practises, practises_tasks
from careflow.settings import Settings

if TYPE_CHECKING:
    from careflow.doctor.findings import Examined, Finding, Report

_SECONDS = 3.0  # for an answer of anybody
_TAGS = {"ok": "OK  ", "warn": "WARN", "fail": "FAIL", "skipped": "SKIP"}


async def doctor(
    *,
    where: Where = NOWHERE,
    hospital: Hospital = None,
    identity_token: Annotated[
        str,
        Parameter(
            env_var="CAREFLOW_IDENTITY_TOKEN",
            help="Google's identity token of the scheduler's account for Pulse (the skipped checks tell how).",
        ),
    ] = "",
    all_: Annotated[bool, Parameter(name="--all", help="Show what is well one by one, too.")] = False,
    json: Json = False,
) -> None:
    """Check a set-up, this machine's or one in the cloud: what is wrong, what it means, what to do.

    Changes nothing but a counter in the store, phones nobody, and takes some seconds. Exits 1 if anything failed.
    """
    from careflow.doctor.examination import unexamined
    from careflow.doctor.findings import Examined
    from careflow.doctor.registry import CHECKS

    begun = time.monotonic()
    try:
        settings = settings_for(where.data_dir, hospital)
    except SettingsError as error:
        from careflow.doctor.configuration import refused_settings

        first = Examined(
            check="settings", about=CHECKS[0].about, writes="", findings=refused_settings(str(error))
        )
        report = unexamined(CHECKS, first, "the settings do not load")
    else:
        report = await _examined(as_running(settings), where, identity_token)
    if json:
        print_json(_document(report, time.monotonic() - begun))
    else:
        print("\n".join(_lines(report, all_)))
    if not report.healthy:
        raise SystemExit(1)


def as_running(settings: Settings) -> Settings:
    """The settings with the addresses at which the services of this data directory say they are; the lab's where it is used."""
    settings = reached(settings)
    given = settings.model_fields_set
    if "caller_public_url" not in given:
        settings = settings.model_copy(update={"caller_public_url": settings.caller_url})
    if practises_tasks(settings):
        url = said(settings.data_dir, "tasks") or f"http://{settings.host}:{settings.tasks_port}"
        settings = settings.model_copy(update={"cloud_tasks_url": url})
    lab = said(settings.data_dir, "lab")
    if practises(settings) and lab and (settings.data_dir / "lab" / "account.json").is_file():
        from careflow.practice import with_practice

        settings = with_practice(settings, lab)
    return settings


async def _examined(settings: Settings, where: Where, identity_token: str) -> Report:
    import httpx

    from careflow.doctor.examination import examine
    from careflow.doctor.registry import CHECKS
    from careflow.doctor.remedies import Remedies
    from careflow.doctor.set_up import SetUp

    cloud = believes_google(settings) or (where.endpoint or "").endswith(".googleapis.com")
    data = ("--data-dir", str(where.data_dir)) if where.data_dir else ()
    endpoint = ("--endpoint", where.endpoint) if where.endpoint and not cloud else ()
    jobs = _Jobs(
        Where(
            project=where.project or settings.project,
            location=where.location or settings.location,
            endpoint=where.endpoint or (GOOGLE if cloud else settings.scheduler_url),
            token=where.token,
            data_dir=where.data_dir,
        )
    )
    async with httpx.AsyncClient(timeout=_SECONDS) as http:
        set_up = SetUp(
            settings=settings,
            clock=clock_of(settings),
            http=http,
            jobs=jobs,
            cloud=cloud,
            access_token=where.token or "",
            identity_token=identity_token,
            remedies=Remedies(
                cloud=cloud,
                project=where.project or settings.project,
                location=where.location or settings.location,
                environment=settings.environment,
                options=(*endpoint, *data),
                data=data,
            ),
        )
        try:
            return await examine(set_up, CHECKS)
        finally:
            await set_up.close()


class _Jobs:
    """The scheduler's API, opened for each question: without a token only the checks that ask it fail."""

    def __init__(self, where: Where) -> None:
        self._where = where

    async def jobs(self) -> list[dict[str, Any]]:
        async with scheduler_api(self._where) as api:
            return await api.jobs()

    async def log_entries(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        async with scheduler_api(self._where) as api:
            return await api.log_entries(job_id, limit)


# --- what is printed ---------------------------------------------------------------------------------------------


def _document(report: Report, seconds: float) -> Mapping[str, Any]:
    return {
        "healthy": report.healthy,
        "counts": report.counts,
        "seconds": round(seconds, 1),
        "checks": report.examined,
    }


def _lines(report: Report, every: bool) -> Iterator[str]:
    for one in report.examined:
        worse = [finding for finding in one.findings if finding.level != "ok"]
        if not worse and not every:
            yield f"OK    {one.check}: {one.about}{_count(one)}"
            continue
        for finding in one.findings if every else worse:
            yield from _told(one, finding)
    counts = report.counts
    yield ""
    yield (
        f"{counts['fail']} failed, {counts['warn']} to look at, {counts['skipped']} skipped, {counts['ok']} well;"
        f" written: {'; '.join(sorted({one.writes for one in report.examined if one.writes})) or 'nothing'}"
    )


def _count(one: Examined) -> str:
    return f" ({one.findings[0].said})" if len(one.findings) == 1 else f" ({len(one.findings)} looked at)"


def _told(one: Examined, finding: Finding) -> Iterator[str]:
    subject = "" if finding.subject == one.check else f" {finding.subject}"
    yield f"{_TAGS[finding.level]}  {one.check}:{subject} {finding.said}"
    if finding.level == "ok":
        return
    if finding.means:
        yield f"        {finding.means}"
    if finding.evidence:
        yield "        " + ", ".join(f"{name}={value}" for name, value in finding.evidence.items() if value)
    for line in finding.fix:
        yield f"          {line if line.startswith('#') else '$ ' + line}"
