"""`careflow` for one of several instances on one data directory, which on SQLite only a test may run side by side."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from careflow import app
from careflow.cli import main

if __name__ == "__main__":
    app._held = lambda *_: nullcontext()  # type: ignore[assignment,misc]
    sys.exit(main())
