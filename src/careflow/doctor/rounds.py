"""The last rounds as the ledger has them: missing, not closed, unanswered, and what waits for a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

from careflow.core.calls import CallState
from careflow.core.checkins import Alert, AlertKind
from careflow.core.hospitals import Hospital
from careflow.core.rounds import Round
from careflow.doctor.findings import Finding, doubtful, well, wrong
from careflow.doctor.ledger import hospitals
from careflow.doctor.set_up import SetUp
from careflow.ports import Store
from careflow.pulse.overdue import Limits, expected_rounds, overdue_alerts, would_be_phoned

_LATEST = 6  # rounds: two days
_LOOKED_AT = 1000  # patients: whether somebody is due
_MANY = 0.5  # of a round's calls that ended unreachable or failed


async def rounds(set_up: SetUp) -> AsyncIterator[Finding]:
    """Did the last rounds come, go and end as they should?"""
    opened, now = await set_up.store(), set_up.clock.now()
    limits = Limits.of(set_up.settings)
    for hospital in hospitals(set_up):
        latest = await opened.rounds(hospital.id, limit=_LATEST)
        troubles = list(await _missing(opened, hospital, limits, set_up))
        for round_ in latest:
            troubles += await _ended(opened, round_, limits, set_up)
        for one in troubles:
            yield one
        if latest and not troubles:
            yield well(
                f"rounds of {hospital.id}", f"the last {len(latest)} went as they should", latest=latest[0].id
            )
        elif not latest:
            yield well(f"rounds of {hospital.id}", "there were none yet")
        for one in judged_alerts(await opened.alerts(hospital.id, open_only=True), hospital, limits, set_up):
            yield one
    stale = [
        one
        for one in await opened.open_attempts()
        if now - one.intended_at > 2 * set_up.settings.attempt_deadline
    ]
    if stale:
        yield wrong(
            "attempts",
            f"{len(stale)} have been open for longer than {2 * set_up.settings.attempt_deadline}",
            "Nobody settles them, so their patients and numbers stay busy for every later call."
            " The Caller does that: is it running?",
            *set_up.remedies.logs("caller-agent"),
            *set_up.remedies.start("caller-agent"),
            attempts=", ".join(one.id for one in stale[:5]),
        )


async def _missing(opened: Store, hospital: Hospital, limits: Limits, set_up: SetUp) -> Sequence[Finding]:
    expected = expected_rounds(
        hospital.id,
        environment=set_up.settings.environment,
        time_zone=hospital.time_zone,
        round_hours=hospital.round_hours,
        now=set_up.clock.now(),
        grace=limits.round_grace,
    )
    began = bool(await opened.rounds(hospital.id, limit=1))
    missing = [one for one in expected if await opened.round(hospital.id, one.id) is None]
    return [_absent(one, set_up, began) for one in missing if await _somebody_is_due(opened, one)]


async def _somebody_is_due(opened: Store, round_: Round) -> bool:
    page = await opened.candidates(round_.hospital_id, round_.schedule_hour, limit=_LOOKED_AT)
    return any(would_be_phoned(round_, one) for one in page)


def _absent(round_: Round, set_up: SetUp, began: bool) -> Finding:
    """A round that should be there; a doubt as long as the hospital never had one, for it may have come to be today."""
    remedy = set_up.remedies.careflow(
        "rounds", "run", "--hour", str(round_.schedule_hour), "--hospital", round_.hospital_id
    )
    return (wrong if began else doubtful)(
        round_.id,
        "the round did not come, though its hour is over and somebody is due",
        "Its job did not run, or did not reach this Pulse: the findings about the jobs say which. Until"
        f" {round_.window_end:%H:%M} UTC it can still be made up for.",
        remedy,
    )


async def _ended(opened: Store, round_: Round, limits: Limits, set_up: SetUp) -> Sequence[Finding]:
    now = set_up.clock.now()
    show = set_up.remedies.careflow("rounds", "show", round_.id, "--hospital", round_.hospital_id)
    found = []
    if round_.closed_at is None and round_.window_end + limits.closing <= now:
        found.append(
            wrong(
                round_.id,
                f"is not closed, {(now - round_.window_end).total_seconds() / 3600:.1f} h after its window",
                "Some of its patients have no outcome."
                " Pulse closes it at its start, at its sweep and at the next trigger, if it runs.",
                show,
                *set_up.remedies.start("careflow-agent"),
            )
        )
    counted = await opened.count_calls(round_.hospital_id, round_.id)
    found += judged_outcomes(round_, counted, show)
    if round_.closed_at is None and round_.window_start <= now:
        open_calls = await opened.calls(round_.hospital_id, round_.id, limit=200, open_only=True)
        abandoned = [
            one
            for one in open_calls
            if one.state is CallState.CALLING
            and one.lease_until is not None
            and one.lease_until + timedelta(minutes=5) < now
        ]
        if abandoned:
            found.append(
                doubtful(
                    round_.id,
                    f"{len(abandoned)} calls are held by a Pulse that is gone",
                    "The queue delivers them again to one that lives; five minutes is long for that.",
                    *set_up.remedies.logs("careflow-agent"),
                    calls=", ".join(one.id for one in abandoned[:5]),
                )
            )
    return found


def judged_outcomes(
    round_: Round, counted: Mapping[tuple[str, str, str], int], show: str
) -> Sequence[Finding]:
    """(state, outcome, reason) -> count, of one round."""
    ended = {key: number for key, number in counted.items() if key[1] and key[1] != "skipped"}
    unreachable = sum(number for key, number in ended.items() if key[1] == "unreachable")
    total = sum(ended.values())
    if total and unreachable > _MANY * total:
        reasons = sorted({key[2] for key in ended if key[1] == "unreachable" and key[2]})
        return [
            doubtful(
                round_.id,
                f"{unreachable} of {total} calls ended unreachable",
                "Patients who are not in, or a telephone or speech service that fails: the reasons tell.",
                show,
                reasons=", ".join(reasons),
            )
        ]
    return []


def judged_alerts(
    alerts: Sequence[Alert], hospital: Hospital, limits: Limits, set_up: SetUp
) -> Sequence[Finding]:
    """What waits for a person, and for how long."""
    now = set_up.clock.now()
    listing = set_up.remedies.careflow("alerts", "list", "--hospital", hospital.id)
    found = [
        (wrong if late[0].kind is AlertKind.RED_FLAG else doubtful)(
            f"alerts of {hospital.id}",
            f"{len(late)} of kind {late[0].kind.value} wait for a person,"
            f" the oldest since {late[0].raised_at:%Y-%m-%d %H:%M} UTC",
            "A nurse has to look at them and acknowledge them.",
            listing,
            oldest=late[0].id,
        )
        for late in overdue_alerts(alerts, now, limits)
    ]
    interrupted = [one for one in alerts if one.kind is AlertKind.INTERRUPTED]
    if interrupted:
        found.append(
            doubtful(
                f"alerts of {hospital.id}",
                f"{len(interrupted)} conversations were interrupted by a fault of ours",
                "These patients were cut off and have to be phoned by a person.",
                listing,
                *set_up.remedies.logs("caller-agent"),
            )
        )
    return found or [well(f"alerts of {hospital.id}", f"{len(alerts)} open, none overdue")]
