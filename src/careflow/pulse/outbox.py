"""The tasks that the ledger calls for. Each is named after what it is for, so that adding it again adds nothing.

Every name begins with a hash: Cloud Tasks slows down on names that share a beginning (reference/google-cloud section 1).
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from careflow.core.calls import Call
from careflow.core.rounds import Round
from careflow.instants import micros
from careflow.ports import Store, Task, TaskQueue


def call_task(call: Call) -> Task:
    """The task for this spell of the call. A call's due moment only ever grows, so it names the spell.

    Not the number of attempts: a call that waits because its line is busy has another spell and no new attempt.
    """
    due_ms = micros(call.due_at) // 1000
    return Task(
        queue="calls",
        name=f"{call.id}-{due_ms}",
        path="/tasks/call",
        body={"hospitalId": call.hospital_id, "roundId": call.round_id, "callId": call.id},
        due_at=call.due_at,
    )


def close_task(round_: Round, now: datetime) -> Task:
    """The task that closes the round at its window's end.

    A name once used may be refused for a day (reference/google-cloud section 1), so a round that is still open long after
    its window gets a new name every hour.
    """
    hours_late = (now - round_.window_end) // timedelta(hours=1)
    spread = hashlib.sha256(round_.id.encode()).hexdigest()[:8]
    return Task(
        queue="rounds",
        name=f"{spread}-close-{round_.id}" + (f"-{hours_late}" if hours_late > 0 else ""),
        path="/tasks/close",
        body={"hospitalId": round_.hospital_id, "roundId": round_.id},
        due_at=round_.window_end,
    )


async def ensure_call_tasks(store: Store, queue: TaskQueue, round_: Round, batch: int) -> int:
    """Make sure that every open call of the round has its task; how many were missing."""
    added, after = 0, ""
    while page := await store.calls(round_.hospital_id, round_.id, after=after, limit=batch, open_only=True):
        added += await queue.enqueue([call_task(call) for call in page])
        after = page[-1].id
    return added


async def ensure_left_tasks(
    store: Store,
    queue: TaskQueue,
    round_: Round,
    batch: int,
    *,
    since: datetime,
    after: Call | None,
    most: int,
) -> tuple[int, Call | None]:
    """Make sure that calls of the round that nobody has taken since then have their tasks: what a queue may have given up.

    Of these calls it looks at the `most` that come after `after`. How many tasks were missing; and the last call, or None when it
    came to their end. A call that is being held keeps the name of its spell, so its task, waiting or being delivered,
    is not doubled.
    """
    added = 0
    while most:
        size = min(batch, most)
        page = await store.left_calls(round_.hospital_id, round_.id, since=since, after=after, limit=size)
        added += await queue.enqueue([call_task(call) for call in page]) if page else 0
        if len(page) < size:
            return added, None
        after, most = page[-1], most - size
    return added, after
