"""What came of a demo's round: for a person a few tables, for a program one document that two stores can be compared by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from careflow.cli.output import print_table

if TYPE_CHECKING:
    from careflow.core.calls import Call
    from careflow.core.checkins import Alert, Interaction
    from careflow.core.rounds import Round
    from careflow.ports import Store


@dataclass(frozen=True, slots=True)
class Result:
    """The closed round with everything on record about it."""

    round: Round
    skipped: Mapping[str, int]
    calls: Sequence[Call]
    alerts: Sequence[Alert]
    interactions: Sequence[Interaction]

    @classmethod
    async def of(cls, store: Store, round_: Round, skipped: Mapping[str, int]) -> Result:
        """As the store tells it."""
        hospital = round_.hospital_id
        return cls(
            round=round_,
            skipped=skipped,
            calls=await store.calls(hospital, round_.id, limit=10_000),
            alerts=await store.alerts(hospital, round_id=round_.id),
            interactions=await store.interactions(hospital, round_id=round_.id),
        )

    @property
    def worth_hearing(self) -> str:
        """A call with something in it: the first red flag's, else any that was held."""
        red = [alert.call_id for alert in self.alerts if alert.kind == "red-flag"]
        held = [call.id for call in self.calls if call.outcome == "completed"]
        return (red or held or ["CALL"])[0]

    @property
    def document(self) -> dict[str, Any]:
        outcomes = Counter(call.outcome.value for call in self.calls if call.outcome is not None)
        raised = Counter((alert.patient_id, alert.kind.value, alert.code) for alert in self.alerts)
        contacts = Counter(one.patient_id for one in self.interactions)
        return {
            "roundId": self.round.id,
            "patientsQueried": self.round.patients_queried,
            "callsInitiated": self.round.calls_initiated,
            "skipped": self.skipped,
            "outcomes": dict(sorted(outcomes.items())),
            "attempts": sum(call.attempts for call in self.calls),
            "alerts": len(self.alerts),
            "patients": [
                {
                    "patientId": call.patient_id,
                    "outcome": call.outcome.value if call.outcome else "",
                    "reason": call.reason,
                    "attempts": call.attempts,
                    "interactions": contacts[call.patient_id],
                    "alerts": sorted(
                        f"{kind}: {code}"
                        for patient, kind, code in raised.elements()
                        if patient == call.patient_id
                    ),
                }
                for call in sorted(self.calls, key=lambda call: call.patient_id)
            ],
        }

    def print(self) -> None:
        rows = Counter((call.outcome.value if call.outcome else "open", call.reason) for call in self.calls)
        print_table(
            "What became of everybody",
            ("outcome", "reason", "patients"),
            [(*key, number) for key, number in sorted(rows.items())],
        )
        kinds = Counter((alert.kind.value, alert.code) for alert in self.alerts)
        print_table(
            "Alerts", ("alert", "code", "how many"), [(*key, number) for key, number in sorted(kinds.items())]
        )
        print(
            f"{len(self.calls)} patients, {sum(call.attempts for call in self.calls)} attempts, "
            f"{len(self.interactions)} interactions on record"
        )
