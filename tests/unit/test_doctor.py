"""The doctor's verdicts on jobs and on Google's answers that a local machine does not give; it goes on when all is broken."""

from __future__ import annotations

import asyncio
import base64
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from careflow.doctor import jobs, platform
from careflow.doctor.configuration import refused_settings
from careflow.doctor.examination import Check, examine, unexamined
from careflow.doctor.findings import Examined, Finding, Level, Report, well
from careflow.doctor.job_view import JobView
from careflow.doctor.registry import CHECKS
from careflow.doctor.set_up import SetUp
from examined import CLOUD, PROJECT, PULSE, SWEEP, Jobs, cloud_report, google, job, set_up


class TestExamining:
    def check(self, name: str, run: Any, *needs: str) -> Check:
        return Check(name=name, about=name, run=run, needs=needs)

    async def test_a_check_that_raises_or_hangs_is_a_failure_and_hides_no_other(self, tmp_path: Path) -> None:
        async def raises(_set_up: SetUp) -> AsyncIterator[Finding]:
            yield well("first", "was seen")
            raise ValueError("Quintessa Exampleton said no")

        async def hangs(_set_up: SetUp) -> AsyncIterator[Finding]:
            yield well("first", "was seen")
            await asyncio.Event().wait()

        async def lacks(_set_up: SetUp) -> AsyncIterator[Finding]:
            raise ModuleNotFoundError("no", name="twilio.rest")
            yield

        async def good(_set_up: SetUp) -> AsyncIterator[Finding]:
            yield well("it", "is well")

        checks = [
            self.check("raises", raises),
            self.check("hangs", hangs),
            self.check("lacks", lacks),
            self.check("good", good, "good-before"),
        ]
        checks.insert(0, self.check("good-before", good))
        checks.append(self.check("needs", good, "raises"))
        report = await examine(set_up(tmp_path), checks, longest=0.2)
        levels = {one.check: [finding.level.value for finding in one.findings] for one in report.examined}
        assert levels == {
            "good-before": ["ok"],
            "raises": ["ok", "fail"],
            "hangs": ["ok", "fail"],
            "lacks": ["fail"],
            "good": ["ok"],
            "needs": ["skipped"],
        }
        assert not report.healthy
        assert "Quintessa" not in str(report)
        assert "[caller]" in str(report)  # the extra that brings it

    def test_every_needed_check_comes_before_and_names_are_unique(self) -> None:
        names = [check.name for check in CHECKS]
        assert len(set(names)) == len(names)
        conditional = {
            check.name for check in CHECKS if check.when is not Check.__dataclass_fields__["when"].default
        }
        assert not conditional & {name for check in CHECKS for name in check.needs}
        for at, check in enumerate(CHECKS):
            assert set(check.needs) <= set(names[:at])

    def test_of_a_set_up_that_does_not_load_all_problems_are_told(self) -> None:
        found = refused_settings("settings refused:\n  CAREFLOW_A: is bad\n  CAREFLOW_B: is worse")
        report = unexamined(CHECKS, Examined(check="settings", about="", writes="", findings=found), "why")
        assert [one.subject for one in report.examined[0].findings] == ["CAREFLOW_A", "CAREFLOW_B"]
        assert report.counts == {"ok": 0, "warn": 0, "fail": 2, "skipped": len(CHECKS) - 1}


def of(report: Report, level: Level) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for one in report.examined:
        for finding in one.findings:
            if finding.level is level:
                found.setdefault(one.check, []).append(finding)
    return found


