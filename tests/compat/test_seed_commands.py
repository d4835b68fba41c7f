"""Every fenced block of the seed's README, pasted into a shell as it is written there.

What needs no cloud runs against `make run` (which is `careflow up`), gcloud with the environment of docs/scheduler.md and
nothing else; what makes a cloud runs the real terraform with the stand-in provider; what asks Google for what Terraform made
is answered from Terraform's state. What is left, and where it is proven, is in `ELSEWHERE`. No block can be forgotten: the
last class counts.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.compat.seed.blocks import SEED, Place, fenced
from tests.compat.seed.google import Google, answering, google_of
from tests.compat.seed.terminal import ROOT, Machine, Terminal, bare_environment, machine
from tests.compat.terraform.workshop import (
    Workshop,
    by_address,
    missing,
    standin_python,
    terraform_binary,
)

from careflow.settings import Settings

pytestmark = pytest.mark.timeout(300)

DAILY = SEED["Local Development Testing", 1]
HOURS = (8, 12, 20)
JOB = "google_cloud_scheduler_job"
_PROVEN: set[Place] = set()

ELSEWHERE: dict[Place, tuple[str, str]] = {
    ("High-Level Flow", 1): ("a drawing", "tests/acceptance/test_demo.py"),
    ("Authentication Flow", 1): ("a drawing", "tests/unit/test_auth_verify.py"),
    ("Prerequisites", 3): (
        "installs terraform as root from the internet; the binary is used",
        "tests/compat/test_terraform.py",
    ),
    ("Prerequisites", 4): (
        "signs a person in at Google; here auth/disable_credentials takes its place",
        "docs/scheduler.md",
    ),
    ("Dashboard Queries", 1): (
        "MQL is no longer offered, and of a metric that does not exist; what to ask instead",
        "docs/runbook.md",
    ),
}
"""Blocks that nothing here runs: why, and the test or page that covers what they are for."""


def proves(heading: str, number: int = 1, name: str = "block") -> pytest.MarkDecorator:
    """The test gets this block of the seed under this name."""
    _PROVEN.add((heading, number))
    return pytest.mark.parametrize(name, [pytest.param(SEED[heading, number], id=f"{heading}-{number}")])


def accepted(command: str, folder: Path) -> bool:
    """Whether gcloud takes the command's words, by gcloud's own check, which runs nothing."""
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"],
        env=bare_environment()
        | {"CLOUDSDK_CONFIG": str(folder / "config"), "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    (verdict,) = json.loads(done.stdout)
    return bool(verdict["success"])


def bash_parts(block: str) -> list[str]:
    """The commands of a block that an empty line keeps apart."""
    return block.split("\n\n")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Machine]]:
    """One machine for each round of the day, since a round can be tried in its own hours only."""
    make_run = bash_parts(DAILY)[0]
    with ExitStack() as stack:
        yield {
            hour: stack.enter_context(machine(tmp_path_factory.mktemp(f"at-{hour}"), hour, make_run))
            for hour in HOURS
        }


@pytest.fixture(scope="module")
def rounds(machines: dict[int, Machine]) -> Iterator[dict[int, subprocess.Popen[str]]]:
    """`python3 run_daily_job.py --hour N` under way on each machine, in the other terminal of the block."""
    title, change_directory, *lines = bash_parts(DAILY)[1].splitlines()
    under_way = {}
    for hour in HOURS:
        (line,) = (one for one in lines if f"--hour {hour} " in one)
        block = "\n".join((title, change_directory, line))
        under_way[hour] = machines[hour].terminal.start(block, "careflow-agents/careflow-agent")
    yield under_way
    for process in under_way.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def forced(gcloud: Terminal) -> str:
    """What the seed's run by hand printed, for what can be seen afterwards."""
    return gcloud.run(SEED["Manual Production Trigger", 1]).stdout


