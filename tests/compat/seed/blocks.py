"""The fenced blocks of the seed's README (README.md beside this file, unaltered), by the heading they stand under."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import TypeAlias

Place: TypeAlias = tuple[str, int]
"""A heading, without its picture, and which of the blocks under it, counted from 1."""


def fenced(text: str) -> Mapping[Place, str]:
    """Every fenced block of a Markdown text."""
    found: dict[Place, str] = {}
    heading, number = "", 0
    block: list[str] | None = None
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            if block is not None:
                number += 1
                found[heading, number] = dedent("\n".join(block)).strip("\n")
            block = [] if block is None else None
        elif block is not None:
            block.append(line)
        elif line.startswith("#"):
            heading, number = line.encode("ascii", "ignore").decode().strip("# "), 0
    assert block is None, f"a block under {heading!r} does not end"
    return found


SEED = fenced(Path(__file__).with_name("README.md").read_text("utf-8"))
