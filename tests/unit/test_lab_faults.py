"""The lab's faults: each happens when it is switched on, and what the books then say."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from careflow.lab.personas import Persona
from lab_bench import Line, ask_all, bench, someone


async def wait_for_the_end(line: Line) -> None:
    await line.until(lambda: line.stopped)


async def test_a_lost_response_leaves_a_call_that_was_made(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY), calls_per_second=20.0) as lab:
        await lab.faults(lost_create_response=1.0)
        seen = set()
        for _ in range(12):
            try:
                seen.add(str((await lab.create()).status_code))
            except httpx.RemoteProtocolError:
                seen.add("cut")
        books = (await lab.http.get(f"{lab.lab}/lab/calls")).json()["calls"]
    assert seen == {"500", "cut"}
    assert [call["responseLost"] for call in books] == [True] * 12


@pytest.mark.parametrize(
    ("fault", "status", "code"), [("create_429", 429, 20429), ("create_500", 500, 20500)]
)
async def test_a_refused_create_makes_no_call(tmp_path: Path, fault: str, status: int, code: int) -> None:
    async with bench(tmp_path) as lab:
        await lab.faults(**{fault: 1.0})
        answer = await lab.create()
        books = (await lab.http.get(f"{lab.lab}/lab/calls")).json()
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert books["calls"] == []


async def test_callbacks_come_twice(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        await lab.faults(duplicate_callback=1.0)
        await lab.over(await lab.dial())
        assert [event["SequenceNumber"] for event in lab.agent.events()] == ["0", "0", "1", "1"]


async def test_callbacks_come_late_or_out_of_order_but_all_come(tmp_path: Path) -> None:
    orders = set()
    async with bench(tmp_path, someone(), talk=wait_for_the_end) as lab:
        await lab.faults(out_of_order_callback=0.5, delayed_callback=0.3)
        for _ in range(4):
            lab.agent.posts.clear()
            await lab.over(await lab.dial(TimeLimit="2"))
            orders.add(tuple(event["SequenceNumber"] for event in lab.agent.events()))
    assert all(sorted(order) == ["0", "1", "2", "3"] for order in orders)
    assert orders != {("0", "1", "2", "3")}


async def test_a_stream_may_end_without_stop(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end) as lab:
        await lab.faults(missing_stop=1.0)
        await lab.over(await lab.dial(TimeLimit="3"))
        await lab.until(lambda: lab.agent.lines[0].stopped)
        assert "stop" not in [message["event"] for message in lab.agent.lines[0].messages]


async def test_a_dropped_frame_leaves_a_gap_and_breaks_the_words(tmp_path: Path) -> None:
    async def talk(line: Line) -> None:
        await ask_all(line, ["Am I speaking with Maria?", "What year were you born?"])

    async with bench(tmp_path, someone(), talk=talk) as lab:
        await lab.faults(dropped_frame=0.2)
        await lab.over(await lab.dial(TimeLimit="30"))
        line = lab.agent.lines[0]
    chunks = [int(message["media"]["chunk"]) for message in line.messages if message["event"] == "media"]
    assert len(chunks) < chunks[-1]
    assert not all(line.complete)


async def test_late_media_comes_in_a_bunch_and_whole(tmp_path: Path) -> None:
    async def talk(line: Line) -> None:
        await ask_all(line, ["Am I speaking with Maria?"])

    async with bench(tmp_path, someone(), talk=talk) as lab:
        await lab.faults(late_media=0.5)
        await lab.over(await lab.dial(TimeLimit="30"))
        line = lab.agent.lines[0]
    chunks = [int(message["media"]["chunk"]) for message in line.messages if message["event"] == "media"]
    assert chunks == list(range(1, len(chunks) + 1))
    assert line.complete[0]


async def test_no_fault_happens_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        chances = (await lab.http.get(f"{lab.lab}/lab/faults")).json()
    assert set(chances.values()) == {0.0}
