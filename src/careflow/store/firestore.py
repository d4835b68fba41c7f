"""The Store on Firestore (docs/firestore.md). Every change is one commit, planned on what is stored (`firestore_changes`)."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from careflow.core.attempts import Attempt
from careflow.core.calls import Call, CallState, call_id, claimable, keeping_renewal, left_at
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient
from careflow.core.rounds import Execution, Round
from careflow.ports import BeginResult, Candidate, Comparison, Guard, PutCounts, R
from careflow.store import firestore_kinds as kinds
from careflow.store import firestore_queries as queries
from careflow.store.firestore_archive import Archiving
from careflow.store.firestore_attempts import Attempts
from careflow.store.firestore_changes import MARK, Changes, Plan
from careflow.store.firestore_connection import Connection, Found
from careflow.store.firestore_kinds import Kind
from careflow.store.firestore_places import Place
from careflow.store.firestore_secret import Secret
from careflow.store.firestore_usage import Usage
from careflow.store.leaving import must_be_left_by

T = TypeVar("T")


class FirestoreStore:
    """`ports.Store` in one Firestore database (Native mode), shared by any number of processes."""

    def __init__(self, connection: Connection, token: Callable[[], str], secret: Callable[[], bytes]) -> None:
        """Use `FirestoreStore.open`."""
        self._connection = connection
        self._changes = Changes(connection, token)
        self._secret = Secret(connection, self._changes, secret)
        self._attempts = Attempts(connection, self._changes)
        self._archiving = Archiving(connection, self._changes)
        self._token = token

    @classmethod
    async def open(
        cls,
        *,
        project: str,
        database: str = "(default)",
        emulator: str = "",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
        secret: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    ) -> FirestoreStore:
        """A store on the project's database; with `emulator` (host:port) on that, without credentials.

        `sleep` and `random` serve the pauses between tries; `token` marks writes and never gives the same twice; document ids are
        made with `secret`, if the database has none yet. Raises StoreUnavailable when there are no Google credentials. Nothing is
        asked of the database before the first method.
        """
        connection = await Connection.open(project, database, emulator, sleep=sleep, random=random)
        return cls(connection, token, secret)

    @property
    def usage(self) -> Usage:
        """What this store has used since it was opened, as Google bills it."""
        return self._connection.usage

    async def check(self) -> None:
        """Delete a document that is not there: the cheapest proof that a commit is done."""

        async def plan() -> Plan[None]:
            return Plan(None, [self._changes.delete(Place(kinds.HEALTH, (self._token(),)))])

        await self._change(plan)

    async def close(self) -> None:
        await self._connection.close()

    # patients and the do-not-call list

    async def put_patients(self, patients: Sequence[Patient]) -> PutCounts:
        """As the port says. Raises ValueError when they are too many for one commit (about 4 MB); nothing was changed then."""
        places = [kinds.PATIENTS.place(patient) for patient in patients]

        async def plan() -> Plan[PutCounts]:
            found = await self._connection.get(places)
            changes, counts = _changes(patients, places, found)
            writes = [
                self._changes.replace(place, kinds.PATIENTS.to_document(patient), found[place])
                if place in found
                else self._changes.create(place, kinds.PATIENTS.to_document(patient))
                for place, patient in changes.items()
            ]
            writes += [
                self._changes.merge(
                    kinds.hospital_place(hospital_id), {"hospitalId": hospital_id}, {"revision": 1}
                )
                for hospital_id in sorted({patient.hospital_id for patient in changes.values()})
            ]
            return Plan(counts, writes)

        return await self._change(plan)

    async def patient(self, hospital_id: str, patient_id: str) -> Patient | None:
        return await self._get(kinds.PATIENTS, hospital_id, patient_id)

    async def patients(self, hospital_id: str, *, after: str = "", limit: int = 1000) -> Sequence[Patient]:
        return await self._list(kinds.PATIENTS, queries.PATIENTS.query(hospital_id, after=after, limit=limit))

    async def candidates(
        self, hospital_id: str, schedule_hour: int, *, after: str = "", limit: int = 1000
    ) -> Sequence[Candidate]:
        """As the port says. The do-not-call list is asked for 30 patients at a time, which costs a read, not 60."""
        page = await self._list(
            kinds.PATIENTS,
            queries.CANDIDATES.query(
                hospital_id, choice=[str(schedule_hour), kinds.OWN_TIMES], after=after, limit=limit
            ),
        )
        phones = sorted({patient.phone for patient in page if patient.phone})
        names = [patient.id for patient in page]
        barred_phones, barred_names = await asyncio.gather(
            self._on_list(queries.BARRED_PHONES, hospital_id, phones),
            self._on_list(queries.BARRED_PATIENTS, hospital_id, names),
        )
        return [
            Candidate(patient, patient.phone in barred_phones or patient.id in barred_names)
            for patient in page
        ]

    async def roster_revision(self, hospital_id: str) -> int:
        place = kinds.hospital_place(hospital_id)
        async with self._working():
            found = await self._connection.get([place])
        return int(found[place].document.get("revision", 0)) if place in found else 0

    async def hospitals(self) -> Sequence[str]:
        async with self._working():
            answer = await self._connection.query(None, queries.HOSPITALS.query())
        return [document["hospitalId"] for document in answer.documents]

    async def add_do_not_call(self, entry: DoNotCall) -> None:
        place = kinds.DO_NOT_CALL.place(entry)

        async def plan() -> Plan[None]:
            known = await self._connection.get([place])
            return Plan(None, [] if place in known else self._bar(entry))

        await self._change(plan)

    async def on_do_not_call(self, hospital_id: str, patient_id: str, phone: str | None) -> bool:
        async with self._working():
            return bool(await self._connection.get(kinds.bars(hospital_id, patient_id, phone)))

    # rounds and executions

    async def open_round(self, round_: Round) -> Round:
        place, hospital = kinds.ROUNDS.place(round_), kinds.hospital_place(round_.hospital_id)

        async def plan() -> Plan[Round]:
            found = await self._connection.get([place])
            if place in found:
                return Plan(kinds.ROUNDS.from_document(found[place].document))
            return Plan(
                round_,
                [
                    self._changes.create(place, kinds.ROUNDS.to_document(round_)),
                    self._changes.merge(hospital, {"hospitalId": round_.hospital_id}, {"revision": 0}),
                ],
            )

        return await self._change(plan)

    async def round(self, hospital_id: str, round_id: str) -> Round | None:
        return await self._get(kinds.ROUNDS, hospital_id, round_id)

    async def rounds(self, hospital_id: str, *, limit: int = 50) -> Sequence[Round]:
        return await self._list(kinds.ROUNDS, queries.ROUNDS.query(hospital_id, limit=limit))

    async def unclosed_rounds(self) -> Sequence[Round]:
        return await self._list(kinds.ROUNDS, queries.UNCLOSED_ROUNDS.query(True))

    async def update_round(self, round_: Round) -> bool:
        def change(stored: Round) -> Round | None:
            if stored.version != round_.version:
                return None
            return replace(round_, version=round_.version + 1)

        return await self._replace(kinds.ROUNDS, change, round_.hospital_id, round_.id) is not None

    async def add_execution(self, execution: Execution) -> None:
        await self._put(kinds.EXECUTIONS, execution)

    async def executions(self, hospital_id: str, *, limit: int = 50) -> Sequence[Execution]:
        return await self._list(kinds.EXECUTIONS, queries.EXECUTIONS.query(hospital_id, limit=limit))

    # calls

    async def create_calls(self, calls: Sequence[Call]) -> int:
        """As the port says. A call's place is that of its (round, patient), so a second one cannot be stored.

        They are first taken to be new, which costs no read; only when that is refused is looked which are. Raises ValueError for
        a new call whose id is not that of its (round, patient).
        """
        mine = {
            kinds.CALLS.place_of(call.hospital_id, call_id(call.round_id, call.patient_id)): call
            for call in reversed(calls)
        }
        looked = any(kinds.CALLS.place(call) != place for place, call in mine.items())

        async def plan() -> Plan[int]:
            nonlocal looked
            found = await self._connection.get(mine, select=[MARK]) if looked else {}
            looked = True
            new = {place: call for place, call in mine.items() if place not in found}
            for place, call in new.items():
                if kinds.CALLS.place(call) != place:
                    raise ValueError(f"call {call.id}: the id is not that of its round and patient")
            writes = [
                self._changes.create(place, kinds.CALLS.to_document(call)) for place, call in new.items()
            ]
            return Plan(len(new), writes)

        return await self._change(plan)

    async def call(self, hospital_id: str, call_id: str) -> Call | None:
        return await self._get(kinds.CALLS, hospital_id, call_id)

    async def calls(
        self, hospital_id: str, round_id: str, *, after: str = "", limit: int = 1000, open_only: bool = False
    ) -> Sequence[Call]:
        if open_only:
            query = queries.OPEN_CALLS.query(hospital_id, round_id, True, after=after, limit=limit)
        else:
            query = queries.CALLS.query(hospital_id, round_id, after=after, limit=limit)
        return await self._list(kinds.CALLS, query)

    async def left_calls(
        self,
        hospital_id: str,
        round_id: str,
        *,
        since: datetime,
        after: Call | None = None,
        limit: int = 1000,
    ) -> Sequence[Call]:
        past = () if after is None else (left_at(after), after.id)
        query = queries.LEFT_CALLS.query(hospital_id, round_id, until=since, past=past, limit=limit)
        return await self._list(kinds.CALLS, query)

    async def count_calls(self, hospital_id: str, round_id: str) -> Mapping[tuple[str, str, str], int]:
        """As the port says, all of it as of one instant: a read for each kind of call there is, and one to count it."""
        tallies: list[str] = []
        read_time = None
        async with self._working():
            while True:
                after = tallies[-1] if tallies else ""
                query = queries.TALLIES.query(hospital_id, round_id, after=after, limit=1)
                answer = await self._connection.query(None, query, read_time=read_time)
                read_time = answer.read_time
                if not answer.documents:
                    break
                tallies.append(answer.documents[0]["tally"])
            counts = await asyncio.gather(
                *(
                    self._connection.count(
                        queries.TALLIED.query(hospital_id, round_id, tally), read_time=read_time
                    )
                    for tally in tallies
                )
            )
        keys = [tally.split("|", 2) for tally in tallies]
        return {
            (state, outcome, reason): count
            for (state, outcome, reason), count in zip(keys, counts, strict=True)
        }

    async def claim_call(
        self, hospital_id: str, call_id: str, *, owner: str, now: datetime, lease_until: datetime
    ) -> Call | None:
        def change(call: Call) -> Call | None:
            if not claimable(call, owner, now):
                return None
            claimed = replace(call, state=CallState.CALLING, lease_owner=owner, lease_until=lease_until)
            return replace(claimed, version=call.version + 1)

        return await self._replace(kinds.CALLS, change, hospital_id, call_id)

    async def renew_lease(self, hospital_id: str, call_id: str, *, owner: str, lease_until: datetime) -> bool:
        def change(call: Call) -> Call | None:
            if call.state is not CallState.CALLING or call.lease_owner != owner:
                return None
            return replace(call, lease_until=lease_until)

        return await self._replace(kinds.CALLS, change, hospital_id, call_id) is not None

    async def update_call(self, call: Call) -> bool:
        def change(stored: Call) -> Call | None:
            if stored.version != call.version:
                return None
            return replace(keeping_renewal(call, stored), version=call.version + 1)

        return await self._replace(kinds.CALLS, change, call.hospital_id, call.id) is not None

    # attempts and what they leave

    async def begin_attempt(self, attempt: Attempt, guard: Guard) -> BeginResult:
        async with self._working():
            return await self._attempts.begin(attempt, guard)

    async def attempt(self, attempt_id: str) -> Attempt | None:
        return await self._get(kinds.ATTEMPTS, attempt_id)

    async def attempt_of_call_sid(self, call_sid: str) -> Attempt | None:
        found = await self._list(kinds.ATTEMPTS, queries.ATTEMPT_OF_CALL_SID.query(call_sid, limit=1))
        return found[0] if found else None

    async def attempts(self, hospital_id: str, call_id: str) -> Sequence[Attempt]:
        return await self._list(kinds.ATTEMPTS, queries.ATTEMPTS.query(hospital_id, call_id))

    async def open_attempts(self) -> Sequence[Attempt]:
        return await self._list(kinds.ATTEMPTS, queries.OPEN_ATTEMPTS.query(True))

    async def update_attempt(self, attempt: Attempt) -> bool:
        async with self._working():
            return await self._attempts.update(attempt)

    async def end_attempt(
        self,
        attempt: Attempt,
        *,
        interaction: Interaction,
        check_in: CheckIn | None = None,
        do_not_call: DoNotCall | None = None,
        alerts: Sequence[Alert] = (),
    ) -> bool:
        must_be_left_by(attempt, interaction, check_in, do_not_call, alerts)
        async with self._working():
            always = [self._written(kinds.INTERACTIONS, interaction)]
            if check_in is not None:
                always.append(self._written(kinds.CHECK_INS, check_in))
            new = {
                kinds.ALERTS.place(alert): [self._created(kinds.ALERTS, alert)] for alert in reversed(alerts)
            }
            if do_not_call is not None:
                new[kinds.DO_NOT_CALL.place(do_not_call)] = self._bar(do_not_call)
            return await self._attempts.update(attempt, new=new, always=always)

    async def check_in(self, hospital_id: str, attempt_id: str) -> CheckIn | None:
        return await self._get(kinds.CHECK_INS, hospital_id, attempt_id)

    async def interactions(
        self, hospital_id: str, patient_id: str | None = None, *, round_id: str | None = None
    ) -> Sequence[Interaction]:
        narrowing = {} if round_id is None else {"roundId": round_id}
        shapes = queries.INTERACTIONS if patient_id is None else queries.INTERACTIONS_OF_PATIENT
        parent = None if patient_id is None else kinds.patient_place(hospital_id, patient_id)
        query = shapes[tuple(narrowing)].query(hospital_id, *narrowing.values())
        return await self._list(kinds.INTERACTIONS, query, parent)

    async def add_alert(self, alert: Alert) -> bool:
        place = kinds.ALERTS.place(alert)

        async def plan() -> Plan[bool]:
            known = place in await self._connection.get([place], select=[MARK])
            return Plan(False) if known else Plan(True, [self._created(kinds.ALERTS, alert)])

        return await self._change(plan)

    async def alerts(
        self, hospital_id: str, *, open_only: bool = False, round_id: str | None = None
    ) -> Sequence[Alert]:
        narrowing: dict[str, Any] = {} if round_id is None else {"roundId": round_id}
        if open_only:
            narrowing["open"] = True
        query = queries.ALERTS[tuple(narrowing)].query(hospital_id, *narrowing.values())
        return await self._list(kinds.ALERTS, query)

    async def acknowledge_alert(self, hospital_id: str, alert_id: str, *, by: str, at: datetime) -> bool:
        def change(alert: Alert) -> Alert | None:
            if alert.acknowledged_at is not None:
                return None
            return replace(alert, acknowledged_at=at, acknowledged_by=by)

        return await self._replace(kinds.ALERTS, change, hospital_id, alert_id) is not None

    # all of it, for carrying it to another store

    async def records(self, kind: type[R], *, after: R | None = None, limit: int = 1000) -> Sequence[R]:
        async with self._working():
            return await self._archiving.records(kind, after, limit)

    async def compare(self, kind: type[R], records: Sequence[R]) -> Comparison:
        async with self._working():
            return await self._archiving.compare(kind, records)

    async def restore(self, kind: type[R], records: Sequence[R]) -> int:
        async with self._working():
            return await self._archiving.restore(kind, records)

    # the shapes that most methods share

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """Whatever the store was asked for is done in this, so that closing waits for it and documents can be named."""
        with self._connection.working():
            await self._secret.ready()
            yield

    async def _get(self, kind: Kind[T], *key: str) -> T | None:
        place = kind.place_of(*key)
        async with self._working():
            found = await self._connection.get([place])
        return kind.from_document(found[place].document) if place in found else None

    async def _list(self, kind: Kind[T], query: Any, parent: Place | None = None) -> list[T]:
        async with self._working():
            answer = await self._connection.query(parent, query)
        return [kind.from_document(document) for document in answer.documents]

    async def _on_list(self, shape: queries.Shape, hospital_id: str, values: Sequence[str]) -> set[str]:
        """Which of the values have an entry on the do-not-call list."""
        size = queries.LARGEST_CHOICE
        parts = [values[start : start + size] for start in range(0, len(values), size)]
        async with self._working():
            answers = await asyncio.gather(
                *(self._connection.query(None, shape.query(hospital_id, choice=part)) for part in parts)
            )
        return {document[shape.among] for answer in answers for document in answer.documents}

    async def _change(self, plan: Callable[[], Awaitable[Plan[T]]]) -> T:
        async with self._working():
            return await self._changes.carry_out(plan)

    async def _replace(self, kind: Kind[T], change: Callable[[T], T | None], *key: str) -> T | None:
        """Store what `change` makes of the record; that, or None when there is no record or nothing is to be changed."""
        place = kind.place_of(*key)

        async def plan() -> Plan[T | None]:
            found = await self._connection.get([place])
            after = change(kind.from_document(found[place].document)) if place in found else None
            if after is None:
                return Plan(None)
            return Plan(after, [self._changes.replace(place, kind.to_document(after), found[place])])

        return await self._change(plan)

    async def _put(self, kind: Kind[T], record: T) -> None:
        async def plan() -> Plan[None]:
            return Plan(None, [self._written(kind, record)])

        await self._change(plan)

    def _written(self, kind: Kind[T], record: T) -> Any:
        return self._changes.put(kind.place(record), kind.to_document(record))

    def _created(self, kind: Kind[T], record: T) -> Any:
        return self._changes.create(kind.place(record), kind.to_document(record))

    def _bar(self, entry: DoNotCall) -> list[Any]:
        return [
            self._created(kinds.DO_NOT_CALL, entry),
            *(
                self._changes.put(place, document)
                for place, document in kinds.DO_NOT_CALL.beside(entry).items()
            ),
        ]


def _changes(
    patients: Sequence[Patient], places: Sequence[Place], found: Mapping[Place, Found]
) -> tuple[dict[Place, Patient], PutCounts]:
    """What is to be written, by place, and the counts. The later of two with one id is what counts."""
    stored = {place: kinds.PATIENTS.from_document(one.document) for place, one in found.items()}
    changes: dict[Place, Patient] = {}
    created = updated = unchanged = 0
    for place, patient in zip(places, patients, strict=True):
        before = changes.get(place) or stored.get(place)
        if before is not None and before.opted_out:
            patient = replace(patient, opted_out=True)
        if patient == before:
            unchanged += 1
            continue
        changes[place] = patient
        created += before is None
        updated += before is not None
    return changes, PutCounts(created, updated, unchanged)
