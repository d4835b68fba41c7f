"""The doctor's verdicts on answers that a local machine does not give, and how it goes on when everything is broken."""

from __future__ import annotations

import asyncio
import base64
import json
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from careflow.clock import VirtualClock
from careflow.core.hospitals import Hospital
from careflow.core.rounds import Trigger, round_for
from careflow.doctor import agents, jobs, ledger, platform, queue, rounds, vendors
from careflow.doctor.configuration import refused_settings
from careflow.doctor.examination import Check, examine, unexamined
from careflow.doctor.findings import Examined, Finding, Level, Report, well, wrong
from careflow.doctor.registry import CHECKS
from careflow.doctor.remedies import Remedies
from careflow.doctor.set_up import NoAnswer, SetUp
from careflow.errors import CareflowError, StoreError
from careflow.settings import load_settings
from careflow.store.sqlite import SqliteStore
from careflow.tasks.limits import cloud_tasks_settings, queue_limits
from surface import resident

NOW = datetime(2026, 11, 23, 13, 5, tzinfo=UTC)  # 08:05 in New York
PROJECT = "careflow-staging-000000"
PULSE = "https://careflow-agent-000000000000.us-central1.run.app"
CALLER = "https://caller-agent-000000000000.us-central1.run.app"
PUBLIC = "https://caller-agent-twilio-000000000000.us-central1.run.app"
NUMBER = "+18005550199"
CLOUD: Mapping[str, Any] = {
    "environment": "staging",
    "oidc_issuer": "https://accounts.google.com",
    "project": PROJECT,
    "queue": "cloud-tasks",
    "pulse_url": PULSE,
    "caller_url": CALLER,
    "caller_public_url": PUBLIC,
} | {
    f"{name}_account": f"careflow-{name}@{PROJECT}.iam.gserviceaccount.com"
    for name in ("scheduler", "queue", "pulse")
}


