"""The contract of `ports.Store`: attempts, the guard of invariant 1, and what an attempt leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from careflow.core.attempts import AttemptState, Disposition, Ending, end, move
from careflow.core.calls import CallState, Outcome
from careflow.core.calls import end as end_call
from careflow.ports import Began

MINUTE = timedelta(minutes=1)


def willing(patient, on_do_not_call):
    return None


def never_asked(patient, on_do_not_call):
    raise AssertionError("the guard was asked too early")


async def begun(store, make, patient_id="p1", **fields):
    """An attempt that was begun for a fresh call."""
    phone = fields.get("phone", "+12125550123")
    call = await make.calling(store, patient_id, **fields)
    result = await store.begin_attempt(make.attempt(call, phone=phone), willing)
    assert result.result is Began.BEGUN
    return result.attempt


async def test_every_field_of_an_attempt_comes_back(store, make):
    attempt = await begun(store, make)
    full = end(
        replace(
            attempt,
            call_sid="CA1",
            dialled_at=make.now,
            answered_at=make.now,
            answered_by="human",
            cancel_requested_at=make.now,
            checkpoint='{"at": 3}',
        ),
        make.now + MINUTE,
        Disposition.ANSWERED,
        ending=Ending.HUNG_UP,
        failure="x",
    )
    assert await store.update_attempt(full)
    assert await store.attempt(attempt.id) == replace(full, version=1)


async def test_the_intent_is_stored_before_begin_returns(open_store, make):
    store = await open_store()
    attempt = await begun(store, make)
    other = await open_store()
    assert await other.attempt(attempt.id) == attempt
    assert await other.open_attempts() == [attempt]


async def test_beginning_again_finds_the_stored_attempt_whatever_else_is_so(store, make):
    attempt = await begun(store, make)
    ended = make.ended(attempt)
    await store.end_attempt(ended, interaction=make.interaction(ended))
    result = await store.begin_attempt(attempt, never_asked)
    assert result.result is Began.EXISTS
    assert result.attempt == replace(ended, version=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": CallState.WAITING},
        {"attempt_id": "another"},
        {"attempt_id": None},
    ],
)
async def test_a_call_that_is_not_being_made_by_this_attempt_is_over(store, make, changes):
    call = await make.calling(store)
    assert await store.update_call(replace(call, **changes))
    result = await store.begin_attempt(make.attempt(call), never_asked)
    assert result.result is Began.CALL_OVER
    assert await store.attempts("h1", call.id) == []


async def test_an_ended_or_unknown_call_is_over(store, make):
    call = await make.calling(store)
    await store.update_call(end_call(call, make.now, Outcome.CANCELLED))
    assert (await store.begin_attempt(make.attempt(call), never_asked)).result is Began.CALL_OVER
    unknown = make.attempt(make.call("p9", attempt_id="x"))
    assert (await store.begin_attempt(unknown, never_asked)).result is Began.CALL_OVER


@pytest.mark.parametrize("wrong", [{"hospital_id": "h2"}, {"round_id": "r2"}, {"patient_id": "p2"}])
async def test_an_order_that_misnames_its_call_is_refused(store, make, wrong):
    call = await make.calling(store)
    await store.put_patients([make.patient("p2"), make.patient("p1", hospital_id="h2")])
    assert (await store.begin_attempt(make.attempt(call, **wrong), never_asked)).result is Began.CALL_OVER


async def test_a_number_that_another_attempt_of_the_call_had_is_not_its_current_one(store, make):
    first = await begun(store, make)
    ended = make.ended(first)
    await store.end_attempt(ended, interaction=make.interaction(ended))
    call = await store.call("h1", first.call_id)
    await store.update_call(replace(call, attempt_id="again"))
    again = make.attempt(call, number=1, id="again")
    assert (await store.begin_attempt(again, willing)).result is Began.CALL_OVER
    assert await store.attempt("again") is None


async def test_call_over_comes_before_line_busy(store, make):
    await begun(store, make, round_id="r1")
    over = make.attempt(make.call("p1", "r2"))
    assert (await store.begin_attempt(over, never_asked)).result is Began.CALL_OVER


async def test_a_patient_in_another_round_is_busy(store, make):
    await begun(store, make, round_id="r1")
    call = await make.calling(store, round_id="r2", phone="+12125550199")
    result = await store.begin_attempt(make.attempt(call, phone="+12125550199"), never_asked)
    assert result.result is Began.LINE_BUSY
    assert await store.attempts("h1", call.id) == []


async def test_two_patients_who_share_a_number_are_not_dialled_at_once(store, make):
    await begun(store, make, "p1")
    call = await make.calling(store, "p2", hospital_id="h2")
    assert (await store.begin_attempt(make.attempt(call), never_asked)).result is Began.LINE_BUSY


async def test_patients_of_two_hospitals_with_one_id_are_two_people(store, make):
    await begun(store, make, "p1", round_id="r1", phone="+12125550101")
    await begun(store, make, "p1", round_id="r2", phone="+12125550102", hospital_id="h2")


async def test_an_ended_attempt_leaves_the_line_free(store, make):
    attempt = await begun(store, make, "p1")
    ended = make.ended(attempt)
    await store.end_attempt(ended, interaction=make.interaction(ended))
    await begun(store, make, "p2")


async def test_of_fifty_begins_at_once_one_may_dial(open_store, make):
    stores = [await open_store(), await open_store()]
    calls = [await make.calling(stores[0], f"p{number}") for number in range(25)]
    results = await asyncio.gather(
        *(store.begin_attempt(make.attempt(call), willing) for call in calls for store in stores)
    )
    outcomes = [result.result for result in results]
    assert outcomes.count(Began.BEGUN) == 1
    assert set(outcomes) <= {Began.BEGUN, Began.EXISTS, Began.LINE_BUSY}
    assert len(await stores[0].open_attempts()) == 1


async def test_the_guard_sees_the_patient_as_stored_now(store, make):
    call = await make.calling(store)
    await store.put_patients([make.patient(active=False)])
    seen = []

    def guard(patient, on_do_not_call):
        seen.append((patient.active, on_do_not_call))
        return "inactive"

    result = await store.begin_attempt(make.attempt(call), guard)
    assert (result.result, result.reason, result.attempt) == (Began.REFUSED, "inactive", None)
    assert set(seen) == {(False, False)}
    assert await store.open_attempts() == []


@pytest.mark.parametrize(
    ("phone", "patient_id"),
    [
        ("+12125550188", "p1"),  # the patient, on an earlier number
        ("+12125550123", None),  # the number as stored now
        ("+12125550177", None),  # the number that would be dialled
    ],
)
async def test_the_guard_learns_of_the_do_not_call_list(store, make, phone, patient_id):
    call = await make.calling(store)
    await store.add_do_not_call(make.do_not_call(phone, patient_id))
    result = await store.begin_attempt(
        make.attempt(call, phone="+12125550177"), lambda patient, barred: "opted-out" if barred else None
    )
    assert (result.result, result.reason) == (Began.REFUSED, "opted-out")


async def test_a_patient_whom_nobody_knows_is_not_dialled(store, make):
    call = make.call("ghost", state=CallState.CALLING)
    call = replace(call, attempt_id=make.attempt(call).id)
    await store.create_calls([call])
    result = await store.begin_attempt(make.attempt(call), never_asked)
    assert (result.result, result.reason) == (Began.REFUSED, "inactive")


async def test_a_guard_that_breaks_leaves_nothing(store, make):
    call = await make.calling(store)
    with pytest.raises(AssertionError, match="too early"):
        await store.begin_attempt(make.attempt(call), never_asked)
    assert await store.attempts("h1", call.id) == []
    await store.check()


async def test_an_attempt_is_found_by_its_call_sid(store, make):
    attempt = await begun(store, make)
    assert await store.attempt_of_call_sid("CA1") is None
    await store.update_attempt(move(attempt, AttemptState.DIALLED, make.now, call_sid="CA1"))
    assert (await store.attempt_of_call_sid("CA1")).id == attempt.id
    assert await store.attempt("unknown") is None


async def test_one_call_sid_belongs_to_one_attempt(store, make):
    one = await begun(store, make, "p1", phone="+12125550101")
    two = await begun(store, make, "p2", phone="+12125550102")
    assert await store.update_attempt(move(one, AttemptState.DIALLED, make.now, call_sid="CA1"))
    assert not await store.update_attempt(move(two, AttemptState.DIALLED, make.now, call_sid="CA1"))
    assert await store.attempt(two.id) == two


async def test_an_attempt_is_updated_once_per_version(store, make):
    attempt = await begun(store, make)
    assert await store.update_attempt(move(attempt, AttemptState.RINGING, make.now))
    assert not await store.update_attempt(move(attempt, AttemptState.ANSWERED, make.now))
    assert (await store.attempt(attempt.id)).state is AttemptState.RINGING
    assert not await store.update_attempt(replace(attempt, hospital_id="h2", version=1))


async def test_attempts_of_a_call_come_by_number(store, make):
    call = await make.calling(store)
    for number in (1, 2, 10):
        stored = await store.call("h1", call.id)
        attempt = make.attempt(call, number)
        await store.update_call(replace(stored, attempt_id=attempt.id))
        assert (await store.begin_attempt(attempt, willing)).result is Began.BEGUN
        ended = make.ended(attempt)
        assert await store.end_attempt(ended, interaction=make.interaction(ended))
    assert [attempt.number for attempt in await store.attempts("h1", call.id)] == [1, 2, 10]
    assert await store.attempts("h2", call.id) == []


async def test_open_attempts_of_every_hospital_come_oldest_first(store, make):
    wanted = []
    for number, hospital_id in ((3, "h1"), (1, "h2"), (2, "h1")):
        phone = f"+1212555010{number}"
        call = await make.calling(store, f"p{number}", hospital_id=hospital_id, phone=phone)
        attempt = make.attempt(call, phone=phone, intended_at=make.now + number * MINUTE)
        await store.begin_attempt(attempt, willing)
        wanted.append(attempt)
    ended = make.ended(wanted.pop())
    await store.end_attempt(ended, interaction=make.interaction(ended))
    assert [attempt.patient_id for attempt in await store.open_attempts()] == ["p1", "p3"]


async def test_an_end_is_stored_with_everything_it_leaves(store, make):
    attempt = await begun(store, make)
    ended = make.ended(attempt, Disposition.ANSWERED)
    interaction, check_in, alert = make.interaction(ended), make.check_in(ended), make.alert(ended)
    assert await store.end_attempt(
        ended, interaction=interaction, check_in=check_in, do_not_call=make.do_not_call(), alerts=[alert]
    )
    assert await store.attempt(attempt.id) == replace(ended, version=attempt.version + 1)
    assert await store.check_in("h1", attempt.id) == check_in
    assert await store.check_in("h2", attempt.id) is None
    assert await store.interactions("h1", "p1") == [interaction]
    assert await store.alerts("h1") == [alert]
    assert await store.on_do_not_call("h1", "p1", None)


async def test_an_end_that_comes_second_leaves_nothing(store, make):
    attempt = await begun(store, make)
    first, second = make.ended(attempt), make.ended(attempt, Disposition.BUSY)
    assert await store.end_attempt(first, interaction=make.interaction(first))
    assert not await store.end_attempt(
        second,
        interaction=make.interaction(second, disposition="busy"),
        check_in=make.check_in(second),
        do_not_call=make.do_not_call(),
        alerts=[make.alert(second)],
    )
    assert (await store.attempt(attempt.id)).disposition is Disposition.NO_ANSWER
    assert [found.disposition for found in await store.interactions("h1")] == ["answered"]
    assert await store.check_in("h1", attempt.id) is None
    assert not await store.on_do_not_call("h1", "p1", None)
    assert await store.alerts("h1") == []


async def test_an_end_is_all_or_nothing(store, make):
    attempt = await begun(store, make)
    ended = make.ended(attempt)
    naive = make.alert(ended, "a2", raised_at=make.now.replace(tzinfo=None))
    with pytest.raises((ValueError, TypeError)):
        await store.end_attempt(
            ended, interaction=make.interaction(ended), alerts=[make.alert(ended, "a1"), naive]
        )
    assert await store.attempt(attempt.id) == attempt
    assert await store.interactions("h1") == []
    assert await store.alerts("h1") == []


async def test_an_attempt_that_goes_on_cannot_be_ended(store, make):
    attempt = await begun(store, make)
    with pytest.raises(ValueError, match="intended"):
        await store.end_attempt(attempt, interaction=make.interaction(attempt))


@pytest.mark.parametrize(
    ("left", "field"),
    [
        *(("interaction", name) for name in ("hospital_id", "round_id", "call_id", "patient_id")),
        *(("check_in", name) for name in ("hospital_id", "round_id", "call_id", "patient_id")),
        *(("alert", name) for name in ("hospital_id", "round_id", "call_id", "patient_id")),
        *(("do_not_call", name) for name in ("hospital_id", "patient_id")),
    ],
)
async def test_an_attempt_leaves_nothing_at_anothers(store, make, left, field):
    attempt = await begun(store, make)
    ended = make.ended(attempt)
    leaves = {
        "interaction": make.interaction(ended),
        "check_in": make.check_in(ended),
        "do_not_call": make.do_not_call(),
        "alert": make.alert(ended),
    }
    leaves[left] = replace(leaves[left], **{field: "others"})
    alert = leaves.pop("alert")
    with pytest.raises(ValueError, match=rf"{field} is 'others'.*{attempt.id}"):
        await store.end_attempt(ended, **leaves, alerts=[make.alert(ended, "a0"), alert])
    assert await store.attempt(attempt.id) == attempt
    for hospital_id in ("h1", "others"):
        assert await store.interactions(hospital_id) == []
        assert await store.alerts(hospital_id) == []
        assert not await store.on_do_not_call(hospital_id, "p1", attempt.phone)


async def test_a_wrong_number_bars_itself_and_nobody(store, make):
    attempt = await begun(store, make)
    ended = make.ended(attempt)
    entry = make.do_not_call(attempt.phone, None)
    assert await store.end_attempt(ended, interaction=make.interaction(ended), do_not_call=entry)
    assert await store.on_do_not_call("h1", "nobody", attempt.phone)
    assert not await store.on_do_not_call("h1", "p1", None)


async def test_an_end_keeps_an_alert_that_was_raised_before(store, make):
    attempt = await begun(store, make)
    assert await store.add_alert(make.alert(attempt, "a1"))
    await store.acknowledge_alert("h1", "a1", by="nurse", at=make.now)
    ended = make.ended(attempt)
    await store.end_attempt(
        ended, interaction=make.interaction(ended), alerts=[make.alert(ended, "a1"), make.alert(ended, "a2")]
    )
    assert [(alert.id, alert.acknowledged_by) for alert in await store.alerts("h1")] == [
        ("a1", "nurse"),
        ("a2", ""),
    ]


async def test_interactions_come_by_start_for_a_patient_or_a_round(store, make):
    for number, (patient_id, round_id) in enumerate([("p1", "r2"), ("p2", "r1"), ("p1", "r1")]):
        attempt = await begun(store, make, patient_id, round_id=round_id)
        ended = make.ended(attempt)
        start = make.now - number * MINUTE
        await store.end_attempt(ended, interaction=make.interaction(ended, started_at=start))

    def seen(found):
        return [(interaction.patient_id, interaction.round_id) for interaction in found]

    assert seen(await store.interactions("h1")) == [("p1", "r1"), ("p2", "r1"), ("p1", "r2")]
    assert seen(await store.interactions("h1", "p1")) == [("p1", "r1"), ("p1", "r2")]
    assert seen(await store.interactions("h1", round_id="r1")) == [("p1", "r1"), ("p2", "r1")]
    assert seen(await store.interactions("h1", "p1", round_id="r2")) == [("p1", "r2")]
    assert await store.interactions("h2", "p1") == []


async def test_the_same_cause_never_raises_two_alerts(store, make):
    attempt = make.attempt(make.call())
    assert await store.add_alert(make.alert(attempt))
    assert not await store.add_alert(make.alert(attempt, code="changed"))
    assert [alert.code for alert in await store.alerts("h1")] == ["chest-pain"]


async def test_alerts_come_by_time_raised_and_can_be_narrowed(store, make):
    attempt = make.attempt(make.call())
    other_round = make.attempt(make.call(round_id="r2"))
    await store.add_alert(make.alert(attempt, "late", raised_at=make.now + MINUTE))
    await store.add_alert(make.alert(attempt, "early"))
    await store.add_alert(make.alert(other_round, "other", raised_at=make.now + 2 * MINUTE))
    assert [alert.id for alert in await store.alerts("h1")] == ["early", "late", "other"]
    assert [alert.id for alert in await store.alerts("h1", round_id="r1")] == ["early", "late"]
    await store.acknowledge_alert("h1", "early", by="nurse", at=make.now)
    assert [alert.id for alert in await store.alerts("h1", open_only=True)] == ["late", "other"]
    assert await store.alerts("h2") == []


async def test_an_alert_is_acknowledged_once(store, make):
    await store.add_alert(make.alert(make.attempt(make.call())))
    assert not await store.acknowledge_alert("h2", "a1", by="theirs", at=make.now)
    assert await store.acknowledge_alert("h1", "a1", by="nurse", at=make.now)
    assert not await store.acknowledge_alert("h1", "a1", by="second", at=make.now + MINUTE)
    assert not await store.acknowledge_alert("h1", "unknown", by="nurse", at=make.now)
    (alert,) = await store.alerts("h1")
    assert (alert.acknowledged_by, alert.acknowledged_at) == ("nurse", make.now)
