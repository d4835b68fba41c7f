"""Any record survives its document."""

from __future__ import annotations

import json
import typing
from datetime import UTC, datetime, time, timedelta, timezone
from enum import Enum

import pytest
from google.cloud.firestore_v1.types import Document
from hypothesis import given
from hypothesis import strategies as st

from careflow.core.attempts import Attempt
from careflow.core.calls import Call
from careflow.core.checkins import Alert, CheckIn, Interaction
from careflow.core.patients import DoNotCall, Patient, RosterRevision
from careflow.core.rounds import Execution, Round
from careflow.store import codec
from careflow.store.firestore_kinds import KINDS
from careflow.store.firestore_values import read_fields, write_fields

CODECS = {
    Patient: codec.PATIENT,
    DoNotCall: codec.DO_NOT_CALL,
    Round: codec.ROUND,
    Execution: codec.EXECUTION,
    Call: codec.CALL,
    Attempt: codec.ATTEMPT,
    CheckIn: codec.CHECK_IN,
    Interaction: codec.INTERACTION,
    Alert: codec.ALERT,
    RosterRevision: codec.ROSTER_REVISION,
}


def values(hint):
    """Any value of the type, with instants in UTC and (text, number) pairs of distinct texts."""
    arguments = typing.get_args(hint)
    if hint is datetime:
        return st.datetimes(timezones=st.just(UTC))
    if hint is time:
        return st.times()
    if hint is int:
        return st.integers(-(2**63), 2**63 - 1)  # what every store takes
    if type(None) in arguments:
        return st.none() | values(next(item for item in arguments if item is not type(None)))
    if typing.get_origin(hint) is frozenset:
        return st.frozensets(values(arguments[0]), max_size=3)
    if typing.get_origin(hint) is tuple and typing.get_origin(arguments[0]) is tuple:
        return st.dictionaries(st.text(max_size=8), values(int), max_size=3).map(lambda it: tuple(it.items()))
    if typing.get_origin(hint) is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if hasattr(hint, "__dataclass_fields__"):
        return records(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    return st.from_type(hint)


def records(kind):
    return st.builds(kind, **{name: values(hint) for name, hint in typing.get_type_hints(kind).items()})


@pytest.mark.parametrize("kind", CODECS)
@given(data=st.data())
def test_any_record_survives_its_document(kind, data):
    record = data.draw(records(kind))
    assert CODECS[kind].loads(CODECS[kind].dumps(record)) == record


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.collection)
@given(data=st.data())
def test_any_record_survives_its_firestore_document(kind, data):
    record = data.draw(records(kind.codec.kind))
    stored = Document.pb()()
    write_fields(stored.fields, kind.to_document(record))
    assert (
        kind.from_document(read_fields(Document.pb().FromString(stored.SerializeToString()).fields)) == record
    )


def test_documents_are_camel_case_with_readable_values():
    entry = DoNotCall(
        hospital_id="h1",
        phone="+12125550123",
        patient_id=None,
        attempt_id="x-1",
        since=datetime(2026, 11, 23, 8, tzinfo=timezone(timedelta(hours=-5))),
    )
    assert json.loads(codec.DO_NOT_CALL.dumps(entry)) == {
        "hospitalId": "h1",
        "phone": "+12125550123",
        "patientId": None,
        "attemptId": "x-1",
        "since": "2026-11-23T13:00:00+00:00",
    }


def test_a_document_of_another_version_is_read_with_defaults_and_without_strangers():
    document = {
        "id": "p1",
        "hospitalId": "h1",
        "givenName": "A",
        "familyName": "B",
        "timeZone": "UTC",
        "faxes": 3,
    }
    patient = codec.PATIENT.from_document(document)
    assert (patient.id, patient.language, patient.consent) == ("p1", "en", False)


def test_a_document_that_lacks_what_is_needed_names_the_keys():
    with pytest.raises(ValueError, match="Patient document lacks familyName, timeZone"):
        codec.PATIENT.from_document({"id": "p1", "hospitalId": "h1", "givenName": "A"})


def test_an_instant_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="aware"):
        codec.DO_NOT_CALL.dumps(
            DoNotCall(hospital_id="h", phone="p", patient_id=None, attempt_id="x", since=datetime(2026, 1, 1))  # noqa: DTZ001
        )