class Jobs:
    """A scheduler that has these jobs, or refuses."""

    def __init__(self, *listed: dict[str, Any], refusal: str = "") -> None:
        self._listed = list(listed)
        self._refusal = refusal

    async def jobs(self) -> list[dict[str, Any]]:
        if self._refusal:
            raise CareflowError(self._refusal)
        return self._listed

    async def log_entries(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        return []


def job(hour: int = 8, **changed: Any) -> dict[str, Any]:
    """A round's job as Google's API shows it."""
    word = {8: "morning", 12: "noon", 20: "evening"}[hour]
    payload = {
        "scheduleHour": hour,
        "timezone": "America/New_York",
        "triggerType": "scheduled",
        "source": "cloud-scheduler",
        "environment": "staging",
    }
    return {
        "name": f"projects/{PROJECT}/locations/us-central1/jobs/careflow-{word}-rounds",
        "schedule": f"15 {hour} * * *",
        "timeZone": "America/New_York",
        "state": "ENABLED",
        "attemptDeadline": "600s",
        "retryConfig": {"retryCount": 3},
        "httpTarget": {
            "uri": PULSE,
            "headers": {"Content-Type": "application/json"},
            "body": base64.b64encode(json.dumps(payload).encode()).decode(),
            "oidcToken": {"serviceAccountEmail": CLOUD["scheduler_account"], "audience": PULSE},
        },
    } | changed


SWEEP = job(
    name=f"projects/{PROJECT}/locations/us-central1/jobs/careflow-sweep",
    httpTarget={
        "uri": f"{PULSE}/tasks/sweep",
        "headers": {"Content-Type": "application/json"},
        "body": base64.b64encode(b"{}").decode(),
        "oidcToken": {"serviceAccountEmail": CLOUD["queue_account"], "audience": PULSE},
    },
)
WELL = Jobs(job(8), job(12), job(20), SWEEP)

Answers = Callable[[httpx.Request], httpx.Response]


def set_up(
    tmp_path: Path,
    answers: Answers | None = None,
    *,
    cloud: bool = True,
    scheduler: Any = WELL,
    **changed: Any,
) -> SetUp:
    given = load_settings(data_dir=tmp_path, **(dict(CLOUD) if cloud else {}) | changed.pop("settings", {}))
    refuse: Answers = answers or (lambda _request: httpx.Response(404))
    return SetUp(
        settings=given,
        clock=VirtualClock(NOW),
        http=httpx.AsyncClient(transport=httpx.MockTransport(refuse)),
        jobs=scheduler,
        cloud=cloud,
        remedies=Remedies(
            cloud=cloud, project=given.project, location=given.location, environment=given.environment
        ),
        **changed,
    )


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


# --- Google ------------------------------------------------------------------------------------------------------


def google(**changed: httpx.Response) -> Answers:
    """A deployment as it should be, by what is asked for; `changed` answers go by the end of the path."""
    accounts = {name: CLOUD[f"{name}_account"] for name in ("scheduler", "queue", "pulse")}
    members = {
        "careflow-agent": [f"serviceAccount:{accounts['scheduler']}", f"serviceAccount:{accounts['queue']}"],
        "caller-agent": [f"serviceAccount:{accounts['pulse']}"],
        "caller-agent-twilio": ["allUsers"],
    }

    def answer(request: httpx.Request) -> httpx.Response:
        url, path = str(request.url), request.url.path
        for end, response in changed.items():
            if path.endswith(end) or url.startswith(end):
                return response
        if request.url.host.endswith("googleapis.com"):
            assert request.headers["authorization"] == "Bearer access"
            if "getIamPolicy" in path:
                service = path.rpartition("/")[2].partition(":")[0]
                binding = {"role": "roles/run.invoker", "members": members[service]}
                return httpx.Response(200, json={"bindings": [binding]})
            if "/queues/" in path:
                name = path.removeprefix("/v2/")
                limits = queue_limits(calls_per_second=1.0, calls_in_flight=10)[
                    "calls" if "calls" in path else "rounds"
                ]
                return httpx.Response(
                    200,
                    json={} if path.endswith("/tasks") else {"name": name, **cloud_tasks_settings(limits)},
                )
            return httpx.Response(200, json={"email": "x"})
        assert request.headers.get("authorization") in (None, "Bearer identity")
        if url.startswith(PUBLIC):
            return httpx.Response(403, json={"error": {"code": "http-403"}})
        if request.headers.get("authorization") != "Bearer identity":
            return httpx.Response(403, text="<html>Forbidden</html>")
        if path == "/" and json.loads(request.content):
            assert json.loads(request.content)["environment"] == agents.NOWHERE
            message = "environment: this is 'staging' and the trigger is meant for 'nosuchenvironment'"
            error = {"code": "wrong-environment", "message": message, "field": "environment"}
            return httpx.Response(400, json={"error": error})
        if path.endswith(".json"):
            return httpx.Response(200, json={"name": "CareFlow Pulse", "version": "1"})
        return httpx.Response(200, json={"status": "ready"}, headers={"date": _http_date()})

    return answer


def _http_date() -> str:
    from email.utils import format_datetime

    return format_datetime(datetime.now(UTC), usegmt=True)


async def cloud_report(
    tmp_path: Path, answers: Answers, *, tokens: bool = True, scheduler: Any = WELL
) -> Report:
    given = {"access_token": "access", "identity_token": "identity"} if tokens else {}
    one = set_up(tmp_path, answers, scheduler=scheduler, **given)
    store = await SqliteStore.open(tmp_path)
    await store.put_patients([resident(number, hours=frozenset({8, 12, 20})) for number in (1, 2)])
    one._store = store
    try:
        return await examine(one, CHECKS)
    finally:
        await one.close()


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


# --- jobs --------------------------------------------------------------------------------------------------------


def said(changed: dict[str, Any], tmp_path: Path) -> list[Finding]:
    return list(jobs.judged(jobs.JobView(changed), set_up(tmp_path), None))


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


# --- queue, vendors, webhooks ------------------------------------------------------------------------------------


class TestTheQueue:
    LIMITS = queue_limits(calls_per_second=1.0, calls_in_flight=10)["calls"]

    def document(self, **changed: Any) -> dict[str, Any]:
        return {
            "name": "projects/p/locations/l/queues/careflow-calls",
            **cloud_tasks_settings(self.LIMITS),
        } | changed

    def test_with_our_limits_is_well(self, tmp_path: Path) -> None:
        (found,) = queue.judged_queue(self.document(state="RUNNING"), self.LIMITS, set_up(tmp_path))
        assert found.level is Level.OK

    @pytest.mark.parametrize(
        ("changed", "fix"),
        [
            ({"state": "PAUSED"}, "gcloud tasks queues resume careflow-calls"),
            ({"rateLimits": {"maxDispatchesPerSecond": 500}}, "--max-dispatches-per-second=1"),
            ({"retryConfig": {"maxRetryDuration": "60s"}}, "--max-retry-duration=86400s"),
        ],
    )
    def test_that_differs_has_its_fix(self, tmp_path: Path, changed: dict[str, Any], fix: str) -> None:
        (found,) = queue.judged_queue(self.document(**changed), self.LIMITS, set_up(tmp_path))
        assert found.level in (Level.FAIL, Level.WARN)
        assert fix in found.fix[0]

    def test_with_a_late_task_is_looked_at(self, tmp_path: Path) -> None:
        tasks = [{"scheduleTime": (NOW - timedelta(minutes=minutes)).isoformat()} for minutes in (1, 45)]
        (found,) = queue.judged_tasks("careflow-calls", tasks, set_up(tmp_path))
        assert (found.level, "45 min late" in found.said) == (Level.WARN, True)


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (httpx.Response(200, json={"status": "active", "type": "Full"}), "ok"),
        (httpx.Response(200, json={"status": "active", "type": "Trial"}), "warn"),
        (httpx.Response(200, json={"status": "suspended", "type": "Full"}), "fail"),
        (httpx.Response(401, json={"code": 20003}), "fail"),
        (httpx.Response(404, text="no"), "fail"),
        (NoAnswer("ConnectError"), "fail"),
    ],
)
def test_a_twilio_account_is_judged(tmp_path: Path, answer: Any, level: str) -> None:
    assert vendors.judged_account("https://api.twilio.com", answer, set_up(tmp_path)).level == level


