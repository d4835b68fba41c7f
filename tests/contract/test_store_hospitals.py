"""What every store owes to two hospitals on it: neither sees, changes or disturbs anything of the other's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from careflow.core.calls import call_id
from careflow.ports import Began
from hospital_actor import NOW, PATIENTS, WORK, Actor


async def whole_day(actor: Actor) -> str:
    """All the work there is, for each patient, and what came of it, without the hospital's own id and numbers."""
    came = [await actor.do(work, patient) for work in WORK for patient in PATIENTS]
    numbers = {actor.phone(one): one for one in PATIENTS}
    text = repr(came).replace(actor.hospital_id, "here")
    for patient in PATIENTS:
        text = text.replace(call_id(actor.round.id, patient), f"call of {patient}")
    for number, patient in numbers.items():
        text = text.replace(number, f"number of {patient}")
    return text


async def test_a_hospitals_day_is_the_same_beside_another_s_with_the_same_patient_ids(store):
    first, second = Actor(store, "h1"), Actor(store, "h2")
    alone = await whole_day(first)
    before = await first.seen()
    assert await whole_day(second) == alone
    assert await first.seen() == before
    assert len(before["alerts"]) == len(before["interactions"]) == 2
    assert all(before["check-ins"])


@pytest.mark.parametrize("until", range(0, len(WORK) + 1, 2))
async def test_nothing_is_had_or_changed_by_another_hospitals_ids(store, until):
    owner, thief = Actor(store, "h1"), Actor(store, "h2")
    for actor in (owner, thief):
        for work in WORK[:until]:
            for patient in PATIENTS:
                await actor.do(work, patient)
    before = await owner.seen()
    assert await thief.trespass(owner) == []
    assert await owner.seen() == before


async def test_two_hospitals_never_ring_one_number_at_once(store):
    first, second = Actor(store, "h1", area=212), Actor(store, "h2", area=212)
    began = []
    for actor in (first, second):
        for work in ("import", "open", "plan", "claim"):
            await actor.do(work, "p1")
        began.append((await actor.do("begin", "p1")).result)
    assert began == [Began.BEGUN, Began.LINE_BUSY]
    await first.do("end", "p1")
    assert (await second.do("begin", "p1")).result is Began.BEGUN


async def test_who_asked_one_hospital_not_to_phone_may_be_phoned_by_another(store):
    first, second = Actor(store, "h1", area=212), Actor(store, "h2", area=212)
    for actor in (first, second):
        for work in ("import", "open", "plan", "claim"):
            await actor.do(work, "p1")
    await first.do("bar", "p1")
    for actor, barred in ((first, True), (second, False)):
        (candidate,) = await store.candidates(actor.hospital_id, 8)
        assert candidate.do_not_call is barred
        assert await store.on_do_not_call(actor.hospital_id, "p2", actor.phone("p1")) is barred
    assert (await first.do("begin", "p1")).result is Began.REFUSED
    assert (await second.do("begin", "p1")).result is Began.BEGUN


async def test_an_attempt_in_another_hospitals_name_is_not_begun(store):
    owner, thief = Actor(store, "h1"), Actor(store, "h2")
    for actor in (owner, thief):
        for work in ("import", "open", "plan", "claim"):
            await actor.do(work, "p1")
    began = await owner.do("begin", "p1")
    await owner.do("end", "p1")
    again = replace(began.attempt, id="another-1", hospital_id="h2")
    assert (await store.begin_attempt(again, lambda *_: None)).result is Began.CALL_OVER
    assert [one.hospital_id for one in await store.open_attempts()] == []
    assert await thief.store.attempts("h2", began.attempt.call_id) == []
    assert began.attempt.intended_at == NOW
