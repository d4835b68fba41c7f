"""A job of Cloud Scheduler judged beside what Pulse takes. Nothing is asked here: these are the verdicts."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from careflow.core.hospitals import Hospital
from careflow.core.rounds import Trigger, round_for
from careflow.doctor.attempts import MEANING, UNKNOWN, code_of_job
from careflow.doctor.findings import Finding, doubtful, evident, well, wrong
from careflow.doctor.job_view import SWEEP, JobView, same_origin, shown
from careflow.doctor.set_up import SetUp
from careflow.google_api.codes import Code
from careflow.scheduler.defaults import MINUTE
from careflow.scheduler.errors import InvalidSchedule
from careflow.scheduler.schedule import parse_schedule, slots_between

_SHORT = 60.0  # seconds; a shorter deadline has no room for a cold start and a store's bad minute
_AHEAD = timedelta(days=7)


def judged(job: JobView, set_up: SetUp, last: Mapping[str, Any] | None) -> Sequence[Finding]:
    """Everything that the job's own description shows; `last` is the newest AttemptFinished entry of its log.

    Empty when there is nothing to say.
    """
    return [one for rule in _RULES for one in rule(job, set_up)] + list(_last_attempt(job, set_up, last))


def _enabled(job: JobView, set_up: SetUp) -> Iterator[Finding]:
    state = str(job.raw.get("state", "ENABLED"))
    if state == "ENABLED":
        return
    what = {
        "PAUSED": "Somebody paused it. It fires at no slot until it is resumed, and what it missed is not made up for.",
        "DISABLED": "Cloud Scheduler disabled it: the project's billing or API is off.",
        "UPDATE_FAILED": "Its last change was not carried out; it has to be written again.",
    }
    resumes = set_up.remedies.resume(job.id)
    fix = resumes if state == "PAUSED" else (*set_up.remedies.describe(job.id), *resumes)
    yield wrong(
        job.id, f"is {state}: it does not run", what.get(state, "It fires at no slot."), *fix, state=state
    )


def _aimed(job: JobView, set_up: SetUp) -> Iterator[Finding]:
    wanted = set_up.settings.pulse_url + (SWEEP if job.is_sweep else "")
    if job.uri.rstrip("/") == wanted:
        return
    elsewhere = not same_origin(job.uri, set_up.settings.pulse_url)
    means = (
        "A wrong agent URL. It fails, unless what is there answers 2xx: then the job succeeds and no round begins."
        " If it is another environment's Pulse, that one refuses the payload with 400."
        if elsewhere
        else "The address is Pulse's with a path behind it, where nothing takes triggers (404)."
    )
    keyed = "pulse_agent_urls." + set_up.settings.environment
    if job.audience == set_up.pulse_audience:
        fix = set_up.remedies.change(job.id, f'{keyed} = "{set_up.settings.pulse_url}"', uri=wanted)
    else:
        fix = set_up.remedies.remake(
            job.raw,
            f'in vars/env.tfvars: {keyed} = "{set_up.settings.pulse_url}"',
            uri=wanted,
            audience=set_up.pulse_audience,
        )
    yield wrong(
        job.id,
        f"is aimed at {shown(job.uri)}, and Pulse is at {wanted}",
        means,
        *fix,
        *set_up.remedies.run(job.id),
        uri=shown(job.uri),
    )


def _spoken_for(job: JobView, set_up: SetUp) -> Iterator[Finding]:
    given = set_up.settings
    account = given.queue_account if job.is_sweep else given.scheduler_account
    audience = set_up.pulse_audience
    if not job.account:
        yield wrong(
            job.id,
            "sends no OIDC token",
            "Every delivery is refused: 401 by Pulse, 403 by Cloud Run.",
            *set_up.remedies.remake(
                job.raw,
                "the job's oidc_token comes from scheduler/terraform",
                account=account,
                audience=audience,
            ),
        )
        return
    if job.account != account:
        yield wrong(
            job.id,
            f"speaks as {job.account}, and Pulse lets in {account}",
            "Deliveries are refused with 403 Forbidden (PERMISSION_DENIED).",
            *set_up.remedies.remake(
                job.raw,
                "the job's account comes from scheduler/terraform",
                account=account,
                audience=audience,
            ),
            *(set_up.remedies.invoker("careflow-agent", f"serviceAccount:{account}") if set_up.cloud else ()),
            *set_up.remedies.run(job.id),
            account=job.account,
        )
    elif job.audience != audience and same_origin(job.uri, given.pulse_url):
        yield wrong(
            job.id,
            f"has tokens for the audience {shown(job.audience)}, and Pulse accepts {audience}",
            "Deliveries are refused with 401 (UNAUTHENTICATED). A job without an audience of its own has its full uri.",
            *set_up.remedies.remake(
                job.raw, "the job's audience is its pulse_agent_urls in vars/env.tfvars", audience=audience
            ),
            *set_up.remedies.run(job.id),
            audience=shown(job.audience),
        )


def _understood(job: JobView, set_up: SetUp) -> Iterator[Finding]:
    body = str(job.target.get("body", ""))
    if job.payload is None:
        yield wrong(
            job.id,
            "its body is not a JSON object",
            "Pulse answers 400.",
            *set_up.remedies.change(
                job.id, "the payload comes from scheduler/terraform", body=_usual_body(set_up)
            ),
        )
        return
    if job.content_type.partition(";")[0].strip().lower() != "application/json":
        text = base64.b64decode(body).decode(errors="replace")
        yield wrong(
            job.id,
            f"sends Content-Type {job.content_type or 'application/octet-stream'}",
            "Pulse takes application/json alone and answers 415; Cloud Scheduler sends octets unless the job has the header.",
            *set_up.remedies.change(job.id, "the header comes from scheduler/terraform", body=text),
        )
    meant = job.payload.get("environment")
    if not job.is_sweep and meant != set_up.settings.environment:
        yield wrong(
            job.id,
            f"is meant for the environment {meant!r}, and this is {set_up.settings.environment!r}",
            "Pulse refuses it with 400 (wrong-environment), so that one environment never phones the other's patients.",
            *set_up.remedies.change(
                job.id,
                "the payload's environment comes from scheduler/terraform",
                body=json.dumps({**job.payload, "environment": set_up.settings.environment}),
            ),
        )


def _usual_body(set_up: SetUp) -> str:
    given = set_up.settings
    payload = {
        "scheduleHour": 8,
        "timezone": given.time_zone,
        "triggerType": "scheduled",
        "source": "cloud-scheduler",
    }
    return json.dumps({**payload, "environment": given.environment})


def _on_time(job: JobView, set_up: SetUp) -> Iterator[Finding]:
    """Its slots lie in the round that its payload names, and its clock is the hospital's."""
    if job.is_sweep or job.payload is None:
        return
    named = str(job.payload.get("hospitalId", set_up.settings.hospital_id))
    hospital, hour = set_up.settings.served.get(named), job.payload.get("scheduleHour")
    if hospital is None or hour not in hospital.round_hours:
        return  # Pulse says so itself, in the rehearsal
    terraform = "round_times and timezone"
    now = set_up.clock.now()
    try:
        slots = list(
            slots_between(parse_schedule(str(job.raw.get("schedule", "")), job.zone), now, now + _AHEAD)
        )
    except (InvalidSchedule, ValueError, KeyError):
        yield wrong(
            job.id,
            "its schedule cannot be read",
            "It fires at no slot.",
            *set_up.remedies.change(job.id, terraform, schedule=f"{MINUTE} {hour} * * *"),
        )
        return
    if len(slots) < _AHEAD.days:
        yield doubtful(
            job.id,
            f"fires {len(slots)} times in {_AHEAD.days} days",
            "Its round does not come every day.",
            *set_up.remedies.change(job.id, terraform, schedule=f"{MINUTE} {hour} * * *"),
        )
    for slot in slots:
        wanted = Trigger(
            schedule_hour=hour,
            time_zone=hospital.time_zone,
            trigger_type="scheduled",
            source="careflow-doctor",
            environment=set_up.settings.environment,
            hospital_id=hospital.id,
        )
        round_ = round_for(wanted, slot, hospital.round_hours)
        if not round_.window_start <= slot < round_.window_end:
            yield wrong(
                job.id,
                f"fires at {slot:%H:%M} UTC, outside the window of the {hour}:00 round it names",
                "The round it finds is over or not begun: nobody is phoned at the time that was meant.",
                *set_up.remedies.change(
                    job.id, terraform, schedule=f"{MINUTE} {hour} * * *", time_zone=hospital.time_zone
                ),
            )
            break
    if job.zone != hospital.time_zone or job.payload.get("timezone") != hospital.time_zone:
        yield doubtful(
            job.id,
            f"its clock is {job.zone}, its payload's {job.payload.get('timezone')}, the hospital's {hospital.time_zone}",
            "After a change of clocks it may fire an hour early or late.",
            *set_up.remedies.change(
                job.id,
                terraform,
                time_zone=hospital.time_zone,
                body=json.dumps({**job.payload, "timezone": hospital.time_zone}),
            ),
        )


