"""Instances go in the middle of calls: the patient hears the conversation go on, and nothing is lost or done twice."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from careflow.core.attempts import Attempt, AttemptState, Ending
from careflow.core.calls import Call, CallState, Outcome
from careflow.core.checkins import AlertKind
from careflow.lab.firestore_emulator import EmulatorMissing, running_emulator
from careflow.lab.personas import Persona
from faults.fleet import SPEED, Fleet
from faults.people import HOSPITAL, START, people

MEDIA = "/twilio/media"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """As on Cloud Run: two Pulses, a Caller for Pulse and two for Twilio, Firestore, and the work-alike of Cloud Tasks.

    Without the emulator two Callers and a Pulse on one directory, but never in CI.
    """
    async with AsyncExitStack() as stack:
        try:
            emulator = await stack.enter_async_context(running_emulator())
        except EmulatorMissing as missing:
            if os.environ.get("CI"):
                raise
            print(f"on SQLite, as {missing}")
            made = Fleet(tmp_path, START, callers=2, pulses=1, leaps=False)
        else:
            made = Fleet(
                tmp_path,
                START,
                callers=1,
                pulses=2,
                twilio=2,
                store="firestore",
                firestore_emulator=emulator,
                queue="cloud-tasks",
                project=f"careflow-{uuid4().hex[:8]}",
            )
        yield await stack.enter_async_context(made.running())


@pytest.fixture
async def laptop(tmp_path: Path) -> AsyncIterator[Fleet]:
    """One of each on one directory."""
    async with Fleet(tmp_path, START, callers=1, pulses=1, leaps=False).running() as running:
        yield running


async def call_of(fleet: Fleet, round_id: str) -> Call:
    (call,) = await fleet.store.calls(HOSPITAL, round_id)
    return call


async def attempt_of(fleet: Fleet, round_id: str) -> Attempt | None:
    call = await call_of(fleet, round_id)
    return await fleet.store.attempt(call.attempt_id) if call.attempt_id else None


async def in_mid_conversation(fleet: Fleet) -> str:
    """A round of one patient who is well, and who has answered a question or two; the round's id."""
    roster = people()
    who = next(one for one in roster.due if roster.persona(one) is Persona.WELL)
    await fleet.store.put_patients([who])
    await fleet.put_lab(
        "subscribers", [one.to_json() for one in roster.subscribers if one.phone == who.phone]
    )
    round_id: str = (await fleet.trigger())["roundId"]

    async def answered() -> bool:
        attempt = await attempt_of(fleet, round_id)
        return bool(attempt and attempt.checkpoint and json.loads(attempt.checkpoint)["answers"])

    await fleet.until(answered)
    return round_id


async def ended(fleet: Fleet, round_id: str) -> Attempt:
    async def over() -> bool:
        return (await call_of(fleet, round_id)).state is CallState.ENDED

    await fleet.until(over)
    attempt = await attempt_of(fleet, round_id)
    assert attempt is not None
    assert attempt.state is AttemptState.ENDED
    return attempt


def complaints(fleet: Fleet, name: str) -> list[str]:
    """What an instance said of anything that went wrong."""
    text = (fleet.folder / f"{name}.log").read_text()
    return [line for line in text.splitlines() if "rror" in line or "Traceback" in line or "CRITICAL" in line]


async def stopped(fleet: Fleet, name: str, *, unlisted: bool = True) -> None:
    """Stop the instance, at the pace of real time: Cloud Run's ten seconds are real ones."""
    fleet.speed = 1.0
    code, seconds = await fleet.stop(name, unlisted=unlisted)
    print(f"{name} stopped in {seconds:.1f} s")
    assert (code, seconds < 10) == (0, True)
    assert complaints(fleet, name) == []


@pytest.mark.timeout(150)
async def test_a_caller_and_every_pulse_that_stop_leave_their_call_to_others_and_the_patient_hears_it_go_on(
    fleet: Fleet,
) -> None:
    round_id = await in_mid_conversation(fleet)
    (holder,) = fleet.twilio.holding(MEDIA)
    await stopped(fleet, holder)
    owner, stopped_at = (await call_of(fleet, round_id)).lease_owner, fleet.clock.now()
    for name in [name for name in fleet.units if name.startswith("pulse")]:
        await stopped(fleet, name)  # when the second has taken the call over already, it gives it back, too
    await fleet.start("pulse-9", "pulse")

    async def taken() -> bool:
        call = await call_of(fleet, round_id)
        return call.lease_owner != owner

    await fleet.until(taken)
    assert (fleet.clock.now() - stopped_at) < fleet.settings.call_lease / 2, "it was given back"
    fleet.speed = SPEED
    attempt = await ended(fleet, round_id)
    assert attempt.ending is Ending.COMPLETE
    assert attempt.stream_token.split(".")[:2] == ["0", "2"], "two streams, and no failure"
    assert (await call_of(fleet, round_id)).outcome is Outcome.COMPLETED
    check_in = await fleet.store.check_in(HOSPITAL, attempt.id)
    assert check_in is not None
    assert len({answer.question_id for answer in check_in.answers}) == len(check_in.answers) > 2
    assert await fleet.store.alerts(HOSPITAL) == []
    (call,) = await fleet.dialled()
    assert call["status"] == "completed"
    asked = [line["text"] for line in call["transcript"] if line["who"] == "agent"]
    questions = [text for text in asked if text.endswith("?")]
    assert len(questions) <= len(set(questions)) + 1, "no more than the last question is asked again"


@pytest.mark.timeout(120)
async def test_when_nobody_is_left_to_take_the_conversation_the_patient_hears_so_and_a_nurse_is_told(
    laptop: Fleet,
) -> None:
    """As at Ctrl-C."""
    round_id = await in_mid_conversation(laptop)
    await stopped(laptop, "caller-0", unlisted=False)  # until its end it is the only one there is
    laptop.speed = SPEED
    await laptop.start("caller-1", "caller")
    assert (await ended(laptop, round_id)).ending is Ending.INTERRUPTED
    assert [alert.kind for alert in await laptop.store.alerts(HOSPITAL)] == [AlertKind.INTERRUPTED]
    await laptop.until(lambda: not laptop.books.open)  # it is being spoken
    (call,) = await laptop.dialled()
    assert "interrupted on our side" in call["transcript"][-1]["text"]
