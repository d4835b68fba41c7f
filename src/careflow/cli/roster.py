"""`careflow roster`: patients in, and who is in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from careflow.cli.context import (
    DataDir,
    Hospital,
    Interrupted,
    Json,
    NotFound,
    Refused,
    clock_of,
    opened,
    same_place,
    settings_at,
)
from careflow.cli.output import count, local, plain, print_json, print_table
from careflow.cli.progress import Progress
from careflow.core.patients import Patient
from careflow.errors import StoreError
from careflow.ports import PutCounts, Store

if TYPE_CHECKING:
    from careflow.fhir.notes import RosterDefaults, RosterReading

app = App(
    name="roster",
    help="Import patients from FHIR R4, list them, show one.",
    default_parameter=Parameter(negative=()),
)


@app.command(name="import")
async def import_(
    *paths: Annotated[Path, Parameter(help="FHIR R4 Bundles (JSON), NDJSON, folders of either; .gz too.")],
    sample: Annotated[
        bool, Parameter(help="Import the 45 synthetic patients that ship with the project.")
    ] = False,
    assume_consent: Annotated[
        bool, Parameter(help="Take a patient without a Consent resource as having consented.")
    ] = False,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Import patients; importing again updates them. One line for each thing refused or defaulted."""
    from careflow.fhir.notes import RosterDefaults
    from careflow.sample import roster_path

    sources = [*paths, *((roster_path(),) if sample else ())]
    missing = [str(path) for path in sources if not path.exists()]
    if missing or not sources:
        raise Refused(
            f"not found: {', '.join(missing)}"
            if missing
            else "name a file or folder to import, or use --sample"
        )
    settings = settings_at(data_dir, hospital)
    defaults = RosterDefaults(time_zone=settings.time_zone, consent=assume_consent)
    with Progress(quiet=json) as progress:
        reading = await _read(sources, settings.hospital_id, defaults, clock_of(settings).now(), progress)
        for note in reading.notes:
            progress.happened(str(note))
        if not reading.patients:
            raise Refused(
                "no whole patient was found; the notes above say why",
                {"patients": 0, "notes": plain(reading.notes)},
            )
        async with opened(data_dir, hospital, create=True) as context:
            counts = await put(context.store, reading.patients, progress)
    if json:
        print_json({"patients": len(reading.patients), **plain(counts), "notes": plain(reading.notes)})
    else:
        print(
            f"{count(len(reading.patients), 'patient')}: {counts.created:,} new, {counts.updated:,} updated, "
            f"{counts.unchanged:,} unchanged; {count(len(reading.notes), 'note')}"
        )
        print(
            f"Next: careflow rounds run --hour 8{same_place(data_dir, hospital)} (with careflow up running)"
        )


async def put(store: Store, patients: Sequence[Patient], progress: Progress) -> PutCounts:
    """Store the patients part by part, each whole or not at all, for a store does not take any number at once.

    Raises the store's error, or Interrupted; both then say how many patients are in.
    """
    from careflow.store.parts import in_parts

    stored = created = updated = unchanged = 0

    def standing() -> str:
        return f"at least {stored:,} of {count(len(patients), 'patient')} are in; the same import again completes it"

    for part in in_parts(patients):
        try:
            counts = await store.put_patients(part)
        except StoreError as error:
            raise type(error)(f"{error}; {standing()}") from error
        except asyncio.CancelledError as error:
            raise Interrupted(standing()) from error
        stored += len(part)
        created += counts.created
        updated += counts.updated
        unchanged += counts.unchanged
        progress.stands(f"stored {stored:,} of {len(patients):,} patients")
    return PutCounts(created, updated, unchanged)


async def _read(
    sources: Sequence[Path], hospital_id: str, defaults: RosterDefaults, now: datetime, progress: Progress
) -> RosterReading:
    """The reading, in a thread that ends soon after Ctrl-C: a thread cannot be interrupted, but it reports often."""
    from careflow.fhir.roster import import_paths

    given_up = Event()

    def told(resources: int, patients: int) -> None:
        if given_up.is_set():
            raise Interrupted
        progress.stands(f"read {resources:,} resources of {patients:,} patients")

    try:
        return await asyncio.to_thread(
            import_paths, sources, hospital_id=hospital_id, defaults=defaults, now=now, progress=told
        )
    except asyncio.CancelledError as error:
        given_up.set()
        raise Interrupted("nothing was imported") from error


@app.command(name="list")
async def list_(*, data_dir: DataDir = None, hospital: Hospital = None, json: Json = False) -> None:
    """List the roster by id. Names stay in the store; `roster show` has them."""
    async with opened(data_dir, hospital) as context:
        patients: list[Patient] = []
        while page := await context.store.patients(
            context.hospital_id, after=patients[-1].id if patients else ""
        ):
            patients.extend(page)
        if json:
            print_json({"patients": patients})
            return
        print_table(
            f"Roster of {context.hospital_id}",
            ("patient", "language", "zone", "hours", "own times", "consent", "standing"),
            [
                (
                    patient.id,
                    patient.language,
                    patient.time_zone,
                    ", ".join(str(hour) for hour in sorted(patient.hours)),
                    ", ".join(f"{at:%H:%M}" for at in patient.times),
                    "yes" if patient.consent else "no",
                    _standing(patient),
                )
                for patient in patients
            ],
            empty="empty; careflow roster import PATH",
        )


@app.command
async def show(
    patient_id: Annotated[str, Parameter(help="The patient's id, as `roster list` shows it.")],
    /,
    *,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Show a patient, and every telephone contact on record."""
    async with opened(data_dir, hospital) as context:
        patient = await context.store.patient(context.hospital_id, patient_id)
        if patient is None:
            raise NotFound(
                f"there is no patient {patient_id!r} in hospital {context.hospital_id!r}; see careflow roster list"
            )
        interactions = await context.store.interactions(context.hospital_id, patient_id)
        if json:
            print_json({"patient": patient, "interactions": interactions})
            return
        for name, value in plain(patient).items():
            if value not in (None, [], False):
                print(f"{name:18} {value}")
        print_table(
            "Interactions",
            ("round", "started", "disposition", "ending", "triage", "seconds"),
            [
                (
                    interaction.round_id,
                    local(interaction.started_at, context.settings.time_zone),
                    interaction.disposition,
                    interaction.ending,
                    interaction.triage,
                    interaction.answered_seconds,
                )
                for interaction in interactions
            ],
        )


def _standing(patient: Patient) -> str:
    words = ("deceased", "opted_out")
    said = [word.replace("_", " ") for word in words if getattr(patient, word)]
    if not patient.active:
        said.append("inactive")
    if patient.paused_until is not None:
        said.append("paused")
    if patient.phone is None:
        said.append("no number")
    return ", ".join(said) or "active"
