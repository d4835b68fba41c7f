"""A small world for Pulse: a real store, a queue that a test delivers by hand, and a Caller that does what it is told."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import structlog.testing

from careflow.clock import VirtualClock
from careflow.core import attempts
from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending
from careflow.core.checkins import Interaction
from careflow.core.patients import Patient, SkipReason, bar
from careflow.core.slots import within_calling_hours
from careflow.errors import ProviderError
from careflow.ports import AttemptOrder, AttemptView, Began, Store, Task
from careflow.pulse.app import create_pulse
from careflow.settings import Settings
from emulated import OPENERS

HOSPITAL = "default"
EIGHT_FIFTEEN = datetime(2026, 10, 16, 12, 15, tzinfo=UTC)  # 08:15 in New York
WINDOW_END = datetime(2026, 10, 16, 16, 0, tzinfo=UTC)  # 12:00 in New York
ROUND_ID = f"test-{HOSPITAL}-20261016-08"
CLOSE_TASK = f"{hashlib.sha256(ROUND_ID.encode()).hexdigest()[:8]}-close-{ROUND_ID}"

MORNING: dict[str, Any] = {
    "scheduleHour": 8,
    "timezone": "America/New_York",
    "triggerType": "scheduled",
    "source": "cloud-scheduler",
    "environment": "test",
}

ANSWERED = (Disposition.ANSWERED, Ending.COMPLETE, "")
NO_ANSWER = (Disposition.NO_ANSWER, None, "")
End = tuple[Disposition, Ending | None, str]


def patient(number: int, **changes: Any) -> Patient:
    """A patient of the morning round who may be phoned."""
    usual: dict[str, Any] = {
        "id": f"p{number:05d}",
        "hospital_id": HOSPITAL,
        "given_name": "Pat",
        "family_name": "Example",
        "phone": f"+1{212 + number // 100}55501{number % 100:02d}",
        "time_zone": "America/New_York",
        "consent": True,
        "hours": frozenset({8}),
    }
    return Patient(**usual | changes)


class Crash(Exception):
    """The process died here."""


class Fuse:
    """Dies at the operation number `at`, before it or, with `after`, when it was done; every later operation too."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.left = at
        self.after = after

    def wrap(self, inner: Any) -> Any:
        fuse = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                method = getattr(inner, name)
                if not asyncio.iscoroutinefunction(method):
                    return method

                async def operation(*args: Any, **kwargs: Any) -> Any:
                    blown = fuse.blow()
                    if blown and not fuse.after:
                        raise Crash
                    result = await method(*args, **kwargs) if not fuse.dead_before else None
                    if blown:
                        raise Crash
                    return result

                return operation

        return Wrapped()

    dead_before = False

    def blow(self) -> bool:
        if self.left is None:
            return False
        if self.left <= 0:
            self.dead_before = True
            return True
        self.left -= 1
        return self.left == 0


