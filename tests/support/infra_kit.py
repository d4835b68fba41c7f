"""One environment of `infra/` after an apply, and the release that is made in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.compat.terraform.workshop import ROOT, Workshop

from careflow.auth.middleware import Rule
from careflow.settings import Settings, load_settings

INFRA = ROOT / "infra"
PROJECTS = {"prod": "careflow-prod-000000", "staging": "careflow-staging-000000"}
DIGEST = "@sha256:" + "0" * 64
IMAGES = "us-central1-docker.pkg.dev/careflow-staging-000000/careflow"
RELEASE = {
    "caller_image": f"{IMAGES}/caller{DIGEST}",
    "pulse_image": f"{IMAGES}/pulse{DIGEST}",
    "elevenlabs_api_key_version": "1",
    "twilio_auth_token_version": "2",
    "hospitals_version": "3",
}
SERVICES = {"pulse": "careflow-agent", "caller": "caller-agent", "twilio": "caller-agent-twilio"}

SERVICE = "google_cloud_run_v2_service"


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment after an apply."""

    name: str
    shop: Workshop
    state: Mapping[str, Any]
    outputs: Path

    @property
    def project(self) -> str:
        return PROJECTS[self.name]

    def account(self, name: str) -> str:
        return f"careflow-{name}@{self.project}.iam.gserviceaccount.com"

    def of_type(self, kind: str) -> dict[str, Any]:
        """What there is of a type, by its key."""
        return {
            address.partition('["')[2].removesuffix('"]'): value
            for address, value in self.state.items()
            if address.startswith(f"{kind}.")
        }

    def template(self, service: str) -> dict[str, Any]:
        return dict(self.of_type(SERVICE)[service]["template"][0])

    def container(self, service: str) -> dict[str, Any]:
        return dict(self.template(service)["containers"][0])

    def settings(self, service: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
        """The settings that the service starts with, its secrets made up and the file of hospitals left out."""
        given = {one["name"]: one["value"] or "made-up" for one in self.container(service)["env"]}
        for name in [name for name in given if name == "CAREFLOW_HOSPITALS"]:
            del given[name]
        for name, value in {**given, "K_SERVICE": SERVICES[service]}.items():
            monkeypatch.setenv(name, value)
        return load_settings()


def what(kind: str, right: Mapping[str, Any]) -> str:
    """What a binding of this type gives a right to."""
    match kind:
        case "google_cloud_run_v2_service_iam_member":
            return f"service {right['name']}"
        case "google_cloud_tasks_queue_iam_member":
            return f"queue {right['name']}"
        case "google_service_account_iam_member":
            return f"account {right['service_account_id'].split('/')[-1]}"
        case "google_secret_manager_secret_iam_member":
            return f"secret {right['secret_id']}"
        case "google_storage_bucket_iam_member":
            return f"bucket {right['bucket']}"
        case "google_project_iam_member" if right["condition"]:
            (condition,) = right["condition"]
            found = re.fullmatch(r'resource\.name == "projects/(.*)/databases/(.*)"', condition["expression"])
            return f"database {found[1]}/{found[2]}" if found else f"{condition['expression']}"
        case _:
            return f"the whole project, by {kind}"


def opened(rules: tuple[Rule, ...], path: str, method: str, token: Mapping[str, str]) -> bool:
    """Whether one of the rules lets a request with this token in."""
    return any(
        (path == rule.path or (rule.path.endswith("/*") and path.startswith(rule.path[:-1])))
        and method in rule.methods
        and token["service_account_email"] in rule.accounts
        and token["audience"] == rule.audience
        for rule in rules
    )