@pytest.fixture(scope="module")
def gcloud(
    machines: dict[int, Machine],
    rounds: dict[int, subprocess.Popen[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Terminal:
    """The terminal of the morning's machine, with the lines of docs/scheduler.md and an empty gcloud configuration."""
    if shutil.which("gcloud") is None:
        missing("the gcloud command is not installed")
    exports = fenced((ROOT / "docs/scheduler.md").read_text())["Google's own tools", 1]
    pairs = re.findall(r"^export (\w+)=(\S+)$", exports, re.MULTILINE)
    assert len(pairs) == exports.count("\n") + 1
    port = machines[8].url("scheduler")
    told = {name: value.replace("http://127.0.0.1:8085", port) for name, value in pairs}
    return machines[8].terminal.having(
        **told,
        CLOUDSDK_CONFIG=str(tmp_path_factory.mktemp("gcloud")),
        CLOUDSDK_CORE_DISABLE_PROMPTS="1",
        CLOUDSDK_CORE_CHECK_GCE_METADATA="false",
        CLOUDSDK_CORE_DISABLE_USAGE_REPORTING="true",
        CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK="true",
    )


class TestPlaces:
    @proves("Directory Structure")
    def test_everything_that_is_drawn_is_there(self, block: str) -> None:
        path: list[str] = []
        for line in block.splitlines():
            drawn = re.match(r"([│ ]*(?:[├└]── )?)([\w.-]+)", line)
            assert drawn, line
            path[len(drawn[1]) // 4 :] = [drawn[2]]
            assert ROOT.joinpath(*path).exists(), "/".join(path)

    def test_an_agent_s_ports_are_the_seed_s(self) -> None:
        ports = {name: field.default for name, field in Settings.model_fields.items()}
        assert (ports["pulse_port"], ports["caller_port"]) == (8001, 8002)


class TestDeploy:
    """`make deploy` in both agents: it is gcloud's work, after it has said what is lacking."""

    @pytest.fixture
    def terminal(self, tmp_path: Path) -> Terminal:
        return Terminal.open(tmp_path)

    @proves("Prerequisites", 1)
    def test_pulse(self, block: str, terminal: Terminal, tmp_path: Path) -> None:
        asked = self.deployed(block, terminal, tmp_path, "careflow-agents/careflow-agent")
        assert set(asked) == {"careflow-agent"}
        words, settings = asked["careflow-agent"]
        assert "--no-allow-unauthenticated" in words
        assert "--service-account=careflow-pulse@careflow-478811.iam.gserviceaccount.com" in words
        assert settings == {"CAREFLOW_ENVIRONMENT": "prod", "CAREFLOW_TRUST_PLATFORM_TOKENS": "true"}

    @proves("Prerequisites", 2)
    def test_caller_has_a_private_door_and_a_public_one(
        self, block: str, terminal: Terminal, tmp_path: Path
    ) -> None:
        asked = self.deployed(block, terminal, tmp_path, "careflow-agents/caller-agent")
        assert set(asked) == {"caller-agent", "caller-agent-twilio"}
        for name, routes, door, trust in (
            ("caller-agent", "a2a", "--no-allow-unauthenticated", "true"),
            ("caller-agent-twilio", "twilio", "--allow-unauthenticated", "false"),
        ):
            words, settings = asked[name]
            assert [word for word in words if "allow-unauthenticated" in word] == [door]
            assert "--service-account=careflow-caller@careflow-478811.iam.gserviceaccount.com" in words
            assert settings == {
                "CAREFLOW_ENVIRONMENT": "prod",
                "CAREFLOW_CALLER_ROUTES": routes,
                "CAREFLOW_TRUST_PLATFORM_TOKENS": trust,
            }

    def deployed(
        self, block: str, terminal: Terminal, folder: Path, agent: str
    ) -> dict[str, tuple[list[str], dict[str, str]]]:
        """What gcloud is asked for each service, and its settings, once everything is there; before, that it is lacking is said
        and gcloud not asked."""
        tools, asked = folder / "tools", folder / "asked"
        tools.mkdir()
        asked.mkdir()
        (tools / "gcloud").write_text(
            '#!/bin/sh\n[ "$1" = config ] && exit\n'
            f'printf "%s\\n" "$@" >{asked}/$3\n'
            f'for word; do case $word in --env-vars-file=*) cp "${{word#*=}}" {asked}/$3.yaml; esac; done\n'
        )
        (tools / "gcloud").chmod(0o755)
        with_tools = terminal.having(PATH=f"{tools}:{os.environ['PATH']}")

        lacking = with_tools.run(block, code=2).stderr
        assert [word in lacking for word in ("no project", "no image", "no env.prod.yaml")] == [True] * 3
        assert "nothing was deployed" in lacking
        assert list(asked.iterdir()) == []

        (terminal.project / agent / "env.prod.yaml").write_text("CAREFLOW_ENVIRONMENT: prod\n")
        with_tools.having(PROJECT="careflow-478811", IMAGE="image.example/careflow").run(block)
        services = {}
        for settings in asked.glob("*.yaml"):
            words = settings.with_suffix("").read_text().splitlines()
            assert words[:3] == ["run", "deploy", settings.stem]
            if shutil.which("gcloud"):
                assert accepted(" ".join(["gcloud", *words]), folder)
            services[settings.stem] = (words, yaml.safe_load(settings.read_text()))
        return services


class TestJobs:
    """The seed's gcloud commands, in the order of the document."""

    @proves("Step 5: Verify")
    @proves("Step 5: Verify", 2, "expected")
    @proves("Request Payload", 1, "payload")
    def test_verify(self, block: str, expected: str, payload: str, gcloud: Terminal) -> None:
        said = gcloud.run(block).stdout
        for word, at in {"morning": "15 8", "noon": "15 12", "evening": "15 20"}.items():
            assert re.search(rf"^careflow-{word}-rounds +us-central1 +{at} \* \* \* ", said, re.MULTILINE)
        shown = yaml.safe_load(said[said.index("attemptDeadline:") :])
        wanted = yaml.safe_load(expected)
        target, wanted_target = shown["httpTarget"], wanted.pop("httpTarget")
        assert wanted_target.pop("uri")  # the one thing that another endpoint changes
        assert wanted_target.pop("oidcToken").items() <= target["oidcToken"].items()
        assert wanted_target.items() <= target.items()
        assert wanted.items() <= shown.items()
        assert json.loads(base64.b64decode(target["body"])) == json.loads(payload)

    @proves("Manual Production Trigger")
    def test_a_run_by_hand_shows_in_the_log(self, block: str, forced: str) -> None:
        assert "gcloud scheduler jobs run" in block
        entries = json.loads(forced)
        assert entries
        for entry in entries:
            assert entry["jsonPayload"]["@type"].rpartition(".")[2] in ("AttemptStarted", "AttemptFinished")
            assert entry["resource"]["labels"]["job_id"] == "careflow-morning-rounds"

    @proves("Verify Agent Response")
    @proves("Verify Agent Response", 2, "example")
    def test_pulse_s_answer_shows_in_the_log(
        self, block: str, example: str, gcloud: Terminal, forced: str
    ) -> None:
        wanted = json.loads(example)
        for _ in range(10):  # each takes gcloud's second
            entries = yaml.safe_load_all(gcloud.run(block).stdout)
            if entry := next((one for one in entries if one), None):
                break
        assert entry
        assert entry["severity"] == wanted["severity"]
        for name, value in wanted["jsonPayload"].items():
            found = entry["jsonPayload"][name]
            assert int(float(found)) >= 0 if name in ("patientsQueried", "callsInitiated") else found == value

    @proves("Pause Jobs (Maintenance Mode)", 1, "pause")
    @proves("Resume After Maintenance", 1, "resume")
    def test_every_job_is_paused_and_resumed(self, pause: str, resume: str, gcloud: Terminal) -> None:
        assert gcloud.run(pause).stderr.count("paused") == 3
        assert self.states(gcloud) == {"PAUSED"}
        assert gcloud.run(resume).stderr.count("resumed") == 3
        assert self.states(gcloud) == {"ENABLED"}

    def states(self, gcloud: Terminal) -> set[str]:
        listing = bash_parts(SEED["Step 5: Verify", 1])[0]
        return set(gcloud.run(f"{listing} --format='value(state)'").stdout.split())

    @proves("View Execution History")
    def test_the_last_execution_is_a_table(self, block: str, gcloud: Terminal, forced: str) -> None:
        head, row = gcloud.run(block).stdout.splitlines()
        assert head.split() == ["STATE", "LAST_ATTEMPT_TIME", "SCHEDULE_TIME", "CODE", "MESSAGE"]
        assert re.match(r"ENABLED  20\S+Z  20\S+Z", row)

    @proves("Create Alert Policy")
    def test_the_alert_policy_is_refused_by_gcloud_itself(self, block: str, gcloud: Terminal) -> None:
        """It has no such flags; docs/runbook.md says what to alert on, and the metric is not there either."""
        said = gcloud.run(block, code=2 if "alpha" in self.components(gcloud) else 1).stderr
        assert "--condition-threshold-value" in said or "alpha" in said

    def components(self, gcloud: Terminal) -> str:
        return gcloud.run("gcloud version").stdout


class TestDailyJob:
    @proves("Local Development Testing")
    @pytest.mark.parametrize("hour", HOURS)
    def test_a_round_outlives_its_connection(
        self, block: str, hour: int, rounds: dict[int, subprocess.Popen[str]]
    ) -> None:
        assert f"python3 run_daily_job.py --hour {hour}" in block
        said, complained = rounds[hour].communicate(timeout=150)
        assert rounds[hour].returncode == 0, said + complained
        assert re.search(r"connection cut after 10 s with [12] calls open", said)
        assert "passed: the round went on to its end without us" in said


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A terminal in which `terraform` finds the stand-in provider, and `nano` writes what NANO holds."""
    terraform_binary()
    folder = tmp_path_factory.mktemp("cloud")
    shop = Workshop.open(folder / "shop", standin_python())
    tools = folder / "tools"
    tools.mkdir()
    (tools / "nano").write_text('#!/bin/sh\n[ -f "$1" ] && printf "%s\\n" "$NANO" >"$1"\n')
    (tools / "nano").chmod(0o755)
    mine = {name: shop.environment[name] for name in ("TF_CLI_CONFIG_FILE", "CHECKPOINT_DISABLE")}
    return Terminal.open(folder).having(**mine, TF_CLI_ARGS="-no-color", PATH=f"{tools}:{os.environ['PATH']}")


HERE = "scheduler/terraform"  # where Step 1 leaves the reader


@pytest.fixture(scope="module")
def applied(cloud: Terminal) -> dict[str, str]:
    """What terraform said at each step of the deployment guide, with the seed's own values."""
    said = {}
    cloud.having(NANO=SEED["Step 1: Configure Variables", 2]).run(SEED["Step 1: Configure Variables", 1])
    for step in ("Step 2: Initialize Terraform", "Step 3: Preview Changes", "Step 4: Deploy"):
        said[step] = cloud.run(SEED[step, 1], HERE, typed="yes\n").stdout
    return said


def state(cloud: Terminal) -> dict[str, Any]:
    return by_address(
        json.loads(cloud.having(TF_CLI_ARGS="").run("terraform show -json", HERE).stdout)["values"]
    )


def plan(cloud: Terminal, *words: str) -> dict[str, Any]:
    """What would be there, by address."""
    cloud.run(f"terraform plan -out=made.tfplan -var-file=vars/env.tfvars {' '.join(words)}", HERE)
    shown = cloud.having(TF_CLI_ARGS="").run("terraform show -json made.tfplan", HERE).stdout
    return by_address(json.loads(shown)["planned_values"])


class TestTerraform:
    """The seed's terraform commands, in the order of the document; later ones find what earlier ones made."""

    @proves("Step 1: Configure Variables")
    @proves("Step 1: Configure Variables", 2, "values")
    def test_the_example_values_are_taken(
        self, block: str, values: str, applied: dict[str, str], cloud: Terminal
    ) -> None:
        assert block.startswith("cd scheduler/terraform")
        assert (cloud.project / HERE / "vars/env.tfvars").read_text() == values + "\n"
        job = state(cloud)[f'{JOB}.noon_rounds["prod"]']
        assert (job["project"], job["name"], job["region"]) == (
            "careflow-478811",
            "careflow-noon-rounds",
            "us-central1",
        )

    @proves("Step 2: Initialize Terraform")
    @proves("Step 3: Preview Changes", 1, "preview")
    @proves("Step 4: Deploy", 1, "deploy")
    def test_sixteen_resources_are_planned_and_made(
        self, block: str, preview: str, deploy: str, applied: dict[str, str]
    ) -> None:
        assert "successfully initialized" in applied["Step 2: Initialize Terraform"]
        assert "Plan: 16 to add, 0 to change, 0 to destroy." in applied["Step 3: Preview Changes"]
        assert "Apply complete! Resources: 16 added" in applied["Step 4: Deploy"]
        assert (block, preview.split()[1], deploy.split()[1]) == ("terraform init", "plan", "apply")

    @proves("Issue: Jobs Not Executing", 2)
    def test_a_second_apply_changes_nothing(
        self, block: str, applied: dict[str, str], cloud: Terminal
    ) -> None:
        assert "No changes." in cloud.run(block, HERE).stdout

    @proves("Issue: Jobs Failing with 403 Forbidden")
    def test_the_bindings_are_in_the_state(
        self, block: str, applied: dict[str, str], cloud: Terminal
    ) -> None:
        """The block's other command asks Cloud Run; TestDiagnosis asks it for the policy, which says more."""
        binding, service = bash_parts(block)
        assert "gcloud run services describe careflow-agent" in service
        assert len(cloud.run(binding, HERE).stdout.splitlines()) == 2

    @proves("Update Schedule Time", 1, "edit")
    @proves("Update Schedule Time", 2)
    def test_an_edited_schedule_is_applied_to_both_environments(
        self, edit: str, block: str, applied: dict[str, str], cloud: Terminal
    ) -> None:
        edited(cloud, edit, "schedule")
        said = cloud.run(block, "scheduler", typed="yes\n").stdout
        assert "0 added, 2 changed, 0 destroyed" in said
        jobs = [values for address, values in state(cloud).items() if "morning_rounds" in address]
        assert [job["schedule"] for job in jobs] == ["0 9 * * *"] * 2

    @proves("Issue: Jobs Timing Out")
    def test_an_edited_deadline_is_planned(
        self, block: str, applied: dict[str, str], cloud: Terminal
    ) -> None:
        edited(cloud, block, "attempt_deadline")
        planned = plan(cloud)
        assert planned[f'{JOB}.morning_rounds["prod"]']["attempt_deadline"] == "1200s"
        assert planned[f'{JOB}.noon_rounds["prod"]']["attempt_deadline"] == "600s"

    @proves("Issue: Wrong Agent URL Configured")
    def test_a_new_address_reaches_the_jobs_once_the_reader_is_in_the_right_directory(
        self, block: str, applied: dict[str, str], cloud: Terminal
    ) -> None:
        """The seed edits from scheduler/ and applies as if from scheduler/terraform: between the two stands a cd."""
        values = SEED["Step 1: Configure Variables", 2].replace("careflow-agent-abc123", "careflow-agent-new")
        _edit, apply = bash_parts(block)
        assert "does not exist" in cloud.having(NANO=values).run(block, "scheduler", code=1).stderr
        cloud.run(apply, HERE, typed="yes\n")
        job = state(cloud)[f'{JOB}.evening_rounds["prod"]']
        assert job["http_target"][0]["uri"] == "https://careflow-agent-new-uc.a.run.app"

    @proves("Multi-Environment Strategy")
    def test_the_configuration_is_written_like_the_example(self, block: str) -> None:
        main = squeezed((ROOT / HERE / "main.tf").read_text())
        for line in block.splitlines():
            code = squeezed(line.partition("#")[0])
            assert not code or code in main, line

    @proves("Retry & Resilience")
    def test_the_retries_are_the_example_s(
        self, block: str, applied: dict[str, str], cloud: Terminal
    ) -> None:
        wanted = dict(re.findall(r'(\w+) += "?(\w+)"?', block))
        jobs = [values for address, values in state(cloud).items() if address.startswith(JOB)]
        assert len(jobs) == 6
        for job in jobs:
            (found,) = job["retry_config"]
            assert {name: str(found[name]) for name in wanted} == wanted

    @proves("1. Multi-Hospital Support")
    def test_the_example_s_hospitals_get_whole_jobs(
        self, block: str, applied: dict[str, str], cloud: Terminal
    ) -> None:
        default = re.search(r"default = (\{.*?\n  \})\n", block, re.DOTALL)
        assert default
        (cloud.project / HERE / "hospitals.tfvars").write_text(f"hospitals = {default[1]}\n")
        planned = plan(cloud, "-var-file=hospitals.tfvars")
        for key, hospital in {"hospital-a": "hosp-001", "hospital-b": "hosp-002"}.items():
            job = planned[f'{JOB}.hospital_rounds["prod/{key}/morning"]']
            body = json.loads(base64.b64decode(job["http_target"][0]["body"]))
            assert (job["name"], body["scheduleHour"]) == (f"careflow-morning-rounds-{key}", 8)
            assert body["hospitalId"] == hospital
            assert all(job[name] for name in ("schedule", "time_zone", "region", "attempt_deadline"))
            assert all(job["http_target"][0][name] for name in ("uri", "headers", "oidc_token"))


def squeezed(code: str) -> str:
    return " ".join(code.split())


def edited(cloud: Terminal, block: str, attribute: str) -> None:
    """Put the attribute as the block has it into the same resource of main.tf."""
    line = re.search(rf'{attribute} = "[^"]+"', block)
    main = cloud.project / HERE / "main.tf"
    head, mark, rest = main.read_text().partition('"google_cloud_scheduler_job" "morning_rounds"')
    assert line
    assert mark
    changed, count = re.subn(rf"\b{attribute} += \S+", line[0], rest, count=1)
    assert count == 1
    main.write_text(head + mark + changed)


@pytest.fixture(scope="module")
def google(applied: dict[str, str], cloud: Terminal) -> Iterator[Google]:
    with answering(google_of(state(cloud), "prod")) as google:
        yield google


class TestDiagnosis:
    """gcloud asks Google whether what Terraform was to make is there; the answers are Terraform's state."""

    @pytest.fixture
    def asking(self, gcloud: Terminal, google: Google) -> Terminal:
        overrides = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}": google.url for api in ("IAM", "RUN")}
        return gcloud.having(**overrides)

    @proves("Issue: Jobs Not Executing")
    def test_job_account_and_policy_are_found(self, block: str, asking: Terminal, google: Google) -> None:
        said = asking.run(block).stdout
        assert "name: projects/careflow-478811/locations/us-central1/jobs/careflow-morning-rounds" in said
        assert "email: careflow-scheduler@careflow-478811.iam.gserviceaccount.com" in said
        assert "role: roles/run.invoker" in said
        assert google.unanswered == []

    @proves("Issue: Jobs Failing with 403 Forbidden", 2)
    def test_the_binding_that_the_seed_adds_is_there_already(
        self, block: str, asking: Terminal, google: Google
    ) -> None:
        before = google.policies["careflow-agent"]["bindings"]
        asking.run(block)
        assert google.policies["careflow-agent"]["bindings"] == before
        assert google.unanswered == []


class TestRunbook:
    """docs/runbook.md, which is the seed's operations for both worlds: here in the column of this machine."""

    RUNBOOK = fenced((ROOT / "docs/runbook.md").read_text())

    @pytest.fixture
    def shell(self, gcloud: Terminal) -> Terminal:
        where = re.search(r"WHERE=\"(.+)\"", (ROOT / "docs/runbook.md").read_text())
        assert where
        words = where[1].replace("$PROJECT", "careflow-478811").replace("$REGION", "us-central1")
        path = f"{gcloud.project}/.venv/bin:{gcloud.environment['PATH']}"
        return gcloud.having(PROJECT="careflow-478811", REGION="us-central1", WHERE=words, PATH=path)

    @pytest.mark.parametrize(
        ("place", "shows"),
        [
            (("Verify", 1), "schedule: 15 8 * * *"),
            (("Test", 1), "Scheduled rounds triggered"),
            (("Operate", 1), ""),
            (("Operate", 2), "AttemptFinished"),
            (("Environments and hospitals", 1), "careflow-morning-rounds-hospital-a"),
        ],
        ids=str,
    )
    def test_its_commands_run(self, place: Place, shows: str, shell: Terminal, forced: str) -> None:
        assert shows in shell.run(self.RUNBOOK[place]).stdout
        if place == ("Operate", 1):
            shell.run(self.RUNBOOK[place].replace("jobs pause", "jobs resume"))

    def test_what_it_has_google_do_is_taken_by_gcloud(self, shell: Terminal, tmp_path: Path) -> None:
        policy, *commands = re.split(r"^(?=gcloud )", self.RUNBOOK["Monitor", 1], flags=re.MULTILINE)
        shell.run(policy)
        document = json.loads((shell.project / "policy.json").read_text())
        assert document["conditions"][0]["conditionMatchedLog"]["filter"] in commands[1]
        assert len(commands) == 2
        for command in commands:
            words = command.replace("\\\n", " ").replace("$PROJECT", "careflow-478811").strip()
            assert accepted(words, tmp_path), words


class TestNothingIsForgotten:
    def test_every_block_is_proven_here_or_said_to_be_elsewhere(self) -> None:
        assert len(SEED) == 35
        assert not _PROVEN & ELSEWHERE.keys()
        assert _PROVEN | ELSEWHERE.keys() == SEED.keys()

    @pytest.mark.parametrize("place", ELSEWHERE, ids=str)
    def test_elsewhere_is_a_place(self, place: Place) -> None:
        _, where = ELSEWHERE[place]
        assert (ROOT / where).is_file()
