"""The command line: `careflow`. Each command is in the file of its name; this file is the list of them."""

from __future__ import annotations

import json
import sys

from cyclopts import App, Parameter

from careflow.errors import CareflowError

INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended


def build() -> App:
    """The command tree. Commands are imported when they are used, so that `careflow --help` is quick."""
    app = App(
        name="careflow",
        help="Telephone rounds for recently discharged patients.",
        default_parameter=Parameter(negative=()),
        version_flags=["--version"],
        version=_version,
    )
    app.command("careflow.cli.demo:demo", name="demo")
    app.command("careflow.cli.serve:up", name="up")
    app.command("careflow.cli.serve:serve", name="serve")
    for group in ("roster", "rounds", "calls", "alerts"):
        app.command(f"careflow.cli.{group}:app", name=group)
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("careflow-pulse")


def main() -> None:
    """The console script. Exits 0, 1 with a reason on standard error, 2 for wrong words, 130 after Ctrl-C."""
    try:
        build()()
    except KeyboardInterrupt:
        print("interrupted; the next start continues from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except CareflowError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": {"code": type(error).__name__, "message": str(error)}}))
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
