"""`careflow jobs`: the scheduler's jobs, here or at Google's."""

from __future__ import annotations

import base64
import json as jsonlib
from datetime import datetime, timedelta
from typing import Annotated, Any

from cyclopts import App, Parameter

from careflow.cli.context import Json, clock_of
from careflow.cli.output import local, print_json, print_table
from careflow.cli.scheduler_api import NOWHERE, Where, scheduler_api
from careflow.errors import SettingsError

app = App(
    name="jobs",
    help="The scheduler's jobs: list, change, run, pause, what they did and will do.",
    default_parameter=Parameter(negative=()),
)

JobId = Annotated[str, Parameter(help="The job's id, as `jobs list` shows it.")]


@app.command(name="list")
async def list_(*, where: Where = NOWHERE, json: Json = False) -> None:
    """List the jobs of a project and location."""
    async with scheduler_api(where) as api:
        jobs = await api.jobs()
        if json:
            print_json({"jobs": jobs})
            return
        print_table(
            f"Jobs in {api.parent}",
            ("job", "schedule", "zone", "state", "next", "last attempt", "last result"),
            [
                (
                    _id(job),
                    job.get("schedule"),
                    _zone(job),
                    job.get("state"),
                    _time(job.get("scheduleTime"), _zone(job)),
                    _time(job.get("lastAttemptTime"), _zone(job)),
                    _result(job),
                )
                for job in jobs
            ],
        )


@app.command
async def describe(job_id: JobId, /, *, where: Where = NOWHERE, json: Json = False) -> None:
    """Show one job as the API has it."""
    async with scheduler_api(where) as api:
        _show(await api.job("GET", job_id), json)


@app.command
async def create(
    job_id: JobId,
    /,
    *,
    schedule: Annotated[str, Parameter(help="Five cron fields, or words like 'every monday 09:00'.")],
    uri: Annotated[str, Parameter(help="Where the job POSTs to.")],
    body: Annotated[str | None, Parameter(help="The request's body; JSON is sent as such.")] = None,
    time_zone: Annotated[str | None, Parameter(help="IANA zone (default: CAREFLOW_TIME_ZONE).")] = None,
    account: Annotated[
        str | None, Parameter(help="Account of the OIDC token (default: CAREFLOW_SCHEDULER_ACCOUNT).")
    ] = None,
    audience: Annotated[str | None, Parameter(help="Audience of the token (default: the uri).")] = None,
    retries: Annotated[int | None, Parameter(help="Retries after the first attempt, 0 to 5.")] = None,
    deadline: Annotated[int | None, Parameter(help="Seconds an attempt may take, 15 to 1800.")] = None,
    where: Where = NOWHERE,
    json: Json = False,
) -> None:
    """Create a job that POSTs to a URI with an OIDC token."""
    settings = where.settings
    async with scheduler_api(where) as api:
        token = {
            "serviceAccountEmail": account or settings.scheduler_account,
            "audience": audience or uri,
        }
        job = {
            "name": api.name(job_id),
            "schedule": schedule,
            "timeZone": time_zone or settings.time_zone,
            "httpTarget": {"uri": uri, "oidcToken": token, **_body(body)},
            **_limits(retries, deadline),
        }
        _show(await api.call("POST", f"/v1/{api.parent}/jobs", job), json)


@app.command
async def update(
    job_id: JobId,
    /,
    *,
    schedule: Annotated[str | None, Parameter(help="The new schedule.")] = None,
    uri: Annotated[str | None, Parameter(help="The new target; the token's audience stays.")] = None,
    body: Annotated[str | None, Parameter(help="The new body.")] = None,
    time_zone: Annotated[str | None, Parameter(help="The new IANA zone.")] = None,
    retries: Annotated[int | None, Parameter(help="Retries after the first attempt, 0 to 5.")] = None,
    deadline: Annotated[int | None, Parameter(help="Seconds an attempt may take, 15 to 1800.")] = None,
    where: Where = NOWHERE,
    json: Json = False,
) -> None:
    """Change what is named, and nothing else."""
    target = ({} if uri is None else {"uri": uri}) | _body(body)
    change = {
        key: value
        for key, value in {
            "schedule": schedule,
            "timeZone": time_zone,
            "httpTarget": target or None,
            **_limits(retries, deadline),
        }.items()
        if value is not None
    }
    if not change:
        raise SettingsError(
            "nothing to change: name --schedule, --time-zone, --uri, --body, --retries or --deadline"
        )
    async with scheduler_api(where) as api:
        _show(await api.job("PATCH", job_id, body=change, updateMask=",".join(_paths(change))), json)


@app.command
async def delete(job_id: JobId, /, *, where: Where = NOWHERE, json: Json = False) -> None:
    """Delete a job."""
    async with scheduler_api(where) as api:
        await api.job("DELETE", job_id)
        if json:
            print_json({"deleted": api.name(job_id)})
        else:
            print(f"deleted {job_id}")


@app.command
async def run(job_id: JobId, /, *, where: Where = NOWHERE, json: Json = False) -> None:
    """Run a job now, whatever its schedule says; returns before the target has answered."""
    await _verb("run", job_id, where, json)


@app.command
async def pause(job_id: JobId, /, *, where: Where = NOWHERE, json: Json = False) -> None:
    """Pause a job: no scheduled runs until it is resumed."""
    await _verb("pause", job_id, where, json)


@app.command
async def resume(job_id: JobId, /, *, where: Where = NOWHERE, json: Json = False) -> None:
    """Resume a paused job. What it missed is not made up for."""
    await _verb("resume", job_id, where, json)


