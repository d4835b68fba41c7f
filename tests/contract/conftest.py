"""What the contract suites need: each implementation, and records to put into it.

A new implementation of the store adds an opener to emulated.OPENERS, one of the queue a way to build its harness to HARNESSES;
the suites stay as they are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import cloud_tasks_kit
from careflow.clock import VirtualClock
from careflow.core.attempts import Attempt, Disposition, end
from careflow.core.calls import Call, CallState, attempt_id, call_id
from careflow.core.checkins import Alert, AlertKind, Answer, CheckIn, Interaction, Triage, Turn
from careflow.core.patients import DoNotCall, Medication, Patient
from careflow.core.rounds import Execution, Round, Trigger, round_for
from careflow.ports import Store, Task, TaskQueue
from careflow.store.sqlite import SqliteStore
from careflow.tasks.cloud_tasks import CloudTasksQueue, ensure_queues
from careflow.tasks.embedded import EmbeddedQueue
from careflow.tasks.limits import queue_limits
from careflow.tasks.pacing import Answer as DeliveryAnswer
from emulated import OPENERS

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


class Records:
    """Records with sensible values; every field can be given."""

    now = NOW

    def patient(self, patient_id: str = "p1", **fields: Any) -> Patient:
        values: dict[str, Any] = {
            "hospital_id": "h1",
            "given_name": "Ada",
            "family_name": "Example",
            "phone": "+12125550123",
            "time_zone": "America/New_York",
            "consent": True,
            "hours": frozenset({8}),
            "medications": (Medication(name="Lisinopril", dose="10 mg", slots=frozenset({"morning"})),),
        }
        return Patient(id=patient_id, **{**values, **fields})

    def round(self, hospital_id: str = "h1", hour: int = 8, now: datetime = NOW) -> Round:
        trigger = Trigger(
            schedule_hour=hour,
            time_zone="America/New_York",
            trigger_type="scheduled",
            source="test",
            environment="local",
            hospital_id=hospital_id,
        )
        return round_for(trigger, now, (8, 12, 20))

    def call(self, patient_id: str = "p1", round_id: str = "r1", **fields: Any) -> Call:
        values: dict[str, Any] = {
            "id": call_id(round_id, patient_id),
            "hospital_id": "h1",
            "due_at": NOW,
            "not_after": NOW + timedelta(hours=4),
            "created_at": NOW,
        }
        return Call(round_id=round_id, patient_id=patient_id, **{**values, **fields})

    def attempt(self, call: Call, number: int = 1, **fields: Any) -> Attempt:
        values: dict[str, Any] = {
            "id": attempt_id(call, number),
            "phone": "+12125550123",
            "script": "morning",
            "stream_token": "t",
            "intended_at": NOW,
            "not_after": call.not_after,
            "hospital_id": call.hospital_id,
            "round_id": call.round_id,
            "call_id": call.id,
            "patient_id": call.patient_id,
            "number": number,
        }
        return Attempt(**{**values, **fields})

    def interaction(self, attempt: Attempt, **fields: Any) -> Interaction:
        values: dict[str, Any] = {
            **self._of(attempt),
            "id": attempt.id,
            "started_at": attempt.intended_at,
            "ended_at": attempt.intended_at,
            "disposition": "answered",
        }
        return Interaction(**{**values, **fields})

    def check_in(self, attempt: Attempt) -> CheckIn:
        return CheckIn(
            **self._of(attempt),
            id=attempt.id,
            script="morning",
            script_version="1",
            language="en",
            identity_confirmed=True,
            triage=Triage.YELLOW,
            answers=(Answer(question_id="took-medicine", value="no"),),
            symptoms=("dizziness",),
            turns=(Turn(speaker="agent", text="Hello", at=NOW),),
            started_at=NOW,
            ended_at=NOW + timedelta(minutes=2),
        )

    def alert(self, attempt: Attempt, alert_id: str = "a1", **fields: Any) -> Alert:
        values: dict[str, Any] = {
            **self._of(attempt),
            "id": alert_id,
            "attempt_id": attempt.id,
            "kind": AlertKind.RED_FLAG,
            "code": "chest-pain",
            "raised_at": NOW,
        }
        return Alert(**{**values, **fields})

    def do_not_call(
        self, phone: str = "+12125550123", patient_id: str | None = "p1", **fields: Any
    ) -> DoNotCall:
        values: dict[str, Any] = {"hospital_id": "h1", "attempt_id": "x-1", "since": NOW}
        return DoNotCall(phone=phone, patient_id=patient_id, **{**values, **fields})

    def execution(self, execution_id: str = "e1", **fields: Any) -> Execution:
        values: dict[str, Any] = {
            "hospital_id": "h1",
            "round_id": "r1",
            "received_at": NOW,
            "finished_at": NOW,
            "trigger_type": "scheduled",
            "source": "test",
            "schedule_hour": 8,
        }
        return Execution(id=execution_id, **{**values, **fields})

    def ended(self, attempt: Attempt, disposition: Disposition = Disposition.NO_ANSWER) -> Attempt:
        return end(attempt, NOW + timedelta(minutes=1), disposition)

    def task(self, name: str = "t1", queue: str = "rounds", after: float = 0.0, **body: str) -> Task:
        return Task(
            queue=queue, name=name, path="/tasks/close", body=body, due_at=NOW + timedelta(seconds=after)
        )

    async def calling(
        self, store: Store, patient_id: str = "p1", round_id: str = "r1", **fields: Any
    ) -> Call:
        """A stored call that is being made: claimed, its first attempt named; the patient is stored too."""
        phone = fields.pop("phone", "+12125550123")
        hospital_id = fields.get("hospital_id", "h1")
        await store.put_patients([self.patient(patient_id, phone=phone, hospital_id=hospital_id)])
        call = self.call(patient_id, round_id, **fields)
        call = self.call(
            patient_id,
            round_id,
            state=CallState.CALLING,
            attempt_id=attempt_id(call, 1),
            attempts=1,
            **fields,
        )
        await store.create_calls([call])
        return call

    def _of(self, attempt: Attempt) -> dict[str, str]:
        return {
            "hospital_id": attempt.hospital_id,
            "round_id": attempt.round_id,
            "call_id": attempt.call_id,
            "patient_id": attempt.patient_id,
        }


@pytest.fixture
def make() -> Records:
    return Records()


# --- stores


OpenStore = Callable[[], Awaitable[Store]]


@pytest.fixture(params=OPENERS)
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens the same data again and again, as each process of a deployment does."""
    opened: list[Store] = []

    async def opener() -> Store:
        opened.append(await OPENERS[request.param](tmp_path / "data"))
        return opened[-1]

    yield opener
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


