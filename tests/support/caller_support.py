"""A telephone provider to script, and a store with one call that is ready to be dialled."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from careflow.caller.attempts import AttemptDesk
from careflow.caller.dialling import Limits
from careflow.caller.recovery import Recovery
from careflow.caller.watch import Watch
from careflow.clock import VirtualClock
from careflow.core.attempts import Attempt
from careflow.core.calls import CallState, attempt_id, call_id, move
from careflow.core.patients import Patient
from careflow.core.rounds import Round, Trigger, plan, round_for
from careflow.errors import ProviderError
from careflow.ports import AttemptOrder, PhoneCall
from careflow.store.sqlite import SqliteStore

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)  # 10:00 in New York
HOSPITAL = "h1"
LIVE = ("queued", "ringing", "in-progress")


class Crash(BaseException):
    """The process died here."""


@dataclass
class FakePhone:
    """A provider that remembers every call it created.

    `answers` script the creates, in order: None for a good answer, an exception to raise, and `created` whether the call is made
    all the same. `hidden_listings` is how many listings still leave out what was created.
    """

    clock: VirtualClock
    answers: list[tuple[BaseException | None, bool]] = field(default_factory=list)
    calls: dict[str, PhoneCall] = field(default_factory=dict)
    hung_up: list[str] = field(default_factory=list)
    creates: int = 0
    hidden_listings: int = 0
    listings: int = 0
    undated: bool = False
    gate: asyncio.Event | None = None
    down: bool = False

    async def dial(self, attempt: Attempt) -> str:
        self.creates += 1
        if self.gate is not None:
            await self.gate.wait()
        error, created = self.answers.pop(0) if self.answers else (None, True)
        sid = self.add(attempt.phone) if created else ""
        if error is not None:
            raise error
        return sid

    def add(self, to: str, *, status: str = "queued", created_at: datetime | None = None) -> str:
        sid = f"CA{len(self.calls) + 1:032x}"
        self.calls[sid] = PhoneCall(
            sid=sid, status=status, to=to, created_at=created_at or self.clock.now().replace(microsecond=0)
        )
        return sid

    def becomes(self, sid: str, status: str, **fields: Any) -> None:
        self.calls[sid] = replace(self.calls[sid], status=status, **fields)

    async def hang_up(self, call_sid: str) -> None:
        self._reachable()
        self.hung_up.append(call_sid)
        call = self.calls.get(call_sid)
        if call is not None and call.status in LIVE:
            self.becomes(call_sid, "completed" if call.status == "in-progress" else "canceled")

    async def fetch(self, call_sid: str) -> PhoneCall | None:
        self._reachable()
        return self.calls.get(call_sid)

    async def calls_to(self, number: str) -> Sequence[PhoneCall]:
        self._reachable()
        self.listings += 1
        if self.listings <= self.hidden_listings:
            return []
        found = [call for call in reversed(self.calls.values()) if call.to == number]
        return [replace(call, created_at=None) for call in found] if self.undated else found

    @property
    def live(self) -> list[str]:
        return [sid for sid, call in self.calls.items() if call.status in LIVE]

    def _reachable(self) -> None:
        if self.down:
            raise ProviderError("the provider is down", code="unreachable")


def lost() -> ProviderError:
    """The answer to a create got lost."""
    return ProviderError("no answer", code="no-answer", ambiguous=True)


class CrashingStore:
    """The store of a process that dies at its `at`-th call to the store (None: never), before or after it was done."""

    def __init__(self, store: SqliteStore, at: int | None, *, done: bool) -> None:
        self._store = store
        self._left = at
        self._done = done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    if self._done:
                        await method(*args, **kwargs)
                    raise Crash
            return await method(*args, **kwargs)

        return call


def patient(**fields: Any) -> Patient:
    values: dict[str, Any] = {
        "id": "p1",
        "hospital_id": HOSPITAL,
        "given_name": "Ada",
        "family_name": "Sample",
        "phone": "+12125550123",
        "time_zone": "America/New_York",
        "consent": True,
        "hours": frozenset({8}),
    }
    return Patient(**values | fields)


@dataclass
class World:
    """One data directory, one provider, one clock; desks are the processes that come and go."""

    data_dir: Path
    store: SqliteStore
    clock: VirtualClock
    phone: FakePhone
    round: Round
    limits: Limits
    _secrets: Any = field(default_factory=lambda: (f"secret-{n}" for n in itertools.count()))

    def desk(self, store: Any = None, *, recovery: Recovery | None = None) -> AttemptDesk:
        used = store or self.store
        self.watch = Watch(used, self.clock)
        return AttemptDesk(
            used,
            self.phone,
            self.clock,
            self.watch,
            recovery=recovery or Recovery(scripts={"morning": None}),  # type: ignore[dict-item]
            tokens_factory=lambda: next(self._secrets),
            limits=self.limits,
        )

    async def ready(self, who: Patient | None = None, number: int = 1) -> AttemptOrder:
        """Store the patient and a claimed call whose current attempt is `number`; the order to make it."""
        who = who or patient()
        await self.store.put_patients([who])
        planned = plan(self.round, who, NOW, do_not_call=False)
        assert planned is not None
        await self.store.create_calls([planned])
        call = await self.store.call(HOSPITAL, call_id(self.round.id, who.id))
        assert call is not None
        if call.state is not CallState.ENDED:
            claimed = move(call, CallState.CALLING, attempt_id=attempt_id(call, number), attempts=number)
            assert await self.store.update_call(claimed)
        return AttemptOrder(
            attempt_id=attempt_id(call, number),
            number=number,
            call_id=call.id,
            round_id=self.round.id,
            hospital_id=HOSPITAL,
            patient_id=who.id,
            script="morning",
            not_after=self.round.window_end,
        )

    def let_go(self) -> None:
        """Let so much time pass that no conversation counts as held any more: its process is dead."""
        self.clock.advance(self.limits.hold.total_seconds())

    async def attempt(self, order: AttemptOrder) -> Attempt:
        stored = await self.store.attempt(order.attempt_id)
        assert stored is not None
        return stored

    async def pass_time(self, work: Any, *, step: float = 1.0, at_most: float = 3600.0) -> Any:
        """Let the clock run until `work` is done; its result."""
        task = asyncio.ensure_future(work)
        passed = 0.0
        while not task.done():
            await self.settled_loop(lambda: task.done())
            if not task.done():
                self.clock.advance(step)
                passed += step
                assert passed <= at_most, "still not done"
        return await task

    async def settled_loop(self, done: Callable[[], bool]) -> None:
        """Give threads and tasks a moment of real time, without the clock moving."""
        for _ in range(5):
            if done():
                return
            await asyncio.sleep(0.001)


@asynccontextmanager
async def world(data_dir: Path) -> AsyncIterator[World]:
    """A fresh data directory with one open round at ten in the morning."""
    clock = VirtualClock(NOW)
    store = await SqliteStore.open(data_dir)
    trigger = Trigger(
        schedule_hour=8,
        time_zone="America/New_York",
        trigger_type="scheduled",
        source="test",
        environment="test",
        hospital_id=HOSPITAL,
    )
    opened = await store.open_round(round_for(trigger, NOW, (8, 12, 20)))
    limits = Limits(hold=timedelta(seconds=3), list_pause=timedelta(seconds=2))
    try:
        yield World(data_dir, store, clock, FakePhone(clock), opened, limits)
    finally:
        await store.close()
