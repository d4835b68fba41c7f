"""Whatever a file holds, the import ends, raises nothing, and takes patients whole or not at all."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.fhir.notes import RosterDefaults, RosterReading
from careflow.fhir.roster import import_paths
from careflow.sample import roster_path

NOW = datetime(2026, 11, 23, 13, 15, tzinfo=UTC)
SAMPLE = [entry["resource"] for entry in json.loads(roster_path().read_text())["entry"]]
FIRST = [one for one in SAMPLE[:60] if SAMPLE[0]["id"] in json.dumps(one)]
FIRST = json.loads(json.dumps(FIRST).replace("urn:uuid:", "Patient/"))

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5000)
    | st.floats()
    | st.text(max_size=8)
    | st.just("2026-11-23"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def read(content: bytes, name: str) -> RosterReading:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        defaults = RosterDefaults(time_zone="America/New_York")
        return import_paths([path], hospital_id="h", defaults=defaults, now=NOW)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A good patient with everything that belongs to it, and one value anywhere replaced or removed."""
    resources: Any = deepcopy(FIRST)
    *path, last = draw(st.sampled_from([place for place in places(resources) if len(place) > 1]))
    holder = resources
    for key in path:
        holder = holder[key]
    if draw(st.booleans()):
        holder[last] = draw(anything)
    else:
        del holder[last]
    return list(resources)


@given(resources=damaged())
@settings(max_examples=100, deadline=None)
def test_a_damaged_value_never_leaves_half_a_patient(resources: list[dict[str, Any]]) -> None:
    content = b"".join(json.dumps(one).encode() + b"\n" for one in resources)
    reading = read(content, "export.ndjson")
    assert len(reading.patients) <= 1
    for patient in reading.patients:
        assert patient.given_name
        assert patient.family_name
        assert ZoneInfo(patient.time_zone)
        assert patient.language in ("en", "es")
        assert patient.calling_from < patient.calling_until
        assert all(medication.name for medication in patient.medications)
    if not reading.patients:
        assert any(note.refused for note in reading.notes)


@given(
    content=st.binary(max_size=200), name=st.sampled_from(["a.json", "a.ndjson", "a.json.gz", "a.ndjson.gz"])
)
@settings(max_examples=100, deadline=None)
def test_no_bytes_make_an_import_fail(content: bytes, name: str) -> None:
    assert read(content, name).patients == []


@given(value=anything, kind=st.sampled_from(["transaction", "collection", "x"]))
@settings(max_examples=100, deadline=None)
def test_no_bundle_makes_an_import_fail(value: Any, kind: str) -> None:
    for entries in (value, [value], [{"resource": value}], [{"resource": {"resourceType": value}}]):
        document = {"resourceType": "Bundle", "type": kind, "entry": entries}
        assert read(json.dumps(document).encode(), "a.json").patients == []
