"""One hospital at work on a store: everything that its services do, with ids that another hospital's have too."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from careflow.core.attempts import Attempt, AttemptState, Disposition, end, move
from careflow.core.calls import Call, CallState, attempt_id, call_id
from careflow.core.checkins import Alert, AlertKind, CheckIn, Interaction, Triage
from careflow.core.patients import DoNotCall, Patient
from careflow.core.rounds import Execution, Round, Trigger, round_for
from careflow.ports import Store

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
PATIENTS = ("p1", "p2")
AREA = {"h1": 212, "h2": 312}
WORK = (
    "import", "open", "plan", "claim", "renew", "begin", "dial", "alert", "acknowledge", "end", "bar", "execute", "close"
)  # fmt: skip


class Actor:
    """Does work for one hospital. Each answer is what the store said, so that two runs can be compared."""

    def __init__(self, store: Store, hospital_id: str, *, area: int | None = None) -> None:
        self.store = store
        self.hospital_id = hospital_id
        self.round = _round(hospital_id)
        self._area = area or AREA[hospital_id]

    async def do(self, work: str, patient_id: str) -> Any:
        return await getattr(self, f"_{work}")(patient_id)

    async def seen(self) -> dict[str, Any]:
        """The answer of every query that the store has for this hospital."""
        store, mine, round_id = self.store, self.hospital_id, self.round.id
        calls = await store.calls(mine, round_id)
        return {
            "patients": await store.patients(mine),
            "patient": [await store.patient(mine, one) for one in PATIENTS],
            "candidates": await store.candidates(mine, 8),
            "revision": await store.roster_revision(mine),
            "barred": [await store.on_do_not_call(mine, one, self.phone(one)) for one in PATIENTS],
            "rounds": await store.rounds(mine),
            "round": await store.round(mine, round_id),
            "executions": await store.executions(mine),
            "calls": calls,
            "call": [await store.call(mine, one.id) for one in calls],
            "open calls": await store.calls(mine, round_id, open_only=True),
            "counted": dict(await store.count_calls(mine, round_id)),
            "attempts": [await store.attempts(mine, one.id) for one in calls],
            "check-ins": [await store.check_in(mine, attempt_id(one, 1)) for one in calls],
            "interactions": await store.interactions(mine),
            "of a patient": [await store.interactions(mine, one) for one in PATIENTS],
            "of a round": await store.interactions(mine, round_id=round_id),
            "alerts": await store.alerts(mine),
            "open alerts": await store.alerts(mine, open_only=True),
            "alerts of a round": await store.alerts(mine, round_id=round_id),
        }

    async def trespass(self, other: Actor) -> list[Any]:
        """Ask and write about the other hospital's records, by their own ids, in this hospital's name. What came of each."""
        store, mine, theirs = self.store, self.hospital_id, other.round.id
        came: list[Any] = [
            await store.round(mine, theirs),
            list(await store.calls(mine, theirs)),
            dict(await store.count_calls(mine, theirs)),
            list(await store.interactions(mine, round_id=theirs)),
            list(await store.alerts(mine, round_id=theirs)),
        ]
        round_ = await store.round(other.hospital_id, theirs)
        if round_ is not None:
            came.append(await store.update_round(replace(round_, hospital_id=mine, closed_at=NOW)))
        for call in await store.calls(other.hospital_id, theirs):
            came += [
                await store.call(mine, call.id),
                await store.claim_call(mine, call.id, owner="thief", now=_LATE, lease_until=_LATE),
                await store.renew_lease(mine, call.id, owner="owner", lease_until=_LATE),
                await store.update_call(replace(call, hospital_id=mine, reason="stolen")),
                list(await store.attempts(mine, call.id)),
                await store.check_in(mine, attempt_id(call, 1)),
            ]
            for attempt in await store.attempts(other.hospital_id, call.id):
                stolen = replace(attempt, hospital_id=mine)
                came.append(await store.update_attempt(replace(stolen, failure="stolen")))
                if attempt.state is not AttemptState.ENDED:
                    over = end(stolen, _LATE, Disposition.FAILED)
                    came.append(await store.end_attempt(over, interaction=_interaction(over)))
        own = {alert.id for alert in await store.alerts(mine)}  # the same ids, and its own to acknowledge
        for alert in await store.alerts(other.hospital_id):
            if alert.id in own:
                continue
            came.append(await store.acknowledge_alert(mine, alert.id, by="thief", at=NOW))
        return [one for one in came if one]

    def phone(self, patient_id: str) -> str:
        return f"+1{self._area}55501{PATIENTS.index(patient_id):02}"

    async def _call(self, patient_id: str) -> Call | None:
        return await self.store.call(self.hospital_id, call_id(self.round.id, patient_id))

    async def _attempt(self, patient_id: str) -> Attempt | None:
        call = await self._call(patient_id)
        found = await self.store.attempts(self.hospital_id, call.id) if call else []
        return found[-1] if found else None

    async def _import(self, patient_id: str) -> Any:
        known = await self.store.patient(self.hospital_id, patient_id)
        patient = Patient(
            id=patient_id,
            hospital_id=self.hospital_id,
            given_name="Pat",
            family_name=self.hospital_id,
            phone=self.phone(patient_id),
            time_zone="UTC",
            consent=True,
            hours=frozenset({8}),
            language="es" if known and known.language == "en" else "en",
        )
        return await self.store.put_patients([patient])

    async def _bar(self, patient_id: str) -> Any:
        entry = DoNotCall(
            hospital_id=self.hospital_id,
            phone=self.phone(patient_id),
            patient_id=patient_id,
            attempt_id="a-1",
            since=NOW,
        )
        return await self.store.add_do_not_call(entry)

    async def _open(self, _patient_id: str) -> Any:
        return await self.store.open_round(self.round)

    async def _plan(self, patient_id: str) -> Any:
        call = Call(
            id=call_id(self.round.id, patient_id),
            hospital_id=self.hospital_id,
            round_id=self.round.id,
            patient_id=patient_id,
            due_at=NOW,
            not_after=NOW + timedelta(hours=2),
            created_at=NOW,
        )
        return await self.store.create_calls([call])

    async def _claim(self, patient_id: str) -> Any:
        return await self.store.claim_call(
            self.hospital_id,
            call_id(self.round.id, patient_id),
            owner="owner",
            now=NOW,
            lease_until=NOW + timedelta(minutes=1),
        )

    async def _renew(self, patient_id: str) -> Any:
        until = NOW + timedelta(minutes=2)
        wanted = call_id(self.round.id, patient_id)
        return await self.store.renew_lease(self.hospital_id, wanted, owner="owner", lease_until=until)

    async def _begin(self, patient_id: str) -> Any:
        call = await self._call(patient_id)
        if call is None or call.state is not CallState.CALLING:
            return None
        await self.store.update_call(replace(call, attempt_id=attempt_id(call, 1), attempts=1))
        attempt = Attempt(
            id=attempt_id(call, 1),
            hospital_id=self.hospital_id,
            round_id=self.round.id,
            call_id=call.id,
            patient_id=patient_id,
            number=1,
            phone=self.phone(patient_id),
            script="morning",
            stream_token="t",
            intended_at=NOW,
            not_after=call.not_after,
        )
        return await self.store.begin_attempt(attempt, lambda _patient, barred: "barred" if barred else None)

    async def _dial(self, patient_id: str) -> Any:
        attempt = await self._attempt(patient_id)
        if attempt is None or attempt.state is not AttemptState.INTENDED:
            return None
        sid = f"CA{self.hospital_id}{patient_id}"
        return await self.store.update_attempt(move(attempt, AttemptState.DIALLED, NOW, call_sid=sid))

    async def _end(self, patient_id: str) -> Any:
        attempt = await self._attempt(patient_id)
        if attempt is None or attempt.state is AttemptState.ENDED:
            return None
        over = end(attempt, NOW + timedelta(minutes=3), Disposition.NO_ANSWER)
        check_in = CheckIn(
            id=over.id,
            hospital_id=self.hospital_id,
            round_id=over.round_id,
            call_id=over.call_id,
            patient_id=patient_id,
            script="morning",
            script_version="1",
            language="en",
            identity_confirmed=False,
            triage=Triage.GREEN,
            started_at=NOW,
            ended_at=NOW,
        )
        return await self.store.end_attempt(
            over, interaction=_interaction(over), check_in=check_in, alerts=[_alert(over, "a2")]
        )

    async def _alert(self, patient_id: str) -> Any:
        attempt = await self._attempt(patient_id)
        return await self.store.add_alert(_alert(attempt, "a1")) if attempt else None

    async def _acknowledge(self, _patient_id: str) -> Any:
        return await self.store.acknowledge_alert(self.hospital_id, "a1", by=self.hospital_id, at=NOW)

    async def _execute(self, patient_id: str) -> Any:
        execution = Execution(
            id=f"e-{patient_id}",
            hospital_id=self.hospital_id,
            round_id=self.round.id,
            received_at=NOW,
            finished_at=NOW,
            trigger_type="scheduled",
            source="test",
            schedule_hour=8,
        )
        return await self.store.add_execution(execution)

    async def _close(self, _patient_id: str) -> Any:
        round_ = await self.store.round(self.hospital_id, self.round.id)
        return await self.store.update_round(replace(round_, closed_at=_LATE)) if round_ else None


_LATE = NOW + timedelta(hours=12)


def _round(hospital_id: str) -> Round:
    trigger = Trigger(
        schedule_hour=8,
        time_zone="UTC",
        trigger_type="scheduled",
        source="test",
        environment="test",
        hospital_id=hospital_id,
    )
    return round_for(trigger, NOW, (8, 12, 20))


def _interaction(attempt: Attempt) -> Interaction:
    return Interaction(
        id=attempt.id,
        hospital_id=attempt.hospital_id,
        round_id=attempt.round_id,
        call_id=attempt.call_id,
        patient_id=attempt.patient_id,
        started_at=attempt.intended_at,
        ended_at=attempt.intended_at,
        disposition="no-answer",
    )


def _alert(attempt: Attempt, alert_id: str) -> Alert:
    return Alert(
        id=alert_id,
        hospital_id=attempt.hospital_id,
        round_id=attempt.round_id,
        call_id=attempt.call_id,
        attempt_id=attempt.id,
        patient_id=attempt.patient_id,
        kind=AlertKind.UNREACHABLE,
        code="no-answer",
        raised_at=NOW,
    )
