"""Non-interference: what a hospital's services are answered does not depend on what another hospital on the store did."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from careflow.core.calls import call_id
from careflow.core.rounds import Trigger, round_for
from emulated import OPENERS, on_both_stores
from hospital_actor import NOW, PATIENTS, WORK, Actor

Step = tuple[str, str, str]

steps = st.lists(
    st.tuples(st.sampled_from(["h1", "h2"]), st.sampled_from([*WORK, "trespass"]), st.sampled_from(PATIENTS)),
    max_size=60,
)
busy = st.builds(
    lambda more: [(h, work, p) for work in WORK[:7] for h in ("h1", "h2") for p in PATIENTS] + more, steps
)
_ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True)


async def told(kind: str, script: Sequence[Step], hospital_id: str) -> list[Any]:
    """Everything that one hospital was answered in the script, and what it sees in the end."""
    with TemporaryDirectory() as folder:
        store = await OPENERS[kind](Path(folder))
        try:
            actors = {one: Actor(store, one) for one in ("h1", "h2")}
            answers: list[Any] = []
            for who, work, patient in script:
                if work == "trespass":
                    (other,) = actors.keys() - {who}
                    assert await actors[who].trespass(actors[other]) == []
                    continue
                answer = await actors[who].do(work, patient)
                if who == hospital_id:
                    answers.append(answer)
            return [*answers, await actors[hospital_id].seen()]
        finally:
            await store.close()


@on_both_stores(sqlite=40, firestore=4, script=steps | busy)
def test_a_hospital_is_answered_as_if_it_were_alone(kind: str, script: list[Step]) -> None:
    alone = [step for step in script if step[0] == "h2" and step[1] != "trespass"]
    assert asyncio.run(told(kind, script, "h2")) == asyncio.run(told(kind, alone, "h2"))


@given(_ids, _ids, st.sampled_from([0, 8, 12, 20]), st.sampled_from(["local", "prod", "p"]))
@settings(max_examples=200, deadline=None)
def test_calls_of_two_hospitals_never_share_an_id(one: str, other: str, hour: int, environment: str) -> None:
    def call_of(hospital_id: str) -> str:
        trigger = Trigger(
            schedule_hour=hour,
            time_zone="UTC",
            trigger_type="scheduled",
            source="test",
            environment=environment,
            hospital_id=hospital_id,
        )
        return call_id(round_for(trigger, NOW, (0, 8, 12, 20)).id, "p1")

    assert (call_of(one) == call_of(other)) == (one == other)