# --- queues


@dataclass
class QueueHarness:
    """A running queue, its clock, and a receiver that answers as told and keeps what it got."""

    queue: TaskQueue
    clock: VirtualClock
    settle: Callable[[QueueHarness], Awaitable[None]]
    delivered: list[tuple[str, int, datetime]] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    answers: dict[str, list[int | None]] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    now_delivering: int = 0
    most_delivering: int = 0

    async def deliver(self, task: Task, number: int) -> DeliveryAnswer:
        self.delivered.append((task.name, number, self.clock.now()))
        self.tasks.append(task)
        self.now_delivering += 1
        self.most_delivering = max(self.most_delivering, self.now_delivering)
        try:
            if task.name in self.held:
                await self.held[task.name].wait()
            answers = self.answers.get(task.name)
            return DeliveryAnswer(answers.pop(0) if answers else 200)
        finally:
            self.now_delivering -= 1

    def names(self) -> list[str]:
        return [name for name, _, _ in self.delivered]

    async def until(self, done: Callable[[], bool], *, step: float = 0.1, at_most: float = 3600) -> None:
        """Let time pass in small steps until it is so. Fails when it is not after `at_most` seconds of the clock."""
        passed = 0.0
        while not done():
            assert passed < at_most, f"not so after {at_most} s; delivered {self.delivered}"
            await self.pause()
            self.clock.advance(step)
            passed += step

    async def for_seconds(self, seconds: float, *, step: float = 0.1) -> None:
        for _ in range(round(seconds / step)):
            await self.pause()
            self.clock.advance(step)
        await self.pause()

    async def pause(self) -> None:
        """Let the queue's threads and coroutines finish what they are at."""
        await self.settle(self)