@app.command
async def history(
    job_id: JobId,
    /,
    *,
    limit: Annotated[int, Parameter(help="At most so many attempts.")] = 20,
    where: Where = NOWHERE,
    json: Json = False,
) -> None:
    """Show what a job did: every attempt with its duration and result, the newest first. It is read from the logs."""
    async with scheduler_api(where) as api:
        job = await api.job("GET", job_id)
        attempts = _attempts(await api.log_entries(job_id, 2 * limit))[:limit]
        if json:
            print_json({"job": job["name"], "attempts": attempts})
            return
        print_table(
            f"Attempts of {job_id}",
            ("slot", "started", "seconds", "result", "HTTP"),
            [
                (
                    _time(attempt["scheduledTime"], _zone(job)),
                    _time(attempt["started"], _zone(job)),
                    attempt["seconds"],
                    attempt["result"],
                    attempt["httpStatus"],
                )
                for attempt in attempts
            ],
            empty="none yet",
        )


@app.command(name="next")
async def next_(
    *,
    days: Annotated[int, Parameter(help="How far to look ahead.")] = 7,
    where: Where = NOWHERE,
    json: Json = False,
) -> None:
    """Show what will fire and when, also across a clock change. Paused jobs fire nothing."""
    from careflow.scheduler.schedule import parse_schedule, slots_between

    if not 1 <= days <= 366:
        raise SettingsError(f"--days {days}: accepted are 1 to 366")
    async with scheduler_api(where) as api:
        now = clock_of(where.settings).now()
        firings: list[tuple[datetime, str, str]] = []
        for job in await api.jobs():
            if job.get("state", "ENABLED") != "ENABLED":
                continue
            schedule = parse_schedule(job["schedule"], _zone(job))
            slots = slots_between(schedule, now, now + timedelta(days=days))
            firings += [(slot, _id(job), _zone(job)) for slot in slots]
        firings.sort()
        if json:
            print_json({"firings": [{"time": moment, "job": job} for moment, job, _ in firings]})
            return
        print_table(
            f"The next {days} days",
            ("local time", "UTC", "job"),
            [(local(moment, zone), f"{moment:%Y-%m-%d %H:%M}", job) for moment, job, zone in firings],
        )


async def _verb(verb: str, job_id: str, where: Where, json: bool) -> None:
    async with scheduler_api(where) as api:
        job = await api.job("POST", job_id, f":{verb}", {})
        if json:
            print_json(job)
        else:
            print(
                f"{verb}: {job_id} is {job.get('state')}, next {_time(job.get('scheduleTime'), _zone(job))}"
            )


def _show(job: dict[str, Any], json: bool) -> None:
    """A job as JSON; for people with its body readable."""
    if not json and (body := job.get("httpTarget", {}).get("body")):
        job = job | {
            "httpTarget": job["httpTarget"] | {"body": base64.b64decode(body).decode(errors="replace")}
        }
    print_json(job)


def _body(body: str | None) -> dict[str, Any]:
    """The target's body and, when it is JSON, its content type: without one it goes out as octets."""
    if body is None:
        return {}
    try:
        jsonlib.loads(body)
        kind = "application/json"
    except ValueError:
        kind = "text/plain; charset=utf-8"
    return {"body": base64.b64encode(body.encode()).decode(), "headers": {"Content-Type": kind}}


def _limits(retries: int | None, deadline: int | None) -> dict[str, Any]:
    return ({} if retries is None else {"retryConfig": {"retryCount": retries}}) | (
        {} if deadline is None else {"attemptDeadline": f"{deadline}s"}
    )


def _paths(change: dict[str, Any], prefix: str = "") -> list[str]:
    """The update mask of a change; headers are replaced as a whole."""
    paths: list[str] = []
    for key, value in change.items():
        nested = isinstance(value, dict) and key != "headers"
        paths += _paths(value, f"{prefix}{key}.") if nested else [prefix + key]
    return paths


def _attempts(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Started and finished entries put together: an attempt's start is the newest one before its end (no ids link them)."""
    attempts: list[dict[str, Any]] = []
    finished: dict[str, Any] | None = None
    for entry in entries:  # the newest first
        told = entry.get("jsonPayload", {})
        kind = str(told.get("@type", "")).rpartition(".")[2]
        if kind == "AttemptFinished":
            finished = entry
        elif kind == "AttemptStarted":
            attempts.append(_attempt(entry, finished))
            finished = None
    return attempts


def _attempt(started: dict[str, Any], finished: dict[str, Any] | None) -> dict[str, Any]:
    begin = datetime.fromisoformat(started["timestamp"])
    end = datetime.fromisoformat(finished["timestamp"]) if finished else None
    return {
        "scheduledTime": started["jsonPayload"].get("scheduledTime"),
        "started": started["timestamp"],
        "seconds": None if end is None else round((end - begin).total_seconds(), 3),
        "result": "under way" if finished is None else finished["jsonPayload"].get("status", "OK"),
        "httpStatus": None if finished is None else finished.get("httpRequest", {}).get("status"),
    }


def _id(job: dict[str, Any]) -> str:
    return str(job["name"]).rpartition("/")[2]


def _zone(job: dict[str, Any]) -> str:
    return str(job.get("timeZone") or "UTC")


def _time(moment: str | None, zone: str) -> str:
    return local(datetime.fromisoformat(moment), zone) if moment else ""


def _result(job: dict[str, Any]) -> str:
    status = job.get("status")
    if status is None:
        return ""
    return "OK" if not status.get("code") else str(status["code"])
