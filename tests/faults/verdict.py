"""What must be true of a round whoever was killed in it, asked of the evidence. Every question answers with its violations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise

from careflow.core.attempts import AttemptState, Disposition, Ending
from careflow.core.calls import CallState, Outcome
from careflow.core.checkins import AlertKind
from careflow.core.patients import Patient
from careflow.core.slots import within_calling_hours
from careflow.lab.personas import Persona
from faults.people import ABSENT, PRIVATE, TALKERS
from faults.trial import Entry, Evidence

SPACING = timedelta(minutes=15)
MAX_ATTEMPTS = 3
# Of the patient's doing, so the telephone may ring again.
_AGAIN = frozenset({Ending.HUNG_UP, Ending.CALL_LATER, Ending.NOT_UNDERSTOOD})


def violations(evidence: Evidence) -> list[str]:
    """Everything that is wrong; empty when all invariants hold."""
    questions = (
        _one_at_a_time,
        _nobody_twice,
        _absent_ones_again,
        _everybody_dialled,
        _one_outcome_each,
        _only_when_permitted,
        _alerts,
        _interruptions_have_a_cause,
        _records,
        _answers,
        _own_hospital,
        _nothing_private_said,
    )
    return [f"{ask.__name__.strip('_')}: {found}" for ask in questions for found in ask(evidence)]


def one_at_a_time(dialled: Iterable[Entry]) -> Iterator[str]:
    """Invariant 1: no number has two telephone calls at once."""
    by_number = defaultdict(list)
    for entry in dialled:
        if entry["endedAt"] is None:
            yield f"call {entry['sid']} is {entry['status']} and never ended"
        else:
            by_number[entry["to"]].append((_at(entry["createdAt"]), _at(entry["endedAt"]), entry["sid"]))
    for times in by_number.values():
        for (_, ended, first), (created, _, second) in pairwise(sorted(times)):
            if created < ended:
                yield f"{second} was created {ended - created} before {first} had ended"


def _one_at_a_time(evidence: Evidence) -> Iterator[str]:
    return one_at_a_time(evidence.dialled)


def _nobody_twice(evidence: Evidence) -> Iterator[str]:
    """Invariant 2: after a person picked up there is no other call, unless that person wants or causes it."""
    endings = {attempt.id: attempt.ending for attempt in evidence.attempts}
    counted = Counter(entry["attempt"] for entry in evidence.dialled if entry["dialledAt"])
    for attempt, count in counted.items():
        if count > 1:
            yield f"attempt {attempt} was dialled {count} times"
    for patient, entries in _by_patient(evidence):
        persona = evidence.people.persona(patient)
        for first, second in pairwise(entries):
            if not first["answeredAt"] or persona is Persona.VOICEMAIL:
                continue
            ending = endings.get(first["attempt"])
            if persona in TALKERS or ending not in _AGAIN:
                yield (
                    f"{persona} {patient.id} was answered in {first['sid']} ({first['attempt']}, ending {ending}, "
                    f"ended by {first['endedBy']}) and dialled again as {second['attempt']}"
                )
        rung = [entry for entry in entries if entry["dialledAt"] and entry["endedBy"] != "lab"]
        if persona in TALKERS and len(rung) > 1:
            yield f"{persona} {patient.id} was dialled {len(rung)} times: {[one['sid'] for one in rung]}"


def _absent_ones_again(evidence: Evidence) -> Iterator[str]:
    """Who does not pick up is dialled three times at most, and a quarter of an hour apart."""
    for patient, entries in _by_patient(evidence):
        rung = [entry for entry in entries if entry["dialledAt"]]
        if len(rung) > MAX_ATTEMPTS:
            yield f"{patient.id} was dialled {len(rung)} times"
        if evidence.people.persona(patient) in ABSENT:
            for first, second in pairwise(rung):
                pause = _at(second["createdAt"]) - _at(first["endedAt"])
                if pause < SPACING:
                    yield f"{patient.id} was dialled again {pause} after {first['sid']}"


def _everybody_dialled(evidence: Evidence) -> Iterator[str]:
    """Invariant 3: nobody who was due is forgotten. No reason excuses it: everybody here could be dialled in time."""
    dialled = {who.id for who, entries in _by_patient(evidence) if any(one["dialledAt"] for one in entries)}
    calls = {call.patient_id: call for call in evidence.calls}
    for patient in evidence.people.due:
        if patient.id not in dialled:
            call = calls.get(patient.id)
            yield f"{patient.id} was never dialled ({call.outcome if call else None}, {call.reason if call else ''})"


def _one_outcome_each(evidence: Evidence) -> Iterator[str]:
    """Invariant 3: one recorded outcome for everybody, the right one for the barred, and sums that are right."""
    counted = Counter(call.patient_id for call in evidence.calls)
    expected = Counter(patient.id for patient in evidence.people.everybody)
    if counted != expected:
        yield f"calls {counted - expected} too many, {expected - counted} missing"
    barred = {patient.id: reason for patient, reason in evidence.people.barred}
    for call in evidence.calls:
        if call.state is not CallState.ENDED or call.outcome is None:
            yield f"{call.patient_id} has no outcome: {call.state}"
        elif call.patient_id in barred:
            if (call.outcome, call.reason) != (Outcome.SKIPPED, barred[call.patient_id]):
                yield f"{call.patient_id} should be skipped as {barred[call.patient_id]}: {call.outcome}, {call.reason}"
        elif call.outcome in (Outcome.SKIPPED, Outcome.CANCELLED):
            yield f"{call.patient_id} was due and is {call.outcome}: {call.reason}"
    outcomes = Counter(str(call.outcome) for call in evidence.calls)
    if dict(evidence.round.outcomes) != dict(outcomes):
        yield f"the round says {dict(evidence.round.outcomes)}, its calls {dict(outcomes)}"
    if evidence.dead_tasks:
        yield f"{evidence.dead_tasks} tasks were given up"


def _only_when_permitted(evidence: Evidence) -> Iterator[str]:
    """Invariant 4: inside the round's window and everybody's own hours; never who must not be dialled."""
    due = {patient.id for patient in evidence.people.due}
    for patient, entries in _by_patient(evidence):
        for entry in entries:
            for moment in filter(None, (entry["createdAt"], entry["dialledAt"])):
                at = _at(moment)
                if patient.id not in due:
                    yield f"{patient.id} was dialled, who must not be"
                elif at not in evidence.round.window or not within_calling_hours(patient, at):
                    yield f"{patient.id} was dialled at {at}, which is not permitted"
    known = {attempt.id for attempt in evidence.attempts}
    for entry in evidence.dialled:
        if entry["attempt"] not in known:
            yield f"call {entry['sid']} is of no attempt on record"


def _alerts(evidence: Evidence) -> Iterator[str]:
    """Invariant 5: a red flag is told while the patient is on the line; what we broke off is told to a person."""
    entries = {entry["attempt"]: entry for entry in evidence.dialled}
    for attempt in evidence.attempts:
        alerts = [alert for alert in evidence.alerts if alert.attempt_id == attempt.id]
        raised = {alert.kind: alert.raised_at for alert in alerts}
        entry = entries.get(attempt.id)
        advised = [
            _at(turn["at"])
            for turn in (entry["transcript"] if entry else ())
            if turn["who"] == "agent" and "911" in turn.get("text", "")
        ]
        if attempt.ending is Ending.ESCALATED or advised:
            if AlertKind.RED_FLAG not in raised:
                yield f"attempt {attempt.id} was a red flag and has no alert"
            elif entry and entry["endedAt"] and raised[AlertKind.RED_FLAG] > _at(entry["endedAt"]):
                yield f"attempt {attempt.id}: the alert came after the patient was gone"
            elif advised and raised[AlertKind.RED_FLAG] > min(advised):
                yield f"attempt {attempt.id}: the alert came after the emergency wording"
        if attempt.ending is Ending.INTERRUPTED and AlertKind.INTERRUPTED not in raised:
            yield f"attempt {attempt.id} was interrupted and nobody was told"
    told = {alert.call_id for alert in evidence.alerts}
    for call in evidence.calls:
        if call.outcome is Outcome.UNREACHABLE and call.id not in told:
            yield f"call {call.id} is unreachable ({call.reason}) and nobody was told"


def _interruptions_have_a_cause(evidence: Evidence) -> Iterator[str]:
    """A conversation is broken off by a kill, or not at all; what was not broken off comes to its result."""
    if evidence.has_faults:
        return
    entries = {entry["attempt"]: entry for entry in evidence.dialled}
    for call in evidence.calls:
        entry = entries.get(call.attempt_id or "")
        if entry is None or not entry["answeredAt"] or entry["persona"] not in TALKERS:
            continue
        began, ended = _at(entry["createdAt"]), _at(entry["endedAt"])
        # Who is told to stop hands over to another: nobody is to notice.
        disturbed = any(
            kill.at <= ended and began <= kill.back_at for kill in evidence.kills if not kill.gently
        )
        if not disturbed and call.outcome is not Outcome.COMPLETED:
            yield f"{entry['persona']} {call.patient_id} was not disturbed and is {call.outcome}: {call.reason}"


def _records(evidence: Evidence) -> Iterator[str]:
    """Every attempt ended and left one interaction in the record of its patient; what the store says fits the books."""
    entries = {entry["attempt"]: entry for entry in evidence.dialled if entry["dialledAt"]}
    recorded = Counter(interaction.id for interaction in evidence.interactions)
    if recorded != Counter(attempt.id for attempt in evidence.attempts):
        yield f"{len(evidence.attempts)} attempts, but interactions {recorded}"
    for attempt in evidence.attempts:
        if attempt.state is not AttemptState.ENDED:
            yield f"attempt {attempt.id} is {attempt.state}"
        entry = entries.get(attempt.id)
        if entry is None and attempt.call_sid is not None and attempt.disposition is not Disposition.FAILED:
            yield f"attempt {attempt.id} is {attempt.disposition}, but was never dialled"
        if entry is not None and attempt.call_sid is None:
            yield f"attempt {attempt.id} was dialled as {entry['sid']} and does not know it ({attempt.failure})"


def _answers(evidence: Evidence) -> Iterator[str]:
    """Invariant 6: every delivery of the trigger has the same answer, and the answer is right."""
    fields = ("roundId", "patientsQueried", "callsInitiated", "skipped")
    told = [{name: answer.get(name) for name in fields} for answer in evidence.answers]
    if any(one != told[0] for one in told):
        yield f"the same trigger was answered {told}"
    due, barred = len(evidence.people.due), len(evidence.people.barred)
    if (told[0]["patientsQueried"], told[0]["callsInitiated"]) != (due + barred, due):
        yield f"{due + barred} patients, {due} due: {told[0]}"


def _own_hospital(evidence: Evidence) -> Iterator[str]:
    """Everybody is rung from their own hospital's number, and hears its name and no other's."""
    own = evidence.hospital
    if own is None:
        return
    for entry in evidence.dialled:
        if entry["from"] != own.from_number:
            yield f"call {entry['sid']} of {own.id} came from another number"
        said = " ".join(turn.get("text", "") for turn in entry["transcript"] if turn["who"] == "agent")
        for other in evidence.others:
            if other.name in said:
                yield f"call {entry['sid']} of {own.id} spoke for {other.id}"
        if entry["persona"] in TALKERS and entry["endedBy"] == "api" and said and own.name not in said:
            yield f"call {entry['sid']} did not say that it was {own.id}"


def nothing_private_said(output: str) -> Iterator[str]:
    """Invariant 7: ids only, in whatever a process writes, also as it dies."""
    for found in PRIVATE.finditer(output):
        line = output[: found.start()].count("\n") + 1
        yield f"{found[0]!r} is in the output, line {line}: …{output[max(0, found.start() - 200) : found.end() + 20]}"


def _nothing_private_said(evidence: Evidence) -> Iterator[str]:
    return nothing_private_said(evidence.output)


def _by_patient(evidence: Evidence) -> Iterator[tuple[Patient, list[Entry]]]:
    """Everybody with the calls that the books have for them, oldest first. A number may be several people's."""
    patients = {patient.id: patient for patient in evidence.people.everybody}
    owner = {call.id: call.patient_id for call in evidence.calls}
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in evidence.dialled:
        call = entry["attempt"].rpartition("-")[0]
        if call in owner:
            found[owner[call]].append(entry)
    for patient_id, entries in found.items():
        yield patients[patient_id], sorted(entries, key=lambda entry: str(entry["createdAt"]))


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)
