"""The lab's books outlive the lab, and the pure parts of its network: playback, TwiML, orders."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from careflow.clock import VirtualClock
from careflow.lab.app import create_lab
from careflow.lab.books import MOVES, BadMove, BookedCall, Books
from careflow.lab.config import LabConfig
from careflow.lab.mulaw import FRAME_BYTES, SILENCE
from careflow.lab.orders import create_order
from careflow.lab.personas import Persona
from careflow.lab.playback import Playback
from careflow.lab.refusals import Refusal
from careflow.lab.twiml import Hangup, Pause, Redirect, Say, Stream, TwimlError, parse_twiml
from lab_bench import ACCOUNT, FROM, MORNING, TO, TOKEN, bench, someone

# A lab whose patient never hangs up, on a clock that this process moves by real time.
_LAB = f"""
import asyncio, socket, sys
from pathlib import Path
import uvicorn
from careflow.clock import SystemClock
from careflow.lab.app import create_lab
from careflow.lab.config import LabConfig
config = LabConfig(data_dir=Path(sys.argv[1]), account_sid="{ACCOUNT}", auth_token="{TOKEN}",
                   elevenlabs_api_key="k", from_numbers=frozenset(["{FROM}"]), calls_per_second=2.0)
listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(create_lab(config, SystemClock()).app, log_level="critical", lifespan="on"))
print(listener.getsockname()[1], flush=True)
asyncio.run(server.serve([listener]))
"""


async def test_a_call_is_in_the_books_when_its_creation_is_answered_even_if_the_lab_is_killed_then(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _LAB,
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert process.stdout is not None
    url = f"http://127.0.0.1:{int(await process.stdout.readline())}/2010-04-01/Accounts/{ACCOUNT}/Calls.json"
    form = {"To": TO, "From": FROM, "Url": "http://127.0.0.1:9/voice/a-1"}
    transport = httpx.AsyncHTTPTransport(retries=20)
    async with httpx.AsyncClient(trust_env=False, transport=transport, verify=False) as http:
        sids = [
            (await http.post(url, data=form, auth=(ACCOUNT, TOKEN), timeout=20)).json()["sid"]
            for _ in range(5)
        ]
    process.send_signal(signal.SIGKILL)
    await process.wait()
    books = Books(tmp_path / "lab")
    assert list(books.calls) == sids
    assert {call.attempt for call in books.calls.values()} == {"a-1"}
    books.close()


def booked(sid: str) -> BookedCall:
    return BookedCall(sid=sid, to=TO, from_=FROM, created_at=MORNING, updated_at=MORNING, form=[("To", TO)])


def test_a_torn_last_line_is_cut_and_the_books_go_on(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.created(booked("CA1"))
    books.close()
    with (tmp_path / "books.jsonl").open("ab") as file:
        file.write(b'{"kind":"created","sid":"CA2","at":"2026')
    again = Books(tmp_path)
    again.created(booked("CA3"))
    again.close()
    assert list(Books(tmp_path).calls) == ["CA1", "CA3"]


@given(
    st.lists(
        st.sampled_from(
            ["initiated", "ringing", "in-progress", "completed", "busy", "no-answer", "failed", "canceled"]
        )
    )
)
def test_any_sequence_of_statuses_books_allowed_moves_only_and_reads_back_the_same(
    statuses: list[str],
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        books = Books(Path(folder))
        books.created(booked("CA1"))
        call = books.calls["CA1"]
        for status in statuses:
            before = call.status
            try:
                books.enter(call, MORNING, "status", status=status)
            except BadMove:
                assert status not in MOVES.get(before, frozenset())
                assert call.status == before
        books.close()
        again = Books(Path(folder))
        assert again.calls["CA1"] == call
        again.close()


async def test_after_a_kill_queued_calls_are_dialled_and_cut_ones_settled(tmp_path: Path) -> None:
    books = Books(tmp_path / "lab")
    async with bench(tmp_path / "other", someone(Persona.BUSY)) as helper:
        form = [
            ("To", TO),
            ("From", FROM),
            ("Url", f"{helper.agent.url}/voice/a-1"),
            ("StatusCallback", f"{helper.agent.url}/status/a-1"),
        ]
        for sid, statuses in (
            ("CAqueued", []),
            ("CAringing", ["initiated", "ringing"]),
            ("CAtalking", ["initiated", "ringing", "in-progress"]),
        ):
            call = booked(sid)
            call.form = form
            books.created(call)
            for status in statuses:
                books.enter(books.calls[sid], MORNING, "status", status=status)
        books.close()
        config = LabConfig(
            data_dir=tmp_path,
            account_sid=ACCOUNT,
            auth_token=TOKEN,
            elevenlabs_api_key="k",
            from_numbers=frozenset([FROM]),
        )
        lab = create_lab(config, helper.clock, helper.http)
        lab.exchange.set_subscribers([someone(Persona.BUSY)])
        async with lab.app.router.lifespan_context(lab.app):
            calls = lab.exchange.network.books.calls
            await helper.until(lambda: all(call.over for call in calls.values()) and not lab.live_calls)
            await helper.until(lambda: len(helper.agent.events()) == 3)
        told = {event["CallSid"]: event["CallStatus"] for event in helper.agent.events()}
    assert told == {"CAqueued": "busy", "CAringing": "failed", "CAtalking": "completed"}


async def test_subscribers_and_faults_outlive_the_lab(tmp_path: Path) -> None:
    config = LabConfig(
        data_dir=tmp_path,
        account_sid=ACCOUNT,
        auth_token=TOKEN,
        elevenlabs_api_key="k",
        from_numbers=frozenset([FROM]),
    )
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        await lab.faults(create_429=0.5)
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        again = create_lab(config, VirtualClock(MORNING), http).exchange
    assert again.subscribers == {TO: someone(Persona.BUSY)}
    assert again.network.faults.chances.create_429 == 0.5


async def test_ids_are_never_given_twice_on_the_same_books(tmp_path: Path) -> None:
    sids = []
    for _ in range(2):
        async with bench(tmp_path, someone(Persona.BUSY)) as lab:
            sids += [await lab.dial(), await lab.dial()]
    assert len(set(sids)) == 4


# --- playback ----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.one_of(st.binary(min_size=1, max_size=500), st.sampled_from(["a", "b", "c"])), max_size=12)
)
def test_what_is_queued_is_played_in_order_and_every_mark_comes_after_its_audio(
    pieces: list[bytes | str],
) -> None:
    playback, sent, wanted = Playback(), 0, []
    got: list[str] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            playback.push(piece)
            sent += len(piece)
        else:
            wanted.append(piece)
            got += playback.mark(piece)
    played = b""
    while not playback.empty:
        frame, marks = playback.pull()
        assert len(frame) == FRAME_BYTES
        played += frame
        got += marks
    assert got == wanted
    assert played[:sent] == b"".join(piece for piece in pieces if isinstance(piece, bytes))
    assert set(played[sent:]) <= {0xFF}


def test_a_mark_with_nothing_ahead_of_it_comes_back_at_once_and_clear_returns_the_waiting_ones() -> None:
    playback = Playback()
    assert playback.mark("now") == ["now"]
    playback.push(b"\x00" * 400)
    assert playback.mark("later") == []
    assert playback.clear() == ["later"]
    assert playback.pull() == (SILENCE, [])


# --- TwiML and orders ----------------------------------------------------------------------------------------------


def test_a_document_becomes_verbs_in_order() -> None:
    verbs = parse_twiml(
        '<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="wss://h/m"><Parameter name="token" value="t"/>'
        '</Stream></Connect><Say voice="x">We are  sorry.</Say><Pause length="2"/><Redirect method="GET">/r</Redirect>'
        "<Hangup/></Response>"
    )
    assert [type(verb) for verb in verbs] == [Stream, Say, Pause, Redirect, Hangup]
    assert isinstance(verbs[0], Stream)
    assert verbs[0].parameters == (("token", "t"),)
    assert verbs[1] == Say("We are sorry.")


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("", "XML"),
        ("<Response>", "XML"),
        ("<Answer/>", "Answer"),
        ("<Response><Dial>+12125550123</Dial></Response>", "Dial"),
        ("<Response><Connect/></Response>", "Stream"),
        ('<Response><Connect><Stream url="https://h"/></Connect></Response>', "wss"),
        ('<Response><Connect><Stream url="wss://h" colour="red"/></Connect></Response>', "colour"),
        ('<Response><Pause length="long"/></Response>', "length"),
        ('<!DOCTYPE r [<!ENTITY a "b">]><Response>&a;</Response>', "DOCTYPE"),
        (
            '<Response><Connect><Stream url="wss://h"><Parameter name="n" value="'
            + "v" * 500
            + '"/></Stream></Connect></Response>',
            "500",
        ),
    ],
)
def test_a_bad_document_is_refused_by_what_is_wrong(document: str, named: str) -> None:
    with pytest.raises(TwimlError, match=named):
        parse_twiml(document)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["To", "From", "Url", "Twiml", "Timeout", "Record", "StatusCallback"]), st.text()
        )
    )
)
def test_any_form_makes_an_order_or_a_refusal(fields: list[tuple[str, str]]) -> None:
    refused: Refusal | None = None
    try:
        create_order(fields, {FROM})
    except Refusal as refusal:
        refused = refusal
    if refused is not None:
        assert 400 <= refused.status < 500
        assert json.dumps(refused.body())
