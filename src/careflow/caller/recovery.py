"""The check-in of a conversation whose process died: what its last checkpoint holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from careflow.core.attempts import Attempt
from careflow.core.checkins import CheckIn
from careflow.ports import Store

if TYPE_CHECKING:
    from careflow.core.script import Script

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The scripts, by name, and what they say of the clinic."""

    scripts: Mapping[str, Script]
    clinic_name: str
    clinic_phone: str

    async def check_in(self, store: Store, attempt: Attempt, ended_at: datetime) -> CheckIn | None:
        """The check-in that the attempt's checkpoint holds; None when there is none, or none that can be read."""
        script = self.scripts.get(attempt.script)
        if not attempt.checkpoint or script is None:
            return None
        patient = await store.patient(attempt.hospital_id, attempt.patient_id)
        if patient is None:
            return None
        from careflow.core import dialogue

        try:
            told = dialogue.from_json(
                attempt.checkpoint,
                script,
                patient,
                clinic_name=self.clinic_name,
                clinic_phone=self.clinic_phone,
            )
            return dialogue.check_in(told, attempt=attempt, ended_at=ended_at)
        except (ValueError, KeyError, TypeError) as error:
            # Ending the attempt matters more than the rest of a broken checkpoint, whose text must not be logged.
            log.error("attempt %s: its checkpoint cannot be read: %s", attempt.id, type(error).__name__)
            return None
