"""What an import says about itself, and what it takes for granted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from careflow.core.patients import Patient

OWN = "https://careflow.example/fhir"  # our code systems and extensions (docs/roster.md)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing that was refused or defaulted. Holds a reference and no names, numbers or values of the patient.

    `reference` is "Type/id", or "" for a whole file; `field` a FHIR path, or "". `refused` says that the patient (or the
    file) was left out because of it.
    """

    file: str
    reference: str
    field: str
    problem: str
    done: str
    refused: bool = False

    def __str__(self) -> str:
        where = " ".join(part for part in (self.reference, self.field) if part)
        return f"{self.file}: {where + ': ' if where else ''}{self.problem}; {self.done}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterDefaults:
    """What holds where the roster says nothing.

    `time_zone` is an IANA name, `language` "en" or "es", `region` the country of numbers without a country code (ISO 3166),
    `consent` whether a patient without a Consent to automated calls has given it.
    """

    time_zone: str
    language: str = "en"
    region: str = "US"
    consent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterReading:
    """The patients read whole, by id; everything worth saying; and, by type, how many resources rounds have no use for."""

    patients: list[Patient] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    ignored: Mapping[str, int] = field(default_factory=dict)


class Refused(Exception):
    """A resource cannot be taken; `field` and `problem` say why, without its values."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
