"""What `infra/` refuses under the real terraform, offline: every validation rule of its variables, by a mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.compat.terraform.workshop import Workshop, standin_python, terraform_binary

from infra_kit import IMAGES, INFRA, RELEASE


@pytest.fixture(scope="module")
def python() -> Path:
    terraform_binary()
    return standin_python()


REFUSED = "Invalid value for variable"
Mistake = tuple[str, Any, str]
VOICES = {"en": "voiceEnglish"}
CLINIC = {"name": "Riverside Hospital", "phone": "+12125550199"}
TWILIO = {"account_sid": "AC" + "0" * 32, "from_number": "+12125550100"}
# One mistake at least for each validation rule of variables.tf: the variable, the value, and words of the refusal.
MISTAKES: list[Mistake] = [
    ("backup_days", 99, "14 weeks"),
    ("calls", {"per_second": 0}, "more than 0"),
    ("calls", {"in_flight": 0}, "from 1 to 1000"),
    ("clinic", CLINIC | {"name": "{clinic}"}, "without braces"),
    ("clinic", CLINIC | {"phone": "call us"}, "a telephone number"),
    ("container_user", 0, "not root"),
    ("elevenlabs", {"voices": {"es": "voiceSpanish"}}, "one for en"),
    ("elevenlabs", {"voices": VOICES | {"es": "a,b"}}, "one for en"),
    ("elevenlabs", {"voices": VOICES, "url": "http://api.elevenlabs.io"}, "https://"),
    ("environment", "production", "staging or prod"),
    ("firestore_database", "Ledger", "lower-case"),
    ("firestore_location", "usa", "multi-region"),
    ("instances", {"twilio": {"min": 2, "max": 1}}, "whole numbers"),
    ("instances", {"pulse": {"max": 0}}, "whole numbers"),
    ("operators", ["allUsers"], "nobody else reads"),
    ("operators", ["serviceAccount:x@y.iam.gserviceaccount.com"], "nobody else reads"),
    ("project_id", "Careflow", "a project id"),
    ("project_name", "careflow_pulse", "lower-case letters"),
    ("region", "us-central", "region must be"),
    ("release", RELEASE | {"pulse_image": f"{IMAGES}/pulse:1.0"}, "by digest"),
    ("release", RELEASE | {"caller_image": f"{IMAGES}/caller:latest"}, "by digest"),
    ("release", RELEASE | {"twilio_auth_token_version": "latest"}, "are numbers"),
    ("release", RELEASE | {"hospitals_version": "latest"}, "are numbers"),
    ("settings", {"TWILIO_URL": "https://hospital.test"}, "names are CAREFLOW_"),
    ("settings", {"CAREFLOW_TWILIO_AUTH_TOKEN": "x"}, "state would hold"),
    ("timezone", "EST5EDT,M3.2.0", "IANA"),
    ("twilio", TWILIO | {"account_sid": "AC123"}, "32 hexadecimal"),
    ("twilio", TWILIO | {"from_number": "2125550100"}, "E.164"),
]


@pytest.fixture(scope="module")
def shop(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop.open(tmp_path_factory.mktemp("refusals"), python, INFRA, "vars/staging.tfvars")


@pytest.fixture(scope="module")
def refusals(shop: Workshop) -> list[tuple[Mistake, list[str]]]:
    """What Terraform says to each mistake. A plan takes the next mistake of every variable."""
    left, told = list(MISTAKES), []
    while left:
        taken = list({mistake[0]: mistake for mistake in reversed(left)}.values())
        said = shop.refusals(**{variable: value for variable, value, _ in taken})
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

    def test_every_rule_has_its_mistake(self, refusals: list[tuple[Mistake, list[str]]]) -> None:
        text = (INFRA / "variables.tf").read_text().splitlines()
        rules = {number for number, line in enumerate(text, 1) if line == "  validation {"}
        tried = {
            int(number)
            for _, said in refusals
            for one in said
            for number in re.findall(r"rule at variables\.tf:(\d+)", one)
        }
        assert tried == rules

    def test_too_few_instances_for_the_calls_at_once_are_refused(self, shop: Workshop) -> None:
        said = shop.refusals(
            release=RELEASE, calls={"in_flight": 500}, instances={"caller": {"max": 10}, "pulse": {"max": 10}}
        )
        assert [one for one in said if "caller-agent-twilio cannot hold" in one]

    def test_a_setting_that_has_a_variable_is_refused(self, shop: Workshop) -> None:
        said = shop.refusals(release=RELEASE, settings={"CAREFLOW_ENVIRONMENT": "prod"})
        assert all("have variables of their own" in one for one in said)
        assert said


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_behind() -> Iterator[None]:
    """The tests work in copies: the configuration is as it was."""
    before = sorted(INFRA.glob("*"))
    yield
    assert sorted(INFRA.glob("*")) == before
