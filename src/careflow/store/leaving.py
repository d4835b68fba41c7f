"""What an ended attempt may leave: the same check in every store."""

from __future__ import annotations

from collections.abc import Sequence

from careflow.core.attempts import Attempt, AttemptState
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall

SHARED = ("hospital_id", "round_id", "call_id", "patient_id")


def must_be_left_by(
    attempt: Attempt,
    interaction: Interaction,
    check_in: CheckIn | None,
    do_not_call: DoNotCall | None,
    alerts: Sequence[Alert],
) -> None:
    """Raise ValueError unless the attempt is ENDED and all of this is of its hospital, round, call and patient.

    An entry of the do-not-call list knows neither round nor call, and no patient when somebody else was on the telephone.
    """
    if attempt.state is not AttemptState.ENDED:
        raise ValueError(f"attempt {attempt.id} is {attempt.state}, end_attempt stores ended ones")
    for record in filter(None, (interaction, check_in, do_not_call, *alerts)):
        for name in SHARED:
            theirs, own = getattr(record, name, None), getattr(attempt, name)
            if theirs not in (None, own):
                raise ValueError(
                    f"{type(record).__name__}.{name} is {theirs!r}; attempt {attempt.id}, which leaves it, has {own!r}"
                )
