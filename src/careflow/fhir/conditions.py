"""Conditions (R4 9.2): which a patient has now, and what each makes worth watching for (symptoms.yaml)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from careflow.fhir.codes import Json, codes_of, codings

_SNOMED = "http://snomed.info/sct"
_ICD10 = ("http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-10")
_ACTIVE = {"active", "recurrence", "relapse"}
_NOT_ILLNESSES = ("finding)", "situation)", "person)", "event)", "social concept)", "regime/therapy)")
_WRONG = {"refuted", "entered-in-error"}


@dataclass(frozen=True, slots=True)
class Condition:
    """A current condition: its name, and its codes as (system, code)."""

    name: str
    codes: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Watch:
    """A line of the table: which codes it is for, and the symptoms (codes of core.symptoms) that they call for."""

    snomed: frozenset[str]
    icd10: tuple[str, ...]
    critical: tuple[str, ...]
    warning: tuple[str, ...]

    def concerns(self, codes: Iterable[tuple[str, str]]) -> bool:
        return any(
            (system == _SNOMED and code in self.snomed) or (system in _ICD10 and code.startswith(self.icd10))
            for system, code in codes
        )


def current_condition(resource: Json) -> Condition | None:
    """The condition, when the patient has it now and it is a disorder; None otherwise.

    SNOMED's findings and situations ("full-time employment") are about a life, not an illness, and no nurse needs them.
    """
    if codes_of(resource.get("verificationStatus")) & _WRONG:
        return None
    if not codes_of(resource.get("clinicalStatus")) & _ACTIVE:
        return None
    code: Mapping[str, Any] = resource.get("code", {})
    found = list(codings(code))
    name = code.get("text") or next((display for _, _, display in found if display), "")
    plain, _, kind = name.partition(" (") if name.endswith(")") else (name, "", "")
    if kind in _NOT_ILLNESSES:
        return None
    shown = plain if kind in ("disorder)", "procedure)", "morphologic abnormality)") else name
    return Condition(shown, frozenset((system, one) for system, one, _ in found)) if shown else None


def watch_table() -> tuple[Watch, ...]:
    """The shipped table."""
    import yaml

    text = resources.files(__package__).joinpath("symptoms.yaml").read_text(encoding="utf-8")
    return tuple(
        Watch(frozenset(row["snomed"]), tuple(row["icd10"]), tuple(row["critical"]), tuple(row["warning"]))
        for row in yaml.safe_load(text)
    )


def symptoms(
    conditions: Iterable[Condition], table: Sequence[Watch]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(critical, warning) symptoms of these conditions, each once; what is critical for one of them is not a warning too."""
    concerned = [watch for one in conditions for watch in table if watch.concerns(one.codes)]
    critical = {symptom for watch in concerned for symptom in watch.critical}
    warning = {symptom for watch in concerned for symptom in watch.warning} - critical
    return tuple(sorted(critical)), tuple(sorted(warning))
