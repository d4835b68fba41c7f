"""Attempts in Firestore: who may dial, and what an attempt leaves.

Invariant 1 is held by the documents of `lines`: one for the patient, one for the number, created with the intent to dial and
deleted with its end. Creating one that is there is refused, so no two attempts in flight ever share a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from careflow.core.attempts import Attempt
from careflow.core.calls import CallState, attempt_id
from careflow.core.patients import SkipReason
from careflow.ports import Began, BeginResult, Guard
from careflow.store import firestore_kinds as kinds
from careflow.store.firestore_changes import Changes, Plan
from careflow.store.firestore_connection import Connection, Found
from careflow.store.firestore_places import Place


class Attempts:
    """What `ports.Store` does with attempts."""

    def __init__(self, connection: Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes

    async def begin(self, attempt: Attempt, guard: Guard) -> BeginResult:
        """`ports.Store.begin_attempt`.

        A transaction holds what is read and not written: the call, the patient, the do-not-call list. What is created (the
        attempt and its lines) is not read in it, so that those who want the same line do not wait for one another's locks:
        all but the first are refused when they commit, and look again.
        """
        transaction = b""

        async def plan() -> Plan[BeginResult]:
            nonlocal transaction
            place, lines = kinds.ATTEMPTS.place(attempt), kinds.lines(attempt)
            found = await self._connection.get([place, *lines])
            if place in found:
                return Plan(BeginResult(Began.EXISTS, kinds.ATTEMPTS.from_document(found[place].document)))
            call = kinds.CALLS.place_of(attempt.hospital_id, attempt.call_id)
            patient = kinds.patient_place(attempt.hospital_id, attempt.patient_id)
            bars = kinds.bars(attempt.hospital_id, attempt.patient_id, attempt.phone)
            held, transaction = await self._connection.get_locked([call, patient, *bars], transaction)
            try:
                refusal = _call_over(attempt, held.get(call))
                if refusal is None and len(found) > 0:
                    refusal = BeginResult(Began.LINE_BUSY)
                if refusal is None:
                    refusal = await self._ask(attempt, guard, held.pop(patient, None), held, transaction)
            except BaseException:
                await self._connection.roll_back(transaction)
                raise
            if refusal is not None:
                return Plan(refusal, transaction=transaction)
            beside = kinds.ATTEMPTS.beside(attempt).items()
            return Plan(
                BeginResult(Began.BEGUN, attempt),
                [
                    self._changes.create(place, kinds.ATTEMPTS.to_document(attempt)),
                    *(self._changes.create(other, document) for other, document in beside),
                ],
                transaction,
            )

        return await self._changes.carry_out(plan)

    async def update(
        self,
        attempt: Attempt,
        *,
        new: Mapping[Place, Sequence[Any]] | None = None,
        always: Sequence[Any] = (),
    ) -> bool:
        """`ports.Store.update_attempt`, with more writes in the same commit: those of each place in `new` unless one is there."""
        new = new or {}

        async def plan() -> Plan[bool]:
            place = kinds.ATTEMPTS.place(attempt)
            found = await self._connection.get([place, *new])
            stored = _current(attempt, found.get(place))
            if stored is None:
                return Plan(False)
            after = replace(attempt, version=attempt.version + 1)
            before, beside = kinds.ATTEMPTS.beside(stored), kinds.ATTEMPTS.beside(after)
            taken = [other for other in beside if other not in before]
            if taken and await self._connection.get(taken):
                return Plan(False)  # the call SID is another attempt's
            return Plan(
                True,
                [
                    self._changes.replace(place, kinds.ATTEMPTS.to_document(after), found[place]),
                    *(self._changes.create(other, beside[other]) for other in taken),
                    *(self._changes.delete(other) for other in before if other not in beside),
                    *always,
                    *(write for other, writes in new.items() if other not in found for write in writes),
                ],
            )

        return await self._changes.carry_out(plan)

    async def _ask(
        self,
        attempt: Attempt,
        guard: Guard,
        stored: Found | None,
        held: Mapping[Place, Found],
        transaction: bytes,
    ) -> BeginResult | None:
        """The guard's refusal, or None. Of what is held only the call and the entries of the do-not-call list are left."""
        if stored is None:
            return BeginResult(Began.REFUSED, reason=SkipReason.INACTIVE.value)
        patient = kinds.PATIENTS.from_document(stored.document)
        barred = any(place.collection == kinds.BARS for place in held)
        if not barred and patient.phone != attempt.phone:
            now = kinds.bars(attempt.hospital_id, None, patient.phone)
            barred = bool(await self._connection.get_held(now, transaction))
        reason = guard(patient, barred)
        return None if reason is None else BeginResult(Began.REFUSED, reason=reason)


def _call_over(attempt: Attempt, stored: Found | None) -> BeginResult | None:
    """Why the attempt is not the one its call is waiting for, if so. Its id says which of the call's attempts it is."""
    if stored is not None:
        call = kinds.CALLS.from_document(stored.document)
        if (
            call.state is CallState.CALLING
            and call.attempt_id == attempt.id == attempt_id(call, attempt.number)
            and (call.round_id, call.patient_id) == (attempt.round_id, attempt.patient_id)
        ):
            return None
    return BeginResult(Began.CALL_OVER)


def _current(attempt: Attempt, stored: Found | None) -> Attempt | None:
    """What is stored, if it is of this hospital and version."""
    if stored is None:
        return None
    known = kinds.ATTEMPTS.from_document(stored.document)
    return known if (known.hospital_id, known.version) == (attempt.hospital_id, attempt.version) else None