class TestInTheCloud:
    async def test_a_deployment_in_order_has_no_failure(self, tmp_path: Path) -> None:
        report = await cloud_report(tmp_path, google())
        assert of(report, Level.FAIL) == {}
        assert {"rehearsal", "rights", "queues", "trigger", "jobs"} <= of(report, Level.OK).keys()

    async def test_without_tokens_it_skips_and_says_how_to_look_by_hand(self, tmp_path: Path) -> None:
        report = await cloud_report(tmp_path, google(), tokens=False)
        assert "queue" not in {one.check for one in report.examined}  # the embedded one is not used there
        skipped = of(report, Level.SKIPPED)
        for check, word in {
            "rights": "get-iam-policy careflow-agent",
            "queues": "gcloud tasks queues describe careflow-calls",
            "jobs": "gcloud scheduler jobs describe careflow-morning-rounds",
            "trigger": "--impersonate-service-account=careflow-scheduler@",
            "speech": "gcloud secrets versions access latest --secret=careflow-elevenlabs-api-key",
            "telephone": "--secret=careflow-twilio-auth-token",
        }.items():
            assert any(word in line for finding in skipped[check] for line in finding.fix), check

    async def test_a_missing_invoker_is_403_with_the_binding_to_add(self, tmp_path: Path) -> None:
        empty = httpx.Response(200, json={"bindings": []})
        report = await cloud_report(tmp_path, google(**{"careflow-agent:getIamPolicy": empty}))
        findings = of(report, Level.FAIL)["rights"]
        assert len(findings) == 2
        assert "403" in findings[0].means
        line = next(one for one in findings[0].fix if "add-iam-policy-binding" in one)
        assert "--role=roles/run.invoker" in shlex.split(line)
        assert f"--member=serviceAccount:{CLOUD['scheduler_account']}" in shlex.split(line)

    async def test_a_private_service_that_all_may_invoke_is_closed(self, tmp_path: Path) -> None:
        policy = {"bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]}
        found = platform.judged_policy("careflow-agent", policy, ["serviceAccount:a@b"], set_up(tmp_path))
        assert [one.subject for one in found if "remove-iam-policy-binding" in one.fix[0]] == [
            "careflow-agent"
        ]

    async def test_what_does_not_exist_is_told_with_its_fix(self, tmp_path: Path) -> None:
        gone = httpx.Response(404, json={"error": {"status": "NOT_FOUND"}})
        answers = google(
            **{
                "queues/careflow-calls": gone,
                f"{CLOUD['queue_account']}": gone,
                "caller-agent:getIamPolicy": gone,
            }
        )
        failed = of(await cloud_report(tmp_path, answers), Level.FAIL)
        assert failed["queues"][0].fix == ("make -C infra apply ENVIRONMENT=staging",)
        assert {one.subject for one in failed["rights"]} == {CLOUD["queue_account"], "caller-agent"}

    async def test_the_seeds_troubles_have_gcloud_and_terraform_for_fixes(self, tmp_path: Path) -> None:
        paused = job(8, state="PAUSED")
        target = job(12)["httpTarget"]
        astray = job(12, httpTarget={**target, "uri": "https://elsewhere.test"})
        other = {**target["oidcToken"], "serviceAccountEmail": "other@example.test"}
        forbidden = job(20, httpTarget={**job(20)["httpTarget"], "oidcToken": other})
        late = job(8, name="careflow-late-rounds", status={"code": 4}, lastAttemptTime="2026-11-22T13:15:00Z")
        scheduler = Jobs(paused, astray, forbidden, late)
        report = await cloud_report(tmp_path, google(), scheduler=scheduler)
        fixes = {one.subject: "\n".join(one.fix) for one in of(report, Level.FAIL)["jobs"]}
        assert (
            f"gcloud scheduler jobs resume careflow-morning-rounds --project={PROJECT}"
            in fixes["careflow-morning-rounds"]
        )
        assert f'pulse_agent_urls.staging = "{PULSE}"' in fixes["careflow-noon-rounds"]
        assert "terraform apply -var-file=vars/env.tfvars" in fixes["careflow-noon-rounds"]
        assert "roles/run.invoker" in fixes["careflow-evening-rounds"]
        assert "gcloud logging read" in fixes["careflow-late-rounds"]
        assert not any(
            line.startswith("careflow jobs") for text in fixes.values() for line in text.splitlines()
        )
        assert "there is no job that sweeps" in [one.said for one in of(report, Level.WARN)["jobs"]]

    async def test_a_token_goes_to_pulse_and_to_google_alone(self, tmp_path: Path) -> None:
        seen: list[tuple[str, str]] = []
        inner = google()

        def answer(request: httpx.Request) -> httpx.Response:
            if token := request.headers.get("authorization"):
                seen.append((request.url.host, token))
            if request.url.host == "elsewhere.test":
                return httpx.Response(200, json={"name": "something"})
            return inner(request)

        astray = job(8, httpTarget={**job(8)["httpTarget"], "uri": "https://elsewhere.test"})
        await cloud_report(tmp_path, answer, scheduler=Jobs(astray, job(12), job(20), SWEEP))
        assert {host for host, token in seen if token == "Bearer identity"} == {httpx.URL(PULSE).host}
        assert all(host.endswith(".googleapis.com") for host, token in seen if token == "Bearer access")


def said(changed: dict[str, Any], tmp_path: Path) -> list[Finding]:
    return list(jobs.judged(JobView(changed), set_up(tmp_path), None))


class TestAJob:
    def test_in_order_is_nothing_to_talk_of(self, tmp_path: Path) -> None:
        assert said(job(), tmp_path) == said(SWEEP, tmp_path) == []

    @pytest.mark.parametrize(
        ("changed", "level", "words"),
        [
            ({"state": "DISABLED"}, "fail", "is DISABLED"),
            ({"schedule": "15 8 * * 1"}, "warn", "fires 1 times in 7 days"),
            ({"schedule": "every blue moon"}, "fail", "cannot be read"),
            ({"timeZone": "Etc/UTC"}, "fail", "outside the window"),
            ({"timeZone": "America/Toronto"}, "warn", "its clock is America/Toronto"),
            ({"retryConfig": {}}, "warn", "not retried"),
            ({"attemptDeadline": "15s"}, "warn", "gives Pulse 15 s"),
            ({"status": {"code": 13}, "lastAttemptTime": "2026-11-22T13:15:00Z"}, "fail", "INTERNAL"),
            ({"status": {}, "lastAttemptTime": "2026-11-22T13:15:00Z"}, "", ""),
            (
                {
                    "status": {"code": 7},
                    "lastAttemptTime": "2026-11-22T13:15:00Z",
                    "userUpdateTime": "2026-11-22T14:00:00Z",
                },
                "warn",
                "it was changed since",
            ),
        ],
    )
    def test_is_judged_by_what_it_says(
        self, tmp_path: Path, changed: dict[str, Any], level: str, words: str
    ) -> None:
        found = said(job(**changed), tmp_path)
        if not level:
            assert found == []
            return
        assert any(one.level == level and words in one.said for one in found), found

    def test_shows_no_secret_of_its_address(self, tmp_path: Path) -> None:
        uri = "https://user:hunter2@elsewhere.test/path?key=hunter3"
        found = said(job(httpTarget={**job()["httpTarget"], "uri": uri}), tmp_path)
        assert found
        assert "hunter" not in str(found)

    @pytest.mark.parametrize(
        "target",
        [
            {},
            {"uri": PULSE},
            {"uri": PULSE, "body": "!!"},
            {"uri": PULSE, "body": base64.b64encode(b"[1]").decode()},
        ],
    )
    def test_that_is_half_made_is_judged_too(self, tmp_path: Path, target: dict[str, Any]) -> None:
        found = said(job(httpTarget=target), tmp_path)
        assert any("no OIDC token" in one.said for one in found)
        assert any("not a JSON object" in one.said for one in found)
