"""Round identity, and what a patient's part in a round is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from careflow.core.calls import CallState, Outcome
from careflow.core.patients import Patient, SkipReason, bar
from careflow.core.rounds import Round, Trigger, plan, round_for

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)  # 08:15 in New York
TRIGGER = Trigger(
    schedule_hour=8,
    time_zone="America/New_York",
    trigger_type="scheduled",
    source="cloud-scheduler",
    environment="prod",
    hospital_id="general",
)
DUE = Patient(
    id="p1",
    hospital_id="general",
    given_name="Ada",
    family_name="Test",
    phone="+12125550101",
    time_zone="America/New_York",
    consent=True,
    hours=frozenset({8}),
)


def opened(now: datetime = NOW) -> Round:
    return round_for(TRIGGER, now, (8, 12, 20))


def test_the_same_trigger_early_late_and_forced_means_the_same_round() -> None:
    for moment in (NOW - timedelta(minutes=25), NOW, NOW + timedelta(hours=7)):
        assert opened(moment).id == "prod-general-20261123-08"


def test_hospitals_environments_days_and_hours_have_rounds_of_their_own() -> None:
    others = {
        round_for(replace(TRIGGER, hospital_id="city"), NOW, (8, 12, 20)).id,
        round_for(replace(TRIGGER, environment="staging"), NOW, (8, 12, 20)).id,
        round_for(replace(TRIGGER, schedule_hour=12), NOW + timedelta(hours=4), (8, 12, 20)).id,
        opened(NOW + timedelta(days=1)).id,
        opened().id,
    }
    assert len(others) == 5


def test_a_due_patient_waits_to_be_called_now() -> None:
    call = plan(opened(), DUE, NOW, do_not_call=False)
    assert call is not None
    assert (call.state, call.due_at, call.not_after) == (
        CallState.WAITING,
        NOW,
        datetime(2026, 11, 23, 17, tzinfo=UTC),
    )


def test_a_patient_of_another_hour_has_no_part_in_it() -> None:
    assert plan(opened(), replace(DUE, hours=frozenset({20})), NOW, do_not_call=False) is None


@pytest.mark.parametrize(
    ("changes", "do_not_call", "reason"),
    [
        ({"deceased": True, "opted_out": True}, False, SkipReason.DECEASED),
        ({"active": False}, False, SkipReason.INACTIVE),
        ({"opted_out": True}, False, SkipReason.OPTED_OUT),
        ({}, True, SkipReason.OPTED_OUT),
        ({"consent": False}, False, SkipReason.NO_CONSENT),
        ({"paused_until": NOW + timedelta(seconds=1)}, False, SkipReason.PAUSED),
        ({"phone": None}, False, SkipReason.NO_NUMBER),
        ({"calling_from": time(18), "hours": frozenset({8})}, False, SkipReason.OUTSIDE_HOURS),
    ],
)
def test_a_patient_who_may_not_be_phoned_is_recorded_as_skipped_with_the_reason(
    changes: dict[str, object], do_not_call: bool, reason: SkipReason
) -> None:
    call = plan(opened(), replace(DUE, **changes), NOW, do_not_call=do_not_call)  # type: ignore[arg-type]
    assert call is not None
    assert (call.state, call.outcome, call.reason) == (CallState.ENDED, Outcome.SKIPPED, reason)


def test_a_pause_that_is_over_no_longer_bars() -> None:
    assert bar(replace(DUE, paused_until=NOW), do_not_call=False, now=NOW) is None


def test_the_call_s_id_names_nobody_and_is_stable() -> None:
    first, second = (plan(opened(), DUE, NOW, do_not_call=False) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.id == second.id
    assert DUE.id not in first.id


def test_who_is_paused_only_until_before_the_own_time_is_called_then() -> None:
    late = replace(DUE, times=(time(11),), paused_until=NOW + timedelta(hours=1))
    call = plan(opened(), late, NOW, do_not_call=False)
    assert call is not None
    assert (call.state, call.due_at) == (CallState.WAITING, datetime(2026, 11, 23, 16, tzinfo=UTC))
    still = plan(opened(), replace(late, paused_until=NOW + timedelta(hours=3)), NOW, do_not_call=False)
    assert still is not None
    assert (still.reason, still.due_at) == (SkipReason.PAUSED, NOW)


def test_two_own_times_in_one_window_are_one_call_at_the_earlier() -> None:
    """A round phones a patient once; the own times come before the round's hour (docs/rounds.md)."""
    both = replace(DUE, hours=frozenset({8}), times=(time(11), time(9, 30)))
    call = plan(opened(), both, NOW, do_not_call=False)
    assert call is not None
    assert call.due_at == datetime(2026, 11, 23, 14, 30, tzinfo=UTC)
    assert call.id == plan(opened(), DUE, NOW, do_not_call=False).id  # type: ignore[union-attr]


OTHER_ZONES = [
    # (zone, hour, own times, when it is due in UTC; None: skipped as outside the calling hours) - docs/rounds.md
    ("America/Los_Angeles", 8, (), datetime(2026, 11, 23, 16, tzinfo=UTC)),
    ("America/Anchorage", 8, (), None),  # 08:00 there is noon in New York: the next round's
    ("America/Anchorage", 12, (time(8),), datetime(2026, 11, 23, 17, tzinfo=UTC)),
    ("Europe/London", 8, (), datetime(2026, 11, 23, 13, 15, tzinfo=UTC)),  # passed already: at once
    ("Europe/London", 20, (), datetime(2026, 11, 24, 8, tzinfo=UTC)),  # past bedtime: the next opening
    ("America/New_York", 20, (time(7, 30),), None),  # opens at 08:00, when the window ends
]


@pytest.mark.parametrize(("zone", "hour", "times", "due"), OTHER_ZONES)
def test_other_zones_and_own_times_before_breakfast(
    zone: str, hour: int, times: tuple[time, ...], due: datetime | None
) -> None:
    now = max(NOW, datetime(2026, 11, 23, tzinfo=UTC) + timedelta(hours=hour + 5))
    round_ = round_for(replace(TRIGGER, schedule_hour=hour), now, (8, 12, 20))
    hours = frozenset() if times else frozenset({hour})
    call = plan(round_, replace(DUE, time_zone=zone, hours=hours, times=times), now, do_not_call=False)
    assert call is not None
    assert (call.due_at if call.state is CallState.WAITING else None) == due
    assert due is not None or call.reason == SkipReason.OUTSIDE_HOURS