@pytest.mark.parametrize(
    ("listed", "level"),
    [
        ([], "fail"),
        ([{"phone_number": "+18005550188", "capabilities": {"voice": True}}], "fail"),
        ([{"phone_number": NUMBER, "capabilities": {"voice": False}}], "fail"),
        ([{"phone_number": NUMBER, "capabilities": {"voice": True}}], "ok"),
    ],
)
def test_a_number_is_the_accounts_and_speaks(listed: list[Any], level: str) -> None:
    answer = httpx.Response(200, json={"incoming_phone_numbers": listed})
    assert vendors.judged_number(NUMBER, answer).level == level


def test_money_and_characters_that_run_out_are_told() -> None:
    assert [one.level.value for one in vendors.judged_balance({"balance": "3.20", "currency": "USD"})] == [
        "warn"
    ]
    assert [one.level.value for one in vendors.judged_balance({"balance": "300"})] == ["ok"]
    assert vendors.judged_balance({"message": "not here"}) == []
    assert [
        one.level.value for one in vendors.judged_quota({"character_count": 95, "character_limit": 100})
    ] == ["warn"]
    assert vendors.judged_quota({}) == []


def test_each_language_of_the_scripts_needs_a_voice_of_the_account(tmp_path: Path) -> None:
    given = set_up(tmp_path, settings={"elevenlabs_voices": {"en": "gone"}})
    found = vendors.judged_voices(httpx.Response(200, json={"voices": [{"voice_id": "there"}]}), given)
    assert {one.subject: one.level.value for one in found} == {
        "ElevenLabs": "ok",
        "voice for en": "fail",
        "voice for es": "warn",
    }
    assert vendors.judged_voices(httpx.Response(401), given)[0].level is Level.FAIL


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (httpx.Response(403, json={"error": {"code": "http-403"}}), "ok", "not signed"),
        (httpx.Response(403, text="<html>"), "fail", "private"),
        (httpx.Response(401), "fail", "private"),
        (httpx.Response(404), "fail", "CAREFLOW_CALLER_ROUTES=a2a"),
        (httpx.Response(200), "fail", "not the Caller"),
        (NoAnswer("ConnectTimeout"), "fail", "cannot reach"),
    ],
)
def test_what_twilio_reaches_is_judged_by_an_unsigned_webhook(
    tmp_path: Path, answer: Any, level: str, words: str
) -> None:
    found = agents.judged_webhook(PUBLIC, answer, set_up(tmp_path))
    assert found.level == level
    assert words in found.said + found.means


# --- the ledger --------------------------------------------------------------------------------------------------

