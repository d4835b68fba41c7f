"""`infra/` under the real terraform, offline: what one environment is made of, and who may do what in it.

The provider is a stand-in that knows the real one's schema and nothing else (tests/compat/terraform/standin_provider.py).
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic.alias_generators import to_camel
from tests.compat.terraform.workshop import ROOT, Workshop, by_address, standin_python, terraform_binary

from careflow.caller.app import caller_rules
from careflow.pulse.app import pulse_rules
from careflow.safety import role_problems, setting_of
from careflow.settings import Settings
from careflow.tasks.limits import cloud_tasks_settings, queue_limits
from infra_kit import INFRA, PROJECTS, RELEASE, SERVICE, SERVICES, Environment, opened, what

ROLES = {"pulse": "pulse", "caller": "caller", "twilio": "caller"}  # what `careflow serve` is told


@pytest.fixture(scope="module")
def python() -> Path:
    terraform_binary()
    return standin_python()


@pytest.fixture(scope="module")
def environments(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Environment]:
    made = {}
    for name in PROJECTS:
        home = tmp_path_factory.mktemp(name)
        shop = Workshop.open(home, python, INFRA, f"vars/{name}.tfvars")
        state = shop.apply(release=RELEASE)
        outputs = home / f"{name}.outputs.json"
        outputs.write_text(shop.run("output", "-json").stdout)
        made[name] = Environment(name, shop, state, outputs)
    return made


@pytest.fixture(scope="module", params=["prod", "staging"])
def environment(request: pytest.FixtureRequest, environments: dict[str, Environment]) -> Environment:
    return environments[request.param]


@pytest.fixture(scope="module")
def staging(environments: dict[str, Environment]) -> Environment:
    return environments["staging"]


class TestConfiguration:
    def test_it_is_formatted_as_terraform_formats(self) -> None:
        Workshop(INFRA, terraform_binary(), {}).run("fmt", "-check", "-recursive")

    def test_it_is_valid(self, staging: Environment) -> None:
        staging.shop.run("validate")

    def test_its_own_tests_pass(self, staging: Environment) -> None:
        told = staging.shop.run("test").stdout
        assert re.search(r"Success! 3 passed, 0 failed", told), told

    def test_it_asks_for_the_scheduler_s_provider(self) -> None:
        versions = {
            re.findall(r'version = "(.*)"', (folder / "providers.tf").read_text())[0]
            for folder in (INFRA, ROOT / "scheduler" / "terraform")
        }
        assert len(versions) == 1

    def test_a_second_apply_changes_nothing(self, environment: Environment) -> None:
        changes = environment.shop.plan(release=RELEASE)["resource_changes"]
        assert [one["address"] for one in changes if one["change"]["actions"] != ["no-op"]] == []


class TestBeforeARelease:
    def test_there_is_a_place_for_images_and_secrets_and_nothing_runs(self, staging: Environment) -> None:
        planned = by_address(staging.shop.plan(release=None)["planned_values"])
        kinds = {address.split(".")[0] for address in planned}
        gone = {address for address in staging.state if not address.startswith("data.")} - planned.keys()
        assert {address.split(".")[0] for address in gone} == {
            SERVICE,
            f"{SERVICE}_iam_member",
            "google_cloud_scheduler_job",
        }
        assert kinds >= {"google_artifact_registry_repository", "google_secret_manager_secret"}


class TestWhoMayWhat:
    """The whole table. A right that is not in it fails the test, whoever has it."""

    def test_the_rights_are_these_and_no_others(self, environment: Environment) -> None:
        project, queue = environment.project, environment.account("queue")

        def on(kind: str, *names: str) -> set[str]:
            return {f"{kind} {name}" for name in names}

        table = {
            (environment.account("queue"), "run.invoker"): on("service", "careflow-agent"),
            (environment.account("pulse"), "run.invoker"): on("service", "caller-agent"),
            ("allUsers", "run.invoker"): on("service", "caller-agent-twilio"),
            (environment.account("pulse"), "cloudtasks.enqueuer"): on(
                "queue", "careflow-calls", "careflow-rounds"
            ),
            (environment.account("pulse"), "iam.serviceAccountUser"): on("account", queue),
            (environment.account("pulse"), "datastore.user"): on("database", f"{project}/(default)"),
            (environment.account("caller"), "datastore.user"): on("database", f"{project}/(default)"),
            (environment.account("pulse"), "secretmanager.secretAccessor"): on(
                "secret", "careflow-hospitals"
            ),
            (environment.account("caller"), "secretmanager.secretAccessor"): on(
                "secret", "careflow-elevenlabs-api-key", "careflow-hospitals", "careflow-twilio-auth-token"
            ),
            (environment.account("caller"), "storage.objectUser"): on("bucket", f"{project}-careflow-audio"),
        }
        found: dict[tuple[str, str], set[str]] = {}
        for address, right in environment.state.items():
            kind = address.split(".")[0]
            if "_iam_" in kind:
                who = right["member"].removeprefix("serviceAccount:")
                found.setdefault((who, right["role"].removeprefix("roles/")), set()).add(what(kind, right))
        assert found == table

    def test_only_rights_of_one_thing_are_given_besides_the_database_s(
        self, environment: Environment
    ) -> None:
        kinds = {address.split(".")[0] for address in environment.state if "_iam_" in address}
        assert all(kind.endswith("_iam_member") for kind in kinds)
        assert {kind for kind in kinds if kind.startswith("google_project_")} == {"google_project_iam_member"}

    def test_an_operator_may_use_the_database_and_nothing_else(self, staging: Environment) -> None:
        who = "group:careflow-operators@hospital.test"
        plan = staging.shop.plan(release=RELEASE, operators=[who])
        added = [one for one in plan["resource_changes"] if one["change"]["actions"] != ["no-op"]]
        (right,) = [one["change"]["after"] for one in added]
        assert (right["member"], right["role"]) == (who, "roles/datastore.user")
        assert what("google_project_iam_member", right) == f"database {staging.project}/(default)"

    def test_no_account_has_a_key(self, environment: Environment) -> None:
        assert not [one for one in environment.state if "service_account_key" in one]

    def test_no_secret_s_value_is_in_the_state(self, environment: Environment) -> None:
        assert environment.of_type("google_secret_manager_secret")
        assert not environment.of_type("google_secret_manager_secret_version")
        assert not environment.of_type("google_secret_manager_secret_version_access")


class TestServices:
    @pytest.fixture
    def settings(self, environment: Environment, service: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
        return environment.settings(service, monkeypatch)

    def test_there_are_these_three(self, environment: Environment) -> None:
        assert {key: one["name"] for key, one in environment.of_type(SERVICE).items()} == SERVICES

    @pytest.mark.parametrize("service", SERVICES)
    def test_what_it_is_told_are_settings_that_it_may_start_with(
        self, environment: Environment, service: str, settings: Settings
    ) -> None:
        known = {setting_of(field) for field in Settings.model_fields}
        assert {one["name"] for one in environment.container(service)["env"]} <= known
        assert role_problems(settings, [ROLES[service]]) == []
        assert settings.environment == environment.name
        assert (settings.store, settings.queue) == ("firestore", "cloud-tasks")
        assert settings.host == "0.0.0.0"
        port = settings.pulse_port if service == "pulse" else settings.caller_port
        assert environment.container(service)["ports"][0]["container_port"] == port

    @pytest.mark.parametrize("service", SERVICES)
    def test_it_runs_its_image_in_its_account(self, environment: Environment, service: str) -> None:
        unit = ROLES[service]
        assert environment.container(service)["image"] == RELEASE[f"{unit}_image"]
        assert environment.template(service)["service_account"] == environment.account(unit)

    @pytest.mark.parametrize("service", SERVICES)
    def test_tokens_without_signature_are_believed_where_cloud_run_checked_them(
        self, environment: Environment, service: str, settings: Settings
    ) -> None:
        who = environment.of_type(f"{SERVICE}_iam_member")[service]["member"]
        assert settings.trust_platform_tokens is (who != "allUsers")
        assert settings.caller_routes == {"pulse": "all", "caller": "a2a", "twilio": "twilio"}[service]

    @pytest.mark.parametrize("service", SERVICES)
    def test_it_lasts_longer_than_what_it_is_asked(
        self, environment: Environment, service: str, settings: Settings
    ) -> None:
        limit = timedelta(seconds=int(environment.template(service)["timeout"].removesuffix("s")))
        trigger = timedelta(minutes=30)  # the longest attempt_deadline of a scheduler's job
        assert limit <= timedelta(hours=1)
        if service == "pulse":
            assert limit > max(settings.task_deadline, trigger)
        else:
            assert limit > timedelta(seconds=settings.call_time_limit + settings.ring_seconds)

    @pytest.mark.parametrize("service", ["caller", "twilio"])
    def test_the_caller_reads_pinned_versions_of_its_credentials(
        self, environment: Environment, service: str
    ) -> None:
        read = {
            one["name"]: one["value_source"][0]["secret_key_ref"][0]
            for one in environment.container(service)["env"]
            if one["value_source"]
        }
        assert read == {
            "CAREFLOW_ELEVENLABS_API_KEY": {"secret": "careflow-elevenlabs-api-key", "version": "1"},
            "CAREFLOW_TWILIO_AUTH_TOKEN": {"secret": "careflow-twilio-auth-token", "version": "2"},
        }

    def test_pulse_reads_no_credential(self, environment: Environment) -> None:
        assert not [one for one in environment.container("pulse")["env"] if one["value_source"]]

    @pytest.mark.parametrize("service", SERVICES)
    def test_make_deploy_would_give_it_the_same_limits(self, environment: Environment, service: str) -> None:
        name, template = SERVICES[service], environment.template(service)
        texts = [path.read_text() for path in (ROOT / "careflow-agents").glob("*/Makefile")]
        (flags,) = re.findall(rf"^FLAGS_{name} +:= (.*)$", "\n".join(texts), re.MULTILINE)
        (resources,) = environment.container(service)["resources"]
        assert {word for word in flags.split() if not word.startswith("--set-secrets")} == {
            f"--timeout={template['timeout'].removesuffix('s')}",
            f"--concurrency={template['max_instance_request_concurrency']}",
            f"--memory={resources['limits']['memory']}",
            "--cpu-throttling" if resources["cpu_idle"] else "--no-cpu-throttling",
        }

    @pytest.mark.parametrize("service", SERVICES)
    def test_files_are_where_the_settings_look_for_them(self, environment: Environment, service: str) -> None:
        template, container = environment.template(service), environment.container(service)
        env = {one["name"]: one["value"] for one in container["env"]}
        mounts = {one["name"]: one["mount_path"] for one in container["volume_mounts"]}
        volumes = {one["name"]: one for one in template["volumes"]}
        assert volumes.keys() == mounts.keys()
        (item,) = volumes["hospitals"]["secret"][0]["items"]
        assert f"{mounts['hospitals']}/{item['path']}" == env["CAREFLOW_HOSPITALS"]
        assert item["version"] == "3"
        assert mounts.get("audio") == env.get("CAREFLOW_AUDIO_DIR")
        assert ("audio" in mounts) is (service != "pulse")

    def test_with_one_hospital_there_is_no_file_of_profiles(self, staging: Environment) -> None:
        plan = staging.shop.plan(release=RELEASE | {"hospitals_version": None})
        for address, value in by_address(plan["planned_values"]).items():
            if address.startswith(f"{SERVICE}.agents"):
                container = value["template"][0]["containers"][0]
                assert "hospitals" not in [one["name"] for one in container["volume_mounts"]]
                assert "CAREFLOW_HOSPITALS" not in [one["name"] for one in container["env"]]

    def test_each_agent_lets_in_whom_the_other_side_is(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pulse = environment.settings("pulse", monkeypatch)
        caller = environment.settings("caller", monkeypatch)
        job = environment.of_type("google_cloud_scheduler_job")["sweep"]["http_target"][0]
        token = job["oidc_token"][0]
        path = job["uri"].removeprefix(pulse.pulse_url)
        assert opened(pulse_rules(pulse), path, job["http_method"], token)
        assert json.loads(base64.b64decode(job["body"])) == {}
        assert {rule.audience for rule in caller_rules(caller)} == {pulse.caller_url} == {caller.caller_url}
        assert environment.account("pulse") in {one for rule in caller_rules(caller) for one in rule.accounts}

    def test_all_three_have_the_same_addresses(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        urls = {
            (one.pulse_url, one.caller_url, one.caller_public_url)
            for one in [environment.settings(service, monkeypatch) for service in SERVICES]
        }
        ((pulse, *others),) = urls
        number = re.findall(r"^https://careflow-agent-(\d{12})\.us-central1\.run\.app$", pulse)[0]
        assert others == [
            f"https://{SERVICES[service]}-{number}.us-central1.run.app" for service in ("caller", "twilio")
        ]

    def test_production_cannot_be_destroyed_by_mistake_and_staging_can(
        self, environment: Environment
    ) -> None:
        kept = environment.name == "prod"
        for kind in (SERVICE, "google_secret_manager_secret"):
            assert {one["deletion_protection"] for one in environment.of_type(kind).values()} == {kept}
        database = environment.state["google_firestore_database.ledger"]
        assert database["delete_protection_state"] == f"DELETE_PROTECTION_{'EN' if kept else 'DIS'}ABLED"
        assert database["deletion_policy"] == ("ABANDON" if kept else "DELETE")

    def test_the_cache_of_sound_is_nobody_else_s_and_forgets(self, environment: Environment) -> None:
        bucket = environment.state["google_storage_bucket.audio"]
        assert bucket["public_access_prevention"] == "enforced"
        assert bucket["uniform_bucket_level_access"]
        assert bucket["lifecycle_rule"][0]["condition"][0]["age"] == 30
        assert bucket["soft_delete_policy"][0]["retention_duration_seconds"] == 0


class TestQueues:
    def test_their_names_are_the_settings(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = environment.settings("pulse", monkeypatch)
        names = {key: one["name"] for key, one in environment.of_type("google_cloud_tasks_queue").items()}
        assert names == {"calls": settings.calls_queue, "rounds": settings.rounds_queue}

    def test_their_limits_are_those_of_the_code(self, environment: Environment) -> None:
        made = environment.of_type("google_cloud_tasks_queue")
        (rate,) = made["calls"]["rate_limits"]  # the environment's own; prod's are checked below
        limits = queue_limits(
            calls_per_second=rate["max_dispatches_per_second"],
            calls_in_flight=rate["max_concurrent_dispatches"],
        )
        assert {
            key: {"rateLimits": _said(queue["rate_limits"]), "retryConfig": _said(queue["retry_config"])}
            for key, queue in made.items()
        } == {key: cloud_tasks_settings(limit) for key, limit in limits.items()}

    def test_production_calls_as_fast_as_the_settings_say(self, environments: dict[str, Environment]) -> None:
        (rate,) = environments["prod"].of_type("google_cloud_tasks_queue")["calls"]["rate_limits"]
        settings = Settings()
        assert rate["max_dispatches_per_second"] == settings.calls_per_second
        assert rate["max_concurrent_dispatches"] == settings.calls_in_flight


def _said(blocks: list[Mapping[str, Any]]) -> dict[str, Any]:
    """A block of Terraform's as the API's JSON names it, without what the service computes."""
    (block,) = blocks
    return {to_camel(name): value for name, value in block.items() if name != "max_burst_size"}


@pytest.fixture(scope="module")
def declared() -> dict[str, Any]:
    return dict(json.loads((INFRA / "firestore" / "firestore.indexes.json").read_text()))


class TestDatabase:
    def test_every_declared_index_is_made(self, staging: Environment, declared: dict[str, Any]) -> None:
        made = [
            (
                one["collection"],
                one["query_scope"],
                [
                    (field["field_path"], field["order"] or None, field["array_config"] or None)
                    for field in one["fields"]
                ],
            )
            for one in staging.of_type("google_firestore_index").values()
        ]
        wanted = [
            (
                one["collectionGroup"],
                one["queryScope"],
                [
                    (field["fieldPath"], field.get("order"), field.get("arrayConfig"))
                    for field in one["fields"]
                ],
            )
            for one in declared["indexes"]
        ]
        assert sorted(made, key=repr) == sorted(wanted, key=repr)
        assert wanted

    def test_every_override_of_a_field_is_made(self, staging: Environment, declared: dict[str, Any]) -> None:
        made = {
            (one["collection"], one["field"]): (
                len(one["index_config"][0]["indexes"]),
                bool(one["ttl_config"]),
            )
            for one in staging.of_type("google_firestore_field").values()
        }
        assert made == {
            (one["collectionGroup"], one["fieldPath"]): (len(one["indexes"]), one.get("ttl", False))
            for one in declared["fieldOverrides"]
        }

    def test_the_rules_are_those_of_the_file_and_released(self, environment: Environment) -> None:
        ruleset = environment.state["google_firebaserules_ruleset.closed"]
        (file,) = ruleset["source"][0]["files"]
        assert file["content"] == (INFRA / "firestore" / "firestore.rules").read_text()
        release = environment.state["google_firebaserules_release.closed"]
        assert release["name"] == "cloud.firestore"
        assert release["ruleset_name"].endswith(f"/rulesets/{ruleset['name']}")

    def test_another_database_has_its_own_rules_and_rights(self, staging: Environment) -> None:
        plan = by_address(staging.shop.plan(release=RELEASE, firestore_database="pulse-2")["planned_values"])
        assert plan["google_firebaserules_release.closed"]["name"] == "cloud.firestore/pulse-2"
        for address, right in plan.items():
            if address.startswith("google_project_iam_member"):
                assert what("google_project_iam_member", right) == f"database {staging.project}/pulse-2"

    def test_it_can_be_brought_back(self, environment: Environment) -> None:
        database = environment.state["google_firestore_database.ledger"]
        assert database["point_in_time_recovery_enablement"] == "POINT_IN_TIME_RECOVERY_ENABLED"
        days = {"prod": 30, "staging": 7}[environment.name]
        assert environment.state["google_firestore_backup_schedule.daily"]["retention"] == f"{days * 86400}s"


@pytest.fixture(scope="module")
def scheduler(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop.open(tmp_path_factory.mktemp("scheduler"), python)


class TestForTheScheduler:
    """The outputs are the values of scheduler/terraform, which then calls the Pulse that was made here."""

    @staticmethod
    def written(*outputs: Path) -> str:
        script = INFRA / "scheduler_vars.py"
        done = subprocess.run(
            [sys.executable, script, *outputs], capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout

    def test_both_environments_jobs_call_their_own_pulse_as_it_expects(
        self,
        scheduler: Workshop,
        environments: dict[str, Environment],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        text = self.written(*(one.outputs for one in environments.values()))
        (scheduler.folder / "vars/env.tfvars").write_text(text)
        plan = by_address(scheduler.plan()["planned_values"])
        assert len(plan) == 16
        for name, environment in environments.items():
            pulse = environment.settings("pulse", monkeypatch)
            account = plan[f'google_service_account.scheduler["{name}"]']
            assert (
                f"{account['account_id']}@{account['project']}.iam.gserviceaccount.com"
                == pulse.scheduler_account
            )
            invoker = plan[f'google_cloud_run_v2_service_iam_member.pulse_invoker["{name}"]']
            service = environment.of_type(SERVICE)["pulse"]
            assert all(invoker[key] == service[key] for key in ("name", "location", "project"))
            job = plan[f'google_cloud_scheduler_job.morning_rounds["{name}"]']["http_target"][0]
            assert job["uri"] == job["oidc_token"][0]["audience"] == pulse.pulse_url
            assert json.loads(base64.b64decode(job["body"]))["environment"] == pulse.environment
            assert json.loads(base64.b64decode(job["body"]))["timezone"] == pulse.time_zone

    def test_staging_alone_is_enough_to_begin_with(self, scheduler: Workshop, staging: Environment) -> None:
        (scheduler.folder / "vars/env.tfvars").write_text(self.written(staging.outputs))
        plan = by_address(scheduler.plan()["planned_values"])
        assert len(plan) == 8
        assert {one["project"] for one in plan.values()} == {staging.project}

    def test_environments_that_differ_where_they_must_not_are_refused(
        self, tmp_path: Path, environments: dict[str, Environment]
    ) -> None:
        other = tmp_path / "prod.outputs.json"
        other.write_text(environments["prod"].outputs.read_text().replace('"us-central1"', '"europe-west1"'))
        with pytest.raises(subprocess.CalledProcessError) as refused:
            self.written(environments["staging"].outputs, other)
        assert "region differs" in refused.value.stderr


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_behind() -> Iterator[None]:
    """The tests work in copies: the configuration is as it was."""
    before = sorted(INFRA.glob("*"))
    yield
    assert sorted(INFRA.glob("*")) == before
