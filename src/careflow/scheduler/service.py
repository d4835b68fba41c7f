"""The scheduler: jobs kept in the store's database, slots turned into attempts on time, attempts delivered and recorded.

Every decision is the engine's and is made inside the transaction that records it. An attempt is recorded before its request
is sent. One process at a time runs the loop on a data directory; it holds the role "schedules".
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import TypeVar
from uuid import uuid4

import httpx

from careflow.clock import wait_until
from careflow.errors import StoreError
from careflow.ports import Clock, Tokens
from careflow.scheduler import store
from careflow.scheduler.delivery import HttpDelivery
from careflow.scheduler.engine import Engine, Progress, Step
from careflow.scheduler.errors import InvalidSchedule, JobExists, JobNotFound, JobWrongState
from careflow.scheduler.logs import Entry, attempt_finished, attempt_started, slots_missed
from careflow.scheduler.model import AttemptRecord, Job, JobState
from careflow.scheduler.outcomes import INTERRUPTED, UNREACHABLE, Outcome
from careflow.scheduler.schedule import parse_schedule
from careflow.store.database import Database
from careflow.store.locks import when_free

ROLE = "schedules"
GRACE = timedelta(seconds=60)
KEEP_HISTORY = timedelta(days=30)  # as Cloud Logging does

_BATCH = 1000  # jobs that one transaction advances: a tenth of a second, before the first of them is sent
_LONGEST_WAIT = 30.0  # seconds: the machine's clock may be set, or have stood still with the machine
_STORE_WAIT = 1.0
_TRIM_EVERY = timedelta(hours=6)

_schedule = lru_cache(maxsize=20_000)(parse_schedule)  # pure, and the same text comes again at every slot
_log = logging.getLogger(__name__)

T = TypeVar("T")
Begun = Sequence[tuple[Job, AttemptRecord]]


class Scheduler:
    """Cloud Scheduler's jobs on a `Database`. Methods work in any process; only the one in `serve` delivers.

    `grace` is how late a slot may start that nobody looked at in time, after a restart say; later than that it is missed.
    `tokens_for` gives the source of identity tokens that speak for a service account. `copies` above 1 sends every attempt that
    often: at-least-once delivery, on demand.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        transport: httpx.AsyncBaseTransport,
        tokens_for: Callable[[str], Tokens],
        *,
        new_id: Callable[[], str] = lambda: uuid4().hex,
        grace: timedelta = GRACE,
        copies: int = 1,
    ) -> None:
        self._database = database
        self._clock = clock
        self._deliver = HttpDelivery(transport, tokens_for, copies=copies)
        self._new_id = new_id
        self._grace = grace
        self._wake = asyncio.Event()
        self._look_at = clock.now()  # when the loop looks again by itself
        self._group: asyncio.TaskGroup | None = None

    # jobs

    async def create(self, job: Job) -> Job:
        """Keep a new job, ENABLED and planned from now. Raises InvalidSchedule; JobExists."""
        now = self._clock.now()
        job = replace(_user_part(job), state=JobState.ENABLED, user_update_time=now)
        progress = self._engine(job).planned(Progress(), now)

        def work(connection: sqlite3.Connection) -> Job:
            if not store.insert(connection, job, progress):
                raise JobExists(job.name)
            return store.view(job, progress)

        created = await self._database.write(work)
        self._wake.set()
        return created

    async def get(self, name: str) -> Job:
        """The job. Raises JobNotFound."""
        return await self._database.read(lambda connection: store.view(*_found(connection, name)))

    async def list(self, parent: str, *, after: str = "", limit: int = 500) -> Sequence[Job]:
        """The parent's jobs with names beyond `after`, ordered by name."""
        return await self._database.read(lambda connection: store.page(connection, parent, after, limit))

    async def update(self, name: str, change: Callable[[Job], Job]) -> Job:
        """Replace the user's part of the job by what `change` makes of it, all or nothing.

        A new schedule or zone plans from now; the execution under way goes on, with the new target and retries.
        UPDATE_FAILED becomes ENABLED, and so does DISABLED: only a schedule that could not be read any more disables a job here.
        `change` may be asked twice and what it raises is raised here. Raises JobNotFound; InvalidSchedule.
        """

        def edit(job: Job, progress: Progress, now: datetime) -> tuple[Job, Step]:
            broken = job.state in (JobState.UPDATE_FAILED, JobState.DISABLED)
            state = JobState.ENABLED if broken else job.state
            changed = _user_part(change(store.view(job, progress)))
            changed = replace(changed, name=job.name, state=state, user_update_time=now)
            engine = self._engine(changed)
            if (changed.schedule, changed.time_zone, state) != (job.schedule, job.time_zone, job.state):
                progress = engine.planned(progress, now)
            return changed, Step(progress=progress)

        return await self._change(name, edit)

    async def delete(self, name: str) -> None:
        """Forget the job. An attempt under way ends by itself; the history stays. Raises JobNotFound."""

        def work(connection: sqlite3.Connection) -> None:
            if not store.delete(connection, name):
                raise JobNotFound(name)

        await self._database.write(work)

    async def pause(self, name: str) -> Job:
        """Stop the schedule. A paused job stays as it is. Raises JobNotFound; JobWrongState when it is neither on nor paused."""

        def edit(job: Job, progress: Progress, now: datetime) -> tuple[Job, Step]:
            if job.state is JobState.PAUSED:
                return job, Step(progress=progress)
            if job.state is not JobState.ENABLED:
                raise JobWrongState(name, job.state, "ENABLED or PAUSED")
            paused = replace(job, state=JobState.PAUSED, user_update_time=now)
            return paused, self._engine(paused).paused(progress)

        return await self._change(name, edit)

    async def resume(self, name: str) -> Job:
        """Start the schedule again, from now. An enabled job stays as it is. Raises JobNotFound; JobWrongState."""

        def edit(job: Job, progress: Progress, now: datetime) -> tuple[Job, Step]:
            if job.state is JobState.ENABLED:
                return job, Step(progress=progress)
            if job.state is not JobState.PAUSED:
                raise JobWrongState(name, job.state, "PAUSED or ENABLED")
            resumed = replace(job, state=JobState.ENABLED, user_update_time=now)
            return resumed, Step(progress=self._engine(resumed).planned(progress, now))

        return await self._change(name, edit)

    async def run(self, name: str) -> Job:
        """Force an execution now, also of a paused job; returns before its attempt is made.

        Raises JobNotFound; JobWrongState for a job that the system switched off.
        """

        def edit(job: Job, progress: Progress, now: datetime) -> tuple[Job, Step]:
            if job.state not in (JobState.ENABLED, JobState.PAUSED):
                raise JobWrongState(name, job.state, "ENABLED or PAUSED")
            return job, Step(progress=self._engine(job).forced(progress, now))

        return await self._change(name, edit)

    # history

    async def attempts(self, name: str, limit: int = 100) -> Sequence[AttemptRecord]:
        """The job's attempts, latest first, those under way included. Raises JobNotFound."""

        def work(connection: sqlite3.Connection) -> Sequence[AttemptRecord]:
            _found(connection, name)
            return store.attempts(connection, name, limit)

        return await self._database.read(work)

    async def log_entries(self, where: str, limit: int = 100) -> Sequence[Entry]:
        """Log entries of a job (also of one that was deleted), of a parent's jobs or of a project's, latest first."""
        return await self._database.read(lambda connection: store.log_entries(connection, where, limit))

    # the loop

    async def serve(self) -> None:
        """Run what is due until cancelled; stand by while another process does.

        On cancellation the attempts under way are cancelled; the next `serve`, here or elsewhere, makes them again.
        """
        with await when_free(self._database.path.parent, ROLE, self._clock, _STORE_WAIT):
            await self._persist(partial(self._recover, now=self._clock.now()))
            async with self._delivering():
                await self._loop()

    async def _loop(self) -> None:
        trim_at = self._clock.now()
        while True:
            self._wake.clear()
            now = self._clock.now()
            if now >= trim_at:
                trim_at = now + _TRIM_EVERY
                await self._persist(partial(store.trim, before=now - KEEP_HISTORY))
            try:
                wait = await self._turn()
            except StoreError as error:
                _log.warning("the scheduler waits for the store: %s", error)
                wait = _STORE_WAIT
            await wait_until(self._clock, wait, self._wake)

    async def _turn(self) -> float:
        """Advance what is due; seconds until something is."""
        while True:
            wake_at = await self._database.read(store.next_wake)
            now = self._clock.now()
            wait = _LONGEST_WAIT if wake_at is None else min(_LONGEST_WAIT, (wake_at - now).total_seconds())
            if wait > 0:
                self._look_at = now + timedelta(seconds=wait)
                return wait
            self._start(await self._database.write(partial(self._advance_due, now=now)))

    def _advance_due(self, connection: sqlite3.Connection, now: datetime) -> Begun:
        stepped = []
        for job, progress in store.due(connection, now, _BATCH):
            engine = self._engine_or_none(job)
            if engine is None:
                store.put_job(connection, replace(job, state=JobState.DISABLED))
                stepped.append((job, Step(progress=Progress(last_slot=progress.last_slot))))
            else:
                stepped.append((job, engine.advance(progress, now)))
        return _record(connection, stepped, now)

    def _start(self, begun: Begun) -> None:
        """Deliver what was recorded; the loop's part alone, so a request that is given up leaves nothing undelivered."""
        assert self._group is not None
        for job, attempt in begun:
            self._group.create_task(self._attempt(job, attempt))

    async def _attempt(self, job: Job, attempt: AttemptRecord) -> None:
        """One delivery and what follows it."""
        try:
            outcome = await self._deliver(job, attempt)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this attempt's and no other job's
            _log.error("job %s: delivery broke (%s)", job.name, type(error).__name__)
            outcome = UNREACHABLE
        now = self._clock.now()
        begun, wake_at = await self._persist(partial(self._end, attempt=attempt, outcome=outcome, now=now))
        self._start(begun)
        if wake_at is not None and wake_at < self._look_at:
            self._wake.set()

    def _end(
        self, connection: sqlite3.Connection, attempt: AttemptRecord, outcome: Outcome, now: datetime
    ) -> tuple[Begun, datetime | None]:
        found = store.find(connection, attempt.job)
        engine = self._engine_or_none(found[0]) if found else None
        if found is not None and engine is not None:
            job, progress = found
            ended = engine.ended(progress, attempt.execution_id, attempt.number, outcome, now)
            if ended.ended:
                step = _joined(ended, engine.advance(ended.progress, now))
                return _record(connection, [(job, step)], now), step.progress.wake_at
        # The job was deleted or switched off meanwhile.
        _record_end(connection, _closed(attempt, outcome, now), now)
        return (), None

    def _recover(self, connection: sqlite3.Connection, now: datetime) -> None:
        """Settle what the last loop left under way. Nothing is delivered: what is due again is due now."""
        for name in dict.fromkeys(attempt.job for attempt in store.under_way(connection)):
            found = store.find(connection, name)
            engine = self._engine_or_none(found[0]) if found else None
            if found is not None and engine is not None:
                _record(connection, [(found[0], engine.interrupted(found[1], now))], now)
        for attempt in store.under_way(connection):  # of jobs that are no more
            _record_end(connection, _closed(attempt, INTERRUPTED, now), now)

    # the shapes that several methods share

    def _engine(self, job: Job) -> Engine:
        return Engine(job, _schedule(job.schedule, job.time_zone), self._grace, self._new_id)

    def _engine_or_none(self, job: Job) -> Engine | None:
        """None for a stored job whose schedule cannot be read any more: time zones are renamed and dropped."""
        try:
            return self._engine(job)
        except InvalidSchedule as error:
            _log.error("job %s is switched off: %s", job.name, error)
            return None

    async def _change(self, name: str, edit: Callable[[Job, Progress, datetime], tuple[Job, Step]]) -> Job:
        """Apply the edit to the job as it stands now. A slot that is due already is not the edit's to lose: it arrives first."""
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> Job:
            job, progress = _found(connection, name)
            engine = self._engine_or_none(job)
            before = engine.arrived(progress, now) if engine else Step(progress=progress)
            edited, step = edit(job, before.progress, now)
            _record(connection, [(job, _joined(before, step))], now)
            if edited != job:
                store.put_job(connection, edited)
            return store.view(edited, step.progress)

        job = await self._database.write(work)
        self._wake.set()
        return job

    @asynccontextmanager
    async def _delivering(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            self._group = group
            yield

    async def _persist(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Write, trying again for as long as the store is unavailable: what was delivered must not be forgotten."""
        while True:
            try:
                return await self._database.write(work)
            except StoreError as error:
                _log.warning("the scheduler waits for the store: %s", error)
                await self._clock.sleep(_STORE_WAIT)


def _found(connection: sqlite3.Connection, name: str) -> tuple[Job, Progress]:
    found = store.find(connection, name)
    if found is None:
        raise JobNotFound(name)
    return found


def _user_part(job: Job) -> Job:
    return replace(job, schedule_time=None, last_attempt_time=None, status_code=None)


def _joined(first: Step, second: Step) -> Step:
    return Step(
        progress=second.progress,
        begun=first.begun + second.begun,
        ended=first.ended + second.ended,
        missed=first.missed + second.missed,
    )


def _record(connection: sqlite3.Connection, stepped: Sequence[tuple[Job, Step]], now: datetime) -> Begun:
    """Write the steps down; the attempts to deliver once that is durable."""
    begun = [(job, attempt) for job, step in stepped for attempt in step.begun]
    for _, step in stepped:
        for ended in step.ended:
            _record_end(connection, ended, now)
    store.begin_attempts(connection, [(attempt, job.http_target.uri) for job, attempt in begun])
    entries = [
        (job.name, now, slots_missed(job.name, one, now)) for job, step in stepped for one in step.missed
    ]
    entries += [(job.name, now, attempt_started(job, attempt)) for job, attempt in begun]
    store.log(connection, entries)
    store.put_progress(connection, [(job.name, step.progress) for job, step in stepped])
    return begun


def _record_end(connection: sqlite3.Connection, attempt: AttemptRecord, now: datetime) -> None:
    url = store.end_attempt(connection, attempt)
    if url is not None:
        store.log(connection, [(attempt.job, now, attempt_finished(attempt.job, url, attempt))])


def _closed(attempt: AttemptRecord, outcome: Outcome, now: datetime) -> AttemptRecord:
    return replace(
        attempt,
        finished_at=now,
        http_status=outcome.http_status,
        code=outcome.code.name,
        debug_info=outcome.debug_info,
    )
