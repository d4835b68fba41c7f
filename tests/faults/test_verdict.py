"""Every question that the fault suite asks can be answered with no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from careflow.caller.records import interaction
from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending
from careflow.core.calls import Call, CallState, Outcome, call_id
from careflow.core.checkins import Alert, AlertKind
from careflow.core.hospitals import Hospital
from careflow.core.rounds import Round
from faults.people import HOSPITAL, People, people
from faults.trial import Evidence
from faults.verdict import violations

OPEN = datetime(2026, 11, 24, 13, tzinfo=UTC)
AT = OPEN + timedelta(minutes=20)
ROUND = "local-default-20261124-08"
OWN, OTHER = (
    Hospital(
        id=name,
        name=f"{name} Clinic",
        phone="+1 212 555 0100",
        from_number=number,
        time_zone="UTC",
        round_hours=(8,),
    )
    for name, number in ((HOSPITAL, "+12125550101"), ("other", "+12125550102"))
)

GREETING = {"at": AT.isoformat(), "who": "agent", "text": f"This is {OWN.name}."}


def clean() -> Evidence:
    """Three people were due (well, red flag, nobody picks up) and one is barred; all went as it should."""
    everybody = people()
    roster = People(everybody.due[:3], everybody.barred[:1], everybody.subscribers)
    well, red, absent = roster.due
    barred, reason = roster.barred[0]
    attempts = [
        ended(well.id, 1, Ending.COMPLETE),
        ended(red.id, 1, Ending.ESCALATED),
        *(ended(absent.id, number, None) for number in (1, 2, 3)),
    ]
    calls = [
        call(well.id, Outcome.COMPLETED, "complete", 1),
        call(red.id, Outcome.COMPLETED, "escalated", 1),
        call(absent.id, Outcome.UNREACHABLE, "no-answer", 3),
        call(barred.id, Outcome.SKIPPED, reason, 0),
    ]
    phones = {patient.id: patient.phone for patient in roster.due}
    counts = (("completed", 2), ("skipped", 1), ("unreachable", 1))
    answer = {"roundId": ROUND, "patientsQueried": 4, "callsInitiated": 3, "skipped": {reason: 1}}
    return Evidence(
        seed=0,
        people=roster,
        kills=[],
        answers=[answer, dict(answer)],
        dialled=[entry(attempt, str(phones[attempt.patient_id])) for attempt in attempts],
        round=Round(
            id=ROUND,
            hospital_id=HOSPITAL,
            environment="local",
            local_date=date(2026, 11, 24),
            schedule_hour=8,
            time_zone="America/New_York",
            window_start=OPEN,
            window_end=OPEN + timedelta(hours=2),
            script="morning",
            opened_at=OPEN,
            closed_at=OPEN + timedelta(hours=2),
            outcomes=counts,
        ),
        calls=calls,
        attempts=attempts,
        alerts=[
            alert(attempts[1], AlertKind.RED_FLAG, AT + timedelta(seconds=30)),
            alert(attempts[4], AlertKind.UNREACHABLE, AT + timedelta(minutes=45)),
        ],
        interactions=[interaction(attempt, None) for attempt in attempts],
        dead_tasks=0,
        output="",
        has_faults=False,
        hospital=OWN,
        others=[OTHER],
    )


def ended(patient_id: str, number: int, ending: Ending | None) -> Attempt:
    call = call_id(ROUND, patient_id)
    began = AT + (number - 1) * timedelta(minutes=16)
    return Attempt(
        id=f"{call}-{number}",
        hospital_id=HOSPITAL,
        round_id=ROUND,
        call_id=call,
        patient_id=patient_id,
        number=number,
        phone="",
        script="morning",
        stream_token="",
        intended_at=began,
        not_after=OPEN + timedelta(hours=2),
        state=AttemptState.ENDED,
        call_sid=f"CA{call}{number}",
        dialled_at=began,
        ended_at=began + timedelta(seconds=60),
        disposition=Disposition.ANSWERED if ending else Disposition.NO_ANSWER,
        ending=ending,
    )


def call(patient_id: str, outcome: Outcome, reason: str, attempts: int) -> Call:
    made = call_id(ROUND, patient_id)
    return Call(
        id=made,
        hospital_id=HOSPITAL,
        round_id=ROUND,
        patient_id=patient_id,
        due_at=OPEN,
        not_after=OPEN + timedelta(hours=2),
        state=CallState.ENDED,
        outcome=outcome,
        reason=reason,
        attempts=attempts,
        attempt_id=f"{made}-{attempts}" if attempts else None,
        created_at=OPEN,
        ended_at=AT,
    )


def entry(attempt: Attempt, number: str) -> dict[str, Any]:
    began, over = attempt.intended_at, attempt.intended_at + timedelta(seconds=60)
    advice = {
        "at": (began + timedelta(seconds=40)).isoformat(),
        "who": "agent",
        "text": "Please call 911 now.",
    }
    return {
        "sid": attempt.call_sid,
        "attempt": attempt.id,
        "to": number,
        "from": OWN.from_number,
        "persona": "well" if attempt.ending is Ending.COMPLETE else "red-flag" if attempt.ending else "",
        "status": "completed" if attempt.ending else "no-answer",
        "createdAt": began.isoformat(),
        "dialledAt": began.isoformat(),
        "answeredAt": (began + timedelta(seconds=5)).isoformat() if attempt.ending else None,
        "endedAt": over.isoformat(),
        "endedBy": "api",
        "transcript": [
            *([GREETING] if attempt.ending else []),
            *([advice] if attempt.ending is Ending.ESCALATED else []),
        ],
    }


def alert(attempt: Attempt, kind: AlertKind, at: datetime) -> Alert:
    return Alert(
        id=f"{attempt.id}-{kind}",
        hospital_id=HOSPITAL,
        round_id=ROUND,
        call_id=attempt.call_id,
        attempt_id=attempt.id,
        patient_id=attempt.patient_id,
        kind=kind,
        code="x",
        raised_at=at,
    )


def dialled(evidence: Evidence, place: int, minutes: float, **changes: Any) -> Evidence:
    """The same with another telephone call: the one at `place` again, so many minutes later."""
    copy = dict(evidence.dialled[place]) | {"sid": "CAsecond"}
    for name in ("createdAt", "dialledAt", "answeredAt", "endedAt"):
        if copy[name]:
            copy[name] = (datetime.fromisoformat(copy[name]) + timedelta(minutes=minutes)).isoformat()
    return replace(evidence, dialled=[*evidence.dialled, copy | changes])


def booked(evidence: Evidence, place: int, **changes: Any) -> Evidence:
    """The same with the call at `place` changed in the books."""
    books = list(evidence.dialled)
    books[place] = {**books[place], **changes}
    return replace(evidence, dialled=books)


def judged(evidence: Evidence, place: int, **changes: Any) -> Evidence:
    """The same with the ledger's call at `place` changed."""
    calls = list(evidence.calls)
    calls[place] = replace(calls[place], **changes)
    return replace(evidence, calls=calls)


