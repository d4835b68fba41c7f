"""What `infra/monitoring` refuses under the real terraform, offline: every validation rule, by a mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.compat.terraform.workshop import Workshop, standin_python, terraform_binary

from monitors import CONFIGURATION


@pytest.fixture(scope="module")
def python() -> Path:
    terraform_binary()
    return standin_python()


@pytest.fixture(scope="module")
def shop(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    home = tmp_path_factory.mktemp("monitoring")
    return Workshop.open(home, python, configuration=CONFIGURATION, values="vars/prod.tfvars")


REFUSED = "Invalid value for variable"
MISTAKES: list[tuple[str, Any, str]] = [
    ("agent_service_names", {"pulse": "careflow/agent"}, "Cloud Run service names"),
    ("channels", {"all": ["pager"]}, "full names"),
    ("emails", [], "one or more addresses"),
    ("emails", ["rounds"], "one or more addresses"),
    ("environment", "production", "staging or prod"),
    ("project_id", "Careflow", "a project id"),
    ("project_name", "careflow_pulse", "lower-case letters"),
    ("runbook_url", "http://docs.hospital.test", "https://"),
    ("thresholds", {"failures_in_a_row": 5}, "failures_in_a_row"),
    ("thresholds", {"retries": 0}, "retries must"),
    ("thresholds", {"retry_share": 10}, "retry_share"),
    ("thresholds", {"silence_minutes": 5}, "silence_minutes"),
    ("thresholds", {"speech_errors": 0}, "speech_errors"),
    ("thresholds", {"telephone_errors": 1.5}, "telephone_errors"),
    ("thresholds", {"trigger_seconds": 3600}, "trigger_seconds"),
    ("thresholds", {"unreached_calls": 0}, "unreached_calls"),
    ("thresholds", {"unreached_share": 1}, "unreached_share"),
]


@pytest.fixture(scope="module")
def refusals(shop: Workshop) -> list[str]:
    """All that is said to the mistakes; a plan takes one of every variable, and all of the thresholds'."""
    left, told = list(MISTAKES), []
    while left:
        together: dict[str, Any] = {}
        for mistake in list(left):
            variable, value, _ = mistake
            if variable == "thresholds":
                together[variable] = together.get(variable, {}) | value
            elif variable in together:
                continue
            else:
                together[variable] = value
            left.remove(mistake)
        told += shop.refusals(**together)
    return told


class TestRefusals:
    @pytest.mark.parametrize("mistake", MISTAKES, ids=[f"{one[0]}-{i}" for i, one in enumerate(MISTAKES)])
    def test_a_mistake_is_refused_by_name(self, refusals: list[str], mistake: tuple[str, Any, str]) -> None:
        variable, _, words = mistake
        assert [one for one in refusals if one.startswith(f"{REFUSED}: {variable}") and words in one]

    def test_every_rule_has_its_mistake(self, refusals: list[str]) -> None:
        text = (CONFIGURATION / "variables.tf").read_text().splitlines()
        rules = {number for number, line in enumerate(text, 1) if line == "  validation {"}
        tried = {int(n) for one in refusals for n in re.findall(r"rule at variables\.tf:(\d+)", one)}
        assert tried == rules
