"""What carries the calls: our own queue in the ledger, or Cloud Tasks', asked through its API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

from careflow.doctor.findings import Finding, doubtful, not_seen, well, wrong
from careflow.doctor.set_up import GoogleRefused, SetUp
from careflow.tasks.limits import cloud_tasks_settings, queue_limits
from careflow.tasks.pacing import QueueLimits

GOOGLE = "https://cloudtasks.googleapis.com"
_LATE = timedelta(minutes=10)  # of a task that is due and not delivered


async def embedded(set_up: SetUp) -> AsyncIterator[Finding]:
    """How many tasks wait in our own queue, and were any given up?"""
    from careflow.backends import Shared, open_carrier
    from careflow.tasks.embedded import EmbeddedQueue

    if not (set_up.settings.data_dir / "issuer").is_dir():
        yield not_seen("embedded queue", "no service has run here yet")
        return
    async with AsyncExitStack() as stack:
        shared = Shared(set_up.settings, set_up.clock, await set_up.store(), set_up.http, stack)
        carried = (await open_carrier(shared)).queue  # its loop is not run: nothing is delivered from here
        assert isinstance(carried, EmbeddedQueue)
        for name in ("calls", "rounds"):
            yield well(f"queue {name}", f"{await carried.depth(name)} tasks wait or are being delivered")
        dead = await carried.dead()
    if dead:
        ids = sorted({task.task.body.get("roundId", "") for task in dead} - {""})
        yield doubtful(
            "given up",
            f"{len(dead)} tasks were given up after every retry, the last of {dead[0].dead_at:%Y-%m-%d %H:%M} UTC",
            "Pulse refused them or was down for long. The rounds' closing gives these calls an outcome;"
            " a newer task of the same name starts afresh.",
            *(set_up.remedies.careflow("rounds", "show", one) for one in ids[:3]),
            rounds=", ".join(ids[:5]),
        )


async def cloud_tasks(set_up: SetUp) -> AsyncIterator[Finding]:
    """Are the queues there, do they run with our limits, is anything late?"""
    given = set_up.settings
    base = given.cloud_tasks_url or GOOGLE
    ids = {"calls": given.calls_queue, "rounds": given.rounds_queue}
    if base == GOOGLE and not set_up.access_token:
        yield not_seen(
            "Cloud Tasks",
            "needs an access token: --token $(gcloud auth print-access-token)",
            *(set_up.remedies.queue("describe", one) for one in ids.values()),
        )
        return
    limits = queue_limits(calls_per_second=given.calls_per_second, calls_in_flight=given.calls_in_flight)
    parent = f"{base}/v2/projects/{given.project}/locations/{given.location}/queues"
    for name, queue_id in ids.items():
        try:
            document = await set_up.google("GET", f"{parent}/{queue_id}")
            listed = await set_up.google("GET", f"{parent}/{queue_id}/tasks", params={"pageSize": "1000"})
        except GoogleRefused as error:
            yield _refused(set_up, queue_id, base, error)
            continue
        for one in judged_queue(document, limits[name], set_up):
            yield one
        for one in judged_tasks(queue_id, listed.get("tasks", []), set_up):
            yield one


def _refused(set_up: SetUp, queue_id: str, base: str, error: GoogleRefused) -> Finding:
    fix: Sequence[str] = (set_up.remedies.infra(),)
    if error.status == 404:
        said, means = (
            "there is no such queue",
            "Pulse plans rounds whose calls nobody delivers: triggers fail with 503.",
        )
    elif error.status in (401, 403):
        said, means = (
            f"may not be read ({error})",
            "The access token is no longer valid, or its account may not see queues.",
        )
        fix = ("gcloud auth login", "export CAREFLOW_ACCESS_TOKEN=$(gcloud auth print-access-token)")
    else:
        said, means = f"{base}: {error}", "The queue's API does not answer, so Pulse cannot add tasks either."
    if not set_up.cloud:
        fix = set_up.remedies.start("careflow-agent")
    return wrong(queue_id, said, means, *fix)


def judged_queue(document: Mapping[str, Any], wanted: QueueLimits, set_up: SetUp) -> Sequence[Finding]:
    """A Queue of Cloud Tasks v2 beside the limits that these settings mean."""
    queue_id = str(document.get("name", "")).rpartition("/")[2]
    state = document.get("state", "RUNNING")
    if state != "RUNNING":
        return [
            wrong(
                queue_id,
                f"is {state}",
                "No call is made until it runs again; rounds are planned all the same, and their windows pass.",
                set_up.remedies.resume_queue(queue_id, set_up.settings.cloud_tasks_url),
            )
        ]
    found = []
    usual = cloud_tasks_settings(wanted)
    rate = float(document.get("rateLimits", {}).get("maxDispatchesPerSecond", 500))
    if rate > wanted.per_second:
        found.append(
            doubtful(
                queue_id,
                f"delivers up to {rate:g} a second, the settings mean {wanted.per_second:g}",
                "Above the calls a second that Twilio grants the account, calls wait in Twilio's queue or are refused (429).",
                f"{set_up.remedies.queue('update', queue_id)} --max-dispatches-per-second={wanted.per_second:g}",
            )
        )
    lasting = _seconds(document.get("retryConfig", {}).get("maxRetryDuration", "0s"))
    if 0 < lasting < wanted.retry_for.total_seconds():
        found.append(
            doubtful(
                queue_id,
                f"gives a task up after {lasting:g} s",
                "A longer outage loses the calls' tasks; the sweep has to add them again.",
                f"{set_up.remedies.queue('update', queue_id)} --max-retry-duration={usual['retryConfig']['maxRetryDuration']}",
            )
        )
    return found or [well(queue_id, f"runs, {rate:g} a second")]


def judged_tasks(queue_id: str, tasks: Sequence[Mapping[str, Any]], set_up: SetUp) -> Sequence[Finding]:
    """The tasks that wait: how many, and how late the oldest is."""
    now = set_up.clock.now()
    due = [datetime.fromisoformat(one["scheduleTime"]) for one in tasks if one.get("scheduleTime")]
    late = now - min(due, default=now)
    many = f"{len(tasks)}{'+' if len(tasks) >= 1000 else ''} tasks wait"
    if late > _LATE:
        return [
            doubtful(
                queue_id,
                f"{many}, the oldest is {late.total_seconds() / 60:.0f} min late",
                "Pulse answers the deliveries with errors, or the queue is slower than the round.",
                *set_up.remedies.logs("careflow-agent"),
            )
        ]
    return [well(queue_id, many)]


def _seconds(text: object) -> float:
    return float(str(text).removesuffix("s") or 0)