def _patient_enough(job: JobView, set_up: SetUp) -> Iterator[Finding]:
    if job.is_sweep:
        return
    if job.deadline < _SHORT:
        yield doubtful(
            job.id,
            f"gives Pulse {job.deadline:g} s",
            "A cold start, or a slow minute of the store, ends in DEADLINE_EXCEEDED.",
            *set_up.remedies.change(job.id, 'attempt_deadline = "600s"', deadline="600"),
        )
    if int(job.raw.get("retryConfig", {}).get("retryCount", 0)) == 0:
        yield doubtful(
            job.id,
            "is not retried",
            "One lost delivery is a lost round; repeated triggers are harmless.",
            *set_up.remedies.change(job.id, "retry = { count = 3, ... }", retries="3"),
        )


def _last_attempt(job: JobView, set_up: SetUp, last: Mapping[str, Any] | None) -> Iterator[Finding]:
    code, at = code_of_job(job.raw.get("status")), job.moment("lastAttemptTime")
    if code is None or at is None or code is Code.OK:
        return
    told = last or {}
    evidence = {
        "code": code.name,
        "http": str(told.get("httpRequest", {}).get("status", "")),
        "debugInfo": str(told.get("jsonPayload", {}).get("debugInfo", "")),
        "at": f"{at:%Y-%m-%d %H:%M:%S} UTC",
    }
    changed = job.moment("userUpdateTime")
    if changed is not None and changed > at:
        since = doubtful(
            job.id,
            f"its last attempt ended with {code.name}, and it was changed since",
            "Whether the change has put it right shows when it runs again.",
            *set_up.remedies.run(job.id),
        )
        yield evident(since, evidence)
        return
    fix: Sequence[str] = set_up.remedies.logs("careflow-agent")
    if code is Code.DEADLINE_EXCEEDED and job.deadline < 600:
        fix = (*set_up.remedies.change(job.id, 'attempt_deadline = "600s"', deadline="600"), *fix)
    failed = wrong(
        job.id,
        f"its last attempt ended with {code.name}",
        MEANING.get(code, UNKNOWN),
        *fix,
        set_up.remedies.history(job.id),
        *set_up.remedies.run(job.id),
    )
    yield evident(failed, evidence)


