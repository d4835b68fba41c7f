"""The contract of `ports.Store`: patients, the do-not-call list, rounds, executions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest

from careflow.core.patients import Medication
from careflow.errors import StoreUnavailable


async def test_every_field_of_a_patient_comes_back(store, make):
    patient = make.patient(
        birth_date=date(1950, 2, 3),
        phone=None,
        language="es",
        opted_out=True,
        deceased=True,
        active=False,
        paused_until=datetime.max.replace(tzinfo=UTC),
        hours=frozenset({0, 8, 23}),
        times=(time(8, 15), time(19, 0, 30)),
        calling_from=time(9, 30),
        medications=(Medication(name="Ñame", slots=frozenset({"noon", "evening"})), Medication(name="B")),
        conditions=("I50",),
        critical_symptoms=("chest-pain", "no puedo respirar"),
        warning_symptoms=("swelling",),
    )
    await store.put_patients([patient])
    assert await store.patient("h1", "p1") == patient


async def test_an_import_counts_what_it_changed(store, make):
    await store.put_patients([make.patient("p1"), make.patient("p2")])
    counts = await store.put_patients(
        [make.patient("p1"), make.patient("p2", language="es"), make.patient("p3")]
    )
    assert (counts.created, counts.updated, counts.unchanged) == (1, 1, 1)
    assert (await store.patient("h1", "p2")).language == "es"


async def test_the_roster_revision_grows_only_when_something_changed(store, make):
    assert await store.roster_revision("h1") == 0
    await store.put_patients([make.patient("p1"), make.patient("p2")])
    first = await store.roster_revision("h1")
    await store.put_patients([make.patient("p1")])
    assert await store.roster_revision("h1") == first > 0
    await store.put_patients([make.patient("p1", active=False)])
    assert await store.roster_revision("h1") > first
    assert await store.roster_revision("h2") == 0


async def test_opting_out_is_sticky(store, make):
    await store.put_patients([make.patient(opted_out=True)])
    counts = await store.put_patients([make.patient(opted_out=False, language="es")])
    stored = await store.patient("h1", "p1")
    assert stored.opted_out
    assert stored.language == "es"
    assert counts.updated == 1


async def test_a_re_import_of_an_opted_out_patient_changes_nothing(store, make):
    await store.put_patients([make.patient(opted_out=True)])
    revision = await store.roster_revision("h1")
    assert (await store.put_patients([make.patient(opted_out=False)])).unchanged == 1
    assert await store.roster_revision("h1") == revision


async def test_an_import_is_all_or_nothing(store, make):
    naive = make.patient("p2", paused_until=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake that must not half-import
    with pytest.raises(ValueError, match="aware"):
        await store.put_patients([make.patient("p1"), naive])
    assert await store.patient("h1", "p1") is None
    assert await store.roster_revision("h1") == 0


async def test_patients_are_paged_by_id(store, make):
    await store.put_patients([make.patient(f"p{number}") for number in (3, 1, 5, 2, 4)])
    first = await store.patients("h1", limit=2)
    rest = await store.patients("h1", after=first[-1].id, limit=10)
    assert [patient.id for patient in [*first, *rest]] == ["p1", "p2", "p3", "p4", "p5"]


async def test_candidates_are_those_of_the_hour_and_those_with_own_times(store, make):
    await store.put_patients(
        [
            make.patient("own", hours=frozenset(), times=(time(9, 0),)),
            make.patient("morning", hours=frozenset({8, 20})),
            make.patient("noon", hours=frozenset({12})),
            make.patient("inactive", hours=frozenset({8}), active=False),
            make.patient("none", hours=frozenset()),
        ]
    )
    assert [found.patient.id for found in await store.candidates("h1", 8)] == ["inactive", "morning", "own"]


async def test_candidates_are_paged_by_id(store, make):
    wanted = [f"p{number:02}" for number in range(25)]
    await store.put_patients([make.patient(name) for name in reversed(wanted)])
    found, after = [], ""
    while page := await store.candidates("h1", 8, after=after, limit=10):
        assert len(page) <= 10
        found += [candidate.patient.id for candidate in page]
        after = found[-1]
    assert found == wanted


async def test_a_candidate_is_barred_by_patient_or_by_number(store, make):
    await store.put_patients(
        [
            make.patient("free", phone="+12125550101"),
            make.patient("named", phone="+12125550102"),
            make.patient("no-number", phone=None),
            make.patient("shares", phone="+12125550103"),
        ]
    )
    await store.add_do_not_call(make.do_not_call("+12125550199", "named"))
    await store.add_do_not_call(make.do_not_call("+12125550103", None))
    barred = {found.patient.id: found.do_not_call for found in await store.candidates("h1", 8)}
    assert barred == {"free": False, "named": True, "no-number": False, "shares": True}


@pytest.mark.parametrize(
    ("patient_id", "phone", "barred"),
    [
        ("p1", "+12125550199", True),  # the patient said it, and has a new number since
        ("p2", "+12125550123", True),  # shares the number
        ("p1", None, True),
        ("p2", "+12125550199", False),
        ("p2", None, False),
        ("", None, False),
    ],
)
async def test_the_do_not_call_list_holds_patient_and_number(store, make, patient_id, phone, barred):
    await store.add_do_not_call(make.do_not_call())
    await store.add_do_not_call(make.do_not_call())
    await store.add_do_not_call(make.do_not_call("+12125550150", None))
    assert await store.on_do_not_call("h1", patient_id, phone) is barred


async def test_another_hospitals_roster_is_never_seen(store, make):
    await store.put_patients([make.patient("p1")])
    await store.add_do_not_call(make.do_not_call())
    assert await store.patient("h2", "p1") is None
    assert await store.patients("h2") == []
    assert await store.candidates("h2", 8) == []
    assert not await store.on_do_not_call("h2", "p1", "+12125550123")
    await store.put_patients([make.patient("p1", hospital_id="h2", language="es")])
    assert (await store.patient("h1", "p1")).language == "en"
    assert [found.do_not_call for found in await store.candidates("h2", 8)] == [False]


async def test_hospitals_are_those_with_patients_or_rounds(store, make):
    assert await store.hospitals() == []
    await store.open_round(make.round("h3"))
    await store.put_patients([make.patient(hospital_id="h2"), make.patient(hospital_id="h1")])
    assert await store.hospitals() == ["h1", "h2", "h3"]
    assert await store.roster_revision("h3") == 0


async def test_opening_a_round_twice_gives_the_stored_one(store, make):
    round_ = make.round()
    first = await store.open_round(round_)
    assert first == round_
    await store.update_round(replace(first, planned_at=make.now, skipped=(("paused", 2), ("deceased", 1))))
    again = await store.open_round(replace(round_, opened_at=make.now + timedelta(hours=1)))
    assert again.skipped == (("paused", 2), ("deceased", 1))
    assert again.opened_at == round_.opened_at
    assert again == await store.round("h1", round_.id)


async def test_a_round_is_updated_once_per_version(store, make):
    round_ = await store.open_round(make.round())
    assert await store.update_round(replace(round_, patients_queried=45))
    assert not await store.update_round(replace(round_, patients_queried=1))
    stored = await store.round("h1", round_.id)
    assert (stored.patients_queried, stored.version) == (45, round_.version + 1)


async def test_rounds_come_latest_window_first_and_unclosed_ones_earliest_first(store, make):
    rounds = [make.round(now=make.now + timedelta(days=days)) for days in (1, 0, 2)]
    for round_ in rounds:
        await store.open_round(round_)
    other = await store.open_round(make.round("h2", now=make.now + timedelta(days=-1)))
    assert await store.update_round(replace(rounds[0], closed_at=make.now))
    middle, first, last = (round_.id for round_ in rounds)
    assert [round_.id for round_ in await store.rounds("h1")] == [last, middle, first]
    assert [round_.id for round_ in await store.rounds("h1", limit=1)] == [last]
    assert [round_.id for round_ in await store.unclosed_rounds()] == [other.id, first, last]


async def test_another_hospitals_rounds_are_never_seen(store, make):
    round_ = await store.open_round(make.round("h1"))
    assert await store.round("h2", round_.id) is None
    assert await store.rounds("h2") == []
    assert not await store.update_round(replace(round_, hospital_id="h2"))


async def test_executions_come_latest_first_and_one_id_is_one_record(store, make):
    for number in (2, 1, 3):
        await store.add_execution(
            make.execution(f"e{number}", received_at=make.now + timedelta(hours=number))
        )
    await store.add_execution(
        make.execution("e3", received_at=make.now + timedelta(hours=3), calls_initiated=7)
    )
    await store.add_execution(make.execution("e9", hospital_id="h2"))
    found = await store.executions("h1", limit=2)
    assert [(execution.id, execution.calls_initiated) for execution in found] == [("e3", 7), ("e2", 0)]


async def test_what_was_written_is_there_for_the_next_process(open_store, make):
    store = await open_store()
    await store.put_patients([make.patient()])
    other = await open_store()
    assert await other.patient("h1", "p1") == make.patient()
    await store.close()
    await store.close()
    await other.check()


async def test_a_closed_store_says_so(open_store):
    store = await open_store()
    await store.check()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.check()
    with pytest.raises(StoreUnavailable):
        await store.patient("h1", "p1")
