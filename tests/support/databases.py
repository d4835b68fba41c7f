"""SQLite databases under test: rows to insert, a busy writer, and processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager


def insert(name):
    return lambda connection: connection.execute("INSERT INTO hospitals (id) VALUES (?)", (name,))


def names(connection):
    return [name for (name,) in connection.execute("SELECT id FROM hospitals ORDER BY id")]


def child(tmp_path, script):
    """Another process on the same data directory. It prints lines; it is killed by the test or ends by itself."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@contextmanager
def running(tmp_path, script):
    process = child(tmp_path, script)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
