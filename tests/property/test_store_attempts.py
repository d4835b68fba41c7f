"""Invariant 1 in the store: whatever is begun, ended and repeated in whatever order, no line rings twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st

from careflow.core.attempts import Attempt, AttemptState, Disposition, end, move
from careflow.core.calls import Call, CallState, attempt_id, call_id
from careflow.core.checkins import Interaction
from careflow.core.patients import Patient
from careflow.ports import Began, Store
from emulated import OPENERS, on_both_stores

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
ROUNDS = ("r1", "r2")
PHONES = {"p1": "+12125550101", "p2": "+12125550101", "p3": "+12125550102", "p4": "+12125550103"}

step = st.tuples(
    st.sampled_from(["begin", "end", "progress", "next"]),
    st.sampled_from(sorted(PHONES)),
    st.sampled_from(ROUNDS),
)
bursts = st.lists(st.lists(step, min_size=1, max_size=8), min_size=1, max_size=6)


async def prepare(store: Store) -> None:
    await store.put_patients(
        [
            Patient(
                id=id_,
                hospital_id="h1",
                given_name="A",
                family_name="B",
                phone=phone,
                time_zone="UTC",
                consent=True,
            )
            for id_, phone in PHONES.items()
        ]
    )
    calls = []
    for round_id in ROUNDS:
        for patient_id in PHONES:
            call = Call(
                id=call_id(round_id, patient_id),
                hospital_id="h1",
                round_id=round_id,
                patient_id=patient_id,
                due_at=NOW,
                not_after=NOW + timedelta(hours=4),
                state=CallState.CALLING,
                created_at=NOW,
            )
            calls.append(replace(call, attempt_id=attempt_id(call, 1), attempts=1))
    await store.create_calls(calls)


def order(call: Call) -> Attempt:
    assert call.attempt_id is not None
    return Attempt(
        id=call.attempt_id,
        hospital_id="h1",
        round_id=call.round_id,
        call_id=call.id,
        patient_id=call.patient_id,
        number=call.attempts,
        phone=PHONES[call.patient_id],
        script="morning",
        stream_token="t",
        intended_at=NOW,
        not_after=call.not_after,
    )


async def carry_out(store: Store, action: str, patient_id: str, round_id: str) -> str | None:
    """Do one step on what is stored; the id of the attempt that may now be dialled, if it is that."""
    call = await store.call("h1", call_id(round_id, patient_id))
    assert call is not None
    attempt = await store.attempt(str(call.attempt_id))
    if action == "begin":
        result = await store.begin_attempt(order(call), lambda patient, barred: None)
        return order(call).id if result.result is Began.BEGUN else None
    if action == "next":
        number = call.attempts + 1
        await store.update_call(replace(call, attempts=number, attempt_id=attempt_id(call, number)))
    elif attempt is None or attempt.state is AttemptState.ENDED:
        return None
    elif action == "progress":
        if attempt.state is AttemptState.INTENDED:
            await store.update_attempt(move(attempt, AttemptState.DIALLED, NOW, call_sid=f"CA-{attempt.id}"))
    else:
        interaction = Interaction(
            id=attempt.id,
            hospital_id="h1",
            round_id=round_id,
            call_id=call.id,
            patient_id=patient_id,
            started_at=NOW,
            ended_at=NOW,
            disposition="busy",
        )
        await store.end_attempt(end(attempt, NOW, Disposition.BUSY), interaction=interaction)
    return None


@on_both_stores(sqlite=60, firestore=20, bursts=bursts)
def test_no_patient_and_no_number_ever_has_two_open_attempts(kind, bursts):
    async def scenario(data_dir: Path) -> None:
        one, two = await OPENERS[kind](data_dir), await OPENERS[kind](data_dir)
        try:
            await prepare(one)
            dialled: Counter[str] = Counter()
            for burst in bursts:
                steps = [carry_out(store, *step) for step in burst for store in (one, two)]
                dialled.update(attempt for attempt in await asyncio.gather(*steps) if attempt)
                still_open = await one.open_attempts()
                assert max(Counter(attempt.patient_id for attempt in still_open).values(), default=0) <= 1
                assert max(Counter(attempt.phone for attempt in still_open).values(), default=0) <= 1
                assert max(dialled.values(), default=0) <= 1
                assert {attempt.id for attempt in still_open} <= set(dialled)
        finally:
            await one.close()
            await two.close()

    with TemporaryDirectory() as directory:
        asyncio.run(scenario(Path(directory)))
