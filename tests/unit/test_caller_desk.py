"""What the provider and the bridge report of an attempt: in any order, any number of times, one end."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caller_support import NOW, Crash, World, world
from careflow.caller.attempts import Step
from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending
from careflow.core.checkins import AlertKind, CheckIn, Triage
from careflow.core.conversation import Finished
from desk_kit import dialled, talking


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def check_in(attempt: Attempt, *, identified: bool = True) -> CheckIn:
    return CheckIn(
        id=attempt.id,
        hospital_id=attempt.hospital_id,
        round_id=attempt.round_id,
        call_id=attempt.call_id,
        patient_id=attempt.patient_id,
        script="morning",
        script_version="1",
        language="en",
        identity_confirmed=identified,
        triage=Triage.YELLOW,
        started_at=NOW,
        ended_at=NOW,
    )


REPORTS = {
    "completed": ["initiated", "ringing", "in-progress", "completed"],
    "voicemail": ["initiated", "ringing", "in-progress", "amd", "completed"],
    "busy": ["initiated", "ringing", "busy"],
    "no-answer": ["initiated", "ringing", "no-answer"],
    "failed": ["initiated", "failed"],
}
ENDS = {
    "completed": (Disposition.ANSWERED, Ending.INTERRUPTED, ""),  # somebody picked up, and we said nothing
    "voicemail": (Disposition.VOICEMAIL, None, ""),
    "busy": (Disposition.BUSY, None, ""),
    "no-answer": (Disposition.NO_ANSWER, None, ""),
    "failed": (Disposition.FAILED, None, "invalid-number"),
}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_callbacks_in_any_order_and_number_give_the_same_end(data: st.DataObject) -> None:
    story = data.draw(st.sampled_from(sorted(REPORTS)))
    events = data.draw(st.permutations(REPORTS[story]))
    repeats = data.draw(st.lists(st.sampled_from(REPORTS[story]), max_size=4))

    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with world(Path(directory)) as here:
                desk = here.desk()
                order, sid = await dialled(here, desk)
                if story == "voicemail":
                    here.phone.becomes(sid, "completed", answered_by="machine_end_beep")
                for event in [*events, *repeats]:
                    if event == "amd":
                        await desk.machine(order.attempt_id, "machine_end_beep", sid)
                    else:
                        await desk.status(
                            order.attempt_id, sid, event, sip_code="404" if event == "failed" else ""
                        )
                attempt = await here.attempt(order)
                assert attempt.state is AttemptState.ENDED
                assert (attempt.disposition, attempt.ending, attempt.failure) == ENDS[story]
                assert len(await here.store.interactions("h1")) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "sip_code", "disposition", "failure"),
    [
        ("failed", "404", Disposition.FAILED, "invalid-number"),
        ("failed", "604", Disposition.FAILED, "invalid-number"),
        ("failed", "486", Disposition.BUSY, ""),
        ("failed", "480", Disposition.NO_ANSWER, ""),
        ("failed", "603", Disposition.REFUSED, "sip-603"),
        ("busy", "603", Disposition.REFUSED, "sip-603"),
        ("failed", "503", Disposition.FAILED, "sip-503"),
        ("failed", "", Disposition.FAILED, "failed"),
        ("canceled", "", Disposition.FAILED, "cancelled-by-provider"),
    ],
)
async def test_the_networks_answer_decides_the_disposition(
    here: World, status: str, sip_code: str, disposition: Disposition, failure: str
) -> None:
    desk = here.desk()
    order, sid = await dialled(here, desk)
    await desk.status(order.attempt_id, sid, status, sip_code=sip_code)
    attempt = await here.attempt(order)
    assert (attempt.disposition, attempt.failure) == (disposition, failure)


async def test_a_foreign_call_reporting_for_the_attempt_is_hung_up_and_changes_nothing(here: World) -> None:
    desk = here.desk()
    order, sid = await dialled(here, desk)
    stray = here.phone.add("+12125550123", status="ringing")
    await desk.status(order.attempt_id, stray, "ringing")
    attempt = await here.attempt(order)
    assert (attempt.state, attempt.call_sid) == (AttemptState.DIALLED, sid)
    assert here.phone.live == [sid]


async def test_a_machine_on_a_foreign_call_says_nothing_of_the_attempt(here: World) -> None:
    desk = here.desk()
    order, _ = await dialled(here, desk)
    await desk.machine(order.attempt_id, "machine_start", here.phone.add("+12125550123"))
    assert (await here.attempt(order)).answered_by is None


async def test_the_final_status_may_bring_the_machines_verdict(here: World) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    await here.pass_time(desk.status(order.attempt_id, sid, "completed", answered_by="machine_end_beep"))
    assert (await here.attempt(order)).disposition is Disposition.VOICEMAIL


async def test_another_attempts_live_call_is_not_hung_up_by_a_misdirected_callback(here: World) -> None:
    desk = here.desk()
    first, busy = await dialled(here, desk)
    await desk.status(first.attempt_id, busy, "busy")
    here.phone.becomes(busy, "busy")
    second, live = await dialled(here, desk, number=2)
    await desk.status(first.attempt_id, live, "ringing")
    assert here.phone.live == [live]
    assert (await here.attempt(second)).call_sid == live


async def test_an_unknown_attempt_is_nobodys(here: World) -> None:
    desk = here.desk()
    assert await desk.status("nobody-1", "CA1", "completed") is None
    assert await desk.machine("nobody-1", "human", "CA1") is None
    assert (await desk.answered("nobody-1", "CA1")).step is Step.HANG_UP
    assert await desk.stream_started("nobody-1", "t", "CA1") is None
    assert not await desk.cancel("nobody-1")


async def test_a_stream_token_opens_one_stream(here: World) -> None:
    desk = here.desk()
    order, sid = await dialled(here, desk)
    token = (await here.attempt(order)).stream_token
    assert await desk.stream_started(order.attempt_id, "0.0.guess", sid) is None
    assert await desk.stream_started(order.attempt_id, token, "CA" + "f" * 32) is None
    begun = await desk.stream_started(order.attempt_id, token, sid)
    assert begun is not None
    assert begun.state is AttemptState.ANSWERED
    assert await desk.stream_started(order.attempt_id, token, sid) is None


async def test_a_wrong_token_neither_names_the_call_nor_ends_another(here: World) -> None:
    order = await here.ready()
    here.phone.answers = [(Crash(), False)]
    desk = here.desk()
    with pytest.raises(Crash):
        await desk.begin(order)
    stray = here.phone.add("+12125550123", status="in-progress")
    assert await desk.stream_started(order.attempt_id, "0.0.guess", stray) is None
    assert (await here.attempt(order)).call_sid is None
    assert here.phone.live == [stray]


async def test_of_two_streams_with_one_token_one_is_accepted(here: World) -> None:
    desk, other = here.desk(), here.desk()
    order, sid = await dialled(here, desk)
    token = (await here.attempt(order)).stream_token
    both = await asyncio.gather(*[one.stream_started(order.attempt_id, token, sid) for one in (desk, other)])
    assert len([attempt for attempt in both if attempt]) == 1


async def test_a_result_is_stored_whole_and_then_the_call_is_hung_up(here: World) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    result = check_in(await here.attempt(order))
    await desk.conversation_over(order.attempt_id, Finished(ending=Ending.COMPLETE), result)
    attempt = await here.attempt(order)
    assert (attempt.disposition, attempt.ending) == (Disposition.ANSWERED, Ending.COMPLETE)
    assert await here.store.check_in("h1", order.attempt_id) == result
    [interaction] = await here.store.interactions("h1")
    assert (interaction.triage, interaction.ending) == ("yellow", "complete")
    assert here.phone.hung_up == [sid]


async def test_the_first_end_stands(here: World) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    await desk.conversation_over(order.attempt_id, Finished(ending=Ending.COMPLETE), None)
    await desk.status(order.attempt_id, sid, "completed")
    await desk.conversation_broken(order.attempt_id)
    assert not await desk.cancel(order.attempt_id)
    assert (await here.attempt(order)).ending is Ending.COMPLETE


async def test_a_final_status_waits_for_the_conversation_to_record_itself(here: World) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    here.phone.becomes(sid, "completed")
    reported = asyncio.ensure_future(desk.status(order.attempt_id, sid, "completed"))
    await here.settled_loop(reported.done)
    assert not reported.done()
    await desk.conversation_over(order.attempt_id, Finished(ending=Ending.HUNG_UP), None)
    attempt = await here.pass_time(reported)
    assert attempt.ending is Ending.HUNG_UP


async def test_a_conversation_that_never_records_itself_counts_as_our_failure(here: World) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    here.phone.becomes(sid, "completed")
    attempt = await here.pass_time(desk.status(order.attempt_id, sid, "completed"))
    assert (attempt.disposition, attempt.ending) == (Disposition.ANSWERED, Ending.INTERRUPTED)


@pytest.mark.parametrize("patient_asked", [True, False])
async def test_an_opt_out_is_on_the_list_in_the_same_moment(here: World, patient_asked: bool) -> None:
    desk = here.desk()
    order, _ = await talking(here, desk)
    finished = Finished(
        ending=Ending.OPTED_OUT, opted_out_patient=patient_asked, opted_out_number=not patient_asked
    )
    await desk.conversation_over(order.attempt_id, finished, None)
    assert await here.store.on_do_not_call("h1", "somebody-else", "+12125550123")
    assert await here.store.on_do_not_call("h1", "p1", None) is patient_asked


async def test_a_machine_that_took_the_call_is_voicemail(here: World) -> None:
    desk = here.desk()
    order, _ = await talking(here, desk)
    await desk.conversation_over(order.attempt_id, Finished(ending=None, voicemail=True), None)
    assert (await here.attempt(order)).disposition is Disposition.VOICEMAIL


@pytest.mark.parametrize(("identified", "disposition"), [(False, "voicemail"), (True, "answered")])
async def test_a_hang_up_by_a_machine_is_voicemail_unless_the_patient_spoke(
    here: World, identified: bool, disposition: str
) -> None:
    desk = here.desk()
    order, sid = await talking(here, desk)
    await desk.machine(order.attempt_id, "machine_start", sid)
    result = check_in(await here.attempt(order), identified=identified)
    await desk.conversation_over(order.attempt_id, Finished(ending=Ending.HUNG_UP), result)
    assert (await here.attempt(order)).disposition == disposition


async def test_an_alert_is_stored_once_for_one_cause(here: World) -> None:
    desk = here.desk()
    order, _ = await talking(here, desk)
    for _ in range(2):
        await desk.raise_alert(order.attempt_id, AlertKind.RED_FLAG, "chest-pain")
    await desk.raise_alert(order.attempt_id, AlertKind.RED_FLAG, "short-of-breath")
    assert [alert.code for alert in await here.store.alerts("h1")] == ["chest-pain", "short-of-breath"]


async def test_a_checkpoint_is_refused_after_the_end(here: World) -> None:
    desk = here.desk()
    order, _ = await talking(here, desk)
    assert await desk.checkpoint(order.attempt_id, "{}")
    await desk.conversation_over(order.attempt_id, Finished(ending=Ending.COMPLETE), None)
    assert not await desk.checkpoint(order.attempt_id, "{1}")
    assert (await here.attempt(order)).checkpoint == "{}"


async def test_a_follower_sees_changes_of_its_own_process_at_once(here: World) -> None:
    desk = here.desk()
    order, sid = await dialled(here, desk)
    seen: list[AttemptState] = []

    async def follow() -> None:
        async for attempt in here.watch.changes(order.attempt_id):
            seen.append(attempt.state)  # noqa: PERF401 - looked at while it grows

    following = asyncio.ensure_future(follow())
    for status in ("ringing", "busy"):
        while len(seen) < (1 if status == "ringing" else 2):
            await asyncio.sleep(0.001)
        await desk.status(order.attempt_id, sid, status)
    await asyncio.wait_for(following, 5)  # the clock stands still: nobody polled
    assert seen == [AttemptState.DIALLED, AttemptState.RINGING, AttemptState.ENDED]


async def test_a_follower_sees_changes_of_another_process_soon(here: World) -> None:
    order, sid = await dialled(here, here.desk())
    watch = here.watch
    changes = watch.changes(order.attempt_id, after_version=(await here.attempt(order)).version)
    following = asyncio.ensure_future(anext(changes))
    await here.desk().status(order.attempt_id, sid, "ringing")  # another desk has another watch
    attempt = await here.pass_time(following, step=1.0, at_most=2.0)
    assert attempt.state is AttemptState.RINGING
    await changes.aclose()  # type: ignore[attr-defined]


async def test_following_an_unknown_attempt_ends_at_once(here: World) -> None:
    here.desk()
    assert [attempt async for attempt in here.watch.changes("nobody-1")] == []


@pytest.mark.parametrize("broken", [False, True])
async def test_alerts_left_over_are_stored_in_the_write_that_ends_the_attempt(
    here: World, broken: bool
) -> None:
    desk = here.desk()
    order, _ = await talking(here, desk)
    stored_before = (AlertKind.RED_FLAG, "chest-pain")
    await desk.raise_alert(order.attempt_id, *stored_before)
    left = [stored_before, (AlertKind.WARNING, "dizzy")]
    if broken:
        await desk.conversation_broken(order.attempt_id, None, left)
    else:
        await desk.conversation_over(order.attempt_id, Finished(ending=Ending.ESCALATED), None, left)
    assert [(one.kind, one.code) for one in await here.store.alerts("h1")] == left
