"""The store and the roster in it: reachable, writable, of this version, able to answer every query; and who is due when."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from careflow.core.hospitals import Hospital
from careflow.core.patients import Patient, SkipReason, bar
from careflow.doctor.findings import Finding, Level, doubtful, well, wrong
from careflow.doctor.set_up import SetUp
from careflow.errors import CareflowError, StoreError
from careflow.ports import Store
from careflow.settings import Settings

_MOST = 20_000  # patients of a hospital that are looked at
_PAGE = 1000


async def store(set_up: SetUp) -> AsyncIterator[Finding]:
    """Is the ledger there, of this version, writable?"""
    from careflow.backends import store_named

    given = set_up.settings
    place = _place(given)
    if given.store == "sqlite" and (problem := _unready(set_up)):
        yield problem
        return
    try:
        with store_named(given):
            opened = await set_up.store()
            await opened.check()
    except StoreError as error:
        yield wrong(
            place,
            str(error),
            "Pulse and the Caller answer 503 and begin nothing as long as the store cannot be written.",
            *_cures(set_up),
            blocks=True,
        )
        return
    yield well(place, "reachable, and a write was durable")


def _place(given: Settings) -> str:
    if given.store == "sqlite":
        return str(given.data_dir)
    where = f"emulator {given.firestore_emulator}" if given.firestore_emulator else "Google"
    return f"Firestore {given.project}/{given.firestore_database} ({where})"


def _cures(set_up: SetUp) -> Sequence[str]:
    given = set_up.settings
    if given.store == "sqlite":
        return (f"ls -l {given.data_dir}", f"df -h {given.data_dir}")
    if given.firestore_emulator:
        return (
            f"gcloud emulators firestore start --host-port={given.firestore_emulator}",
            "unset FIRESTORE_EMULATOR_HOST   # for the real one",
        )
    return (
        f"gcloud firestore databases list --project={given.project}",
        "gcloud auth application-default login",
        set_up.remedies.infra(),
    )


def _unready(set_up: SetUp) -> Finding | None:
    """Why the SQLite file must not be opened: opening makes it, or brings it to this version, and we only look."""
    from careflow.store.database import FILE, SCHEMA, _migrations

    path = set_up.settings.data_dir / FILE
    if not path.is_file():
        return wrong(
            str(path),
            "there is no database",
            "Nothing has run here yet, or CAREFLOW_DATA_DIR or --data-dir names the wrong place.",
            set_up.remedies.careflow("roster", "import", "--sample"),
            *set_up.remedies.start("careflow-agent"),
            blocks=True,
        )
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        return wrong(
            str(path),
            f"cannot be read: {error.sqlite_errorname if hasattr(error, 'sqlite_errorname') else type(error).__name__}",
            "The file is damaged, or another program's.",
            f"sqlite3 {path} 'PRAGMA integrity_check'",
            blocks=True,
        )
    known = _migrations(SCHEMA)[-1][0]
    if version == known:
        return None
    if version > known:
        return wrong(
            str(path),
            f"has version {version}, this CareFlow knows up to {known}",
            "It was written by a newer CareFlow, which must be used.",
            "pip install --upgrade careflow-pulse",
            blocks=True,
        )
    return Finding(
        level=Level.WARN,
        subject=str(path),
        said=f"has version {version}, this CareFlow's is {known}",
        means="The next start brings it up to date; until then the ledger is not looked at.",
        fix=tuple(set_up.remedies.start("careflow-agent")),
        blocks=True,
    )


async def queries(set_up: SetUp) -> AsyncIterator[Finding]:
    """Every kind of question the services ask of the store; on Firestore each needs its index."""
    opened, hospital = await set_up.store(), set_up.settings.hospital_id
    refused: dict[str, str] = {}
    asked = _questions(opened, hospital)
    for name, question in asked.items():
        try:
            await question()
        except CareflowError as error:
            refused[name] = str(error)
    if not refused:
        note = (
            ""
            if not set_up.settings.firestore_emulator
            else "; the emulator has every index, Google only those deployed"
        )
        yield well("queries", f"all {len(asked)} kinds are answered{note}")
        return
    yield wrong(
        "queries",
        f"{len(refused)} of {len(asked)} kinds are not answered: {', '.join(sorted(refused))}",
        "A missing or unfinished index: rounds stop where they need it. Building one takes minutes.",
        f"gcloud firestore indexes composite list --project={set_up.settings.project}",
        set_up.remedies.infra(),
        error=next(iter(refused.values())),
    )


def _questions(opened: Store, hospital: str) -> Mapping[str, Callable[[], Awaitable[object]]]:
    nobody = "doctor-nobody"
    return {
        "patients": lambda: opened.patients(hospital, limit=1),
        "candidates": lambda: opened.candidates(hospital, 8, limit=1),
        "do-not-call": lambda: opened.on_do_not_call(hospital, nobody, None),
        "rounds": lambda: opened.rounds(hospital, limit=1),
        "unclosed rounds": opened.unclosed_rounds,
        "executions": lambda: opened.executions(hospital, limit=1),
        "calls": lambda: opened.calls(hospital, nobody, limit=1),
        "open calls": lambda: opened.calls(hospital, nobody, limit=1, open_only=True),
        "counts of calls": lambda: opened.count_calls(hospital, nobody),
        "attempts of a call": lambda: opened.attempts(hospital, nobody),
        "attempt of a call SID": lambda: opened.attempt_of_call_sid(nobody),
        "open attempts": opened.open_attempts,
        "interactions of a patient": lambda: opened.interactions(hospital, nobody),
        "interactions of a round": lambda: opened.interactions(hospital, round_id=nobody),
        "open alerts": lambda: opened.alerts(hospital, open_only=True),
        "alerts of a round": lambda: opened.alerts(hospital, round_id=nobody),
        "open alerts of a round": lambda: opened.alerts(hospital, open_only=True, round_id=nobody),
    }


# --- the roster --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Roster:
    """A hospital's patients in numbers. `due` counts who may be phoned, by the round's hour."""

    total: int = 0
    callable_: int = 0
    own_times: int = 0
    barred: Counter[str] = field(default_factory=Counter)
    due: Counter[int] = field(default_factory=Counter)
    more: bool = False

    def count(self, patient: Patient, now: datetime) -> None:
        """Take one patient in. The do-not-call list is not asked for each."""
        self.total += 1
        reason = bar(patient, do_not_call=False, now=now)
        if reason is not None:
            self.barred[reason.value] += 1
            return
        self.callable_ += 1
        self.own_times += bool(patient.times)
        self.due.update(patient.hours)


async def roster(set_up: SetUp) -> AsyncIterator[Finding]:
    """Whether there is anybody to phone, at each hour that has a round."""
    opened = await set_up.store()
    for hospital in hospitals(set_up):
        counted = await _counted(opened, hospital.id, set_up.clock.now())
        for one in judged(counted, hospital, set_up):
            yield one
    served = {one.id for one in set_up.settings.served}
    strangers = [one for one in await opened.hospitals() if set_up.settings.hospitals and one not in served]
    if strangers:
        yield doubtful(
            "hospitals",
            f"in the store and not served: {', '.join(strangers)}",
            "Their patients are phoned by no round of this deployment.",
            "# add them to the file of CAREFLOW_HOSPITALS (docs/hospitals.md), if they should be",
        )


def hospitals(set_up: SetUp) -> Sequence[Hospital]:
    """Those that are looked at: all that are served, or the one that was named."""
    given = set_up.settings
    if "hospital_id" in given.model_fields_set and (one := given.served.get(given.hospital_id)):
        return [one]
    return list(given.served)


async def _counted(opened: Store, hospital_id: str, now: datetime) -> Roster:
    counted, after = Roster(), ""
    while page := await opened.patients(hospital_id, after=after, limit=_PAGE):
        for patient in page:
            counted.count(patient, now)
        after = page[-1].id
        if counted.total >= _MOST:
            counted.more = True
            break
    return counted


def judged(counted: Roster, hospital: Hospital, set_up: SetUp) -> Sequence[Finding]:
    """What the numbers mean."""
    name = f"roster of {hospital.id}"
    load = set_up.remedies.careflow("roster", "import", "roster.json", "--hospital", hospital.id)
    if counted.total == 0:
        return [
            doubtful(
                name,
                "there are no patients",
                "Every round of this hospital is empty: it succeeds and phones nobody.",
                load,
            )
        ]
    barred = (
        ", ".join(f"{number} {reason}" for reason, number in sorted(counted.barred.items()))
        or "nobody barred"
    )
    if counted.callable_ == 0:
        consent = counted.barred[SkipReason.NO_CONSENT.value]
        fix = (f"{load} --assume-consent   # only where consent is on paper",) if consent else (load,)
        return [
            wrong(
                name,
                f"{counted.total} patients and nobody may be phoned: {barred}",
                "Rounds skip everybody.",
                *fix,
            )
        ]
    due = ", ".join(f"{counted.due[hour]} at {hour}:00" for hour in hospital.round_hours)
    more = f" (the first {_MOST:,})" if counted.more else ""
    found = [
        well(
            name,
            f"{counted.total:,} patients{more}, {counted.callable_:,} may be phoned: {due}; {barred}",
            own_times=str(counted.own_times),
        )
    ]
    for hour in hospital.round_hours:
        if not counted.due[hour] and not counted.own_times:
            found.append(  # noqa: PERF401 - each is a sentence
                doubtful(
                    name,
                    f"nobody is due at {hour}:00",
                    f"The job of {hour}:00 succeeds and its round is empty.",
                    "# schedulePreferences in the roster say who is phoned when (docs/roster.md)",
                )
            )
    return found
