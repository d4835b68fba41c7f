"""Every query the store asks of Firestore, declared as data; the indexes that they need are derived from it.

Firestore refuses a query without its index, and the emulator does not. So a query cannot be asked unless it stands here,
and what stands here is what `infra/firestore/firestore.indexes.json` is checked against.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.cloud.firestore_v1.types import StructuredQuery

from careflow.store import firestore_kinds as kinds
from careflow.store.firestore_values import value_of

_Query = StructuredQuery.pb()
_Field = StructuredQuery.FieldFilter.Operator
_AND = StructuredQuery.CompositeFilter.Operator.AND
_ASCENDING, _DESCENDING = StructuredQuery.Direction.ASCENDING, StructuredQuery.Direction.DESCENDING

LARGEST_CHOICE = 30  # values in one `in` or `array-contains-any` (reference/google-cloud section 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One query without its values.

    `equal` fields have one value each, the field `among` any of several, the list `holding` at least one of several. `order`
    names fields, with a minus for falling; with `after` the first of them is greater than a value, with `until` not greater
    than one, and `past` are values of them all, of the document after which to begin. `group` asks all
    collections of that id, wherever they are, else the one directly under the parent. `select` is what comes of a
    document, all if empty.
    """

    collection: str
    equal: tuple[str, ...] = ()
    among: str = ""
    holding: str = ""
    order: tuple[str, ...] = ()
    group: bool = False
    select: tuple[str, ...] = ()

    def query(
        self,
        *equal: Any,
        choice: Sequence[Any] = (),
        after: Any = None,
        until: Any = None,
        past: Sequence[Any] = (),
        limit: int | None = None,
    ) -> Any:
        """The query, as Firestore's StructuredQuery. `choice` are the values for `among` or `holding`."""
        query = _Query()
        query.from_.add(collection_id=self.collection, all_descendants=self.group)
        filters = [
            (name, _Field.EQUAL, value_of(value)) for name, value in zip(self.equal, equal, strict=True)
        ]
        if self.among:
            filters.append((self.among, _Field.IN, value_of(list(choice))))
        if self.holding:
            filters.append((self.holding, _Field.ARRAY_CONTAINS_ANY, value_of(list(choice))))
        if after is not None:
            filters.append((self.order[0], _Field.GREATER_THAN, value_of(after)))
        if until is not None:
            filters.append((self.order[0], _Field.LESS_THAN_OR_EQUAL, value_of(until)))
        if filters:
            query.where.composite_filter.op = _AND
        for name, operator, value in filters:
            one = query.where.composite_filter.filters.add().field_filter
            one.field.field_path = name
            one.op = operator
            one.value.CopyFrom(value)
        for name in self.order:
            falling = name.startswith("-")
            order = query.order_by.add(direction=_DESCENDING if falling else _ASCENDING)
            order.field.field_path = name.removeprefix("-")
        for value in past:
            query.start_at.values.add().CopyFrom(value_of(value))  # without `before`: after it
        for name in self.select:
            query.select.fields.add(field_path=name)
        if limit is not None:
            query.limit.value = limit
        return query

    def indexed(self) -> tuple[tuple[str, str], ...]:
        """The fields of the index that answers it, each with ASCENDING, DESCENDING or CONTAINS."""
        return (
            *((name, "ASCENDING") for name in (*self.equal, *filter(None, [self.among]))),
            *((name, "CONTAINS") for name in filter(None, [self.holding])),
            *(
                (name.removeprefix("-"), "DESCENDING" if name[0] == "-" else "ASCENDING")
                for name in self.order
            ),
        )


def walk(collection: str, *, group: bool, after: str, limit: int) -> Any:
    """A page of a collection (`group`: of all collections of that id) by document name, which needs no index.

    It begins after the document of that full name, or at the first if it is empty.
    """
    query = Shape(collection=collection, order=("__name__",), group=group).query(limit=limit)
    if after:
        query.start_at.values.add(reference_value=after)  # without `before`: after it
    return query


