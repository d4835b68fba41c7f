"""What follows an attempt: a table of cases with a remark each."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from careflow.core.attempts import Attempt, AttemptState, Disposition, Ending, end
from careflow.core.calls import Call, CallState, Outcome
from careflow.core.checkins import AlertKind
from careflow.core.patients import Patient
from careflow.core.retry import NEVER_CREATED, Finish, RetryPolicy, TryAgain, after_attempt, counts

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)  # 10:00 in New York
WINDOW_END = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
PATIENT = Patient(
    id="p1", hospital_id="h", given_name="Ada", family_name="Test", time_zone="America/New_York"
)
CALL = Call(
    id="c1",
    hospital_id="h",
    round_id="r",
    patient_id="p1",
    due_at=NOW,
    not_after=WINDOW_END,
    state=CallState.CALLING,
    attempts=1,
    counted=0,
    attempt_id="c1-1",
    created_at=NOW,
)
ATTEMPT = Attempt(
    id="c1-1",
    hospital_id="h",
    round_id="r",
    call_id="c1",
    patient_id="p1",
    number=1,
    phone="+12125550101",
    script="morning",
    stream_token="t",
    intended_at=NOW,
    not_after=WINDOW_END,
)
POLICY = RetryPolicy()


def ended(disposition: Disposition, ending: Ending | None = None, failure: str = "") -> Attempt:
    return end(ATTEMPT, NOW, disposition, ending=ending, failure=failure)


FINAL = [
    # the conversation was held
    (Disposition.ANSWERED, Ending.COMPLETE, "", Outcome.COMPLETED, None),
    (Disposition.ANSWERED, Ending.ESCALATED, "", Outcome.COMPLETED, None),
    # the patient said no, to us or to today
    (Disposition.ANSWERED, Ending.OPTED_OUT, "", Outcome.OPTED_OUT, None),
    (Disposition.ANSWERED, Ending.DECLINED, "", Outcome.DECLINED, None),
    # dialling this number again helps nobody
    (Disposition.ANSWERED, Ending.WRONG_PERSON, "", Outcome.UNREACHABLE, AlertKind.WRONG_NUMBER),
    (Disposition.FAILED, None, "invalid-number", Outcome.UNREACHABLE, AlertKind.WRONG_NUMBER),
    (Disposition.FAILED, None, "not-permitted", Outcome.UNREACHABLE, AlertKind.WRONG_NUMBER),
    # our side failed in the middle: a nurse phones, not the machine again (invariant 2)
    (Disposition.ANSWERED, Ending.INTERRUPTED, "", Outcome.UNREACHABLE, AlertKind.INTERRUPTED),
    # we were told to stop; the patient never said no
    (Disposition.CANCELLED, None, "", Outcome.CANCELLED, AlertKind.UNREACHABLE),
]


@pytest.mark.parametrize(("disposition", "ending", "failure", "outcome", "alert"), FINAL)
def test_some_ends_are_final(
    disposition: Disposition,
    ending: Ending | None,
    failure: str,
    outcome: Outcome,
    alert: AlertKind | None,
) -> None:
    result = after_attempt(CALL, ended(disposition, ending, failure), PATIENT, NOW, POLICY)
    assert isinstance(result, Finish)
    assert (result.outcome, result.alert) == (outcome, alert)


AGAIN = [
    (Disposition.NO_ANSWER, None, "", timedelta(minutes=15), True),
    (Disposition.BUSY, None, "", timedelta(minutes=15), True),
    (Disposition.VOICEMAIL, None, "", timedelta(minutes=15), True),
    (Disposition.REFUSED, None, "", timedelta(minutes=15), True),
    (Disposition.FAILED, None, "network", timedelta(minutes=15), True),
    (Disposition.ANSWERED, Ending.HUNG_UP, "", timedelta(minutes=15), True),
    (Disposition.ANSWERED, Ending.NOT_UNDERSTOOD, "", timedelta(minutes=15), True),
    (Disposition.ANSWERED, Ending.CALL_LATER, "", timedelta(minutes=30), True),
    # nobody's telephone rang: soon again, and it does not use up a try
    (Disposition.FAILED, None, NEVER_CREATED, timedelta(seconds=30), False),
]


@pytest.mark.parametrize(("disposition", "ending", "failure", "delay", "counted"), AGAIN)
def test_others_are_tried_again_later(
    disposition: Disposition, ending: Ending | None, failure: str, delay: timedelta, counted: bool
) -> None:
    attempt = ended(disposition, ending, failure)
    result = after_attempt(CALL, attempt, PATIENT, NOW, POLICY)
    assert isinstance(result, TryAgain)
    assert (result.at, counts(attempt)) == (NOW + delay, counted)


def test_the_third_try_is_the_last_and_a_nurse_is_told() -> None:
    result = after_attempt(
        replace(CALL, attempts=3, counted=2), ended(Disposition.NO_ANSWER), PATIENT, NOW, POLICY
    )
    assert isinstance(result, Finish)
    assert (result.outcome, result.alert) == (Outcome.UNREACHABLE, AlertKind.UNREACHABLE)


def test_no_try_is_planned_after_the_window() -> None:
    late = WINDOW_END - timedelta(minutes=15)
    assert isinstance(after_attempt(CALL, ended(Disposition.BUSY), PATIENT, late, POLICY), Finish)


def test_no_try_is_planned_outside_the_patient_s_calling_hours() -> None:
    early_closing = replace(PATIENT, calling_until=time(10, 10))
    assert isinstance(after_attempt(CALL, ended(Disposition.BUSY), early_closing, NOW, POLICY), Finish)


def test_a_provider_that_loses_every_create_is_not_asked_for_ever() -> None:
    call = replace(CALL, attempts=9, counted=0)
    result = after_attempt(call, ended(Disposition.FAILED, failure=NEVER_CREATED), PATIENT, NOW, POLICY)
    assert isinstance(result, Finish)


def test_an_attempt_that_has_not_ended_decides_nothing() -> None:
    assert ATTEMPT.state is AttemptState.INTENDED
    with pytest.raises(ValueError, match="has not ended"):
        after_attempt(CALL, ATTEMPT, PATIENT, NOW, POLICY)
