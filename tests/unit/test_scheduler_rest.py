"""The REST surface of the scheduler, as a client that is none of Google's sees it (reference/cloud-scheduler)."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from careflow.clock import VirtualClock
from careflow.scheduler.api import SchedulerApi
from careflow.scheduler.rest import create_scheduler_api
from careflow.scheduler.service import Scheduler
from careflow.store.database import Database

PARENT = "projects/careflow-local/locations/us-central1"
JOBS = f"/v1/{PARENT}/jobs"
MORNING = f"{JOBS}/morning"
START = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


class _Tokens:
    async def token(self, audience: str) -> str:
        return audience


@asynccontextmanager
async def client(data_dir: Path, clock: VirtualClock | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The app on a scheduler whose loop does not run: nothing is delivered."""
    clock = clock or VirtualClock(START)
    database = Database.open(data_dir)
    try:
        async with httpx.AsyncHTTPTransport() as transport:
            scheduler = Scheduler(database, clock, transport, lambda _account: _Tokens())
            api = SchedulerApi(scheduler, clock=clock, location="us-central1", new_id=lambda: "invented")
            served = httpx.ASGITransport(create_scheduler_api(api))
            async with httpx.AsyncClient(transport=served, base_url="http://127.0.0.1:8085") as found:
                yield found
    finally:
        database.close()


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client(tmp_path) as found:
        yield found


def body(job_id: str = "morning", **changes: Any) -> dict[str, Any]:
    return {
        "name": f"{PARENT}/jobs/{job_id}",
        "schedule": "15 8 * * *",
        "httpTarget": {"uri": "https://pulse.example.com/", "httpMethod": "POST"},
    } | changes


async def create(rest: httpx.AsyncClient, job_id: str = "morning", **changes: Any) -> dict[str, Any]:
    answer = await rest.post(JOBS, json=body(job_id, **changes))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The envelope's error, once the answer is this refusal."""
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (status, status, code), answer.text
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    return error


async def test_a_job_lives_from_create_to_delete(rest: httpx.AsyncClient) -> None:
    created = await create(rest)
    assert created["state"] == "ENABLED"
    assert (await rest.get(MORNING)).json() == created
    assert (await rest.post(f"{MORNING}:pause", json={})).json()["state"] == "PAUSED"
    assert (await rest.post(f"{MORNING}:resume")).json()["state"] == "ENABLED"
    assert (await rest.post(f"{MORNING}:run", json={})).json()["name"] == created["name"]
    assert (await rest.delete(MORNING)).json() == {}
    refused(await rest.get(MORNING), 404, "NOT_FOUND")


async def test_resume_of_an_enabled_job_and_pause_of_a_paused_one_succeed(rest: httpx.AsyncClient) -> None:
    """Terraform resumes right after every create."""
    created = await create(rest)

    assert (await rest.post(f"{MORNING}:resume", json={})).json() == created
    paused = (await rest.post(f"{MORNING}:pause", json={})).json()
    assert (await rest.post(f"{MORNING}:pause", json={})).json() == paused


async def test_terraforms_way_of_updating_drops_what_is_not_sent(rest: httpx.AsyncClient) -> None:
    await create(rest, description="before", retryConfig={"retryCount": 3}, attemptDeadline="600s")
    wanted = body()
    del wanted["name"]

    changed = (await rest.patch(MORNING, json=wanted)).json()

    assert "description" not in changed
    assert "retryCount" not in changed["retryConfig"]
    assert changed["attemptDeadline"] == "180s"


async def test_a_mask_comes_in_the_query(rest: httpx.AsyncClient) -> None:
    await create(rest, description="before")
    wanted = {"schedule": "0 9 * * *", "description": "after", "retryConfig": {"retryCount": 2}}

    changed = (
        await rest.patch(MORNING, json=wanted, params={"updateMask": "schedule,retryConfig.retryCount"})
    ).json()

    assert (changed["schedule"], changed["retryConfig"]["retryCount"]) == ("0 9 * * *", 2)
    assert changed["description"] == "before"


