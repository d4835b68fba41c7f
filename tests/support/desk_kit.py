"""An attempt at the Caller's desk that was dialled, or in which somebody talks already."""

from __future__ import annotations

from caller_support import World
from careflow.caller.attempts import AttemptDesk
from careflow.ports import AttemptOrder


async def dialled(here: World, desk: AttemptDesk, number: int = 1) -> tuple[AttemptOrder, str]:
    order = await here.ready(number=number)
    result = await desk.begin(order)
    assert result.attempt is not None
    assert result.attempt.call_sid is not None
    return order, result.attempt.call_sid


async def talking(here: World, desk: AttemptDesk) -> tuple[AttemptOrder, str]:
    order, sid = await dialled(here, desk)
    here.phone.becomes(sid, "in-progress")
    step = await desk.answered(order.attempt_id, sid)
    assert step.attempt is not None
    assert await desk.stream_started(order.attempt_id, step.attempt.stream_token, sid)
    return order, sid
