"""The same durable steps in DBOS: `python -m bench.lifecycle_dbos DIRECTORY COUNT IN_FLIGHT JOURNAL` prints its seconds.

A workflow of three steps (claim, attempt, outcome), each recording a result as large as our stored attempt. Five commits each,
as ours: the workflow's start, three step results, its end. The steps check and store nothing of their own.

Its system database is SQLite in the same directory. JOURNAL is "delete", as DBOS ships, or "wal", set on the file before it is
opened. DBOS leaves `synchronous` alone, so SQLite's default holds: FULL, as ours. Plain functions on a pool of threads: of its
two ways (the other is coroutines) the quicker one here with several in flight.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dbos import DBOS

WARM_UP = 20
RESULT_CHARACTERS = 600


def run(folder: Path, count: int, in_flight: int, journal: str) -> float:
    """Seconds from the first workflow's start to the last one's end."""
    path = folder / "dbos.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{path}",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    record = "x" * RESULT_CHARACTERS

    @DBOS.step()
    def claim(_call: int) -> str:
        return record

    @DBOS.step()
    def attempt(_call: int) -> str:
        return record

    @DBOS.step()
    def outcome(_call: int) -> str:
        return record

    @DBOS.workflow()
    def lifecycle(call: int) -> str:
        claim(call)
        attempt(call)
        return outcome(call)

    DBOS.launch()
    try:
        with ThreadPoolExecutor(in_flight) as pool:
            list(pool.map(lifecycle, range(WARM_UP)))
            began = time.perf_counter()
            list(pool.map(lifecycle, range(WARM_UP, WARM_UP + count)))
            seconds = time.perf_counter() - began
    finally:
        DBOS.destroy()
    _check(path, count + WARM_UP, journal)
    return seconds


def _check(path: Path, count: int, journal: str) -> None:
    """That everything is on disk, in the journal mode that was asked for."""
    with sqlite3.connect(path) as connection:
        done = connection.execute("SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'").fetchone()
        steps = connection.execute("SELECT count(*) FROM operation_outputs").fetchone()
        mode = connection.execute("PRAGMA journal_mode").fetchone()
    assert (done[0], steps[0], mode[0]) == (count, 3 * count, journal), (done, steps, mode)


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