async def _settle_embedded(harness: QueueHarness) -> None:
    for _ in range(3):
        await asyncio.sleep(0.001)
        await harness.queue.cancel("rounds", "nobody")  # a write: behind those that the queue has asked for


@asynccontextmanager
async def _embedded(data_dir: Path) -> AsyncIterator[QueueHarness]:
    store = await SqliteStore.open(data_dir)
    clock = VirtualClock(NOW)
    built: list[QueueHarness] = []

    async def deliver(task: Task, number: int) -> DeliveryAnswer:
        return await built[0].deliver(task, number)

    queue = EmbeddedQueue(
        store.database, clock, deliver, calls_per_second=1, calls_in_flight=3, random=lambda: 0.5
    )
    built.append(QueueHarness(queue, clock, _settle_embedded))
    running = asyncio.create_task(queue.run())
    try:
        yield built[0]
    finally:
        running.cancel()
        await asyncio.wait([running])
        await store.close()


@asynccontextmanager
async def _cloud_tasks(data_dir: Path) -> AsyncIterator[QueueHarness]:
    """Google's client, over gRPC, to the lab's Cloud Tasks, which delivers over HTTP to a receiver."""
    clock = VirtualClock(NOW)
    built: list[QueueHarness] = []

    async def receive(request: cloud_tasks_kit.Request) -> int | None:
        headers = request.headers
        task = Task(
            queue=headers["x-cloudtasks-queuename"],
            name=request.task,
            path=request.path,
            body=json.loads(request.body),
            due_at=datetime.fromtimestamp(float(headers["x-cloudtasks-tasketa"]), UTC),
        )
        return (await built[0].deliver(task, int(headers["x-cloudtasks-taskretrycount"]) + 1)).status

    async with cloud_tasks_kit.serving(data_dir, clock, cloud_tasks_kit.Receiver(receive)) as served:
        project = {"project": "careflow-test", "location": "us-central1", "url": served.url}
        await ensure_queues(limits=queue_limits(calls_per_second=1, calls_in_flight=3), **project)
        queue = await CloudTasksQueue.open(
            queues={"calls": "calls", "rounds": "rounds"},
            target=served.receiver.url,
            audience="https://pulse.test",
            account="careflow-queue@careflow-test.iam.gserviceaccount.com",
            deadline=timedelta(minutes=30),
            **project,
        )

        async def settle(harness: QueueHarness) -> None:
            dispatcher = served.tasks.dispatcher
            for _ in range(5):  # who was woken by the clock gets to it
                await asyncio.sleep(0)
            while not dispatcher.is_resting or dispatcher.in_flight != harness.now_delivering:
                await asyncio.sleep(0.001)

        built.append(QueueHarness(queue, clock, settle))
        try:
            yield built[0]
        finally:
            for event in built[0].held.values():
                event.set()
            await queue.close()


HARNESSES: dict[str, Callable[[Path], AbstractAsyncContextManager[QueueHarness]]] = {
    "embedded": _embedded,
    "cloud-tasks": _cloud_tasks,
}


@pytest.fixture(params=HARNESSES)
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[QueueHarness]:
    """A running queue at 1 call a second, 3 calls and 4 closings in flight."""
    async with HARNESSES[request.param](tmp_path / "data") as built:
        yield built
