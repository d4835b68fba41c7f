"""The scheduler's jobs asked for; each rehearsed, with its own token, path and payload; and looked for in Pulse's ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from careflow.doctor import agents, jobs
from careflow.doctor.attempts import code_of_job
from careflow.doctor.findings import Finding, doubtful, not_seen, well, wrong
from careflow.doctor.job_view import JobView, is_ours, same_origin
from careflow.doctor.ledger import hospitals
from careflow.doctor.set_up import NoAnswer, SetUp, json_of
from careflow.errors import CareflowError
from careflow.google_api.codes import Code

_APART = timedelta(minutes=5)  # of the scheduler's and the ledger's times of one attempt
_ENTRIES = 6  # of a job's log: its last attempt, and the slots missed since


async def scheduler(set_up: SetUp) -> AsyncIterator[Finding]:
    """Are the jobs there, enabled, well aimed, and how did each end?"""
    if set_up.cloud and not set_up.access_token:
        where = f"--project={set_up.settings.project} --location={set_up.settings.location}"
        yield not_seen(
            "scheduler",
            "needs an access token: --token $(gcloud auth print-access-token)",
            f"gcloud scheduler jobs list {where}",
            f"gcloud scheduler jobs describe careflow-morning-rounds {where}",
            blocks=True,
        )
        return
    try:
        found = await _ours(set_up)
    except CareflowError as error:
        cloud = (
            "export CAREFLOW_ACCESS_TOKEN=$(gcloud auth print-access-token)",
            f"gcloud services enable cloudscheduler.googleapis.com --project={set_up.settings.project}",
        )
        yield wrong(
            "scheduler",
            str(error),
            "The jobs cannot be looked at; if the scheduler is down, no round begins by itself.",
            *(cloud if set_up.cloud else set_up.remedies.start("careflow-agent")),
            blocks=True,
        )
        return
    for missing in jobs.missing(found, hospitals(set_up), set_up):
        yield missing
    if set_up.cloud and not any(job.is_sweep for job in found):
        yield doubtful(
            "careflow-sweep",
            "there is no job that sweeps",
            "Nobody settles what a lost instance left open, nor reports missing rounds (docs/monitoring.md).",
            set_up.remedies.infra(),
        )
    for job in found:
        entries = await _log(set_up, job)
        last = next((one for one in entries if _kind(one) == "AttemptFinished"), None)
        told = [*jobs.judged(job, set_up, last), *_missed(job, entries, set_up)]
        for one in told or [jobs.in_order(job, set_up)]:
            yield one


async def _ours(set_up: SetUp) -> Sequence[JobView]:
    listed = [JobView(one) for one in await set_up.jobs.jobs()]
    return [job for job in listed if is_ours(job, set_up)]


async def _log(set_up: SetUp, job: JobView) -> Sequence[Mapping[str, Any]]:
    try:
        return await set_up.jobs.log_entries(job.id, _ENTRIES)
    except CareflowError:
        return ()  # may be another service's API, and is only evidence


def _kind(entry: Mapping[str, Any]) -> str:
    return str(entry.get("jsonPayload", {}).get("@type", "")).rpartition(".")[2]


def _missed(job: JobView, entries: Sequence[Mapping[str, Any]], set_up: SetUp) -> Sequence[Finding]:
    """Slots that passed while this machine was off: said by our scheduler, as long as no attempt came after."""
    if not entries or _kind(entries[0]) != "SlotsMissed":
        return []
    payload = entries[0]["jsonPayload"]
    return [
        doubtful(
            job.id,
            f"missed {payload.get('count')} slots, the last at {payload.get('lastScheduledTime')}",
            "The machine was off or asleep at the slot, or the job was paused. It is not made up for.",
            *set_up.remedies.run(job.id),
            reason=str(payload.get("reason", "")),
        )
    ]


async def rehearsals(set_up: SetUp) -> AsyncIterator[Finding]:
    """What Pulse would say to each job."""
    for job in await _ours(set_up):
        if not job.is_sweep:
            yield await _rehearsed(set_up, job)


async def _rehearsed(set_up: SetUp, job: JobView) -> Finding:
    given = set_up.settings
    if not same_origin(job.uri, given.pulse_url):
        return await _stranger(set_up, job)
    payload = job.payload
    token = await set_up.token(job.account, job.audience) if job.account else None
    if payload is None or token is None:
        by_hand = agents.identity_command(set_up) if set_up.cloud else ()
        return not_seen(
            job.id, "no JSON body, or no token of its account and audience on this machine", *by_hand
        )
    headers = {"Content-Type": job.content_type or "application/octet-stream"}
    seen = await agents.rehearse(set_up, job.path, payload, token, headers)
    if isinstance(seen, NoAnswer):
        return wrong(
            job.id,
            f"nobody answers at its address ({seen.reason})",
            "It would end with UNAVAILABLE.",
            *set_up.remedies.start("careflow-agent"),
        )
    if not seen.environment:
        fix = set_up.remedies.remake(
            job.raw,
            "what the job sends comes from scheduler/terraform",
            account=given.scheduler_account,
            audience=set_up.pulse_audience,
            uri=given.pulse_url,
        )
        return agents.refused(
            job.id, seen, job.account, job.audience, set_up, *(fix if seen.status < 500 else ())
        )
    meant = payload.get("environment")
    if seen.environment != meant:
        return wrong(
            job.id,
            f"is meant for {meant!r}, and the Pulse at its address is of {seen.environment!r}",
            "That Pulse refuses it with 400 (wrong-environment).",
            *set_up.remedies.describe(job.id),
        )
    return well(job.id, f"Pulse takes its token, path and payload, for {meant!r}")


async def _stranger(set_up: SetUp, job: JobView) -> Finding:
    """Who is at an address that is not Pulse's. No token goes there."""
    root = "/".join(job.uri.split("/", 3)[:3])
    answer = await set_up.ask("GET", root + agents.CARD)
    if isinstance(answer, NoAnswer):
        who = f"where nobody answers ({answer.reason}): it ends with UNAVAILABLE"
    elif json_of(answer).get("name") == "CareFlow Pulse":
        who = "where another Pulse is: of another environment, it refuses the job with 400; of this one, move CAREFLOW_PULSE_URL"
    elif answer.is_success:
        who = "where something else answers 2xx: the job would succeed, and no round begin"
    else:
        who = f"where something answers {answer.status_code}"
    return wrong(
        job.id,
        "was not rehearsed: its address is not Pulse's",
        f"It is aimed at {root}, {who}.",
        *set_up.remedies.change(
            job.id,
            f'pulse_agent_urls.{set_up.settings.environment} = "{set_up.settings.pulse_url}"',
            uri=set_up.settings.pulse_url,
        ),
    )


