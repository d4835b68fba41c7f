"""What an examination finds: one finding per thing that was looked at, and the report of them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Level(StrEnum):
    """How it stands with what was looked at."""

    OK = "ok"
    WARN = "warn"  # works, and deserves a look
    FAIL = "fail"  # rounds do not go, or will not
    SKIPPED = "skipped"  # not looked at; `said` says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    `subject` is what (a job's id, a URL of ours, a setting); `said` what was seen; `means` and `fix` are there unless all is
    well: what it means for the rounds, and lines to copy, of which those that begin with "# " are to be read. `evidence` are
    ids, codes and addresses of ours, never words of an answer that could be a patient's, and never a credential. After a
    finding that `blocks`, the checks that need this one are skipped.
    """

    level: Level
    subject: str
    said: str
    means: str = ""
    evidence: Mapping[str, str] | None = None
    fix: tuple[str, ...] = ()
    blocks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A check and what it found. `writes` says that it left a mark."""

    check: str
    about: str
    writes: str
    findings: Sequence[Finding]

    @property
    def blocked(self) -> bool:
        """Whether what needs this check cannot be looked at."""
        return any(one.blocks for one in self.findings)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was looked at, in the order of the registry."""

    examined: Sequence[Examined]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many findings there are of each level."""
        found = Counter(finding.level for one in self.examined for finding in one.findings)
        return {level.value: found[level] for level in Level}

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return self.counts[Level.FAIL.value] == 0


def well(subject: str, said: str, **evidence: str) -> Finding:
    """Looked at, and as it should be."""
    return Finding(level=Level.OK, subject=subject, said=said, evidence=evidence)


def doubtful(subject: str, said: str, means: str, *fix: str, **evidence: str) -> Finding:
    """It works, and deserves a look."""
    return Finding(level=Level.WARN, subject=subject, said=said, means=means, fix=fix, evidence=evidence)


def wrong(subject: str, said: str, means: str, *fix: str, blocks: bool = False, **evidence: str) -> Finding:
    """It does not work, or will not when it is needed."""
    return Finding(
        level=Level.FAIL, subject=subject, said=said, means=means, fix=fix, evidence=evidence, blocks=blocks
    )


def evident(finding: Finding, evidence: Mapping[str, str]) -> Finding:
    """The finding with more evidence; what is empty is left out."""
    more = {name: value for name, value in evidence.items() if value}
    return replace(finding, evidence={**(finding.evidence or {}), **more})


def not_seen(subject: str, why: str, *by_hand: str, blocks: bool = False) -> Finding:
    """Not looked at, why, and how a person can."""
    return Finding(level=Level.SKIPPED, subject=subject, said=why, fix=by_hand, blocks=blocks)
