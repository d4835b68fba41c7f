"""What a process of a deployment loads: one machine nothing of Google's clients, one in the cloud neither SQLite nor the lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

COMPOSE = """
import asyncio, json, sys
from careflow.app import assembled, bind
from careflow.clock import SystemClock
from careflow.settings import load_settings

async def main():
    settings, sockets = bind(load_settings(), sys.argv[1:])
    async with assembled(settings, sockets, SystemClock()):
        print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""
GOOGLE = (  # not grpc, which the A2A SDK loads where it finds it
    "google.auth",
    "google.api_core",
    "google.cloud.firestore",
    "google.cloud.firestore_v1",
    "google.cloud.tasks_v2",
    "google.cloud.scheduler_v1",
)
LOCAL = (
    "sqlite3",
    "careflow.store.sqlite",
    "careflow.store.database",
    "careflow.tasks.embedded",
    "careflow.lab",
    "careflow.scheduler",
)


def loaded(directory: Path, roles: list[str], variables: Mapping[str, str]) -> set[str]:
    """Names of all modules that serving these roles has loaded, without a request."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CAREFLOW_")}
    ports = {
        f"CAREFLOW_{role.upper()}_PORT": "0" for role in ("pulse", "caller", "lab", "scheduler", "tasks")
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPOSE, *roles],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | ports | {"CAREFLOW_DATA_DIR": str(directory)} | variables,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def among(modules: set[str], packages: tuple[str, ...]) -> list[str]:
    return sorted(
        one for one in modules if any(one == package or one.startswith(f"{package}.") for package in packages)
    )


def test_one_machine_loads_nothing_of_google_s_clients(tmp_path: Path) -> None:
    modules = loaded(tmp_path, ["lab", "caller", "pulse", "scheduler"], {})
    assert among(modules, GOOGLE) == []
    assert "careflow.store.sqlite" in modules


CLOUD = {
    "CAREFLOW_STORE": "firestore",
    "FIRESTORE_EMULATOR_HOST": "127.0.0.1:9",  # nobody is there, and nobody is asked before the first request
    "CAREFLOW_QUEUE": "cloud-tasks",
    "CAREFLOW_CLOUD_TASKS_URL": "http://127.0.0.1:9",
    "CAREFLOW_TWILIO_ACCOUNT_SID": "AC1",
    "CAREFLOW_TWILIO_AUTH_TOKEN": "token",
    "CAREFLOW_TWILIO_FROM": "+18005550199",
    "CAREFLOW_ELEVENLABS_API_KEY": "key",
    "CAREFLOW_ELEVENLABS_VOICES": "en=anna",
    "CAREFLOW_CALLER_PUBLIC_URL": "https://caller.example",
}


@pytest.mark.parametrize("role", ["pulse", "caller"])
def test_an_agent_in_the_cloud_loads_neither_sqlite_nor_the_lab_nor_the_scheduler(
    tmp_path: Path, role: str
) -> None:
    modules = loaded(tmp_path, [role], CLOUD)
    assert among(modules, LOCAL) == []
    assert "google.cloud.firestore" in modules or among(modules, ("google.cloud",))
    if role == "caller":
        assert "google.cloud.tasks_v2" not in modules


def test_a_caller_that_only_takes_orders_loads_no_speech(tmp_path: Path) -> None:
    modules = loaded(
        tmp_path, ["caller"], CLOUD | {"CAREFLOW_STORE": "sqlite", "CAREFLOW_CALLER_ROUTES": "a2a"}
    )
    assert among(modules, ("careflow.caller.elevenlabs", "careflow.caller.bridge")) == []
