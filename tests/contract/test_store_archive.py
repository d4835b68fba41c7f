"""What every store owes to whoever carries all of its records to another one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.calls import Call, CallState
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient, RosterRevision
from careflow.core.rounds import Execution, Round
from careflow.errors import StoreError
from careflow.ports import Began, Comparison, Record, Store
from careflow.store.codec import CODEC_OF

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


def two_of_each(make) -> dict[type[Record], list[Record]]:
    """Records with every odd value that a field may have; an attempt in flight among them."""
    patients = [
        make.patient("p1", paused_until=datetime.max.replace(tzinfo=UTC), opted_out=True, medications=()),
        make.patient("p2", given_name="Zoë 💬", phone=None, hospital_id="h2"),
    ]
    calls = [
        make.call("p1", state=CallState.CALLING, attempts=1, lease_owner="w", lease_until=NOW, version=7),
        make.call("p2", hospital_id="h2", reason="a|b"),
    ]
    calls[0] = replace(calls[0], attempt_id=f"{calls[0].id}-1")
    attempts = [
        make.attempt(calls[0], state=AttemptState.DIALLED, call_sid="CA1", version=3, checkpoint="{}"),
        make.ended(make.attempt(calls[1], phone="+12125550124", call_sid="CA2")),
    ]
    return {
        Patient: patients,
        DoNotCall: [make.do_not_call(), make.do_not_call("+12125550123", None, hospital_id="h2")],
        Call: calls,
        Attempt: attempts,
        Interaction: [make.interaction(one, started_at=NOW + timedelta(microseconds=1)) for one in attempts],
        CheckIn: [replace(make.check_in(one), answers=(), symptoms=()) for one in attempts],
        Alert: [
            make.alert(attempts[0]),
            make.alert(attempts[1], "a2", acknowledged_at=NOW, acknowledged_by="nurse"),
        ],
        Execution: [make.execution(), make.execution("e2", hospital_id="h2")],
        Round: [
            replace(make.round(), skipped=(("paused", 2), ("deceased", 1)), version=4),
            replace(make.round("h2"), closed_at=NOW),
        ],
        RosterRevision: [
            RosterRevision(hospital_id="h1", revision=9),
            RosterRevision(hospital_id="h2", revision=0),
        ],
    }


async def stored(store: Store, kind: type[Record], limit: int = 1000) -> list[Record]:
    found: list[Record] = []
    while page := await store.records(kind, after=found[-1] if found else None, limit=limit):
        assert len(page) <= limit
        found.extend(page)
    return found


def by_text(records):
    return sorted(records, key=repr)


def test_every_kind_of_record_is_carried(make):
    assert set(two_of_each(make)) == set(CODEC_OF)


async def test_records_come_back_with_every_field_whatever_the_pages(store, make):
    for kind, records in two_of_each(make).items():
        assert await store.restore(kind, records) == 2
        for limit in (1, 2, 3):
            assert by_text(await stored(store, kind, limit)) == by_text(records), kind


async def test_the_order_depends_on_the_keys_alone(store, make):
    patients = [make.patient(f"p{number}") for number in range(6)]
    await store.restore(Patient, patients)
    first = await stored(store, Patient)
    await store.put_patients([replace(first[1], language="es")])
    rest = await store.records(Patient, after=first[1])
    assert rest == first[2:]
    assert await store.records(Patient, after=first[-1]) == []


async def test_what_is_there_stays_and_is_told(store, make):
    patient, other = make.patient("p1", opted_out=True), make.patient("p2")
    assert await store.restore(Patient, [patient]) == 1
    changed = replace(patient, opted_out=False)
    assert await store.compare(Patient, [changed, other]) == Comparison(same=0, other=1, absent=1)
    assert await store.restore(Patient, [changed, other]) == 1
    assert await store.patient("h1", "p1") == patient
    assert await store.compare(Patient, [patient, other]) == Comparison(same=2)


async def test_restoring_again_changes_nothing(store, make):
    everything = two_of_each(make)
    for kind, records in everything.items():
        await store.restore(kind, records)
    for kind, records in everything.items():
        assert await store.restore(kind, records) == 0
        assert await store.compare(kind, records) == Comparison(same=2)


async def test_what_only_queries_use_is_there_too(store, make):
    everything = two_of_each(make)
    for kind, records in everything.items():
        await store.restore(kind, records)
    (candidate,) = await store.candidates("h1", 8)
    assert (candidate.patient.id, candidate.do_not_call) == ("p1", True)
    assert await store.on_do_not_call("h2", "nobody", "+12125550123")
    assert [one.id for one in await store.unclosed_rounds()] == [everything[Round][0].id]
    assert await store.count_calls("h1", "r1") == {("calling", "", ""): 1}
    assert await store.count_calls("h2", "r1") == {("waiting", "", "a|b"): 1}
    assert [one.patient_id for one in await store.left_calls("h2", "r1", since=make.now)] == ["p2"]
    assert [one.call_sid for one in await store.open_attempts()] == ["CA1"]
    assert (await store.attempt_of_call_sid("CA2")) == everything[Attempt][1]
    assert [one.id for one in await store.alerts("h1", open_only=True)] == ["a1"]
    assert await store.alerts("h2", open_only=True) == []
    assert len(await store.interactions("h2", "p2")) == 1
    assert len(await store.interactions("h1", round_id="r1")) == 1
    assert (await store.roster_revision("h1"), await store.hospitals()) == (9, ["h1", "h2"])


async def test_the_roster_revision_goes_on_from_where_it_was(store, make):
    await store.restore(RosterRevision, [RosterRevision(hospital_id="h1", revision=9)])
    await store.put_patients([make.patient()])
    assert await store.roster_revision("h1") == 10


async def test_restored_patients_do_not_raise_the_revision(store, make):
    await store.restore(Patient, [make.patient()])
    assert await store.roster_revision("h1") == 0


async def test_an_attempt_in_flight_holds_its_line_in_the_new_store(store, make):
    everything = two_of_each(make)
    for kind, records in everything.items():
        await store.restore(kind, records)
    call = await make.calling(store, "p9", "r9", phone="+12125550123")
    begun = await store.begin_attempt(make.attempt(call), lambda patient, barred: None)
    assert begun.result is Began.LINE_BUSY
    (open_attempt,) = await store.open_attempts()
    assert await store.end_attempt(
        make.ended(open_attempt), interaction=make.interaction(make.ended(open_attempt), id="other")
    )
    begun = await store.begin_attempt(make.attempt(call), lambda patient, barred: None)
    assert begun.result is Began.BEGUN


async def test_an_attempt_whose_line_another_holds_is_refused(store, make):
    call = await make.calling(store)
    await store.begin_attempt(make.attempt(call), lambda patient, barred: None)
    there = await stored(store, Attempt)
    second = make.call("p2", "r2")
    await store.restore(Call, [second])
    with pytest.raises(StoreError, match="does not fit beside"):
        await store.restore(Attempt, [make.attempt(second)])
    assert await stored(store, Attempt) == there


async def test_more_than_one_commit_takes_is_restored(store, make):
    long = "x" * 300_000
    records = [make.patient(f"p{number}", conditions=(long,)) for number in range(20)]
    assert await store.restore(Patient, records) == 20
    assert await store.compare(Patient, records) == Comparison(same=20)