async def test_a_patch_never_creates(rest: httpx.AsyncClient) -> None:
    refused(await rest.patch(MORNING, json=body()), 404, "NOT_FOUND")

    assert (await rest.get(JOBS)).json() == {}


async def test_enums_are_numbers_when_the_client_asks(rest: httpx.AsyncClient) -> None:
    await create(rest)

    shown = (await rest.get(MORNING, params={"$alt": "json;enum-encoding=int"})).json()
    listed = (await rest.get(f"{JOBS}?%24alt=json%3Benum-encoding%3Dint")).json()

    assert (shown["state"], shown["httpTarget"]["httpMethod"]) == (1, 1)
    assert listed["jobs"] == [shown]


async def test_standard_and_unknown_parameters_are_accepted(rest: httpx.AsyncClient) -> None:
    await create(rest)
    usual = "alt=json&fields=name&key=k&access_token=t&oauth_token=t&quotaUser=q&$.xgafv=1&uploadType=u&upload_protocol=p"

    answer = await rest.get(f"{MORNING}?{usual}&callback=f&legacyAppEngineCron=true&prettyPrint=false")

    assert answer.json()["name"] == f"{PARENT}/jobs/morning"
    assert "\n" not in answer.text
    assert "\n" in (await rest.get(MORNING)).text
    refused(await rest.get(MORNING, params={"alt": "proto"}), 400, "INVALID_ARGUMENT")


class TestPaging:
    async def names(self, rest: httpx.AsyncClient, **parameters: Any) -> tuple[list[str], str]:
        answer = (await rest.get(JOBS, params=parameters)).json()
        found = [job["name"].rpartition("/")[2] for job in answer.get("jobs", [])]
        return found, answer.get("nextPageToken", "")

    async def test_pages_follow_each_other_by_name(self, rest: httpx.AsyncClient) -> None:
        for job_id in ("c", "a", "b", "d"):
            await create(rest, job_id)

        first, token = await self.names(rest, pageSize=2)
        second, end = await self.names(rest, pageSize=2, pageToken=token)

        assert (first, second, end) == (["a", "b"], ["c", "d"], "")
        assert await self.names(rest) == (["a", "b", "c", "d"], "")
        assert await self.names(rest, pageSize=0) == (["a", "b", "c", "d"], "")
        assert await self.names(rest, page_size=1000) == (["a", "b", "c", "d"], "")

    async def test_a_page_has_500_jobs_at_most(self, rest: httpx.AsyncClient) -> None:
        for number in range(501):
            await create(rest, f"job-{number:03d}")

        first, token = await self.names(rest, pageSize=1000)
        rest_of_them, _ = await self.names(rest, pageToken=token)

        assert (len(first), rest_of_them) == (500, ["job-500"])

    async def test_only_the_parents_jobs_are_listed(self, rest: httpx.AsyncClient) -> None:
        await create(rest)
        other = "projects/careflow-local/locations/us-central12"

        assert (await rest.get(f"/v1/{other}/jobs")).json() == {}

    async def test_a_token_of_another_list_or_of_nobody_is_refused(self, rest: httpx.AsyncClient) -> None:
        await create(rest, "a")
        await create(rest, "b")
        _, token = await self.names(rest, pageSize=1)
        forged = base64.urlsafe_b64encode(json.dumps([1, []]).encode()).decode()

        elsewhere = await rest.get("/v1/projects/p/locations/us-central1/jobs", params={"pageToken": token})
        for answer in (
            elsewhere,
            *[await rest.get(JOBS, params={"pageToken": t}) for t in ("x", forged, "é")],
        ):
            assert "pageToken" in refused(answer, 400, "INVALID_ARGUMENT")["message"]

    async def test_a_token_lives_two_hours(self, tmp_path: Path) -> None:
        clock = VirtualClock(START)
        async with client(tmp_path, clock) as rest:
            await create(rest, "a")
            await create(rest, "b")
            _, token = await self.names(rest, pageSize=1)

            clock.advance(7199)
            assert await self.names(rest, pageToken=token) == (["b"], "")
            clock.advance(1)
            refused(await rest.get(JOBS, params={"pageToken": token}), 400, "INVALID_ARGUMENT")

    @pytest.mark.parametrize("size", ["-1", "many", "1.5", "99999999999"])
    async def test_a_bad_size_is_refused(self, rest: httpx.AsyncClient, size: str) -> None:
        error = refused(await rest.get(JOBS, params={"pageSize": size}), 400, "INVALID_ARGUMENT")

        assert "pageSize" in error["message"]


