"""What commands print: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.table import Table

LONG = 200  # rows; of a longer table the columns are laid out without looking at every cell twice


def plain(value: object) -> Any:
    """The value as JSON: records as objects with camelCase keys, instants as RFC 3339."""
    match value:
        case Enum():
            return value.value
        case datetime() | date() | time():
            return value.isoformat()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case str() | bytes():
            return value
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            return sorted(plain(item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return {to_camel(field.name): plain(getattr(value, field.name)) for field in fields(value)}
    return value


def print_json(value: object) -> None:
    """One document on standard output."""
    print(json.dumps(plain(value), indent=2), flush=True)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "none"
) -> None:
    """A table for people; `empty` is said when there are no rows.

    On a terminal it is drawn; where it would not fit, and ids would be torn, each row becomes a few lines. Elsewhere (a
    pipe, a file) it is plain columns, one line a row, nothing cut.
    """
    if not rows:
        print(f"{title}: {empty}")
        return
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(name), *(len(row[at]) for row in cells)) for at, name in enumerate(columns)]
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal or (len(rows) > LONG and console.width >= sum(widths) + 2 * len(widths)):
        print(title)
        for row in (columns, *cells):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    elif console.width < sum(widths) + 3 * len(widths) + 1:
        print(title)
        longest = max(len(name) for name in columns)
        for row in cells:
            said = [(name, cell) for name, cell in zip(columns, row, strict=True) if cell]
            print(
                "\n".join(
                    f"{'  ' if at else '- '}{name:{longest}}  {cell}" for at, (name, cell) in enumerate(said)
                )
            )
    else:
        table = Table(title=title, title_justify="left", header_style="bold")
        for name in columns:
            table.add_column(name, no_wrap=True)
        for row in cells:
            table.add_row(*row)
        console.print(table)


def local(moment: datetime | None, zone: str) -> str:
    """An instant for a person: local time with its zone."""
    return "" if moment is None else f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S %Z}"


def count(number: int, one: str, many: str = "") -> str:
    """A number and what is counted: "1 patient", "2 patients"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
