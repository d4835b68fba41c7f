"""What a conversation left when its process died: the last checkpoint, read as a result."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from careflow.core.attempts import Attempt
from careflow.core.checkins import CheckIn
from careflow.core.conversation import Finished
from careflow.errors import CareflowError
from careflow.ports import Store

if TYPE_CHECKING:
    from careflow.core.script import Script

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The check-in so far, and the conversation's end if that was decided before the process died, in the goodbye."""

    check_in: CheckIn | None = None
    finished: Finished | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The scripts, by name."""

    scripts: Mapping[str, Script]

    async def left(self, store: Store, attempt: Attempt, ended_at: datetime) -> Left:
        """What the attempt's checkpoint holds; nothing when there is none, or none that can be read."""
        script = self.scripts.get(attempt.script)
        if not attempt.checkpoint or script is None:
            return Left()
        patient = await store.patient(attempt.hospital_id, attempt.patient_id)
        if patient is None:
            return Left()
        from careflow.core import dialogue

        try:
            # Nothing is said from here, so the hospital needs no name; it may have left the deployment meanwhile.
            told = dialogue.from_json(attempt.checkpoint, script, patient, clinic_name="", clinic_phone="")
        except CareflowError:
            # Ending the attempt matters more than a broken checkpoint, whose text must not be logged.
            log.error("attempt %s: its checkpoint cannot be read", attempt.id)
            return Left()
        finished = None
        if told.ending is not None:
            finished = Finished(
                told.ending,
                opted_out_patient=told.opted_out_patient,
                opted_out_number=told.opted_out_number,
            )
        return Left(check_in=dialogue.check_in(told, attempt=attempt, ended_at=ended_at), finished=finished)
