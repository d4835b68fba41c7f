"""Records and one whole call for the tests of the Firestore store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from careflow.core.attempts import Attempt, AttemptState, Disposition, end, move
from careflow.core.calls import Call, CallState, attempt_id, call_id
from careflow.core.checkins import Interaction
from careflow.core.patients import DoNotCall, Patient
from careflow.ports import Began

NOW = datetime(2026, 11, 23, 13, 0, 0, 123457, tzinfo=UTC)
PHONE = "+12125550123"


def patient(patient_id="MRN-77", hospital_id="h1", **fields):
    values = {
        "given_name": "Ada",
        "family_name": "Example",
        "time_zone": "UTC",
        "phone": PHONE,
        "consent": True,
    }
    return Patient(id=patient_id, hospital_id=hospital_id, **{**values, "hours": frozenset({8}), **fields})


def calling(patient_id="MRN-77", hospital_id="h1", round_id="r1"):
    call = Call(
        id=call_id(round_id, patient_id),
        hospital_id=hospital_id,
        round_id=round_id,
        patient_id=patient_id,
        due_at=NOW,
        not_after=NOW + timedelta(hours=4),
        state=CallState.CALLING,
        created_at=NOW,
    )
    return replace(call, attempt_id=attempt_id(call, 1), attempts=1)


def attempt_of(call, phone=PHONE):
    return Attempt(
        id=call.attempt_id,
        hospital_id=call.hospital_id,
        round_id=call.round_id,
        call_id=call.id,
        patient_id=call.patient_id,
        number=1,
        phone=phone,
        script="morning",
        stream_token="secret",
        intended_at=NOW,
        not_after=call.not_after,
    )


def interaction_of(attempt):
    return Interaction(
        id=attempt.id,
        hospital_id=attempt.hospital_id,
        round_id=attempt.round_id,
        call_id=attempt.call_id,
        patient_id=attempt.patient_id,
        started_at=NOW,
        ended_at=NOW,
        disposition="busy",
    )


async def a_day(store):
    """One call from roster to end, with everything that it can leave."""
    await store.put_patients([patient()])
    call = calling()
    await store.create_calls([call])
    attempt = attempt_of(call)
    assert (await store.begin_attempt(attempt, lambda patient, barred: None)).result is Began.BEGUN
    dialled = move(attempt, AttemptState.DIALLED, NOW, call_sid="CA1")
    assert await store.update_attempt(dialled)
    ended = end(replace(dialled, version=1), NOW, Disposition.ANSWERED)
    entry = DoNotCall(hospital_id="h1", phone=PHONE, patient_id="MRN-77", attempt_id=attempt.id, since=NOW)
    assert await store.end_attempt(ended, interaction=interaction_of(ended), do_not_call=entry)
