"""`scheduler/terraform` under the real terraform, offline: what it would make, how that is wired, and what it refuses.

The provider is a stand-in that knows the real one's schema and nothing else (tests/compat/terraform/standin_provider.py).
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.compat.terraform.workshop import (
    CONFIGURATION,
    Workshop,
    by_address,
    standin_python,
    terraform_binary,
)

from careflow.core.rounds import Trigger
from careflow.pulse.payload import TriggerPayload, trigger_of
from careflow.scheduler.defaults import default_jobs
from careflow.scheduler.model import Job
from careflow.settings import load_settings

URLS = {
    "prod": "https://careflow-agent-abc123-uc.a.run.app",
    "staging": "https://careflow-agent-xyz789-uc.a.run.app",
}
PROJECTS = {"prod": "careflow-prod-000000", "staging": "careflow-staging-000000"}
ROUNDS = {"morning": 8, "noon": 12, "evening": 20}
JOB = "google_cloud_scheduler_job"


@pytest.fixture(scope="module")
def python() -> Path:
    terraform_binary()
    return standin_python()


@pytest.fixture(scope="module")
def shop(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop.open(tmp_path_factory.mktemp("terraform"), python)


@pytest.fixture(scope="module")
def plan(shop: Workshop) -> dict[str, Any]:
    return shop.plan()


@pytest.fixture(scope="module")
def made(plan: dict[str, Any]) -> dict[str, Any]:
    return by_address(plan["planned_values"])


def payload_of(job: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(job["http_target"][0]["body"])))


def seconds(text: str) -> timedelta:
    return timedelta(seconds=int(text.removesuffix("s")))


class TestConfiguration:
    def test_it_is_formatted_as_terraform_formats(self) -> None:
        Workshop(CONFIGURATION, terraform_binary(), {}).run("fmt", "-check", "-recursive")

    def test_it_is_valid(self, shop: Workshop) -> None:
        shop.run("validate")

    def test_its_own_tests_pass(self, shop: Workshop) -> None:
        told = shop.run("test").stdout
        assert re.search(r"Success! 3 passed, 0 failed", told), told

    def test_it_asks_for_the_seed_s_provider(self, plan: dict[str, Any]) -> None:
        provider = plan["configuration"]["provider_config"]["google"]
        assert provider["version_constraint"] == "~> 7.13.0"


class TestPlan:
    def test_sixteen_resources_are_added(self, plan: dict[str, Any]) -> None:
        assert all(change["change"]["actions"] == ["create"] for change in plan["resource_changes"])
        assert Counter(change["type"] for change in plan["resource_changes"]) == {
            "google_project_service": 6,
            "google_service_account": 2,
            "google_cloud_run_v2_service_iam_member": 2,
            JOB: 6,
        }

    def test_the_names_are_the_seed_s(self, made: dict[str, Any]) -> None:
        for environment, project in PROJECTS.items():
            account = made[f'google_service_account.scheduler["{environment}"]']
            assert (account["account_id"], account["project"]) == ("careflow-scheduler", project)
            for word in ROUNDS:
                job = made[f'{JOB}.{word}_rounds["{environment}"]']
                assert (job["name"], job["project"]) == (f"careflow-{word}-rounds", project)
                assert job["region"] == "us-central1"

    def test_the_apis_are_enabled_in_both_projects_and_stay_so(self, made: dict[str, Any]) -> None:
        services = {
            (value["project"], value["service"])
            for address, value in made.items()
            if address.startswith("google_project_service.") and not value["disable_on_destroy"]
        }
        wanted = ("cloudscheduler.googleapis.com", "run.googleapis.com", "iam.googleapis.com")
        assert services == {(project, api) for project in PROJECTS.values() for api in wanted}

    def test_the_account_may_invoke_pulse_and_do_nothing_else(self, plan: dict[str, Any]) -> None:
        rights = [one["change"]["after"] for one in plan["resource_changes"] if "_iam_" in one["type"]]
        assert sorted((one["project"], one["location"], one["name"], one["role"]) for one in rights) == [
            (project, "us-central1", "careflow-agent", "roles/run.invoker") for project in PROJECTS.values()
        ]
        assert "allUsers" not in json.dumps(plan)
        assert "allAuthenticatedUsers" not in json.dumps(plan)

    @pytest.mark.parametrize("environment", ["prod", "staging"])
    @pytest.mark.parametrize("word", ROUNDS)
    def test_a_job_sends_the_seed_s_payload_to_its_own_environment(
        self, made: dict[str, Any], environment: str, word: str
    ) -> None:
        job = made[f'{JOB}.{word}_rounds["{environment}"]']
        target = job["http_target"][0]
        assert target["uri"] == URLS[environment] == target["oidc_token"][0]["audience"]
        assert target["http_method"] == "POST"
        assert target["headers"] == {"Content-Type": "application/json"}
        assert payload_of(job) == {
            "scheduleHour": ROUNDS[word],
            "timezone": "America/New_York",
            "triggerType": "scheduled",
            "source": "cloud-scheduler",
            "environment": environment,
        }
        assert accepted_by_pulse(payload_of(job)).environment == environment

    def test_the_deadline_is_a_setting(self, shop: Workshop) -> None:
        plan = by_address(shop.plan(attempt_deadline="1200s")["planned_values"])
        assert {job["attempt_deadline"] for job in plan.values() if "attempt_deadline" in job} == {"1200s"}


class TestEmbeddedDefaults:
    """The three jobs that `careflow up` starts with are those of the cloud."""

    def test_the_same_schedule_payload_retries_and_deadline(self, made: dict[str, Any]) -> None:
        settings = load_settings(environment="prod", project=PROJECTS["prod"], pulse_url=URLS["prod"])
        embedded = {job.id: job for job in default_jobs(settings, settings.pulse_url)}
        cloud = {value["name"]: value for address, value in made.items() if '_rounds["prod"]' in address}
        assert embedded.keys() == cloud.keys()
        for name, job in cloud.items():
            assert as_told(embedded[name]) == {
                "schedule": job["schedule"],
                "timeZone": job["time_zone"],
                "description": job["description"],
                "payload": payload_of(job),
                "headers": job["http_target"][0]["headers"],
                "uri": job["http_target"][0]["uri"],
                "audience": job["http_target"][0]["oidc_token"][0]["audience"],
                "deadline": seconds(job["attempt_deadline"]),
                "retries": job["retry_config"][0]["retry_count"],
                "limit": seconds(job["retry_config"][0]["max_retry_duration"]),
                "backoff": tuple(
                    seconds(job["retry_config"][0][f"{end}_backoff_duration"]) for end in ("min", "max")
                ),
            }

    def test_the_retries_are_the_seed_s(self, made: dict[str, Any]) -> None:
        for address, job in made.items():
            if address.startswith(JOB):
                assert job["retry_config"] == [
                    {
                        "retry_count": 3,
                        "max_retry_duration": "0s",
                        "min_backoff_duration": "60s",
                        "max_backoff_duration": "300s",
                        "max_doublings": None,
                    }
                ]


def as_told(job: Job) -> dict[str, Any]:
    token = job.http_target.oidc_token
    assert token is not None
    return {
        "schedule": job.schedule,
        "timeZone": job.time_zone,
        "description": job.description,
        "payload": json.loads(job.http_target.body),
        "headers": dict(job.http_target.headers),
        "uri": job.http_target.uri,
        "audience": token.audience,
        "deadline": job.attempt_deadline,
        "retries": job.retry.retry_count,
        "limit": job.retry.max_retry_duration,
        "backoff": (job.retry.min_backoff, job.retry.max_backoff),
    }


def accepted_by_pulse(payload: dict[str, Any]) -> Trigger:
    """What Pulse of that environment makes of the payload. Raises when it refuses it."""
    settings = load_settings(environment=payload["environment"])
    return trigger_of(TriggerPayload.model_validate(payload), settings)


class TestHospitals:
    def test_a_hospital_adds_complete_jobs_and_changes_no_other(
        self, shop: Workshop, made: dict[str, Any]
    ) -> None:
        chicago = hospital("hosp-001", rounds=["morning"], timezone="America/Chicago")
        plan = by_address(shop.plan(hospitals={"hospital-a": chicago})["planned_values"])
        added = {address: plan[address] for address in plan.keys() - made.keys()}
        assert {address: plan[address] for address in made} == made
        assert added.keys() == {f'{JOB}.hospital_rounds["{one}/hospital-a/morning"]' for one in PROJECTS}
        for address, job in added.items():
            environment = address.split('"')[1].split("/")[0]
            like = made[f'{JOB}.morning_rounds["{environment}"]']
            unlike = {name for name, value in like.items() if job[name] != value}
            assert unlike == {"name", "description", "http_target", "time_zone"}
            assert job["name"] == "careflow-morning-rounds-hospital-a"
            assert job["http_target"][0]["uri"] == URLS[environment]
            assert job["http_target"][0]["oidc_token"] == like["http_target"][0]["oidc_token"]
            assert job["http_target"][0]["headers"] == {"Content-Type": "application/json"}
            assert accepted_by_pulse(payload_of(job)) == Trigger(
                schedule_hour=8,
                time_zone="America/Chicago",
                trigger_type="scheduled",
                source="cloud-scheduler",
                environment=environment,
                hospital_id="hosp-001",
            )


class TestEnvironments:
    def test_one_environment_alone_is_half_of_everything(self, shop: Workshop, made: dict[str, Any]) -> None:
        both = by_address(shop.plan(hospitals={"hospital-a": hospital("a")})["planned_values"])
        alone = by_address(
            shop.plan(environments=["staging"], hospitals={"hospital-a": hospital("a")})["planned_values"]
        )
        assert alone == {
            address: value for address, value in both.items() if value["project"] == PROJECTS["staging"]
        }
        assert len(alone) == 8 + 3


class TestApply:
    def test_every_job_speaks_in_its_own_project_s_account_which_may_invoke(
        self, python: Path, tmp_path: Path
    ) -> None:
        shop = Workshop.open(tmp_path, python)
        state = shop.apply()
        accounts = {one: state[f'google_service_account.scheduler["{one}"]'] for one in PROJECTS}
        assert accounts["prod"]["email"] != accounts["staging"]["email"]
        for environment, account in accounts.items():
            member = state[f'google_cloud_run_v2_service_iam_member.pulse_invoker["{environment}"]']
            assert member["member"] == account["member"]
            for word in ROUNDS:
                job = state[f'{JOB}.{word}_rounds["{environment}"]']
                assert job["http_target"][0]["oidc_token"][0]["service_account_email"] == account["email"]
        shop.run("plan", "-input=false", "-detailed-exitcode", "-var-file=vars/env.tfvars")


# One mistake for each validation rule of variables.tf: the variable, the value, and words of the refusal.
BAD_HOURS = (
    {"morning": "07:59"},
    {"noon": "20:00"},
    {"evening": "24:15"},
    {"evening": "21:00"},
    {"morning": "8:15"},
)
REFUSED = "Invalid value for variable"
Mistake = tuple[str, Any, str]


def hospital(id: str, **changes: Any) -> dict[str, Any]:  # noqa: A002 - as the variable has it
    return {"id": id, "name": "General Hospital"} | changes


MISTAKES: list[Mistake] = [
    ("attempt_deadline", "14s", "from 15s to 1800s"),
    ("attempt_deadline", "1801s", "from 15s to 1800s"),
    ("attempt_deadline", "10m", "whole seconds"),
    ("environments", ["production"], "prod and staging"),
    ("environments", [], "prod and staging"),
    ("hospitals", {"Hospital A": hospital("a")}, "a key must be"),
    ("hospitals", {"b1": hospital("Hosp B")}, "an id must be"),
    ("hospitals", {"c1": hospital("c"), "c2": hospital("c")}, "the same id"),
    ("hospitals", {"d1": hospital("d", name="")}, "a name must be"),
    ("hospitals", {"e1": hospital("e", environments=["production"])}, "prod and staging"),
    ("hospitals", {"f1": hospital("f", rounds=["midnight"])}, "some of morning, noon and evening"),
    (
        "hospitals",
        {"g1": hospital("g", rounds=["noon"], round_times={"morning": "08:15"})},
        "a round that the hospital does not have",
    ),
    *(("hospitals", {"h1": hospital("h", round_times=times)}, "HH:MM") for times in BAD_HOURS[:2]),
    ("hospitals", {"i1": hospital("i", timezone="Chicago time")}, "IANA"),
    ("prod_project_id", "Careflow-Prod", "a project id"),
    ("project_name", "careflow_pulse", "lower-case letters"),
    ("project_name", "a-name-that-is-too-long", "30 characters"),
    ("pulse_agent_service_name", "careflow/agent", "Cloud Run service name"),
    *(
        ("pulse_agent_urls", URLS | {"prod": url}, "https://")
        for url in (
            "http://careflow-agent-abc123-uc.a.run.app",
            "https://careflow-agent-abc123-uc.a.run.app/",
            "https://careflow-agent-abc123-uc.a.run.app/trigger",
            "https://localhost",
        )
    ),
    ("pulse_agent_urls", dict.fromkeys(URLS, URLS["prod"]), "the same URL"),
    ("region", "us-central", "region must be"),
    ("retry", {"count": 6}, "from 0 to 5"),
    ("retry", {"count": 1.5}, "whole number"),
    ("retry", {"min_backoff": "1m"}, "whole seconds"),
    ("retry", {"min_backoff": "301s"}, "not be longer than max_backoff"),
    *(("round_times", times, "HH:MM") for times in BAD_HOURS),
    ("staging_project_id", "5careflow", "a project id"),
    ("timezone", "EST5EDT,M3.2.0", "IANA"),
]


@pytest.fixture(scope="module")
def refusals(shop: Workshop) -> list[tuple[Mistake, list[str]]]:
    """What Terraform says to each mistake. A plan takes the next mistake of every variable, and of hospitals one of each kind."""
    left, told = list(MISTAKES), []
    while left:
        taken: list[Mistake] = []
        together: dict[str, Any] = {}
        for variable, value, words in left:
            if variable not in together:
                together[variable] = value
            elif variable == "hospitals" and words not in [one[2] for one in taken if one[0] == variable]:
                together[variable] = together[variable] | value
            else:
                continue
            taken.append((variable, value, words))
        said = shop.refusals(**together)
        told += [(mistake, said) for mistake in taken]
        left = [mistake for mistake in left if mistake not in taken]
    return told


class TestRefusals:
    @pytest.mark.parametrize("mistake", MISTAKES, ids=[f"{one[0]}-{i}" for i, one in enumerate(MISTAKES)])
    def test_a_mistake_is_refused_by_name(
        self, refusals: list[tuple[Mistake, list[str]]], mistake: Mistake
    ) -> None:
        (said,) = (said for tried, said in refusals if tried == mistake)
        variable, _, words = mistake
        assert len([one for one in said if one.startswith(f"{REFUSED}: {variable}") and words in one]) == 1, (
            said
        )

    def test_one_project_for_both_environments_is_refused(self, shop: Workshop) -> None:
        (said,) = set(shop.refusals(staging_project_id=PROJECTS["prod"]))
        assert "are the same project" in said

    def test_unusual_values_that_are_right_are_not_refused(self, shop: Workshop) -> None:
        plan = shop.plan(
            attempt_deadline="1800s",
            hospitals={"h2": hospital("2", timezone="Etc/GMT+5", round_times={"evening": "20:59"})},
            prod_project_id="p" * 30,
            project_name="c",
            pulse_agent_urls={
                "prod": "https://careflow-agent-123456789012.northamerica-northeast1.run.app",
                "staging": "https://pulse.staging.hospital.test",
            },
            region="northamerica-northeast1",
            retry={"count": 0, "max_duration": "3600s", "min_backoff": "300s"},
            round_times={"morning": "11:59", "noon": "12:00"},
            timezone="America/Argentina/Buenos_Aires",
        )
        jobs = [one for one in by_address(plan["planned_values"]).values() if "schedule" in one]
        assert len(jobs) == 12
        assert {job["schedule"] for job in jobs} == {
            "59 11 * * *",
            "0 12 * * *",
            "15 20 * * *",
            "59 20 * * *",
        }

    def test_every_rule_has_its_mistake(self, refusals: list[tuple[Mistake, list[str]]]) -> None:
        text = (CONFIGURATION / "variables.tf").read_text().splitlines()
        rules = {number for number, line in enumerate(text, 1) if line == "  validation {"}
        tried = {
            int(number)
            for _, said in refusals
            for one in said
            for number in re.findall(r"rule at variables\.tf:(\d+)", one)
        }
        assert tried == rules

    @pytest.mark.parametrize(
        ("line", "instead", "words"),
        [
            ('    http_method = "POST"\n', '    method = "POST"\n', "Unsupported argument"),
            (
                "      audience              = var.pulse_agent_urls[each.key]\n",
                "      audience = [1]\n",
                "string",
            ),
            ("    uri         = var.pulse_agent_urls[each.key]\n", "", '"uri" is required'),
            (
                "  http_target {",
                '  pubsub_target {\n    topic_name = "t"\n  }\n  http_target {',
                "exactly one of",
            ),
            (
                "  time_zone        = var.timezone\n",
                '  state = "ENABLED"\n',
                "cannot be set",
            ),
        ],
    )
    def test_a_job_that_does_not_fit_the_provider_is_refused(
        self, python: Path, tmp_path: Path, line: str, instead: str, words: str
    ) -> None:
        shop = Workshop.open(tmp_path, python)
        main = shop.folder / "main.tf"
        text = main.read_text()
        assert line in text
        main.write_text(text.replace(line, instead, 1))
        told = shop.run("validate", code=1)
        assert words in " ".join((told.stdout + told.stderr).split())


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_behind() -> Iterator[None]:
    """The tests work in copies: the configuration is as it was."""
    before = sorted(CONFIGURATION.rglob("*"))
    yield
    assert sorted(CONFIGURATION.rglob("*")) == before
