"""`careflow calls`: the calls of a round, and one call with everything that was dialled and said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from careflow.cli.context import Context, DataDir, Hospital, Json, NotFound, opened
from careflow.cli.output import local, plain, print_json, print_table
from careflow.core.attempts import Attempt
from careflow.core.calls import Call
from careflow.core.checkins import CheckIn

app = App(
    name="calls", help="List calls, show one with its conversation.", default_parameter=Parameter(negative=())
)


@app.command(name="list")
async def list_(
    round_id: Annotated[str | None, Parameter(help="The round (default: the latest).")] = None,
    /,
    *,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """List the calls of a round."""
    async with opened(data_dir, hospital) as context:
        if round_id is None:
            latest = await context.store.rounds(context.hospital_id, limit=1)
            if not latest:
                raise NotFound("there is no round yet; trigger one with careflow rounds run --hour 8")
            round_id = latest[0].id
        elif await context.store.round(context.hospital_id, round_id) is None:
            raise NotFound(
                f"there is no round {round_id!r} in hospital {context.hospital_id!r}; see careflow rounds list"
            )
        calls: list[Call] = []
        while page := await context.store.calls(
            context.hospital_id, round_id, after=calls[-1].id if calls else "", limit=1000
        ):
            calls.extend(page)
        if json:
            print_json({"roundId": round_id, "calls": calls})
            return
        zone = context.settings.time_zone
        print_table(
            f"Calls of {round_id}",
            ("call", "patient", "state", "outcome", "reason", "attempts", "due", "ended"),
            [
                (
                    call.id,
                    call.patient_id,
                    call.state,
                    call.outcome,
                    call.reason,
                    call.attempts,
                    local(call.due_at, zone),
                    local(call.ended_at, zone),
                )
                for call in calls
            ],
        )


@app.command
async def show(
    call_id: Annotated[str, Parameter(help="The call's id, as `calls list` and `alerts list` show it.")],
    /,
    *,
    transcript: Annotated[bool, Parameter(help="Also what was said.")] = False,
    audio: Annotated[
        Path | None, Parameter(help="Write the recording of the last answered attempt to this WAV file.")
    ] = None,
    data_dir: DataDir = None,
    hospital: Hospital = None,
    json: Json = False,
) -> None:
    """Show a call: its attempts, its check-in and, if asked for, its words and its sound."""
    async with opened(data_dir, hospital) as context:
        call = await context.store.call(context.hospital_id, call_id)
        if call is None:
            raise NotFound(
                f"there is no call {call_id!r} in hospital {context.hospital_id!r}; see careflow calls list"
            )
        attempts = await context.store.attempts(context.hospital_id, call_id)
        check_ins = [
            check_in
            for attempt in attempts
            if (check_in := await context.store.check_in(context.hospital_id, attempt.id)) is not None
        ]
        if audio is not None:
            await _write_audio(context, attempts, audio)
        if json:
            shown = [plain(check_in) for check_in in check_ins]
            if not transcript:
                for check_in in shown:
                    check_in.pop("turns")
            secret = ("streamToken", "checkpoint")
            print_json(
                {
                    "call": call,
                    "attempts": [
                        {key: value for key, value in plain(attempt).items() if key not in secret}
                        for attempt in attempts
                    ],
                    "checkIns": shown,
                    "audio": str(audio) if audio else None,
                }
            )
            return
        _print_call(context, call, attempts, check_ins, transcript)
        if audio is not None:
            print(f"recording written to {audio}: left is the agent, right the patient")


def _print_call(
    context: Context, call: Call, attempts: Sequence[Attempt], check_ins: list[CheckIn], transcript: bool
) -> None:
    zone = context.settings.time_zone
    print(f"{call.id}: patient {call.patient_id}, round {call.round_id}")
    print(
        f"  {call.state}{f', {call.outcome} ({call.reason})' if call.outcome else ''}; due {local(call.due_at, zone)}"
    )
    print_table(
        "Attempts",
        ("number", "intended", "answered", "ended", "disposition", "ending", "failure", "sid"),
        [
            (
                attempt.number,
                local(attempt.intended_at, zone),
                local(attempt.answered_at, zone),
                local(attempt.ended_at, zone),
                attempt.disposition or attempt.state,
                attempt.ending,
                attempt.failure,
                attempt.call_sid,
            )
            for attempt in attempts
        ],
    )
    for check_in in check_ins:
        print_table(
            f"Check-in {check_in.id}: {check_in.triage}, {check_in.script} script, {check_in.language}",
            ("question", "answer", "asked"),
            [(answer.question_id, answer.value, answer.asked) for answer in check_in.answers],
        )
        if transcript:
            for turn in check_in.turns:
                print(f"  {local(turn.at, zone)}  {turn.speaker:7} {turn.text}")


async def _write_audio(context: Context, attempts: Sequence[Attempt], path: Path) -> None:
    from careflow.operating import local_recording, recording_of

    answered = [attempt.call_sid for attempt in attempts if attempt.answered_at and attempt.call_sid]
    if not answered:
        raise NotFound("no attempt of this call was answered, so there is no recording")
    # In practice the lab's file lies in this directory, whatever port the lab has and whether it runs.
    recording = local_recording(context.settings.data_dir, answered[-1])
    if recording is None:
        recording = await recording_of(context.settings, answered[-1])
    await asyncio.to_thread(path.write_bytes, recording)
