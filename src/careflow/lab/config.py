"""What a lab is set up with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from careflow.lab.personas import Persona


@dataclass(frozen=True, slots=True, kw_only=True)
class LabConfig:
    """One practice telephone network with one account on it.

    `data_dir` is the deployment's data directory; the lab keeps its own state in `{data_dir}/lab`. `from_numbers` are the
    account's caller ids. `calls_per_second` is the rate at which queued calls are dialled and `max_concurrent` the calls that may
    be up at once (a further one fails, 10004), both per account (reference/twilio section 3, Rates and concurrency).
    `default_persona` is who picks up a number that has no subscriber; None: nobody. `seed` decides everything that is left to
    chance.
    """

    data_dir: Path
    account_sid: str
    auth_token: str
    elevenlabs_api_key: str
    from_numbers: frozenset[str]
    seed: int = 0
    calls_per_second: float = 1.0
    max_concurrent: int = 100
    default_persona: Persona | None = None
