"""POST / : what is refused and how it reads, and what an accepted trigger answers and leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from careflow.core.calls import CallState
from careflow.core.rounds import Round
from careflow.errors import StoreUnavailable
from pulse_world import CLOSE_TASK, EIGHT_FIFTEEN, HOSPITAL, MORNING, ROUND_ID, WINDOW_END, patient, world

ROSTER = [
    patient(1),
    patient(2),
    patient(3, consent=False),
    patient(4, opted_out=True),
    patient(5, hours=frozenset({20})),
    patient(6, phone=None),
]
ANSWER = {
    "roundId": ROUND_ID,
    "status": "planned",
    "patientsQueried": 5,
    "callsInitiated": 2,
    "skipped": {"no-consent": 1, "no-number": 1, "opted-out": 1},
}


async def test_a_trigger_answers_with_the_counts_of_the_ledger() -> None:
    async with world(ROSTER) as it:
        response = await it.trigger()
        assert (response.status_code, response.json()) == (200, ANSWER)


async def test_every_call_to_make_has_a_task_and_the_round_a_close_task() -> None:
    async with world(ROSTER) as it:
        await it.trigger()
        waiting = {call.id for call in await it.calls() if call.state is CallState.WAITING}
        assert {task.body["callId"] for task in it.queue.enqueued if task.queue == "calls"} == waiting
        (close,) = [task for task in it.queue.enqueued if task.queue == "rounds"]
        assert (close.name, close.path, close.due_at) == (CLOSE_TASK, "/tasks/close", WINDOW_END)


async def test_a_duplicate_hours_later_gets_the_same_body_and_changes_nothing() -> None:
    async with world(ROSTER) as it:
        first = await it.trigger()
        await it.drain(EIGHT_FIFTEEN + timedelta(hours=2))
        before = await it.calls()
        again = await it.trigger()
        assert again.content == first.content
        assert await it.calls() == before
        assert not [task for task in it.queue.waiting if task[0] == "calls"]


async def test_a_duplicate_after_the_round_was_closed_does_not_reopen_it() -> None:
    async with world(ROSTER) as it:
        first = await it.trigger()
        await it.drain(WINDOW_END + timedelta(minutes=5))
        closed = await it.store.round(HOSPITAL, ROUND_ID)
        assert closed is not None
        assert closed.closed_at is not None
        it.clock.advance(-600)  # a clock that was set back: the trigger means the closed round again
        await it.store.put_patients([patient(9)])
        assert (await it.trigger()).content == first.content
        assert await it.store.round(HOSPITAL, ROUND_ID) == closed


async def test_a_patient_imported_during_the_window_joins_at_the_next_trigger() -> None:
    async with world(ROSTER) as it:
        await it.trigger()
        await it.store.put_patients([patient(7)])
        answer = (await it.trigger(triggerType="forced")).json()
        assert (answer["patientsQueried"], answer["callsInitiated"]) == (6, 3)
        assert len(it.queue.waiting) == 4


async def test_a_roster_change_that_adds_nobody_leaves_the_answer_alone() -> None:
    async with world(ROSTER) as it:
        first = await it.trigger()
        await it.store.put_patients([patient(2, opted_out=True)])
        await it.drain(EIGHT_FIFTEEN + timedelta(hours=1))
        assert (await it.trigger()).content == first.content


async def test_each_trigger_leaves_an_execution_record() -> None:
    async with world(ROSTER) as it:
        await it.post("/", MORNING, headers={"X-CloudScheduler-JobName": "careflow-morning-rounds"})
        await it.trigger(triggerType="manual")
        later, first = await it.store.executions(HOSPITAL)
        assert {first.job_name, later.job_name} == {"careflow-morning-rounds", ""}
        assert (first.patients_queried, first.calls_initiated, first.skipped) == (5, 2, 3)
        assert {first.trigger_type, later.trigger_type} == {"scheduled", "manual"}


async def test_a_planned_round_is_counted_from_the_ledger_of_its_own_hospital() -> None:
    async with world([*ROSTER, patient(8, hospital_id="hosp-001")]) as it:
        answer = (await it.trigger(hospitalId="hosp-001")).json()
        assert answer["roundId"] == "test-hosp-001-20261016-08"
        assert (answer["patientsQueried"], answer["callsInitiated"]) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"scheduleHour": 9}, "scheduleHour", "8, 12, 20"),
        ({"scheduleHour": "8"}, "scheduleHour", "another string; accepted: 8, 12, 20"),
        ({"scheduleHour": True}, "scheduleHour", "a boolean"),
        ({"scheduleHour": 8.5}, "scheduleHour", "a number with a fraction"),
        ({"timezone": "Mars/Olympus"}, "timezone", "IANA"),
        ({"timezone": "America"}, "timezone", "IANA"),  # a folder of zones
        ({"timezone": "../../etc/passwd"}, "timezone", "IANA"),
        ({"timezone": None}, "timezone", "null"),
        ({"triggerType": "whenever"}, "triggerType", "scheduled, manual, forced"),
        ({"source": "a\nb"}, "source", "another string"),
        ({"environment": "prod"}, "environment", "this is 'test' and the trigger is meant for 'prod'"),
        ({"environment": []}, "environment", "an array"),
        ({"hospitalId": "No Such"}, "hospitalId", "lower case"),
        ({"surprise": 1}, "surprise", "not a field"),
    ],
)
async def test_a_bad_field_is_named_with_what_is_accepted(
    changes: dict[str, Any], field: str, says: str
) -> None:
    async with world() as it:
        response = await it.trigger(**changes)
        error = response.json()["error"]
        assert (response.status_code, error["field"]) == (400, field)
        assert says in error["message"]
        assert await it.store.unclosed_rounds() == []


@pytest.mark.parametrize("field", sorted(MORNING))
async def test_a_missing_field_is_named(field: str) -> None:
    async with world() as it:
        response = await it.post("/", {key: value for key, value in MORNING.items() if key != field})
        assert (response.status_code, response.json()["error"]["field"]) == (400, field)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 16000, "application/json", 400),
        (b'{"scheduleHour": ' + b"9" * 9000 + b"}", "application/json", 400),
        (b" " * (16 * 1024 + 1), "application/json", 413),
        (json.dumps(MORNING).encode(), "application/octet-stream", 415),  # Cloud Scheduler without a header
        (json.dumps(MORNING).encode(), "text/json", 415),
        (json.dumps(MORNING).encode(), "Application/JSON; charset=utf-8", 200),
    ],
)
async def test_a_body_of_another_kind_or_size_is_refused(body: bytes, content_type: str, status: int) -> None:
    async with world() as it:
        response = await it.post("/", body, headers={"Content-Type": content_type})
        assert response.status_code == status
        assert response.is_success or set(response.json()["error"]) == {"code", "message"}


async def test_a_refusal_never_repeats_what_was_sent() -> None:
    async with world() as it:
        for field in MORNING:
            response = await it.trigger(**{field: "Jane Roe +12125550123"})
            assert response.status_code == 400
            assert "Jane" not in response.text


async def test_an_unavailable_store_is_503_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(ROSTER) as it:

        async def fails(*_: object) -> int:
            raise StoreUnavailable("disk full at /somewhere")

        monkeypatch.setattr(it.store, "create_calls", fails)
        response = await it.trigger()
        assert (response.status_code, response.json()["error"]["code"]) == (503, "store-unavailable")
        assert int(response.headers["Retry-After"]) > 0
        assert "somewhere" not in response.text


async def test_an_unexpected_error_is_500_without_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(ROSTER) as it:

        async def fails(*_: object) -> int:
            raise RuntimeError("secret words")

        monkeypatch.setattr(it.store, "create_calls", fails)
        response = await it.trigger()
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in response.text


async def test_unknown_paths_and_methods_answer_in_the_one_error_shape() -> None:
    async with world() as it:
        for response in (await it.get("/nothing"), await it.get("/"), await it.get("/rounds/none")):
            assert response.status_code in (404, 405)
            assert set(response.json()["error"]) >= {"code", "message"}


async def test_health_readiness_card_and_round_are_served() -> None:
    async with world(ROSTER) as it:
        assert (await it.get("/healthz")).json() == {"status": "ok"}
        assert (await it.get("/readyz")).json() == {"status": "ready"}
        assert (await it.get("/.well-known/agent-card.json")).json()["name"] == "CareFlow Pulse"
        await it.trigger()
        await it.drain(WINDOW_END + timedelta(minutes=1))
        summary = (await it.get(f"/rounds/{ROUND_ID}")).json()
        assert (summary["status"], summary["outcomes"]) == ("closed", {"completed": 2, "skipped": 3})


async def test_a_store_that_cannot_be_written_is_not_ready() -> None:
    async with world() as it:
        await it.store.close()
        assert (await it.get("/readyz")).status_code == 503
        assert (await it.get("/healthz")).status_code == 200


async def test_a_planner_that_knew_an_older_roster_does_not_have_the_last_word() -> None:
    async with world([patient(1)]) as it:
        update, slower = it.store.update_round, True

        async def beaten_once(planned: Round) -> bool:
            nonlocal slower
            if slower:
                slower = False
                empty = replace(planned, planned_revision=0, patients_queried=0, calls_initiated=0)
                assert await update(empty)
            return await update(planned)

        it.store.update_round = beaten_once  # type: ignore[method-assign]
        it.restart()
        assert (await it.trigger()).json()["callsInitiated"] == 1


async def test_a_record_that_cannot_be_planned_with_is_skipped_and_keeps_nobody_else_from_being_called() -> (
    None
):
    async with world([patient(1), patient(2, time_zone="Mars/Base"), patient(3)]) as it:
        response = await it.trigger()
        assert response.status_code == 200
        assert response.json()["callsInitiated"] == 2
        assert response.json()["skipped"] == {"unusable-record": 1}
