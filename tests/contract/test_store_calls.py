"""The contract of `ports.Store`: the ledger of calls, claims and leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from careflow.core.calls import CallState, Outcome, end, wait_again

MINUTE = timedelta(minutes=1)


async def claim(store, make, call, owner="w1", now=None, lease=MINUTE):
    now = now or make.now
    return await store.claim_call(call.hospital_id, call.id, owner=owner, now=now, lease_until=now + lease)


async def test_every_field_of_a_call_comes_back(store, make):
    call = make.call(
        state=CallState.ENDED,
        outcome=Outcome.SKIPPED,
        reason="paused",
        attempts=2,
        counted=1,
        attempt_id="x-2",
        lease_owner="w",
        lease_until=make.now,
        ended_at=make.now,
    )
    assert await store.create_calls([call]) == 1
    assert await store.call("h1", call.id) == call


async def test_only_new_patients_of_a_round_get_a_call(store, make):
    first = make.call("p1")
    await store.create_calls([first])
    again = replace(make.call("p1"), id="another-id", due_at=make.now + MINUTE)
    assert await store.create_calls([again, make.call("p2"), make.call("p2")]) == 1
    assert await store.call("h1", first.id) == first
    assert await store.call("h1", "another-id") is None
    assert await store.create_calls([make.call("p1", round_id="r2")]) == 1
    assert await store.create_calls([]) == 0


async def test_planning_twice_at_once_creates_each_call_once(open_store, make):
    one, two = await open_store(), await open_store()
    calls = [make.call(f"p{number}") for number in range(200)]
    created = await asyncio.gather(
        *(store.create_calls(calls[part : part + 50]) for part in (0, 50, 100, 150) for store in (one, two))
    )
    assert sum(created) == 200


async def test_calls_of_a_round_are_paged_by_id(store, make):
    calls = [make.call(f"p{number}") for number in range(25)]
    await store.create_calls([*calls, make.call("p1", round_id="r2")])
    found, after = [], ""
    while page := await store.calls("h1", "r1", after=after, limit=10):
        assert len(page) <= 10
        found += [call.id for call in page]
        after = found[-1]
    assert found == sorted(call.id for call in calls)


async def test_open_only_leaves_out_the_ended(store, make):
    ended = end(make.call("p1"), make.now, Outcome.CANCELLED)
    await store.create_calls([ended, make.call("p2"), make.call("p3", state=CallState.CALLING)])
    open_calls = await store.calls("h1", "r1", open_only=True)
    assert {call.patient_id for call in open_calls} == {"p2", "p3"}


async def left(store, since, limit=1000, **where):
    """Patients of the calls that were left by then, page by page."""
    found, last = [], None
    scope = (where.get("hospital_id", "h1"), where.get("round_id", "r1"))
    while page := await store.left_calls(*scope, since=since, after=last, limit=limit):
        assert len(page) <= limit
        found += [call.patient_id for call in page]
        last = page[-1]
    return found


async def test_calls_are_found_by_when_they_were_left(store, make):
    micro, held = timedelta(microseconds=1), make.call("held")
    ended = end(make.call("ended", due_at=make.now - 9 * MINUTE), make.now, Outcome.CANCELLED)
    due = [make.call("before", due_at=make.now - micro), make.call("now"), held, ended]
    await store.create_calls(
        [*due, make.call("after", due_at=make.now + micro), make.call("elsewhere", round_id="r2")]
    )
    await claim(store, make, held, now=make.now, lease=MINUTE)
    assert await left(store, make.now) == ["before", "now"]
    assert await left(store, make.now - micro) == ["before"]
    assert await left(store, make.now + MINUTE - micro) == ["before", "now", "after"]
    assert await left(store, make.now + MINUTE) == ["before", "now", "after", "held"]
    assert await left(store, make.now, round_id="r2") == ["elsewhere"]
    assert await left(store, make.now, hospital_id="h2") == []


async def test_a_call_is_left_anew_with_every_spell(store, make):
    call = make.call()
    await store.create_calls([call])
    claimed = await claim(store, make, call)
    assert await store.renew_lease("h1", call.id, owner="w1", lease_until=make.now + 3 * MINUTE)
    assert await left(store, make.now + 2 * MINUTE) == []
    assert await left(store, make.now + 3 * MINUTE) == ["p1"]
    assert await store.update_call(wait_again(claimed, make.now + 9 * MINUTE))
    assert await left(store, make.now + 8 * MINUTE) == []
    assert await left(store, make.now + 9 * MINUTE) == ["p1"]
    waiting = await store.call("h1", call.id)
    assert await store.update_call(end(waiting, make.now + 9 * MINUTE, Outcome.UNREACHABLE))
    assert await left(store, make.now + 9 * MINUTE) == []


@pytest.mark.parametrize("limit", [1, 3, 10, 25])
async def test_left_calls_are_paged_by_when_they_were_left_and_by_id(store, make, limit):
    calls = [make.call(f"p{number}", due_at=make.now - MINUTE * (number % 3)) for number in range(25)]
    await store.create_calls(calls)
    expected = [call.patient_id for call in sorted(calls, key=lambda call: (call.due_at, call.id))]
    assert await left(store, make.now, limit) == expected


async def test_calls_are_counted_by_state_outcome_and_reason(store, make):
    calls = [make.call(f"p{number}") for number in range(5)]
    await store.create_calls(
        [
            *calls[:2],
            end(calls[2], make.now, Outcome.SKIPPED, "paused"),
            end(calls[3], make.now, Outcome.SKIPPED, "paused"),
            end(calls[4], make.now, Outcome.COMPLETED, "complete"),
            make.call("p1", round_id="r2"),
        ]
    )
    await store.update_call(end(calls[1], make.now, Outcome.COMPLETED, "complete"))
    assert await store.count_calls("h1", "r1") == {
        ("waiting", "", ""): 1,
        ("ended", "skipped", "paused"): 2,
        ("ended", "completed", "complete"): 2,
    }
    assert await store.count_calls("h2", "r1") == {}


async def test_a_waiting_call_that_is_due_is_claimed(store, make):
    call = make.call()
    await store.create_calls([call])
    claimed = await claim(store, make, call)
    assert (claimed.state, claimed.lease_owner, claimed.lease_until) == (
        CallState.CALLING,
        "w1",
        make.now + MINUTE,
    )
    assert claimed.version == call.version + 1
    assert await store.call("h1", call.id) == claimed


async def test_a_call_is_not_claimed_before_it_is_due(store, make):
    call = make.call(due_at=make.now + MINUTE)
    await store.create_calls([call])
    assert await claim(store, make, call) is None
    assert (await store.call("h1", call.id)).state is CallState.WAITING
    assert await claim(store, make, call, now=call.due_at) is not None


async def test_an_ended_an_unknown_and_a_foreign_call_are_not_claimed(store, make):
    call = end(make.call(), make.now, Outcome.COMPLETED)
    other = make.call("p2")
    await store.create_calls([call, other])
    assert await claim(store, make, call) is None
    assert await claim(store, make, make.call("unknown")) is None
    assert await claim(store, make, replace(other, hospital_id="h2")) is None


async def test_a_lease_keeps_others_out_until_it_is_over(store, make):
    call = make.call()
    await store.create_calls([call])
    await claim(store, make, call, "w1")
    assert await claim(store, make, call, "w2", now=make.now + MINUTE * 0.99) is None
    taken = await claim(store, make, call, "w2", now=make.now + MINUTE)
    assert taken.lease_owner == "w2"


async def test_the_owner_claims_its_own_call_again(store, make):
    call = make.call()
    await store.create_calls([call])
    await claim(store, make, call, "w1")
    assert (await claim(store, make, call, "w1", lease=2 * MINUTE)).lease_until == make.now + 2 * MINUTE


async def test_of_fifty_claims_at_once_one_wins(open_store, make):
    stores = [await open_store(), await open_store()]
    call = make.call()
    await stores[0].create_calls([call])
    claims = await asyncio.gather(
        *(claim(stores[number % 2], make, call, f"w{number}") for number in range(50))
    )
    winners = [claimed for claimed in claims if claimed]
    assert len(winners) == 1
    assert await stores[1].call("h1", call.id) == winners[0]


async def test_a_lease_is_renewed_by_its_owner_alone(store, make):
    call = make.call()
    await store.create_calls([call])
    until = make.now + 5 * MINUTE
    assert not await store.renew_lease("h1", call.id, owner="w1", lease_until=until)
    claimed = await claim(store, make, call, "w1")
    assert not await store.renew_lease("h1", call.id, owner="w2", lease_until=until)
    assert not await store.renew_lease("h2", call.id, owner="w1", lease_until=until)
    assert await store.renew_lease("h1", call.id, owner="w1", lease_until=until)
    assert await store.call("h1", call.id) == replace(claimed, lease_until=until)
    assert await claim(store, make, call, "w2", now=make.now + 2 * MINUTE) is None


async def test_a_lost_lease_is_not_renewed(store, make):
    call = make.call()
    await store.create_calls([call])
    await claim(store, make, call, "w1")
    await claim(store, make, call, "w2", now=make.now + MINUTE)
    assert not await store.renew_lease("h1", call.id, owner="w1", lease_until=make.now + 9 * MINUTE)


async def test_a_lease_that_is_given_back_is_anybodys_at_once(store, make):
    call = make.call()
    await store.create_calls([call])
    await claim(store, make, call, "w1")
    assert await claim(store, make, call, "w2") is None
    assert await store.renew_lease("h1", call.id, owner="w1", lease_until=make.now)
    assert (await claim(store, make, call, "w2")).lease_owner == "w2"


async def test_a_renewal_survives_the_owners_next_update(store, make):
    call = make.call()
    await store.create_calls([call])
    claimed = await claim(store, make, call, "w1")
    await store.renew_lease("h1", call.id, owner="w1", lease_until=make.now + 5 * MINUTE)
    assert await store.update_call(replace(claimed, attempts=1))
    stored = await store.call("h1", call.id)
    assert (stored.attempts, stored.lease_until) == (1, make.now + 5 * MINUTE)


async def test_a_call_is_updated_once_per_version(store, make):
    call = make.call()
    await store.create_calls([call])
    claimed = await claim(store, make, call)
    assert not await store.update_call(replace(call, reason="stale"))
    assert await store.update_call(wait_again(claimed, make.now + MINUTE))
    stored = await store.call("h1", call.id)
    assert (stored.state, stored.due_at, stored.lease_owner) == (CallState.WAITING, make.now + MINUTE, None)
    assert stored.version == claimed.version + 1


async def test_of_updates_at_once_one_is_stored(store, make):
    call = make.call()
    await store.create_calls([call])
    done = await asyncio.gather(*(store.update_call(replace(call, reason=str(n))) for n in range(20)))
    assert done.count(True) == 1
    assert (await store.call("h1", call.id)).reason == str(done.index(True))


async def test_another_hospitals_calls_are_never_seen(store, make):
    call = make.call()
    await store.create_calls([call])
    assert await store.call("h2", call.id) is None
    assert await store.calls("h2", "r1") == []
    assert not await store.update_call(replace(call, hospital_id="h2", reason="theirs"))