BREACHES: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "two calls at once": ("one_at_a_time", lambda e: dialled(e, 0, 0.5)),
    "a call that never ended": ("one_at_a_time", lambda e: booked(e, 0, endedAt=None, answeredAt=None)),
    "an attempt dialled twice": ("nobody_twice", lambda e: dialled(e, 2, 30)),
    "dialled again after an answer": (
        "nobody_twice",
        lambda e: dialled(e, 0, 30, attempt=f"{e.calls[0].id}-2"),
    ),
    "a fourth attempt": ("absent_ones_again", lambda e: dialled(e, 4, 16, attempt=f"{e.calls[2].id}-4")),
    "dialled again too soon": (
        "absent_ones_again",
        lambda e: dialled(e, 4, 5, attempt=f"{e.calls[2].id}-4"),
    ),
    "somebody forgotten": ("everybody_dialled", lambda e: replace(e, dialled=e.dialled[1:])),
    "an order that was never put through": ("everybody_dialled", lambda e: booked(e, 0, dialledAt=None)),
    "no outcome": ("one_outcome_each", lambda e: judged(e, 0, outcome=None)),
    "a call missing": ("one_outcome_each", lambda e: replace(e, calls=e.calls[1:])),
    "due and skipped": ("one_outcome_each", lambda e: judged(e, 0, outcome=Outcome.SKIPPED)),
    "barred for another reason": ("one_outcome_each", lambda e: judged(e, 3, reason="deceased")),
    "wrong sums": ("one_outcome_each", lambda e: replace(e, round=replace(e.round, outcomes=()))),
    "a task given up": ("one_outcome_each", lambda e: replace(e, dead_tasks=1)),
    "the barred dialled": ("only_when_permitted", lambda e: dialled(e, 0, 9, attempt=f"{e.calls[3].id}-1")),
    "after the window": (
        "only_when_permitted",
        lambda e: booked(e, 0, dialledAt=(OPEN + timedelta(hours=2)).isoformat()),
    ),
    "a call of nobody's": ("only_when_permitted", lambda e: dialled(e, 0, 9, attempt="")),
    "a red flag untold": ("alerts", lambda e: replace(e, alerts=e.alerts[1:])),
    "a red flag told late": (
        "alerts",
        lambda e: replace(
            e, alerts=[replace(e.alerts[0], raised_at=AT + timedelta(seconds=50)), e.alerts[1]]
        ),
    ),
    "unreachable untold": ("alerts", lambda e: replace(e, alerts=e.alerts[:1])),
    "interrupted untold": (
        "alerts",
        lambda e: replace(e, attempts=[replace(e.attempts[0], ending=Ending.INTERRUPTED), *e.attempts[1:]]),
    ),
    "broken off by nobody": (
        "interruptions_have_a_cause",
        lambda e: judged(e, 0, outcome=Outcome.UNREACHABLE, reason="interrupted"),
    ),
    "no interaction": ("records", lambda e: replace(e, interactions=e.interactions[1:])),
    "dialled unknowingly": (
        "records",
        lambda e: replace(e, attempts=[replace(e.attempts[0], call_sid=None), *e.attempts[1:]]),
    ),
    "another answer": (
        "answers",
        lambda e: replace(e, answers=[e.answers[0], e.answers[1] | {"callsInitiated": 4}]),
    ),
    "a wrong answer": (
        "answers",
        lambda e: replace(e, answers=[answer | {"patientsQueried": 3} for answer in e.answers]),
    ),
    "rung from another hospital's number": (
        "own_hospital",
        lambda e: booked(e, 2, **{"from": OTHER.from_number}),
    ),
    "another hospital's name": (
        "own_hospital",
        lambda e: booked(e, 0, transcript=[GREETING, GREETING | {"text": f"This is {OTHER.name}."}]),
    ),
    "no hospital's name": (
        "own_hospital",
        lambda e: booked(e, 0, transcript=[GREETING | {"text": "Good morning."}]),
    ),
    "a name in a log": ("nothing_private_said", lambda e: replace(e, output="calling zephyraa")),
    "a number in a log": ("nothing_private_said", lambda e: replace(e, output="to=%2B12125550100")),
}


def test_a_round_that_went_well_has_no_violations() -> None:
    assert violations(clean()) == []


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_found_by_its_question(breach: str) -> None:
    question, broken = BREACHES[breach]
    assert question in {found.partition(":")[0] for found in violations(broken(clean()))}
