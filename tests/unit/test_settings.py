"""Settings: read once, every problem named at once, no secret shown; unsafe combinations are refused before a port is taken."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from careflow.app import bind, roles_here
from careflow.errors import SettingsError
from careflow.settings import Settings, check_roles, load_settings

SOURCES = Path(__file__).parents[2] / "src"


def test_every_bad_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_ROUND_HOURS", "8,x")
    monkeypatch.setenv("CAREFLOW_TIME_ZONE", "Mars/Olympus")
    monkeypatch.setenv("CAREFLOW_CALL_LEASE", "-1")
    monkeypatch.setenv("CAREFLOW_PULSE_URL", "ftp://x")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    for name in ("ROUND_HOURS", "TIME_ZONE", "CALL_LEASE", "PULSE_URL"):
        assert f"CAREFLOW_{name}" in str(refused.value)


def test_lists_maps_and_durations_are_read_as_a_person_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_ROUND_HOURS", "20, 8")
    monkeypatch.setenv("CAREFLOW_ELEVENLABS_VOICES", "en=anna,es=luz")
    monkeypatch.setenv("CAREFLOW_RETRY_SPACING", "90.5")
    settings = load_settings()
    assert settings.round_hours == (8, 20)
    assert settings.elevenlabs_voices == {"en": "anna", "es": "luz"}
    assert settings.retry_spacing == timedelta(seconds=90.5)


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_TWILIO_AUTH_TOKEN", "very-secret-value")
    assert "very-secret-value" not in repr(load_settings())


def test_no_attempt_is_given_up_while_its_call_may_still_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_CALL_TIME_LIMIT", "1200")
    with pytest.raises(SettingsError, match="CAREFLOW_ATTEMPT_DEADLINE: 1200 s is not longer"):
        load_settings()
    monkeypatch.setenv("CAREFLOW_ATTEMPT_DEADLINE", "1300")
    assert load_settings().call_time_limit == 1200


def given(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str | None]) -> None:
    """The environment holds these settings and no other; None takes one away."""
    for name in [*os.environ]:
        if name.startswith("CAREFLOW_") or name in ("FIRESTORE_EMULATOR_HOST", "K_SERVICE"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        if value is not None:
            monkeypatch.setenv(name, value)


def refusal(roles: list[str]) -> str:
    """What start-up says, before it takes a port."""
    with pytest.raises(SettingsError) as refused:
        check_roles(load_settings(), roles)
    return str(refused.value)


class TestTogether:
    def test_problems_of_one_and_of_several_settings_are_named_in_one_go(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given(
            monkeypatch,
            {
                "CAREFLOW_STORE": "mysql",
                "FIRESTORE_EMULATOR_HOST": "localhost",
                "CAREFLOW_CALL_TIME_LIMIT": "1200",
                "CAREFLOW_TRUST_PLATFORM_TOKENS": "yes",
            },
        )
        with pytest.raises(SettingsError) as refused:
            load_settings()
        named = [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]]
        assert named == [
            "CAREFLOW_STORE",
            "FIRESTORE_EMULATOR_HOST",
            "CAREFLOW_ATTEMPT_DEADLINE",
            "CAREFLOW_TRUST_PLATFORM_TOKENS",
            "CAREFLOW_TRUST_PLATFORM_TOKENS",
        ]

    def test_a_rule_says_nothing_of_a_setting_that_is_bad_by_itself(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given(monkeypatch, {"CAREFLOW_CALL_TIME_LIMIT": "1200", "CAREFLOW_ATTEMPT_DEADLINE": "soon"})
        with pytest.raises(SettingsError) as refused:
            load_settings()
        assert str(refused.value).count("CAREFLOW_ATTEMPT_DEADLINE") == 1
        assert "not a number of seconds" in str(refused.value)

    def test_an_empty_variable_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given(monkeypatch, {"CAREFLOW_AUDIO_DIR": "", "CAREFLOW_CALLS_PER_SECOND": ""})
        assert load_settings() == Settings()
        assert load_settings().audio_dir is None

    def test_a_command_s_own_words_win_over_google_s_name_for_the_emulator(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given(monkeypatch, {"FIRESTORE_EMULATOR_HOST": "127.0.0.1:8080"})
        assert load_settings().firestore_emulator == "127.0.0.1:8080"
        assert load_settings(firestore_emulator="127.0.0.1:9090").firestore_emulator == "127.0.0.1:9090"


CLOUD = {
    "K_SERVICE": "careflow-agent",
    "CAREFLOW_ENVIRONMENT": "prod",
    "CAREFLOW_PROJECT": "hospital-prod",
    "CAREFLOW_HOST": "0.0.0.0",
    "CAREFLOW_STORE": "firestore",
    "CAREFLOW_QUEUE": "cloud-tasks",
    "CAREFLOW_OIDC_ISSUER": "https://accounts.google.com",
    "CAREFLOW_PULSE_URL": "https://careflow-agent-abc-uc.a.run.app",
    "CAREFLOW_CALLER_URL": "https://caller-agent-abc-uc.a.run.app",
    "CAREFLOW_SCHEDULER_ACCOUNT": "careflow-scheduler@hospital-prod.iam.gserviceaccount.com",
    "CAREFLOW_QUEUE_ACCOUNT": "careflow-queue@hospital-prod.iam.gserviceaccount.com",
    "CAREFLOW_PULSE_ACCOUNT": "careflow-pulse@hospital-prod.iam.gserviceaccount.com",
}
PULSE = CLOUD | {"CAREFLOW_TRUST_PLATFORM_TOKENS": "true"}
PHONING = {
    "CAREFLOW_TWILIO_ACCOUNT_SID": "AC1",
    "CAREFLOW_TWILIO_AUTH_TOKEN": "token",
    "CAREFLOW_TWILIO_FROM": "+18005550199",
    "CAREFLOW_CALLER_PUBLIC_URL": "https://caller-agent-twilio-abc-uc.a.run.app",
}
SPEAKING = {"CAREFLOW_ELEVENLABS_API_KEY": "key", "CAREFLOW_ELEVENLABS_VOICES": "en=anna"}
ORDERED = PULSE | PHONING | {"CAREFLOW_CALLER_ROUTES": "a2a"}
TALKING = CLOUD | PHONING | SPEAKING | {"CAREFLOW_CALLER_ROUTES": "twilio"}
CLINIC = PHONING | SPEAKING  # one machine and real telephones

GOOD = {
    "Pulse on Cloud Run": (PULSE, ["pulse"]),
    "the private Caller on Cloud Run": (ORDERED, ["caller"]),
    "the public Caller on Cloud Run": (TALKING, ["caller"]),
    "a clinic's machine": (CLINIC, ["caller", "pulse", "scheduler"]),
    "a laptop": ({}, ["lab", "caller", "pulse", "scheduler"]),
    "a laptop on Google's emulator and our work-alike": (
        {
            "CAREFLOW_STORE": "firestore",
            "FIRESTORE_EMULATOR_HOST": "127.0.0.1:8080",
            "CAREFLOW_QUEUE": "cloud-tasks",
        },
        ["lab", "tasks", "caller", "pulse", "scheduler"],
    ),
}
LOCAL_ISSUER = {"CAREFLOW_OIDC_ISSUER": None}
OFF_CLOUD_RUN = {"K_SERVICE": None}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_meant_to_run_is_not_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variables, roles = GOOD[name]
    given(monkeypatch, variables)
    check_roles(load_settings(), roles)


@pytest.mark.parametrize(
    ("deployment", "change", "role", "variable", "says"),
    [
        # tokens that only the platform has checked
        (PULSE, OFF_CLOUD_RUN, "pulse", "CAREFLOW_TRUST_PLATFORM_TOKENS", "not Cloud Run"),
        (PULSE, LOCAL_ISSUER, "pulse", "CAREFLOW_TRUST_PLATFORM_TOKENS", "Google's tokens only"),
        (
            TALKING,
            {"CAREFLOW_TRUST_PLATFORM_TOKENS": "1"},
            "caller",
            "CAREFLOW_TRUST_PLATFORM_TOKENS",
            "is 'twilio'",
        ),
        (
            ORDERED,
            SPEAKING | {"CAREFLOW_CALLER_ROUTES": "all"},
            "caller",
            "CAREFLOW_TRUST_PLATFORM_TOKENS",
            "is 'all'",
        ),
        # keys
        (CLOUD, LOCAL_ISSUER, "pulse", "CAREFLOW_OIDC_ISSUER", "on Cloud Run tokens are Google's"),
        ({}, {"CAREFLOW_HOST": "0.0.0.0"}, "pulse", "CAREFLOW_HOST", "open to other machines"),
        ({}, {"CAREFLOW_HOST": "::"}, "caller", "CAREFLOW_HOST", "open to other machines"),
        # these two send requests with our tokens for whoever asks
        (
            {"CAREFLOW_OIDC_JWKS": "https://keys.example/"},
            {"CAREFLOW_HOST": "0.0.0.0"},
            "scheduler",
            "CAREFLOW_HOST",
            "for whoever asks",
        ),
        ({}, {"CAREFLOW_HOST": "0.0.0.0"}, "scheduler", "CAREFLOW_HOST", "open to other machines"),
        ({}, {"CAREFLOW_HOST": "0.0.0.0"}, "tasks", "CAREFLOW_HOST", "open to other machines"),
        ({}, {"CAREFLOW_OIDC_ISSUER": "https://issuer.example"}, "pulse", "CAREFLOW_OIDC_JWKS", "not set"),
        ({}, {"CAREFLOW_OIDC_JWKS": "http://keys.example/"}, "pulse", "CAREFLOW_OIDC_JWKS", "on the way"),
        # stand-ins beside Google's tokens
        (
            PULSE,
            {"FIRESTORE_EMULATOR_HOST": "127.0.0.1:8080"},
            "pulse",
            "FIRESTORE_EMULATOR_HOST",
            "stand-in",
        ),
        (
            PULSE,
            {"CAREFLOW_CLOUD_TASKS_URL": "http://127.0.0.1:8086"},
            "pulse",
            "CAREFLOW_CLOUD_TASKS_URL",
            "stand-in",
        ),
        (
            ORDERED,
            {"CAREFLOW_TWILIO_URL": "http://127.0.0.1:8090"},
            "caller",
            "CAREFLOW_TWILIO_URL",
            "stand-in",
        ),
        (
            TALKING,
            {"CAREFLOW_ELEVENLABS_URL": "http://127.0.0.1:8090"},
            "caller",
            "CAREFLOW_ELEVENLABS_URL",
            "stand-in",
        ),
        (CLOUD, OFF_CLOUD_RUN, "lab", "CAREFLOW_OIDC_ISSUER", "'lab' stands in"),
        (CLOUD, OFF_CLOUD_RUN, "tasks", "CAREFLOW_OIDC_ISSUER", "'tasks' stands in"),
        # who would telephone nobody
        (
            ORDERED,
            {"CAREFLOW_TWILIO_ACCOUNT_SID": None},
            "caller",
            "CAREFLOW_TWILIO_ACCOUNT_SID",
            "no patient",
        ),
        ({}, {"CAREFLOW_ENVIRONMENT": "prod"}, "caller", "CAREFLOW_TWILIO_ACCOUNT_SID", "no patient"),
        # an operator's shell, in which somebody wants to practise
        *(
            (
                {"CAREFLOW_STORE": "firestore", "CAREFLOW_PROJECT": "hospital-staging"},
                {},
                role,
                "CAREFLOW_TWILIO_ACCOUNT_SID",
                "kept as theirs",
            )
            for role in ("caller", "lab")
        ),
        # real telephones
        (
            CLINIC,
            {"CAREFLOW_CALLER_PUBLIC_URL": None},
            "caller",
            "CAREFLOW_CALLER_PUBLIC_URL",
            "in the clear",
        ),
        (
            CLINIC,
            {"CAREFLOW_CALLER_PUBLIC_URL": "http://clinic.example"},
            "caller",
            "CAREFLOW_CALLER_PUBLIC_URL",
            "clear",
        ),
        *((CLINIC, {name: None}, "caller", name, "not set") for name in [*PHONING, *SPEAKING][1:3]),
        *((CLINIC, {name: None}, "caller", name, "not set") for name in SPEAKING),
        # what an instance loses
        (PULSE, {"CAREFLOW_STORE": None}, "pulse", "CAREFLOW_STORE", "loses"),
        (PULSE, {"CAREFLOW_QUEUE": None}, "pulse", "CAREFLOW_QUEUE", "loses"),
        # the queue's limits
        (PULSE, {"CAREFLOW_TASK_DEADLINE": "1801"}, "pulse", "CAREFLOW_TASK_DEADLINE", "15 to 1800"),
        (PULSE, {"CAREFLOW_TASK_DEADLINE": "14"}, "pulse", "CAREFLOW_TASK_DEADLINE", "15 to 1800"),
        (PULSE, {"CAREFLOW_TASK_DEADLINE": "925"}, "pulse", "CAREFLOW_TASK_DEADLINE", "in its middle"),
        # what Google has to be told
        (PULSE, {"CAREFLOW_PROJECT": None}, "pulse", "CAREFLOW_PROJECT", "not a project"),
        (
            PULSE | {"K_SERVICE": None, "CAREFLOW_TRUST_PLATFORM_TOKENS": None},
            {"CAREFLOW_PROJECT": None, "CAREFLOW_STORE": None},
            "pulse",
            "CAREFLOW_PROJECT",
            "not a project",
        ),
        (PULSE, {"CAREFLOW_PULSE_URL": None}, "pulse", "CAREFLOW_PULSE_URL", "https://"),
        (PULSE, {"CAREFLOW_CALLER_URL": None}, "pulse", "CAREFLOW_CALLER_URL", "https://"),
        (ORDERED, {"CAREFLOW_CALLER_URL": None}, "caller", "CAREFLOW_CALLER_URL", "https://"),
        *(
            (PULSE, {name: None}, "pulse", name, "not an account")
            for name in ("CAREFLOW_SCHEDULER_ACCOUNT", "CAREFLOW_QUEUE_ACCOUNT")
        ),
        (ORDERED, {"CAREFLOW_PULSE_ACCOUNT": None}, "caller", "CAREFLOW_PULSE_ACCOUNT", "not an account"),
    ],
)
def test_an_unsafe_or_broken_combination_is_refused_by_the_name_of_the_setting(
    monkeypatch: pytest.MonkeyPatch,
    deployment: Mapping[str, str],
    change: Mapping[str, str | None],
    role: str,
    variable: str,
    says: str,
) -> None:
    given(monkeypatch, deployment | change)
    lines = [line for line in refusal([role]).splitlines() if line.startswith(f"  {variable}: ")]
    assert len(lines) == 1
    assert says in lines[0]


def test_no_port_is_taken_by_a_service_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"CAREFLOW_HOST": "0.0.0.0"})
    monkeypatch.setattr("careflow.app.listen", lambda *_: pytest.fail("it listens"))
    with pytest.raises(SettingsError, match="CAREFLOW_HOST"):
        bind(load_settings(), ["pulse"])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_s_own_addresses_are_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    given(monkeypatch, {"CAREFLOW_HOST": host})
    check_roles(load_settings(), ["pulse"])


def test_one_machine_runs_the_work_alikes_that_the_settings_leave_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(monkeypatch, {})
    assert set(roles_here(load_settings())) == {"lab", "caller", "pulse", "scheduler"}
    given(monkeypatch, {"CAREFLOW_QUEUE": "cloud-tasks"})
    assert set(roles_here(load_settings())) == {"lab", "tasks", "caller", "pulse", "scheduler"}
    given(
        monkeypatch,
        CLINIC | {"CAREFLOW_QUEUE": "cloud-tasks", "CAREFLOW_CLOUD_TASKS_URL": "http://127.0.0.1:9"},
    )
    assert set(roles_here(load_settings())) == {"caller", "pulse", "scheduler"}


def test_a_pulse_alone_makes_no_practice_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, {})
    _, sockets = bind(load_settings(data_dir=tmp_path, pulse_port=0), ["pulse"])
    sockets["pulse"].close()
    assert not [*tmp_path.iterdir()]


AGENTS = Path(__file__).parents[2] / "careflow-agents"


@pytest.mark.parametrize(
    ("unit", "role", "added"),
    [
        ("careflow-agent", "pulse", {"CAREFLOW_TRUST_PLATFORM_TOKENS": "true"}),
        (
            "caller-agent",
            "caller",
            {"CAREFLOW_TRUST_PLATFORM_TOKENS": "true", "CAREFLOW_CALLER_ROUTES": "a2a"},
        ),
        (
            "caller-agent",
            "caller",
            {"CAREFLOW_TRUST_PLATFORM_TOKENS": "false", "CAREFLOW_CALLER_ROUTES": "twilio"},
        ),
    ],
)
def test_the_examples_to_copy_make_services_that_start(
    monkeypatch: pytest.MonkeyPatch, unit: str, role: str, added: Mapping[str, str]
) -> None:
    image = dict(re.findall(r"\b(CAREFLOW_\w+)=(\S+)", (AGENTS / unit / "Dockerfile").read_text()))
    example = yaml.safe_load((AGENTS / unit / "env.example.yaml").read_text())
    secrets = (
        {"CAREFLOW_TWILIO_AUTH_TOKEN": "x", "CAREFLOW_ELEVENLABS_API_KEY": "x"} if role == "caller" else {}
    )
    given(monkeypatch, {"K_SERVICE": unit} | image | example | added | secrets)
    check_roles(load_settings(), [role])


READS_THE_ENVIRONMENT = {
    "careflow/lab/firestore_emulator.py",  # looks for Java and the emulator, tools of a developer's machine
}


def test_nothing_but_the_settings_reads_the_environment() -> None:
    pattern = re.compile(r"\bos\.environ|\bgetenv\b|\bimport environ\b|\bexpandvars\b")
    readers = {
        str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py") if pattern.search(path.read_text())
    }
    assert readers <= READS_THE_ENVIRONMENT
