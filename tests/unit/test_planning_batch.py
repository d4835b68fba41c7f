"""The largest batch that the settings allow is one that every store takes: a round would otherwise never be planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from careflow.core.calls import Call, call_id
from careflow.settings import Settings
from emulated import open_firestore, project_of
from firestore_day import calling

LARGEST = next(limit.le for limit in Settings.model_fields["planning_batch"].metadata if hasattr(limit, "le"))
HOSPITAL = "h" * 40  # the longest ids there are
ROUND = f"{'e' * 20}-{HOSPITAL}-20261123-08"


def call_of(number: int) -> Call:
    patient_id = f"{number:064}"
    return replace(
        calling(),
        id=call_id(ROUND, patient_id),
        hospital_id=HOSPITAL,
        round_id=ROUND,
        patient_id=patient_id,
        reason="outside-calling-hours",
    )


async def test_firestore_takes_the_largest_batch_in_one_commit(tmp_path: Path) -> None:
    store = await open_firestore(project_of(tmp_path))
    try:
        assert await store.create_calls([call_of(number) for number in range(LARGEST)]) == LARGEST
    finally:
        await store.close()
