"""The lab's people: everybody on the roster has a telephone there, and somebody who picks it up or does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from careflow.errors import StoreError
from careflow.lab.fleet import assign_personas
from careflow.lab.personas import Subscriber
from careflow.ports import Clock, Store

if TYPE_CHECKING:
    from careflow.lab.app import Lab

ROSTER_POLL_SECONDS = 2.0
REAL_POLL_SECONDS = 0.5  # at the least: a virtual clock that runs fast must not ask the store all the time
LAB_SEED = 8  # decides which of the lab's patients behaves how

_log = logging.getLogger(__name__)


async def people_lab(store: Store, lab: Lab, seed: int) -> None:
    """Give every patient of the roster a telephone in the lab, and somebody who picks it up or does not.

    Who has a number already keeps persona and seed: what was put there by hand outlives every restart. Their name, year of birth
    and language are the roster's.
    """
    known: list[tuple[str, str, int, str]] = []
    for hospital_id in await store.hospitals():
        after = ""
        while page := await store.patients(hospital_id, after=after):
            after = page[-1].id
            known += [
                (
                    patient.phone,
                    patient.given_name,
                    patient.birth_date.year if patient.birth_date else 1950,
                    patient.language,
                )
                for patient in page
                if patient.phone
            ]
    present = dict(lab.exchange.subscribers)
    wanted = {one.phone: _kept(present.get(one.phone), one) for one in assign_personas(known, seed)}
    if present | wanted != present:
        lab.exchange.set_subscribers(list((present | wanted).values()))


def _kept(present: Subscriber | None, wanted: Subscriber) -> Subscriber:
    """Who has the number, with what the roster knows of them now."""
    if present is None:
        return wanted
    return replace(
        present, given_name=wanted.given_name, birth_year=wanted.birth_year, language=wanted.language
    )


async def keep_lab_peopled(store: Store, lab: Lab, clock: Clock, seed: int) -> None:
    """`people_lab` now and whenever the roster changes, until cancelled. A store that is away for a while is waited for:
    the telephones go on ringing.
    """
    seen: Mapping[str, int] = {}
    while True:
        try:
            present = {one: await store.roster_revision(one) for one in await store.hospitals()}
            if present != seen:
                await people_lab(store, lab, seed)
                seen = present
        except StoreError as error:
            _log.warning("the lab cannot see the roster now (%s)", type(error).__name__)
        await asyncio.gather(clock.sleep(ROSTER_POLL_SECONDS), asyncio.sleep(REAL_POLL_SECONDS))
