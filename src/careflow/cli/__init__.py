"""The command line: `careflow`. Each command is in the file of its name; this file is the list of them, and how they fail."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Parameter

from careflow.errors import CareflowError

WRONG_WORDS = 2
INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended


def build() -> App:
    """The command tree. Commands are imported when they are used, so that `careflow --help` is quick."""
    app = App(
        name="careflow",
        help="Telephone rounds for recently discharged patients.",
        default_parameter=Parameter(negative=()),
        version_flags=["--version"],
        version=_version,
        suppress_keyboard_interrupt=False,
    )
    for command, words in _ALONE.items():
        app.command(f"careflow.cli.{words[0]}", name=command, help=words[1])
    for group, text in _GROUPS.items():
        app.command(f"careflow.cli.{group}:app", name=group, help=text)
    return app


# Said here too, because the files are not read before they are used. tests/acceptance/test_cli.py holds them together.
_ALONE = {
    "demo": ("demo:demo", "See a morning round of 45 synthetic patients, in about a minute."),
    "up": ("serve:up", "Start everything on this machine, until Ctrl-C."),
    "serve": ("serve:serve", "Run one service alone, as its container does."),
    "doctor": (
        "doctor:doctor",
        "Check a set-up, this machine's or one in the cloud: what is wrong, what it means, what to do.",
    ),
    "export": ("moving:export", "Write all records into a directory, to move them to another store."),
    "import": ("moving:import_", "Store all records of such a directory."),
}
_GROUPS = {
    "roster": "Import patients from FHIR R4, list them, show one.",
    "rounds": "Trigger a round, list rounds, show one.",
    "calls": "List calls, show one with its conversation.",
    "alerts": "Who needs a person now; acknowledge.",
    "jobs": "The scheduler's jobs: list, change, run, pause, what they did and will do.",
}


def _version() -> str:
    from importlib.metadata import version

    return version("careflow-pulse")


def main() -> None:
    """The console script. Exits 0, 1 with a reason on standard error, 2 for wrong words, 130 after Ctrl-C.

    With `--json` standard output is one JSON document also then: `{"error": {"code": ..., "message": ...}}`.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that cannot show a name still shows the rest
    try:
        build()(sys.argv[1:], exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _fail("Interrupted", "nothing is lost; the same command again goes on", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read has seen enough. What is still in the buffer must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except CycloptsError as error:
        _fail("WrongWords", f"{error}\n  see careflow --help, and --help after any command", WRONG_WORDS)
    except CareflowError as error:
        _fail(type(error).__name__, str(error), getattr(error, "status", 1), getattr(error, "details", {}))
    except OSError as error:
        _fail(type(error).__name__, f"{error.filename or 'the system'}: {error.strerror or 'refused'}", 1)
    except Exception as error:  # noqa: BLE001 - the last place; its words may be a patient's, so only where it was is told
        from careflow.cli.missing import missing

        if isinstance(error, ImportError) and (lacking := missing(error)):
            _fail(type(lacking).__name__, str(lacking), 1)
        traceback.print_tb(error.__traceback__)
        _fail(type(error).__name__, f"a defect of careflow: {type(error).__name__} at the place above", 1)


def _fail(code: str, message: str, status: int, details: dict[str, Any] | None = None) -> NoReturn:
    from careflow.cli.output import print_json

    if "--json" in sys.argv[1:]:
        print_json({"error": {"code": code, "message": message}, **(details or {})})
    print(f"{'interrupted' if status == INTERRUPTED else 'error'}: {message}", file=sys.stderr)
    sys.exit(status)
