"""The roster import: every resource in its place, and at the end only patients that are whole.

Two passes. The first reads the files one resource at a time, checks each that rounds use against the R4 models, and keeps
what matters of it with its patient. The second puts the patients together. A patient of whom anything was refused is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from careflow.core.patients import Medication, Patient
from careflow.fhir.codes import Json, problems
from careflow.fhir.conditions import Condition, Watch, current_condition, symptoms, watch_table
from careflow.fhir.files import Broken, Found, read
from careflow.fhir.medicines import is_taken, medication, merged, named
from careflow.fhir.notes import Note, Refused, RosterDefaults, RosterReading
from careflow.fhir.people import read_patient
from careflow.fhir.standing import (
    FOREVER,
    Decision,
    Enrolment,
    Hold,
    Visit,
    consented,
    decision,
    enrolment,
    hold,
    is_today,
    visit,
)

_HOUR_OF_SLOT = {"morning": 8, "noon": 12, "evening": 20}
REPORTED_EVERY = 200  # resources: a fraction of a second
_SUBJECTS = {
    "MedicationRequest": "subject",
    "Condition": "subject",
    "CarePlan": "subject",
    "Flag": "subject",
    "Consent": "patient",
    "Appointment": "participant",
}


@dataclass(frozen=True, slots=True)
class _Order:
    """A current MedicationRequest; its medicine's name may be in a Medication that is read later.

    `found` is without its Bundle's names: there can be thousands, and one medicine would keep them all.
    """

    found: Found
    medication: str | None


_Part = _Order | Condition | Decision | Hold | Enrolment | Visit


@dataclass(slots=True)
class _Entry:
    """One patient while the files are read. `parts` by "Type/id", so that a repeated resource replaces the earlier one."""

    file: str = ""
    patient: Patient | None = None
    own_schedule: bool = False
    parts: dict[str, tuple[str, _Part | None]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    refused: bool = False


def import_paths(
    paths: Sequence[Path],
    *,
    hospital_id: str,
    defaults: RosterDefaults,
    now: datetime,
    progress: Callable[[int, int], None] = lambda resources, patients: None,
) -> RosterReading:
    """The patients in these files and folders (JSON and NDJSON, also gzipped), as they stand at `now`.

    Nothing is raised for what the files hold: everything refused or defaulted is a Note. Of a patient or another resource
    that comes twice, the last counts. When a line of NDJSON or a Bundle entry cannot be read, no patient is taken at all:
    nobody knows whose it was. `progress` is told now and then how many resources were read and how many patients are among
    them; what it raises ends the import.
    """
    gathering = _Gathering(hospital_id, defaults, now, watch_table())
    for number, item in enumerate(read(paths), start=1):
        gathering.take(item)
        if number % REPORTED_EVERY == 0:
            progress(number, gathering.patients)
    return gathering.finish()


class _Gathering:
    def __init__(
        self, hospital_id: str, defaults: RosterDefaults, now: datetime, table: Sequence[Watch]
    ) -> None:
        self._hospital_id = hospital_id
        self._defaults = defaults
        self._now = now
        self._table = table
        self._entries: dict[str, _Entry] = {}
        self._medications: dict[str, Json] = {}
        self._ignored: Counter[str] = Counter()
        self._notes: list[Note] = []
        self._export_is_broken = False

    @property
    def patients(self) -> int:
        """How many patients there are so far, whole or not."""
        return len(self._entries)

    def take(self, item: Found | Broken | Note) -> None:
        match item:
            case Note():
                self._notes.append(item)
            case Broken():
                self._notes.append(item.note)
                self._export_is_broken |= item.export
            case Found():
                self._take_resource(item)

    def _take_resource(self, found: Found) -> None:
        kind = str(found.resource["resourceType"])
        if kind == "Patient":
            self._take_patient(found)
        elif kind == "Medication":
            self._medications[found.reference] = found.resource
        elif kind in _SUBJECTS:
            self._take_part(found, kind)
        else:
            self._ignored[kind if kind.isalpha() and len(kind) < 40 else "?"] += 1

    def _take_patient(self, found: Found) -> None:
        if found.reference.endswith("/?"):
            self._notes.append(
                _note(found, "id", "is missing or not an R4 id", "the patient was left out", True)
            )
            return
        entry = self._entries.setdefault(found.reference, _Entry())
        if entry.file:
            entry.notes.append(_note(found, "", "comes a second time", "the last one counts"))
        entry.file = found.file
        resource = {**found.resource, "id": found.reference.partition("/")[2]}

        def tell(where: str, problem: str, done: str) -> None:
            entry.notes.append(_note(found, where, problem, done))

        with _Refusing(entry, found):
            _check(resource)
            entry.patient = read_patient(
                resource, hospital_id=self._hospital_id, defaults=self._defaults, now=self._now, tell=tell
            )
            # An extension without hour or time says nothing about when: the medicines still do.
            entry.own_schedule = bool(entry.patient.hours or entry.patient.times)

    def _take_part(self, found: Found, kind: str) -> None:
        subjects = list(_subjects(found, kind))
        if not subjects:
            if kind != "Appointment":
                problem = "does not say whose it is in a way that can be followed"
                self._notes.append(_note(found, _SUBJECTS[kind], problem, "it was left out", True))
            return
        for subject in subjects:
            entry = self._entries.setdefault(subject, _Entry())
            part: _Part | None = None
            with _Refusing(entry, found):
                _check(found.resource)
                part = self._part(found, kind)
            key = f"{found.file}#{len(entry.parts)}" if found.reference.endswith("/?") else found.reference
            if key in entry.parts and entry.parts[key] != (found.file, part):
                entry.notes.append(_note(found, "", "comes a second time", "the last one counts"))
            entry.parts[key] = (found.file, part)

    def _part(self, found: Found, kind: str) -> _Part | None:
        resource, now = found.resource, self._now
        readers: Mapping[str, Callable[[], _Part | None]] = {
            "Condition": lambda: current_condition(resource),
            "Consent": lambda: decision(resource, now),
            "Flag": lambda: hold(resource, now),
            "CarePlan": lambda: enrolment(resource, now),
            "Appointment": lambda: visit(resource),
            "MedicationRequest": lambda: (
                _Order(replace(found, entries={}), found.resolve(resource.get("medicationReference")))
                if is_taken(resource, now)
                else None
            ),
        }
        return readers[kind]()

    def finish(self) -> RosterReading:
        patients: list[Patient] = []
        for reference, entry in sorted(self._entries.items()):
            if patient := self._finished(reference, entry):
                patients.append(patient)
        return RosterReading(
            patients=patients, notes=self._notes, ignored=dict(sorted(self._ignored.items()))
        )

    def _finished(self, reference: str, entry: _Entry) -> Patient | None:
        """The patient put together, its notes handed over; None when it is not whole."""
        patient = entry.patient
        if not entry.file:
            files = sorted({file for file, _ in entry.parts.values()} or {note.file for note in entry.notes})
            problem = f"is spoken of by {max(len(entry.parts), 1)} resource(s) but is not in this import"
            self._notes.append(
                Note(
                    file=files[0],
                    reference=reference,
                    field="",
                    problem=problem,
                    done="they were left out",
                    refused=True,
                )
            )
            return None
        if patient is not None and not entry.refused:
            patient = self._assembled(reference, entry, patient)
        if patient is not None and not entry.refused and self._export_is_broken:
            problem = "may lack what an unreadable part of the import would have said"
            _add(entry, reference, "", problem, "the patient was left out", refused=True)
        if entry.refused or patient is None:
            self._notes.extend(note for note in entry.notes if note.refused)
            return None
        self._notes.extend(entry.notes)
        return patient

    def _assembled(self, reference: str, entry: _Entry, patient: Patient) -> Patient:
        parts = [part for _, part in entry.parts.values() if part is not None]
        medications = merged(list(self._medicines(entry, parts)))
        conditions = [part for part in parts if isinstance(part, Condition)]
        critical, warning = symptoms(conditions, self._table)
        holds = [part for part in parts if isinstance(part, Hold)]
        enrolments = [part for part in parts if isinstance(part, Enrolment)]
        consent = consented(part for part in parts if isinstance(part, Decision))
        if consent is None:
            consent = self._defaults.consent
            taken = "given" if consent else "not given"
            _add(entry, reference, "Consent(automated-calls)", "is missing", f"consent was taken as {taken}")
        if any(is_today(part, patient.time_zone, self._now) for part in parts if isinstance(part, Visit)):
            _add(entry, reference, "Appointment.start", "is today", "the patient stays in today's rounds")
        return replace(
            patient,
            active=patient.active and (not enrolments or any(plan.running for plan in enrolments)),
            consent=consent,
            opted_out=any(one.opted_out for one in holds),
            paused_until=_paused_until(patient, holds, enrolments),
            hours=patient.hours if entry.own_schedule else _hours(medications),
            medications=medications,
            conditions=tuple(sorted({one.name for one in conditions})),
            critical_symptoms=critical,
            warning_symptoms=warning,
        )

    def _medicines(self, entry: _Entry, parts: Sequence[_Part]) -> Iterator[Medication]:
        for part in parts:
            if not isinstance(part, _Order):
                continue
            with _Refusing(entry, part.found):
                name = named(part.found.resource, self._medicine(part))
                one, unclear = medication(part.found.resource, name, self._now)
                if unclear:
                    done = "no round asks for it by name of the day"
                    entry.notes.append(_note(part.found, "dosageInstruction.timing", unclear, done))
                yield one

    def _medicine(self, order: _Order) -> Json | None:
        """The Medication that the order refers to, contained (R4 references, 2.3.0.5) or elsewhere in the import."""
        target = order.found.resource.get("medicationReference", {}).get("reference", "")
        for one in order.found.resource.get("contained", []):
            if target == f"#{one.get('id')}":
                contained: Json = one
                return contained
        return self._medications.get(order.medication or "")


class _Refusing:
    """Turns a Refused inside into a note, and the patient into one that is left out."""

    def __init__(self, entry: _Entry, found: Found) -> None:
        self._entry = entry
        self._found = found

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Refused):
            return False
        self._entry.refused = True
        done = "the patient was left out"
        self._entry.notes.append(_note(self._found, error.field, error.problem, done, True))
        return True


def _check(resource: Json) -> None:
    """Raises Refused with the first thing that R4 does not allow."""
    for where, problem in problems(resource):
        raise Refused(where, problem)


def _subjects(found: Found, kind: str) -> Iterator[str]:
    """The patients that the resource is about."""
    value = found.resource.get(_SUBJECTS[kind])
    actors = (
        [one.get("actor") for one in value if isinstance(one, dict)] if isinstance(value, list) else [value]
    )
    for actor in actors:
        target = found.resolve(actor)
        if target is not None and target.startswith("Patient/"):
            yield target


def _hours(medications: Sequence[Medication]) -> frozenset[int]:
    """The rounds of a patient who has no wishes: the morning, and every round that a medicine belongs to."""
    return frozenset({8} | {_HOUR_OF_SLOT[slot] for one in medications for slot in one.slots})


def _paused_until(
    patient: Patient, holds: Sequence[Hold], enrolments: Sequence[Enrolment]
) -> datetime | None:
    ends = [one.until for one in holds if not one.opted_out]
    if patient.paused_until is not None:
        ends.append(patient.paused_until)
    if any(plan.on_hold for plan in enrolments) and not any(
        plan.running and not plan.on_hold for plan in enrolments
    ):
        ends.append(FOREVER)
    return max(ends, default=None)


def _note(found: Found, where: str, problem: str, done: str, refused: bool = False) -> Note:
    return Note(
        file=found.file, reference=found.reference, field=where, problem=problem, done=done, refused=refused
    )


def _add(
    entry: _Entry, reference: str, where: str, problem: str, done: str, *, refused: bool = False
) -> None:
    entry.refused |= refused
    entry.notes.append(
        Note(file=entry.file, reference=reference, field=where, problem=problem, done=done, refused=refused)
    )