class HandQueue:
    """ports.TaskQueue in memory; it outlives Pulse, as a real queue does."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[str, str], Task] = {}
        self.delivering: set[tuple[str, str]] = set()
        self.enqueued: list[Task] = []

    async def enqueue(self, tasks: Sequence[Task]) -> int:
        added = 0
        for task in tasks:
            key = (task.queue, task.name)
            if key not in self.waiting and key not in self.delivering:
                self.waiting[key] = task
                self.enqueued.append(task)
                added += 1
        return added

    async def cancel(self, queue: str, name: str) -> bool:
        return self.waiting.pop((queue, name), None) is not None

    async def depth(self, queue: str) -> int:
        return sum(1 for one, _ in (*self.waiting, *self.delivering) if one == queue)


@dataclass
class HandCaller:
    """ports.CallerAgent on the same store, with the guards the real one has. `script` says how each attempt ends."""

    store: Store
    clock: VirtualClock
    script: Callable[[Attempt], End | None] = lambda _attempt: ANSWERED
    unreachable: bool = False
    orders: list[tuple[datetime, AttemptOrder]] = field(default_factory=list)
    dialled: list[tuple[datetime, Attempt]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    refuse: str = ""
    die_after_begin: bool = False

    async def follow(self, order: AttemptOrder) -> AsyncIterator[AttemptView]:
        if self.unreachable:
            raise ProviderError("the Caller is away", code="away", ambiguous=True)
        now = self.clock.now()
        self.orders.append((now, order))
        if self.refuse:
            yield AttemptView(attempt_id=order.attempt_id, state="refused", ended=False, refused=self.refuse)
            return
        who = await self.store.patient(order.hospital_id, order.patient_id)
        assert who is not None
        wanted = Attempt(
            id=order.attempt_id,
            hospital_id=order.hospital_id,
            round_id=order.round_id,
            call_id=order.call_id,
            patient_id=order.patient_id,
            number=order.number,
            phone=who.phone or "",
            script=order.script,
            stream_token="t",
            intended_at=now,
            not_after=order.not_after,
        )
        began = await self.store.begin_attempt(wanted, lambda one, barred: self._guard(one, barred))
        refused = {Began.LINE_BUSY: "line-busy", Began.CALL_OVER: "call-over", Began.REFUSED: began.reason}
        if began.result in refused:
            yield AttemptView(
                attempt_id=wanted.id, state="refused", ended=False, refused=refused[began.result]
            )
            return
        attempt = began.attempt or wanted
        if began.result is Began.BEGUN:
            self.dialled.append((now, attempt))
            if self.die_after_begin:
                self.die_after_begin = False
                raise ProviderError("the Caller died", code="died", ambiguous=True)
        yield AttemptView(attempt_id=attempt.id, state=attempt.state.value, ended=False)
        await asyncio.sleep(0)
        if attempt.state is not AttemptState.ENDED:
            how = self.script(attempt)
            if how is None:
                raise ProviderError("the stream broke", code="broken", ambiguous=True)
            await self.end(attempt, how)
        yield AttemptView(attempt_id=attempt.id, state="ended", ended=True)

    def _guard(self, one: Patient, barred: bool) -> str | None:
        reason = bar(one, do_not_call=barred, now=self.clock.now())
        if reason is None and not within_calling_hours(one, self.clock.now()):
            reason = SkipReason.OUTSIDE_HOURS
        return reason and reason.value

    async def end(self, attempt: Attempt, how: End) -> None:
        now = self.clock.now()
        disposition, ending, failure = how
        over = attempts.end(attempt, now, disposition, ending=ending, failure=failure)
        left = Interaction(
            id=attempt.id,
            hospital_id=attempt.hospital_id,
            round_id=attempt.round_id,
            call_id=attempt.call_id,
            patient_id=attempt.patient_id,
            started_at=attempt.intended_at,
            ended_at=now,
            disposition=disposition.value,
        )
        await self.store.end_attempt(over, interaction=left)

    async def cancel(self, attempt_id: str) -> bool:
        if self.unreachable:
            raise ProviderError("the Caller is away", code="away")
        self.cancelled.append(attempt_id)
        attempt = await self.store.attempt(attempt_id)
        if attempt is None or attempt.state is AttemptState.ENDED:
            return False
        await self.end(attempt, (Disposition.CANCELLED, None, "window-over"))
        return True


class World:
    """Pulse over its parts. `restart` gives it a new process on the same store and queue."""

    def __init__(self, store: Store, clock: VirtualClock, **settings: Any) -> None:
        self.store = store
        self.clock = clock
        self.queue = HandQueue()
        self.caller = HandCaller(store, clock)
        self.settings = Settings(**{"environment": "test", "hospital_id": HOSPITAL} | settings)
        self.logs: list[Any] = []
        self._numbers = itertools.count()
        self.restart()

    def restart(self, fuse: Fuse | None = None) -> None:
        """A new process, which dies when the fuse says so."""
        fuse = fuse or Fuse()
        self.app = create_pulse(
            store=fuse.wrap(self.store),
            queue=fuse.wrap(self.queue),
            caller=self.caller,
            clock=self.clock,
            settings=self.settings,
            ids=lambda: f"id-{next(self._numbers)}",
            recover_at_start=False,
        )
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://pulse", trust_env=False)
        self.queue.delivering.clear()

    async def post(self, path: str, body: Any, **kwargs: Any) -> httpx.Response:
        if isinstance(body, bytes | str):
            return await self._http.post(path, content=body, **kwargs)
        return await self._http.post(path, json=body, **kwargs)

    async def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return await self._http.get(path, **kwargs)

    async def trigger(self, **changes: Any) -> httpx.Response:
        return await self.post("/", MORNING | changes)

    async def deliver(self, task: Task) -> int:
        """Deliver one waiting task; a refusal brings it back in 45 seconds. The HTTP status."""
        key = (task.queue, task.name)
        self.queue.delivering.add(key)
        self.queue.waiting.pop(key, None)
        response = await self.post(task.path, dict(task.body), headers={"X-CloudTasks-TaskName": task.name})
        self.queue.delivering.discard(key)
        if not response.is_success:
            self.queue.waiting.setdefault(key, replace(task, due_at=self.clock.now() + timedelta(seconds=45)))
        return response.status_code

    async def drain(self, until: datetime) -> None:
        """Deliver every task as it comes due, moving the clock, until nothing is left or `until` is reached."""
        while self.queue.waiting:
            task = min(self.queue.waiting.values(), key=lambda one: (one.due_at, one.name))
            if task.due_at > until:
                break
            wait = (task.due_at - self.clock.now()).total_seconds()
            if wait > 0:
                self.clock.advance(wait)
            await self.deliver(task)
        rest = (until - self.clock.now()).total_seconds()
        if rest > 0:
            self.clock.advance(rest)

    async def calls(self, round_id: str = ROUND_ID) -> list[Any]:
        return list(await self.store.calls(HOSPITAL, round_id))

    async def only_call(self) -> Any:
        (call,) = await self.calls()
        return call


@asynccontextmanager
async def world(
    patients: Sequence[Patient] = (),
    *,
    start: datetime = EIGHT_FIFTEEN,
    kind: str = "sqlite",
    **settings: Any,
) -> AsyncIterator[World]:
    """A world in a directory of its own, on the kind of store that `emulated.OPENERS` names."""
    with tempfile.TemporaryDirectory() as folder:
        store = await OPENERS[kind](Path(folder))
        try:
            if patients:
                await store.put_patients(patients)
            with structlog.testing.capture_logs() as logs:
                it = World(store, VirtualClock(start), **settings)
                it.logs = logs
                yield it
        finally:
            await store.close()
