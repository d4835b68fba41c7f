"""The lab's Cloud Tasks: names that are used up, what is refused, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from careflow.clock import VirtualClock
from careflow.errors import StoreInUse
from careflow.google_api.refusals import Code, Refused
from careflow.lab.cloud_tasks import open_cloud_tasks, resource
from cloud_tasks_bench import NOW, bench, refused
from cloud_tasks_kit import PARENT, QUEUE, AccountTokens, serving


@pytest.mark.parametrize("how", ["done", "deleted", "purged"])
async def test_a_name_cannot_be_used_again_for_a_day(tmp_path: Path, how: str) -> None:
    async with bench(tmp_path) as it:
        if how != "done":
            await it.rest.post(f"/v2/{QUEUE}:pause")
        assert (await it.create()).status_code == 200
        await it.settle()
        if how == "deleted":
            assert (await it.rest.delete(f"/v2/{QUEUE}/tasks/t1")).status_code == 200
        elif how == "purged":
            assert (await it.rest.post(f"/v2/{QUEUE}:purge")).status_code == 200
        assert refused(await it.create()) == (409, "ALREADY_EXISTS", "task.name")
        it.clock.advance(24 * 3600 - 1)
        assert refused(await it.create()) == (409, "ALREADY_EXISTS", "task.name")
        it.clock.advance(1)
        assert (await it.create()).status_code == 200


async def test_a_name_that_waits_is_taken_and_one_of_another_queue_is_not(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.queue(f"{PARENT}/queues/other")
        later = "2026-11-23T14:00:00Z"
        assert (await it.create(scheduleTime=later)).status_code == 200
        assert refused(await it.create(scheduleTime=later)) == (409, "ALREADY_EXISTS", "task.name")
        assert (await it.create(queue=f"{PARENT}/queues/other", scheduleTime=later)).status_code == 200


async def test_a_deleted_queues_name_cannot_be_used_for_a_week(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        assert (await it.rest.delete(f"/v2/{QUEUE}")).status_code == 200
        assert refused(await it.create()) == (404, "NOT_FOUND", "")
        assert refused(await it.rest.patch(f"/v2/{QUEUE}", json={}))[1] == "FAILED_PRECONDITION"
        it.clock.advance(7 * 24 * 3600)
        assert (await it.rest.patch(f"/v2/{QUEUE}", json={})).status_code == 200


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"scheduleTime": "2026-12-23T13:00:01Z"}, "task.scheduleTime"),
        ({"scheduleTime": "tomorrow"}, "task.scheduleTime"),
        ({"dispatchDeadline": "14.9s"}, "task.dispatchDeadline"),
        ({"dispatchDeadline": "1801s"}, "task.dispatchDeadline"),
        ({"httpRequest": {"url": "ftp://x/"}}, "task.httpRequest.url"),
        ({"httpRequest": {"httpMethod": "GET", "body": "eA=="}}, "task.httpRequest.body"),
        ({"httpRequest": {"body": "eHh4" * 40_000}}, "task"),
        ({"httpRequest": {"oidcToken": {"audience": "x"}}}, "task.httpRequest.oidcToken.serviceAccountEmail"),
        ({"appEngineHttpRequest": {"relativeUri": "/"}}, "task.appEngineHttpRequest"),
        ({"retryConfig": {"maxAttempts": 1}}, "task.retryConfig"),
        ({"surprise": 1}, "task.surprise"),
        ({"name": f"{PARENT}/queues/other/tasks/t1"}, "task.name"),
    ],
)
def test_a_task_that_is_not_accepted_is_refused_naming_the_field(fields: dict[str, Any], named: str) -> None:
    request = {"url": "http://x/", **fields.get("httpRequest", {})}
    with pytest.raises(Refused) as caught:
        resource.new_task(fields | {"httpRequest": request}, QUEUE, "x", NOW)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, named)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rateLimits": {"maxDispatchesPerSecond": 501}}, "queue.rateLimits.maxDispatchesPerSecond"),
        ({"rateLimits": {"maxConcurrentDispatches": 5001}}, "queue.rateLimits.maxConcurrentDispatches"),
        ({"retryConfig": {"maxAttempts": -2}}, "queue.retryConfig.maxAttempts"),
        ({"retryConfig": {"minBackoff": "9s", "maxBackoff": "8s"}}, "queue.retryConfig.minBackoff"),
        ({"httpTarget": {}}, "queue.httpTarget"),
    ],
)
def test_a_queue_that_is_not_accepted_is_refused_naming_the_field(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(Refused) as caught:
        resource.new_queue({"name": QUEUE, **settings}, PARENT)
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, named)


async def test_a_page_in_a_browser_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        answer = await it.rest.get(f"/v2/{QUEUE}", headers={"Origin": "https://evil.test"})
        assert refused(answer)[1] == "PERMISSION_DENIED"


async def test_what_was_being_delivered_when_the_lab_died_is_delivered_again(tmp_path: Path) -> None:
    """As after kill -9: the database says that an attempt is under way, and nobody makes it."""
    async with bench(tmp_path) as it:
        await it.rest.post(f"/v2/{QUEUE}:pause")
        await it.create()
        await it.served.tasks.database.write(
            lambda connection: connection.execute("UPDATE tasks SET dispatching = 1")
        )
        await it.rest.post(f"/v2/{QUEUE}:resume")
        await it.let(60, step=10)
        assert it.names == []
        host = it.served.receiver.url
    async with bench(tmp_path) as it:
        await it.settle()
        found = await it.task()
        assert found["httpRequest"]["url"] == f"{host}/tasks/call"
        assert "responseTime" in found["lastAttempt"]  # it was tried again: nobody listens there any more


SERVE = """
import asyncio, sys
from pathlib import Path
from cloud_tasks_kit import serving

async def main():
    async with serving(Path(sys.argv[1])) as served:
        print(served.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_no_task_that_was_answered_for_is_lost_by_a_kill(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVE, str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdout is not None
    url = (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()
    answered: list[str] = []

    async def create(rest: httpx.AsyncClient, mine: range) -> None:
        for number in mine:
            task = {
                "name": f"{QUEUE}/tasks/t{number}",
                "httpRequest": {"url": "http://127.0.0.1:9/"},
                "scheduleTime": f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
            }
            answer = await rest.post(f"/v2/{QUEUE}/tasks", json={"task": task})
            assert answer.status_code == 200, answer.text
            answered.append(f"t{number}")
            if len(answered) == 100:
                child.kill()

    async with httpx.AsyncClient(base_url=url) as rest:
        await rest.patch(f"/v2/{QUEUE}", json={})
        with pytest.raises(httpx.TransportError):
            await asyncio.gather(*(create(rest, range(first, 1000, 8)) for first in range(8)))
    await child.wait()

    async with serving(tmp_path) as served:
        page = await served.tasks.api.list_tasks(QUEUE, page_size=0, token="")
    assert len(answered) >= 100
    assert set(answered) <= {task.id for task in page.tasks}


async def test_only_one_serves_a_directory(tmp_path: Path) -> None:
    async with bench(tmp_path):
        with pytest.raises(StoreInUse):
            await open_cloud_tasks(
                tmp_path,
                VirtualClock(NOW),
                httpx.MockTransport(lambda _request: httpx.Response(200)),
                AccountTokens,
                location="us-central1",
                new_id=lambda: "x",
            )
