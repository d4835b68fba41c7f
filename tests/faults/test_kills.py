"""Killed at any moment, a round loses nobody and phones nobody twice (docs/faults.md).

Thirty-two kills in a test run; CAREFLOW_TEST_KILLS=300 for more, CAREFLOW_TEST_SEED=… for others, or for the same again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest

from careflow.lab.firestore_emulator import running_emulator
from emulated import require_emulator
from faults.deployment import Deployment, OneOfEach
from faults.fleet import Fleet
from faults.kills import AGENTS, SERVICES, WHOLE, plan_kills
from faults.people import START
from faults.trial import SPEED, run_trial
from faults.verdict import violations

KILLS_A_TRIAL = 8
PLANNED = 9  # a round may be over before the last of them
SEED = int(os.environ.get("CAREFLOW_TEST_SEED", "20261123"))
TRIALS = -(-int(os.environ.get("CAREFLOW_TEST_KILLS", "32")) // KILLS_A_TRIAL)

# What the telephone provider does to us meanwhile.
UNPLEASANT = {
    "lost_create_response": 0.2,
    "create_429": 0.1,
    "create_500": 0.1,
    "duplicate_callback": 0.3,
    "out_of_order_callback": 0.2,
    "delayed_callback": 0.2,
    "missing_stop": 0.2,
}
# What is killed, and what else goes wrong: services apart, everything at once, services apart with an unpleasant
# provider, and several instances of each on Firestore and Cloud Tasks, in every other trial of that with one.
APART, TOGETHER, UNLUCKY, CLOUD = range(4)


@asynccontextmanager
async def deployment_for(kind: int, folder: Path, seed: int) -> AsyncIterator[Deployment]:
    if kind != CLOUD:
        yield OneOfEach(folder, START, speed=SPEED, whole=kind == TOGETHER)
        return
    require_emulator()
    async with running_emulator() as emulator:
        yield Fleet(
            folder,
            START,
            callers=2,
            pulses=2,
            twilio=2,
            speed=SPEED,
            rng=Random(seed),
            store="firestore",
            firestore_emulator=emulator,
            queue="cloud-tasks",
            project="careflow-trial",
            round_hours="8,10,20",
            calls_in_flight=4,
            planning_batch=4,
        )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(SEED, SEED + TRIALS))
async def test_whoever_is_killed_nobody_is_lost_and_nobody_phoned_twice(seed: int, tmp_path: Path) -> None:
    kind = seed % 4
    roles = {TOGETHER: WHOLE, CLOUD: SERVICES}.get(kind, AGENTS)
    plan = partial(plan_kills, count=PLANNED, roles=roles, several=kind == CLOUD)
    unpleasant = kind == UNLUCKY or (kind == CLOUD and seed // 4 % 2 == 1)
    async with deployment_for(kind, tmp_path, seed) as deployment:
        evidence = await run_trial(deployment, seed, plan, faults=UNPLEASANT if unpleasant else {})
    wrong = violations(evidence)
    assert not wrong, f"seed {seed}, files in {tmp_path}:\n" + "\n".join(wrong)
    assert len(evidence.kills) >= KILLS_A_TRIAL, (
        f"seed {seed}: the round was over after {len(evidence.kills)} kills"
    )
