"""A day of two hospitals on Firestore and Cloud Tasks, with instances killed all through it (docs/faults.md).

100 patients in a test run; `make day PATIENTS=10000 KILLS=60` for more, CAREFLOW_TEST_SEED=… for others.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from careflow.lab.firestore_emulator import running_emulator
from emulated import require_emulator
from faults.day import run_day

PATIENTS = int(os.environ.get("CAREFLOW_TEST_PATIENTS", "100"))
KILLS = int(os.environ.get("CAREFLOW_TEST_DAY_KILLS", "6"))
SEED = int(os.environ.get("CAREFLOW_TEST_SEED", "20261124"))
LIMIT = 300 + PATIENTS  # real seconds, also on a machine that is busy with other work


@pytest.mark.timeout(LIMIT + 300)
async def test_of_two_hospitals_day_under_kills_nobody_is_lost_and_nobody_phoned_twice(
    tmp_path: Path,
) -> None:
    require_emulator()
    async with running_emulator() as emulator:
        day = await run_day(
            tmp_path, emulator, patients=PATIENTS, kills=KILLS, seed=SEED, limit=LIMIT, tell=_tell
        )
    print(day.summary())
    assert not day.wrong, f"seed {SEED}, files in {tmp_path}:\n" + "\n".join(day.wrong)
    assert len(day.kills) >= KILLS * 2 // 3, "the day was over before most of the kills"


def _tell(line: str) -> None:
    print(line, flush=True)
