"""Calls through the lab's network, end to end on loopback."""

from __future__ import annotations

from pathlib import Path

from lab_bench import Line, ask_all, bench, someone


async def talk(line: Line) -> None:
    await ask_all(
        line, ["Am I speaking with Maria?", "What year were you born?", "Did you take your medicine?"]
    )


async def test_a_person_answers_what_is_asked(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=talk) as lab:
        call = await lab.over(await lab.dial())
        print(call, lab.agent.events())
        assert call["status"] == "completed"
        assert [event["CallStatus"] for event in lab.agent.events()] == [
            "initiated",
            "ringing",
            "in-progress",
            "completed",
        ]
        assert lab.agent.lines[0].heard[1].strip(".").endswith("1948")
        assert all(lab.agent.lines[0].complete)