HOSPITAL = Hospital(
    id="default",
    name="H",
    phone=NUMBER,
    from_number=NUMBER,
    time_zone="America/New_York",
    round_hours=(8, 12, 20),
)
MORNING = Trigger(
    schedule_hour=8,
    time_zone="America/New_York",
    trigger_type="scheduled",
    source="test",
    environment="local",
    hospital_id="default",
)


def test_a_roster_is_judged_by_who_may_be_phoned_and_when(tmp_path: Path) -> None:
    counted = ledger.Roster()
    for patient in (resident(1), resident(2, consent=False), resident(3, phone=None)):
        counted.count(patient, NOW)
    found = ledger.judged(counted, HOSPITAL, set_up(tmp_path, cloud=False))
    assert "1 may be phoned: 1 at 8:00, 0 at 12:00, 0 at 20:00; 1 no-consent, 1 no-number" in found[0].said
    assert [one.said for one in found[1:]] == ["nobody is due at 12:00", "nobody is due at 20:00"]
    assert not any(resident().family_name in str(one) for one in found)


def test_a_round_that_reached_few_is_told() -> None:
    round_ = round_for(MORNING, NOW, (8, 12, 20))
    most = {
        ("ended", "unreachable", "failed"): 6,
        ("ended", "completed", ""): 4,
        ("ended", "skipped", "paused"): 90,
    }
    (found,) = rounds.judged_outcomes(round_, most, "show")
    assert "6 of 10" in found.said
    assert rounds.judged_outcomes(round_, {**most, ("ended", "unreachable", "failed"): 4}, "show") == []


class TestTheLedgersRounds:
    async def found(self, tmp_path: Path, now: datetime) -> list[Finding]:
        one = set_up(tmp_path, cloud=False)
        one.clock = VirtualClock(now)
        return [finding async for finding in rounds.rounds(one)]

    @pytest.mark.parametrize(
        ("began", "consent", "level"),
        [(True, True, Level.FAIL), (False, True, Level.WARN), (True, False, None)],
    )
    async def test_a_round_that_did_not_come_is_made_up_for(
        self, tmp_path: Path, began: bool, consent: bool, level: Level | None
    ) -> None:
        store = await SqliteStore.open(tmp_path)
        await store.put_patients([resident(consent=consent)])
        if began:
            before = await store.open_round(round_for(MORNING, NOW - timedelta(days=1), (8, 12, 20)))
            assert await store.update_round(replace(before, closed_at=before.window_end))
        await store.close()
        found = await self.found(tmp_path, NOW + timedelta(hours=1))
        missing = [one for one in found if "did not come" in one.said]
        assert [one.level for one in missing] == ([level] if level else [])
        if level:
            assert missing[0].fix == ("careflow rounds run --hour 8 --hospital default",)

    async def test_a_round_that_nobody_closed_is_told(self, tmp_path: Path) -> None:
        store = await SqliteStore.open(tmp_path)
        opened = await store.open_round(round_for(MORNING, NOW, (8, 12, 20)))
        await store.close()
        found = await self.found(tmp_path, opened.window_end + timedelta(hours=3))
        (unclosed,) = [one for one in found if one.level is Level.FAIL]
        assert (unclosed.subject, "is not closed, 3.0 h" in unclosed.said) == (opened.id, True)


async def test_a_query_without_its_index_is_named(tmp_path: Path) -> None:
    class Lacking:
        """A store whose calls of a round need an index that is not there."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            if name == "count_calls":
                return self._refuse
            return getattr(self._inner, name)

        async def _refuse(self, *_words: Any) -> None:
            raise StoreError("Firestore lacks an index for this query")

    one = set_up(tmp_path)
    store = await SqliteStore.open(tmp_path)
    one._store = Lacking(store)  # type: ignore[assignment]
    (found,) = [finding async for finding in ledger.queries(one)]
    await store.close()
    assert "1 of 17 kinds are not answered: counts of calls" in found.said
    assert found.fix[0].startswith("gcloud firestore indexes composite list")


def test_a_finding_is_json_and_a_block_is_told() -> None:
    one = Examined(check="a", about="b", writes="", findings=[wrong("x", "y", "z", blocks=True)])
    assert one.blocked
    assert Report([one]).counts["fail"] == 1