class TestRefusals:
    async def test_a_used_name(self, rest: httpx.AsyncClient) -> None:
        await create(rest)

        error = refused(await rest.post(JOBS, json=body()), 409, "ALREADY_EXISTS")

        assert "morning" in error["message"]

    @pytest.mark.parametrize("method", ["get", "delete"])
    async def test_a_missing_job(self, rest: httpx.AsyncClient, method: str) -> None:
        error = refused(await getattr(rest, method)(MORNING), 404, "NOT_FOUND")

        assert error["message"] == "Job not found."

    @pytest.mark.parametrize("verb", ["pause", "resume", "run"])
    async def test_verbs_of_a_missing_job(self, rest: httpx.AsyncClient, verb: str) -> None:
        refused(await rest.post(f"{MORNING}:{verb}", json={}), 404, "NOT_FOUND")

    @pytest.mark.parametrize(
        "document", [b"{", b'{"name": NaN}', b'{"a": 1, "a": 2}', b"\xff\xfe{}", b"[" * 100_000]
    )
    async def test_what_is_no_json(self, rest: httpx.AsyncClient, document: bytes) -> None:
        error = refused(await rest.post(JOBS, content=document), 400, "INVALID_ARGUMENT")

        assert error["message"].startswith("Invalid JSON payload received")

    @pytest.mark.parametrize(
        "where", [{}, {"httpTarget": {}}, {"httpTarget": {"uri": "http://x", "headers": {}}}]
    )
    async def test_a_very_long_name_is_not_repeated_in_full(
        self, rest: httpx.AsyncClient, where: dict[str, Any]
    ) -> None:
        wanted = body(**where)
        inner = wanted.get("httpTarget", wanted) if where else wanted
        inner = inner.get("headers", inner)
        inner["x" * 100_000] = 1

        error = refused(await rest.post(JOBS, json=wanted), 400, "INVALID_ARGUMENT")

        assert len(json.dumps(error)) < 2000

    async def test_a_bad_field_is_named_in_the_details_too(self, rest: httpx.AsyncClient) -> None:
        error = refused(await rest.post(JOBS, json=body(attemptDeadline="284400s")), 400, "INVALID_ARGUMENT")

        assert error["details"] == [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "attemptDeadline", "description": error["message"]}],
            }
        ]

    async def test_a_request_beyond_all_jobs_is_read_to_its_end_and_refused(
        self, rest: httpx.AsyncClient
    ) -> None:
        error = refused(await rest.post(JOBS, content=b" " * (5 << 20)), 400, "INVALID_ARGUMENT")

        assert error["message"].startswith("job:")

    @pytest.mark.parametrize(
        ("field", "change"),
        [
            ("schedule", {"schedule": "0 15 8 * * *"}),
            ("schedule", {"schedule": "15 8 L * *"}),
            ("schedule", {"schedule": "0 0 31 4 *"}),
            ("timeZone", {"timeZone": "Mars/Olympus"}),
            ("attemptDeadline", {"attemptDeadline": "284400s"}),
            (
                "httpTarget.body",
                {"httpTarget": {"uri": "https://x.example.com", "httpMethod": 2, "body": "eA=="}},
            ),
            ("updateMask", {}),
        ],
    )
    async def test_a_bad_update_changes_nothing(
        self, rest: httpx.AsyncClient, field: str, change: dict[str, Any]
    ) -> None:
        created = await create(rest)
        mask = ",".join(["description", *(change or {"patience": 1})])

        answer = await rest.patch(
            MORNING, json={"description": "other", **change}, params={"updateMask": mask}
        )

        error = refused(answer, 400, "INVALID_ARGUMENT")
        assert error["details"][0]["fieldViolations"][0]["field"] == field
        assert (await rest.get(MORNING)).json() == created

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/projects/p/locations/-/jobs",
            "/v1/projects/p/locations/us central1/jobs",
            "/v1/projects/p/locations/l/jobs/a.b",
            "/v1/projects/-/locations",
        ],
    )
    async def test_a_malformed_name(self, rest: httpx.AsyncClient, path: str) -> None:
        refused(await rest.get(path), 400, "INVALID_ARGUMENT")

    async def test_what_is_no_method(self, rest: httpx.AsyncClient) -> None:
        refused(await rest.get("/v1/nothing"), 404, "NOT_FOUND")
        refused(await rest.put(MORNING, json={}), 404, "NOT_FOUND")
        refused(await rest.post(f"{MORNING}:fly", json={}), 404, "NOT_FOUND")

    async def test_a_verb_with_a_field(self, rest: httpx.AsyncClient) -> None:
        await create(rest)

        refused(await rest.post(f"{MORNING}:run", json={"at": "once"}), 400, "INVALID_ARGUMENT")
        assert (await rest.post(f"{MORNING}:run", json={"legacyAppEngineCron": True})).status_code == 200

    async def test_a_page_in_a_browser_may_not_ask(self, rest: httpx.AsyncClient) -> None:
        answer = await rest.post(
            JOBS,
            content=json.dumps(body()),
            headers={"Origin": "https://evil.example", "Content-Type": "text/plain"},
        )

        refused(answer, 403, "PERMISSION_DENIED")
        assert (await rest.get(JOBS)).json() == {}

    async def test_a_failure_of_ours_tells_nothing_of_itself(
        self, rest: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(*_args: Any, **_words: Any) -> None:
            raise RuntimeError("inner words")

        monkeypatch.setattr(Scheduler, "get", broken)
        with caplog.at_level(logging.ERROR):
            answer = await rest.get(MORNING)

        refused(answer, 500, "INTERNAL")
        assert "inner words" not in answer.text
        assert "inner words" in caplog.text


async def test_any_project_and_location_that_are_well_formed_exist(rest: httpx.AsyncClient) -> None:
    parent = "projects/example.com:careflow-478811/locations/europe-west1"
    answer = await rest.post(f"/v1/{parent}/jobs", json=body(name=f"{parent}/jobs/x"))

    assert answer.json()["name"] == f"{parent}/jobs/x"
    assert (await rest.get(f"/v1/{parent}/jobs/x")).status_code == 200


async def test_a_job_without_a_name_gets_one(rest: httpx.AsyncClient) -> None:
    assert (await create(rest, name=None))["name"] == f"{PARENT}/jobs/invented"


async def test_locations_keys_and_operations(rest: httpx.AsyncClient) -> None:
    location = (await rest.get(f"/v1/{PARENT}")).json()

    assert location["locationId"] == "us-central1"
    assert (await rest.get("/v1/projects/careflow-local/locations")).json() == {"locations": [location]}
    assert (await rest.get(f"/v1/{PARENT}/cmekConfig")).json() == {"name": f"{PARENT}/cmekConfig"}
    refused(await rest.patch(f"/v1/{PARENT}/cmekConfig", json={}), 501, "UNIMPLEMENTED")
    assert (await rest.get(f"/v1/{PARENT}/operations")).json() == {}
    refused(await rest.get(f"/v1/{PARENT}/operations/o"), 404, "NOT_FOUND")
    refused(await rest.post(f"/v1/{PARENT}/operations/o:cancel", json={}), 404, "NOT_FOUND")
