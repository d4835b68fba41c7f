"""A measured figure, the machine it was measured on, and how both are shown."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from careflow.cli.output import print_json, print_table


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity, measured several times. `aim` is what was hoped for, in words; the machine decides whether it is met."""

    part: str
    what: str
    unit: str
    values: tuple[float, ...]
    aim: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def row(self) -> tuple[str, ...]:
        """The figure as a line of the table."""
        low, high = min(self.values), max(self.values)
        shown = (_short(value) for value in (low, self.median, high))
        return (self.part, self.what, self.unit, *shown, str(len(self.values)), self.aim)

    def document(self) -> dict[str, Any]:
        """The figure as JSON, every single value included."""
        return {
            "part": self.part,
            "what": self.what,
            "unit": self.unit,
            "min": min(self.values),
            "median": self.median,
            "max": max(self.values),
            "values": list(self.values),
            "aim": self.aim,
        }


def _short(value: float) -> str:
    """Three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """What the figures depend on. `load` is the mean number of runnable processes in the last minute."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
    }


def show(figures: Sequence[Figure], before: dict[str, Any], notes: Sequence[str], *, json: bool) -> None:
    """Everything measured, as a table or as one JSON document. `before` is the machine when the run began."""
    after = machine()
    if json:
        print_json(
            {
                "machine": before | {"loadAfter": after["load"]},
                "figures": [figure.document() for figure in figures],
                "notes": list(notes),
            }
        )
        return
    print(
        f"{before['cores']} cores, Python {before['python']}, SQLite {before['sqlite']}, {before['system']}, "
        f"load {before['load']} at the start and {after['load']} at the end"
    )
    columns = ("part", "what", "unit", "min", "median", "max", "runs", "aim")
    print_table("Measurements", columns, [figure.row() for figure in figures])
    for note in notes:
        print(f"- {note}")
