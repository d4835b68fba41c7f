"""Killed at any moment, a round loses nobody and phones nobody twice (docs/faults.md).

Thirty kills in a test run; CAREFLOW_TEST_KILLS=300 for more, CAREFLOW_TEST_SEED=… for others, or for the same again.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faults.trial import run_trial
from faults.verdict import violations

KILLS_A_TRIAL = 10
PLANNED = 11  # a round may be over before the last of them
SEED = int(os.environ.get("CAREFLOW_TEST_SEED", "20261123"))
TRIALS = -(-int(os.environ.get("CAREFLOW_TEST_KILLS", "30")) // KILLS_A_TRIAL)

# What the telephone provider does to us meanwhile, in every third trial.
UNPLEASANT = {
    "lost_create_response": 0.2,
    "create_429": 0.1,
    "create_500": 0.1,
    "duplicate_callback": 0.3,
    "out_of_order_callback": 0.2,
    "delayed_callback": 0.2,
    "missing_stop": 0.2,
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(SEED, SEED + TRIALS))
async def test_whoever_is_killed_nobody_is_lost_and_nobody_phoned_twice(seed: int, tmp_path: Path) -> None:
    kind = seed % 3  # services apart, everything at once, services apart with an unpleasant provider
    evidence = await run_trial(
        tmp_path, seed, PLANNED, whole=kind == 1, faults=UNPLEASANT if kind == 2 else {}
    )
    wrong = violations(evidence)
    assert not wrong, f"seed {seed}, files in {tmp_path}:\n" + "\n".join(wrong)
    assert len(evidence.kills) >= KILLS_A_TRIAL, (
        f"seed {seed}: the round was over after {len(evidence.kills)} kills"
    )