_RULES = (_enabled, _aimed, _spoken_for, _understood, _on_time, _patient_enough)


def missing(jobs: Sequence[JobView], hospitals: Sequence[Hospital], set_up: SetUp) -> Iterator[Finding]:
    """The rounds that no job starts."""
    given = set_up.settings
    for hospital in hospitals:
        for hour in hospital.round_hours:
            if any(job.serves(hospital, hour, set_up) for job in jobs):
                continue
            word = {8: "morning", 12: "noon", 20: "evening"}.get(hour, f"{hour:02d}")
            job_id = f"careflow-{word}-rounds" + (f"-{hospital.id}" if given.hospitals else "")
            payload: dict[str, Any] = {
                "scheduleHour": hour,
                "timezone": hospital.time_zone,
                "triggerType": "scheduled",
                "source": "cloud-scheduler",
                "environment": given.environment,
            }
            if given.hospitals:
                payload["hospitalId"] = hospital.id
            yield wrong(
                f"{hour}:00 of {hospital.id}",
                "no job starts this round",
                "It never begins by itself.",
                *set_up.remedies.create(
                    job_id,
                    schedule=f"{MINUTE} {hour} * * *",
                    time_zone=hospital.time_zone,
                    uri=given.pulse_url,
                    audience=set_up.pulse_audience,
                    retries="3",
                    deadline="600",
                    body=json.dumps(payload),
                ),
            )


def in_order(job: JobView, set_up: SetUp) -> Finding:
    """A job of which there is nothing to say but when it fires."""
    upcoming, ran = job.moment("scheduleTime"), job.moment("lastAttemptTime")
    past = f"last ran {ran:%Y-%m-%d %H:%M} UTC" if ran else "has not run yet"
    return well(
        job.id, f"{past}, next {upcoming:%Y-%m-%d %H:%M} UTC" if upcoming else past, uri=shown(job.uri)
    )