async def arrivals(set_up: SetUp) -> AsyncIterator[Finding]:
    """Whether what the scheduler calls a success reached this Pulse: its ledger has an execution of it."""
    opened = await set_up.store()
    ledger = [
        one for hospital in hospitals(set_up) for one in await opened.executions(hospital.id, limit=100)
    ]
    for job in await _ours(set_up):
        at = job.moment("lastAttemptTime")
        if job.is_sweep or at is None or code_of_job(job.raw.get("status")) is not Code.OK:
            continue
        seen = [one for one in ledger if one.job_name == job.id and abs(one.received_at - at) <= _APART]
        when = f"{at:%Y-%m-%d %H:%M} UTC"
        if seen:
            newest = seen[0]
            yield well(
                job.id,
                f"{when}: {newest.patients_queried} patients queried, {newest.calls_initiated} calls",
                round=newest.round_id,
            )
        else:
            yield wrong(
                job.id,
                f"succeeded at {when}, and this Pulse has no trace of it",
                "Jobs succeed but the agent receives no requests: something else is at the job's address and answers 2xx,"
                " or it reached another Pulse, or this ledger is not that Pulse's.",
                *set_up.remedies.describe(job.id),
                *set_up.remedies.change(
                    job.id,
                    f'pulse_agent_urls.{set_up.settings.environment} = "{set_up.settings.pulse_url}"',
                    uri=set_up.settings.pulse_url,
                ),
                *set_up.remedies.run(job.id),
                uri=job.uri.partition("?")[0],
            )