PATIENTS = Shape(collection="patients", equal=("hospitalId",), order=("id",))
CANDIDATES = Shape(collection="patients", equal=("hospitalId",), holding="scheduleKeys", order=("id",))
BARRED_PHONES = Shape(collection="doNotCall", equal=("hospitalId",), among="phone", select=("phone",))
BARRED_PATIENTS = Shape(
    collection="doNotCall", equal=("hospitalId",), among="patientId", select=("patientId",)
)
HOSPITALS = Shape(collection=kinds.ROSTER_REVISIONS.collection, order=("hospitalId",), select=("hospitalId",))
ROUNDS = Shape(collection="rounds", equal=("hospitalId",), order=("-windowStart", "-id"))
UNCLOSED_ROUNDS = Shape(collection="rounds", equal=("open",), order=("windowStart", "id"))
EXECUTIONS = Shape(collection="executions", equal=("hospitalId",), order=("-receivedAt", "-id"))
CALLS = Shape(collection="calls", equal=("hospitalId", "roundId"), order=("id",))
OPEN_CALLS = Shape(collection="calls", equal=("hospitalId", "roundId", "open"), order=("id",))
# Rising instants at one place of an index are a hot spot from 500 writes a second on (reference/google-cloud section 3). Here
# the place is a round's, and what rises there are its leases: a claim, and a renewal every 20 s, of each call in flight.
LEFT_CALLS = Shape(collection="calls", equal=("hospitalId", "roundId"), order=("leftAt", "id"))
TALLIES = Shape(
    collection="calls", equal=("hospitalId", "roundId"), order=("tally",), select=("tally",)
)  # which there are; walked from one to the next greater
TALLIED = Shape(collection="calls", equal=("hospitalId", "roundId", "tally"))  # counted, never listed
ATTEMPTS = Shape(collection="attempts", equal=("hospitalId", "callId"), order=("number",))
OPEN_ATTEMPTS = Shape(collection="attempts", equal=("open",), order=("intendedAt", "id"))
ATTEMPT_OF_CALL_SID = Shape(collection="attempts", equal=("callSid",))


def _by_time(
    collection: str, time: str, *narrowings: tuple[str, ...], group: bool = False
) -> dict[Any, Shape]:
    return {
        fields: Shape(collection=collection, equal=("hospitalId", *fields), order=(time, "id"), group=group)
        for fields in narrowings
    }


# By what they are narrowed by, beside the hospital.
ALERTS: Mapping[tuple[str, ...], Shape] = _by_time(
    "alerts", "raisedAt", (), ("open",), ("roundId",), ("roundId", "open")
)
INTERACTIONS_OF_PATIENT: Mapping[tuple[str, ...], Shape] = _by_time(
    "interactions", "startedAt", (), ("roundId",)
)
INTERACTIONS: Mapping[tuple[str, ...], Shape] = _by_time(
    "interactions", "startedAt", (), ("roundId",), group=True
)

SHAPES: tuple[Shape, ...] = (
    *(PATIENTS, CANDIDATES, BARRED_PHONES, BARRED_PATIENTS, HOSPITALS, ROUNDS, UNCLOSED_ROUNDS, EXECUTIONS),
    *(CALLS, OPEN_CALLS, LEFT_CALLS, TALLIES, TALLIED, ATTEMPTS, OPEN_ATTEMPTS, ATTEMPT_OF_CALL_SID),
    *(*ALERTS.values(), *INTERACTIONS_OF_PATIENT.values(), *INTERACTIONS.values()),
)


def indexes() -> dict[str, Any]:
    """The content of `firestore.indexes.json`, as gcloud, Firebase and Terraform take it.

    A query over several fields needs a composite index. Firestore indexes every single field too unless told otherwise, which
    costs money and makes rising instants a hot spot; so that is switched off for all fields, but those that a query names alone.
    """
    composite = {
        (shape.collection, shape.group, shape.indexed()) for shape in SHAPES if len(shape.indexed()) > 1
    }
    single = sorted(
        {(shape.collection, *shape.indexed()[0]) for shape in SHAPES if len(shape.indexed()) == 1}
    )
    collections = sorted({kind.collection for kind in kinds.KINDS} | set(kinds.AIDS))
    return {
        "indexes": [
            {
                "collectionGroup": collection,
                "queryScope": "COLLECTION_GROUP" if group else "COLLECTION",
                "fields": [
                    {"fieldPath": name, "arrayConfig" if way == "CONTAINS" else "order": way}
                    for name, way in fields
                ],
            }
            for collection, group, fields in sorted(composite)
        ],
        "fieldOverrides": [
            *({"collectionGroup": name, "fieldPath": "*", "indexes": []} for name in collections),
            *(
                {
                    "collectionGroup": collection,
                    "fieldPath": name,
                    "indexes": [{"order": way, "queryScope": "COLLECTION"}],
                }
                for collection, name, way in single
            ),
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(indexes(), indent=2) + "\n")
