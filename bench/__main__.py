"""`python -m bench [PART...]`: measure, and print a table or, with --json, one document."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from bench import firestore, images, lifecycles, media, planning, scheduler, startup
from bench.figures import Figure, machine, show

Part = Literal["startup", "planning", "lifecycles", "media", "scheduler", "firestore", "images"]
ALL: tuple[Part, ...] = ("startup", "planning", "lifecycles", "media", "scheduler", "firestore")

app = App(name="python -m bench", help="What CareFlow Pulse costs on this machine, beside its peers.")


@app.default
def bench(
    *parts: Annotated[Part, Parameter(help="What to measure (default: everything but images).")],
    repeat: Annotated[int, Parameter(help="Runs of each.")] = 5,
    sizes: Annotated[tuple[int, ...], Parameter(help="Patients due, for planning.")] = planning.SIZES,
    in_flight: Annotated[tuple[int, ...], Parameter(help="Lifecycles at a time.")] = lifecycles.IN_FLIGHT,
    jobs: Annotated[tuple[int, ...], Parameter(help="Jobs due at once, for the scheduler.")] = scheduler.JOBS,
    folder: Annotated[Path | None, Parameter(help="Where to write: the disk matters.")] = None,
    json: Annotated[bool, Parameter(name="--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure what was asked for. Every figure is the median of its runs; nothing is asserted."""
    wanted = parts or ALL
    before = machine()
    figures: list[Figure] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="careflow-bench-", dir=folder) as scratch:
        place = Path(scratch)
        if "startup" in wanted:
            figures += startup.measure(place, repeat)
            notes += startup.heaviest_imports()
        if "planning" in wanted:
            figures += planning.measure(place, sizes, repeat)
        if "lifecycles" in wanted:
            figures += lifecycles.measure(place, in_flight, repeat)
        if "media" in wanted:
            figures += media.measure(place, repeat)
        if "scheduler" in wanted:
            figures += scheduler.measure(place, jobs, repeat)
        if "firestore" in wanted:
            counted, said = firestore.measure(place, repeat)
            figures += counted
            notes += said
        if "images" in wanted:  # by name only: it takes root, and Debian's packages from the network
            figures += images.measure(place, repeat)
    show(figures, before, notes, json=json)


if __name__ == "__main__":
    app()
