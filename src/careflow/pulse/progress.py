"""A round as it is told: the answer that every delivery of its trigger gets, and how far it is by now."""

from __future__ import annotations

from typing import Any

from careflow.core.calls import CallState
from careflow.core.rounds import Round
from careflow.ports import Store


def planned_answer(round_: Round) -> dict[str, Any]:
    """What is answered to the trigger, and to every later delivery of it."""
    return {
        "roundId": round_.id,
        "status": "planned",
        "patientsQueried": round_.patients_queried,
        "callsInitiated": round_.calls_initiated,
        "skipped": dict(round_.skipped),
    }


async def as_it_stands(store: Store, round_: Round) -> dict[str, Any]:
    """The stored answer, the window, and the calls counted now."""
    counts = await store.count_calls(round_.hospital_id, round_.id)
    states: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    for (state, outcome, _reason), count in sorted(counts.items()):
        states[state] = states.get(state, 0) + count
        if outcome:
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    return planned_answer(round_) | {
        "status": status_of(round_),
        "hospitalId": round_.hospital_id,
        "scheduleHour": round_.schedule_hour,
        "timezone": round_.time_zone,
        "localDate": round_.local_date.isoformat(),
        "windowStart": round_.window_start.isoformat(),
        "windowEnd": round_.window_end.isoformat(),
        "calls": states,
        "outcomes": outcomes,
    }


def status_of(round_: Round) -> str:
    if round_.closed_at is not None:
        return "closed"
    return "planned" if round_.planned_at is not None else "planning"


def is_done(standing: dict[str, Any]) -> bool:
    """Whether everybody in the round has an outcome: it is closed, or planned and no call is open."""
    no_call_open = set(standing["calls"]) <= {CallState.ENDED.value}
    return standing["status"] == "closed" or (standing["status"] == "planned" and no_call_open)
