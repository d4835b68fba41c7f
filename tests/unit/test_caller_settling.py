"""Attempts of which no end was heard: cancelled elsewhere, cut off, left by a dead process - settled from what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from caller_support import NOW, Crash, World, lost, patient, world
from careflow.caller.attempts import AttemptDesk, Step
from careflow.caller.recovery import Recovery
from careflow.caller.stream_pass import StreamPass
from careflow.core import dialogue
from careflow.core.attempts import AttemptState, Disposition, Ending
from careflow.core.checkins import Answer
from careflow.core.conversation import Finished
from careflow.core.patients import Patient
from careflow.scripts import load_scripts
from desk_kit import dialled, talking


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def test_a_cancel_from_another_process_hangs_up_and_ends(here: World) -> None:
    desk = here.desk()
    order, _ = await talking(here, desk)
    assert await here.desk().cancel(order.attempt_id)
    attempt = await here.attempt(order)
    assert attempt.disposition is Disposition.CANCELLED
    assert here.phone.live == []
    await desk.conversation_over(order.attempt_id, Finished(ending=Ending.HUNG_UP), None)
    assert (await here.attempt(order)).disposition is Disposition.CANCELLED


async def test_a_cancel_that_the_provider_did_not_hear_is_finished_later(here: World) -> None:
    desk = here.desk()
    order, _ = await dialled(here, desk)
    here.phone.down = True
    assert await desk.cancel(order.attempt_id)
    assert (await here.attempt(order)).state is not AttemptState.ENDED
    here.phone.down = False
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).disposition is Disposition.CANCELLED


async def test_a_broken_stream_is_connected_again_twice_then_apologised_for(here: World) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    await desk.checkpoint(order.attempt_id, "")
    for resumes in (1, 2):
        await desk.stream_lost(order.attempt_id)
        step = await desk.resumed(order.attempt_id, sid)
        assert step.step is Step.CONNECT
        assert step.attempt is not None
        assert StreamPass.parse(step.attempt.stream_token).resumes == resumes
        assert await desk.stream_started(order.attempt_id, step.attempt.stream_token, sid)
    step = await desk.resumed(order.attempt_id, sid)
    assert step.step is Step.APOLOGISE
    assert (await here.attempt(order)).ending is Ending.INTERRUPTED
    assert here.phone.live == [sid], "the apology must still be heard"
    assert (await desk.resumed(order.attempt_id, sid)).step is Step.HANG_UP


async def test_a_stream_lost_because_the_patient_hung_up_is_a_hang_up(here: World) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    here.phone.becomes(sid, "completed")
    await desk.stream_lost(order.attempt_id)
    assert (await here.attempt(order)).ending is Ending.HUNG_UP


async def test_a_held_conversation_is_left_alone_by_settling(here: World) -> None:
    desk = here.desk()
    order, _ = await talking(here, desk)
    here.clock.advance(here.limits.attempt_deadline.total_seconds() + 1)
    assert await desk.keep(order.attempt_id)
    await here.pass_time(here.desk().settle_all())
    assert (await here.attempt(order)).state is AttemptState.ANSWERED


async def test_settling_reads_the_calls_state_when_no_callback_came(here: World) -> None:
    desk = here.desk()
    order, sid = await dialled(here, desk)
    here.phone.becomes(sid, "ringing")
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).state is AttemptState.RINGING
    here.phone.becomes(sid, "completed", answered_by="machine_end_beep")
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).disposition is Disposition.VOICEMAIL


async def test_a_call_that_the_provider_does_not_know_is_ended(here: World) -> None:
    desk = here.desk()
    order, sid = await dialled(here, desk)
    del here.phone.calls[sid]
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).state is AttemptState.DIALLED, "it may not be found yet"
    here.clock.advance(here.limits.unknown_for.total_seconds())
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).failure == "unknown-call"


async def test_the_pass_counts_streams_and_resumes() -> None:
    first = StreamPass(secret="a.b")
    assert StreamPass.parse(first.token()) == first
    assert first.accepted("x").streams == 1
    assert first.accepted("x").resumed("y") == StreamPass(resumes=1, streams=1, secret="y")
    assert StreamPass.parse("anything") == replace(first, secret="anything")


def said(*, ending: Ending | None = None, opted_out: bool = False) -> str:
    """The checkpoint of a conversation with one answer, and perhaps the goodbye begun."""
    script = load_scripts()["morning"]
    fresh = dialogue.begin(script, patient(), clinic_name="", clinic_phone="")
    state = replace(
        fresh,
        phase=dialogue.Phase.CLOSING if ending else dialogue.Phase.ASKING,
        confirmed=True,
        answers=(Answer(question_id=fresh.questions()[0].id, value="yes"),),
        ending=ending,
        opted_out_patient=opted_out,
    )
    return dialogue.to_json(state)


def scripted(here: World) -> AttemptDesk:
    return here.desk(recovery=Recovery(scripts=load_scripts()))


async def test_the_answers_of_a_conversation_whose_process_died_are_kept(here: World) -> None:
    dead = here.desk()
    order, sid = await talking(here, dead)
    await dead.checkpoint(order.attempt_id, said())
    here.phone.becomes(sid, "completed")
    here.let_go()
    await here.pass_time(scripted(here).settle_all())
    kept = await here.store.check_in("h1", order.attempt_id)
    assert kept is not None
    assert [answer.value for answer in kept.answers] == ["yes"]
    assert (await here.attempt(order)).ending is Ending.INTERRUPTED


@pytest.mark.parametrize("how", ["settled", "lost", "broken"])
async def test_an_opt_out_decided_before_the_process_died_is_honoured(here: World, how: str) -> None:
    dead = here.desk()
    order, sid = await talking(here, dead)
    await dead.checkpoint(order.attempt_id, said(ending=Ending.OPTED_OUT, opted_out=True))
    here.phone.becomes(sid, "completed")
    desk = scripted(here)
    match how:
        case "settled":
            here.let_go()
            await here.pass_time(desk.settle_all())
        case "lost":
            await desk.stream_lost(order.attempt_id)
        case "broken":
            await desk.conversation_broken(order.attempt_id)
    assert (await here.attempt(order)).ending is Ending.OPTED_OUT
    assert await here.store.on_do_not_call("h1", "p1", None)


class Meanwhile:
    """A store in whose first read of the patient something else happens."""

    def __init__(self, here: World, happens: Coroutine[Any, Any, object]) -> None:
        self._here = here
        self._happens: Coroutine[Any, Any, object] | None = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._here.store, name)

    async def patient(self, hospital_id: str, patient_id: str) -> Patient | None:
        happens, self._happens = self._happens, None
        if happens is not None:
            await happens
        return await self._here.store.patient(hospital_id, patient_id)


async def test_an_opt_out_stored_while_another_process_ends_the_attempt_is_honoured(here: World) -> None:
    """The holder was taken for dead, or the end was asked for elsewhere, as the patient asked not to be phoned again."""
    holder = here.desk()
    order, sid = await talking(here, holder)
    await holder.checkpoint(order.attempt_id, said())
    here.phone.becomes(sid, "completed")
    here.let_go()
    opting_out = holder.checkpoint(order.attempt_id, said(ending=Ending.OPTED_OUT, opted_out=True))
    other = here.desk(Meanwhile(here, opting_out), recovery=Recovery(scripts=load_scripts()))
    await here.pass_time(other.settle_all())
    assert (await here.attempt(order)).ending is Ending.OPTED_OUT
    assert await here.store.on_do_not_call("h1", "p1", None)


async def test_a_checkpoint_that_cannot_be_read_does_not_keep_the_attempt_open(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
    dead = here.desk()
    order, sid = await talking(here, dead)
    await dead.checkpoint(order.attempt_id, '{"words": "my chest hurts"')
    here.phone.becomes(sid, "completed")
    here.let_go()
    await here.pass_time(scripted(here).settle_all())
    assert (await here.attempt(order)).ending is Ending.INTERRUPTED
    assert "chest" not in caplog.text


@pytest.mark.parametrize("ending", [None, Ending.COMPLETE])
async def test_a_patient_who_was_understood_is_no_machine_whatever_the_detection_said_later(
    here: World, ending: Ending | None
) -> None:
    """Or the patient would be phoned a second time because our process died."""
    dead = here.desk()
    order, sid = await talking(here, dead)
    await dead.checkpoint(order.attempt_id, said(ending=ending))
    await dead.machine(order.attempt_id, "machine_end_silence", sid)
    here.phone.becomes(sid, "completed", answered_by="machine_end_silence")
    here.let_go()
    await here.pass_time(scripted(here).settle_all())
    attempt = await here.attempt(order)
    assert (attempt.disposition, attempt.ending) == (Disposition.ANSWERED, ending or Ending.INTERRUPTED)


async def test_a_conversation_whose_end_could_not_be_recorded_is_settled_when_nobody_holds_it_any_more(
    here: World,
) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    here.phone.becomes(sid, "completed")
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).state is AttemptState.ANSWERED, "it is held"
    here.let_go()
    await here.pass_time(desk.settle_all())
    assert (await here.attempt(order)).state is AttemptState.ENDED


async def test_a_lost_answers_call_is_found_though_our_clock_is_some_minutes_fast(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(lost(), False)]
    made = here.phone.add("+12125550123", created_at=NOW - timedelta(minutes=5))  # by the provider's clock
    await here.pass_time(here.desk().begin(order))
    assert (await here.attempt(order)).call_sid == made


async def test_a_clock_that_is_set_back_does_not_hold_the_settling_up(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(Crash(), False)]
    with pytest.raises(Crash):
        await here.desk().begin(order)
    here.clock.advance(-3600)
    settling = asyncio.ensure_future(here.desk().settle(await here.attempt(order)))
    await here.settled_loop(lambda: here.phone.listings >= 1)
    for _ in range(120):
        here.clock.advance(1)
        await here.settled_loop(settling.done)
    assert here.phone.listings >= 4, "it goes on looking for the call"
    settling.cancel()


async def test_a_call_that_the_provider_begins_to_dial_after_its_time_is_taken_back(here: World) -> None:
    order = replace(await here.ready(), not_after=NOW + timedelta(minutes=2))
    desk = here.desk()
    begun = await desk.begin(order)
    assert begun.attempt is not None
    assert begun.attempt.call_sid is not None
    here.clock.advance(120 + 11)
    await desk.status(order.attempt_id, begun.attempt.call_sid, "initiated")
    assert (await here.attempt(order)).failure == "queued-too-long"
    assert here.phone.live == []
