"""Calls through the lab's network, end to end on loopback, on a clock that runs fast."""

from __future__ import annotations

import wave
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from twilio.request_validator import RequestValidator

from careflow.lab.personas import Persona
from careflow.lab.voice import Voice
from lab_bench import ACCOUNT, TO, TOKEN, Line, ask_all, bench, someone

PROMPTS = ("Am I speaking with Maria?", "What year were you born?", "Did you take your medicine?")


async def check_in(line: Line) -> None:
    await ask_all(line, PROMPTS)


async def wait_for_the_end(line: Line) -> None:
    await line.until(lambda: line.stopped)


# --- how calls end -----------------------------------------------------------------------------------------------


async def test_a_person_answers_what_is_asked(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=check_in) as lab:
        call = await lab.over(await lab.dial())
        events = lab.agent.events()
        line = lab.agent.lines[0]
    assert call["status"] == "completed"
    assert call["attempt"] == "a-1"
    assert [event["CallStatus"] for event in events] == ["initiated", "ringing", "in-progress", "completed"]
    assert [event["SequenceNumber"] for event in events] == ["0", "1", "2", "3"]
    assert int(events[-1]["CallDuration"]) > 5
    assert line.started["customParameters"] == {"attempt": "a-1"}
    assert "1948" in line.heard[1]
    assert all(line.complete)
    assert [spoken["text"] for spoken in call["transcript"] if spoken["who"] == "agent"] == [
        *PROMPTS,
        "Thank you. Goodbye.",
    ]
    assert call["warnings"] == []


@pytest.mark.parametrize(
    ("persona", "status", "sip", "seen"),
    [
        (Persona.NOT_ANSWERING, "no-answer", "480", ["initiated", "ringing", "no-answer"]),
        (Persona.BUSY, "busy", "486", ["initiated", "busy"]),
        (Persona.INVALID_NUMBER, "failed", "404", ["initiated", "failed"]),
    ],
)
async def test_calls_that_nobody_takes(
    tmp_path: Path, persona: Persona, status: str, sip: str, seen: list[str]
) -> None:
    async with bench(tmp_path, someone(persona)) as lab:
        call = await lab.over(await lab.dial())
        events = lab.agent.events()
    assert call["status"] == status
    assert [event["CallStatus"] for event in events] == seen
    assert events[-1]["SipResponseCode"] == sip
    assert events[-1]["CallDuration"] == "0"
    assert not lab.agent.lines


async def test_an_unknown_number_rings_out(tmp_path: Path) -> None:
    async with bench(tmp_path) as lab:
        assert (await lab.over(await lab.dial("+12125550199")))["status"] == "no-answer"


async def test_a_default_persona_takes_calls_to_unknown_numbers(tmp_path: Path) -> None:
    async with bench(tmp_path, talk=check_in, default_persona=Persona.WELL) as lab:
        assert (await lab.over(await lab.dial("+12125550199")))["status"] == "completed"


async def test_one_who_answers_the_second_time_misses_the_first(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(answers_on_attempt=2), talk=check_in) as lab:
        first = await lab.over(await lab.dial())
        second = await lab.over(await lab.dial())
    assert (first["status"], second["status"]) == ("no-answer", "completed")


async def test_a_number_that_is_on_the_telephone_is_busy(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end, calls_per_second=5.0) as lab:
        first = await lab.dial(TimeLimit="60")
        second = await lab.over(await lab.dial())
        assert second["status"] == "busy"
        assert (await lab.over(first))["status"] == "completed"


async def test_the_time_limit_ends_a_run_away_call(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end) as lab:
        call = await lab.over(await lab.dial(TimeLimit="10"))
        duration = int(lab.agent.events()[-1]["CallDuration"])
    assert call["endedBy"] == "network"
    assert 10 <= duration <= 11


async def test_calls_are_dialled_at_the_accounts_rate(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY), calls_per_second=0.05) as lab:
        sids = [await lab.dial() for _ in range(3)]
        for sid in sids:
            await lab.over(sid)
        dialled = sorted(lab.exchange.network.books.calls[sid].dialled_at for sid in sids)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(dialled)]
    assert all(20.0 <= gap < 25.0 for gap in gaps)


async def test_a_call_over_the_concurrency_limit_fails(tmp_path: Path) -> None:
    other = someone(phone="+12125550124")
    async with bench(
        tmp_path, someone(), other, talk=wait_for_the_end, calls_per_second=10.0, max_concurrent=1
    ) as lab:
        await lab.dial(TimeLimit="60")
        call = await lab.over(await lab.dial(other.phone))
    assert call["status"] == "failed"
    assert [warning["code"] for warning in call["warnings"]] == ["10004"]


async def test_what_is_left_of_the_prompt_is_not_heard_after_a_clear(tmp_path: Path) -> None:
    async def interrupt(line: Line) -> None:
        await line.say("One two three four five six seven eight nine ten eleven twelve thirteen.", "long")
        frames = len(line.messages)
        await line.until(lambda: len(line.messages) > frames + 60)
        await line.send(event="clear", streamSid=line.stream_sid)
        await line.until(lambda: "long" in line.marks)

    async with bench(tmp_path, someone(), talk=interrupt) as lab:
        call = await lab.over(await lab.dial())
    heard = " ".join(entry["text"] for entry in call["transcript"] if entry["who"] == "agent")
    assert "thirteen" not in heard


async def test_a_mark_comes_back_when_its_audio_was_played(tmp_path: Path) -> None:
    seconds: list[float] = []

    async def talk(line: Line) -> None:
        def clock() -> int:
            return int(
                next(m for m in reversed(line.messages) if m["event"] == "media")["media"]["timestamp"]
            )

        await line.until(lambda: any(message["event"] == "media" for message in line.messages))
        before = clock()
        await line.say("Thank you. I will wait for a moment.", "m")
        await line.until(lambda: "m" in line.marks)
        seconds.append((clock() - before) / 1000)

    async with bench(tmp_path, someone(), talk=talk, speed=20.0) as lab:
        await lab.over(await lab.dial())
    length = len(Voice().speak("Thank you. I will wait for a moment.")) / 8000
    assert length - 0.1 <= seconds[0] <= length + 2.0


async def test_frames_keep_their_numbers_and_silence_flows_too(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=check_in) as lab:
        await lab.over(await lab.dial())
        messages = lab.agent.lines[0].messages
    assert [message["event"] for message in messages[:2]] == ["connected", "start"]
    assert "sequenceNumber" not in messages[0]
    assert [int(message["sequenceNumber"]) for message in messages[1:]] == list(range(1, len(messages)))
    media = [message["media"] for message in messages if message["event"] == "media"]
    assert [one["chunk"] for one in media] == [str(number) for number in range(1, len(media) + 1)]
    assert {len(one["payload"]) for one in media} == {216}
    assert {one["track"] for one in media} == {"inbound"}


async def test_both_sides_are_recorded(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=check_in) as lab:
        sid = await lab.dial(Record="true")
        call = await lab.over(sid)
        kept = await lab.http.get(f"{lab.lab}/lab/recordings/{sid}.wav")
        base = f"{lab.lab}/2010-04-01/Accounts/{ACCOUNT}"
        listed = (await lab.http.get(f"{base}/Calls/{sid}/Recordings.json", auth=(ACCOUNT, TOKEN))).json()[
            "recordings"
        ]
        sound = await lab.http.get(f"{base}/Recordings/{listed[0]['sid']}.wav", auth=(ACCOUNT, TOKEN))
        final = lab.agent.events()[-1]
    assert call["status"] == "completed"
    assert kept.content == sound.content
    assert final["RecordingSid"] == listed[0]["sid"]
    with wave.open(BytesIO(kept.content)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        assert abs(file.getnframes() / 8000 - int(listed[0]["duration"])) < 1


# --- machine detection ---------------------------------------------------------------------------------------------


async def amd(lab_path: Path, persona: Persona, **changes: str) -> list[dict[str, str]]:
    async with bench(lab_path, someone(persona), talk=wait_for_the_end) as lab:
        await lab.over(
            await lab.dial(
                AsyncAmd="true", AsyncAmdStatusCallback=f"{lab.agent.url}/amd/a-1", TimeLimit="40", **changes
            )
        )
        return [form for path, form, *_ in lab.agent.posts if path == "/amd/a-1"]


async def test_a_mailbox_is_told_at_its_tone(tmp_path: Path) -> None:
    [verdict] = await amd(tmp_path, Persona.VOICEMAIL, MachineDetection="DetectMessageEnd")
    assert verdict["AnsweredBy"] == "machine_end_beep"
    assert int(verdict["MachineDetectionDuration"]) > 4000


async def test_a_mailbox_is_told_early_when_only_that_is_asked(tmp_path: Path) -> None:
    [verdict] = await amd(tmp_path, Persona.VOICEMAIL, MachineDetection="Enable")
    assert verdict["AnsweredBy"] == "machine_start"


async def test_a_person_is_told_to_be_human(tmp_path: Path) -> None:
    [verdict] = await amd(tmp_path, Persona.WELL, MachineDetection="DetectMessageEnd")
    assert verdict["AnsweredBy"] == "human"


async def test_no_verdict_in_time_is_unknown(tmp_path: Path) -> None:
    [verdict] = await amd(
        tmp_path, Persona.VOICEMAIL, MachineDetection="DetectMessageEnd", MachineDetectionTimeout="2"
    )
    assert verdict["AnsweredBy"] == "unknown"


async def test_synchronous_detection_holds_the_document_back(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=check_in) as lab:
        await lab.over(await lab.dial(MachineDetection="Enable"))
        [voice] = [form for path, form, *_ in lab.agent.posts if path == "/voice/a-1"]
    assert voice["AnsweredBy"] == "human"


# --- webhooks ----------------------------------------------------------------------------------------------------


async def test_every_webhook_and_the_upgrade_are_signed(tmp_path: Path) -> None:
    validator = RequestValidator(TOKEN)
    async with bench(tmp_path, someone(), talk=check_in) as lab:
        await lab.over(await lab.dial())
        agent = lab.agent
    assert len(agent.posts) == 5
    for path, form, signature, _ in agent.posts:
        assert validator.validate(agent.url + path, form, signature)
        assert not validator.validate(agent.url + path, form | {"CallStatus": "forged"}, signature)
    assert agent.upgrade_signatures == [
        validator.compute_signature(agent.url.replace("http", "ws") + "/media", {})
    ]


async def test_a_failed_webhook_is_retried_once_with_the_same_token(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        lab.agent.statuses["/status/a-1"] = [500]
        call = await lab.over(await lab.dial(StatusCallbackEvent="completed"))
        tokens = [token for *_, token in lab.agent.posts]
    assert len(tokens) == 2
    assert len(set(tokens)) == 1
    assert call["warnings"] == []


async def test_a_webhook_that_fails_twice_is_warned_of(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        lab.agent.statuses["/status/a-1"] = [500, 503]
        call = await lab.over(await lab.dial(StatusCallbackEvent="completed"))
    assert [warning["code"] for warning in call["warnings"]] == ["11200"]


async def test_only_the_events_asked_for_are_called_back(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        await lab.over(await lab.dial(StatusCallbackEvent=None))
        assert [event["CallStatus"] for event in lab.agent.events()] == ["busy"]


# --- TwiML -------------------------------------------------------------------------------------------------------


async def test_the_fallback_is_asked_when_the_document_cannot_be_had(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=check_in) as lab:
        lab.agent.statuses["/voice/a-1"] = [500, 500]
        lab.agent.twiml["/voice/fallback"] = "<Response><Say>Sorry.</Say><Hangup/></Response>"
        call = await lab.over(await lab.dial(FallbackUrl=f"{lab.agent.url}/voice/fallback"))
        told = next(form for path, form, *_ in lab.agent.posts if path == "/voice/fallback")
    assert told["ErrorCode"] == "11200"
    assert call["transcript"][-1]["text"] == "Sorry."


async def test_an_unknown_verb_ends_the_call_with_a_warning(tmp_path: Path) -> None:
    async with bench(tmp_path, someone()) as lab:
        call = await lab.over(await lab.dial(Url=None, Twiml="<Response><Sing/></Response>"))
    assert call["status"] == "completed"
    assert [warning["code"] for warning in call["warnings"]] == ["12100"]


async def test_the_verb_after_a_stream_runs_when_our_server_closes_it(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=check_in) as lab:
        stream = lab.agent.stream.removesuffix("</Response>")
        lab.agent.twiml["/voice/a-1"] = f"{stream}<Redirect>/voice/resume</Redirect></Response>"
        lab.agent.twiml["/voice/resume"] = "<Response><Say>We were cut off.</Say></Response>"
        call = await lab.over(await lab.dial())
    assert call["transcript"][-1]["text"] == "We were cut off."


async def test_keys_are_gathered_and_posted(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.KEYPAD_ONLY)) as lab:
        lab.agent.twiml["/voice/a-1"] = (
            '<Response><Gather action="/voice/keys" numDigits="4" timeout="10">'
            "<Say>Please key in the four digits of the year you were born.</Say></Gather></Response>"
        )
        lab.agent.twiml["/voice/keys"] = "<Response><Hangup/></Response>"
        await lab.over(await lab.dial())
        told = next(form for path, form, *_ in lab.agent.posts if path == "/voice/keys")
    assert told["Digits"] == "1948"


async def test_a_stream_that_cannot_be_opened_is_warned_of_and_passed_over(tmp_path: Path) -> None:
    async with bench(tmp_path, someone()) as lab:
        address = lab.agent.url.replace("http", "ws")
        lab.agent.twiml["/voice/a-1"] = (
            f'<Response><Connect><Stream url="{address}/media?token=x"/></Connect><Say>Sorry.</Say></Response>'
        )
        call = await lab.over(await lab.dial())
    assert [warning["code"] for warning in call["warnings"]] == ["31920"]
    assert call["transcript"][-1]["text"] == "Sorry."


# --- strictness of the stream --------------------------------------------------------------------------------------


async def test_messages_that_twilio_would_ignore_are_ignored_and_warned_of_once(tmp_path: Path) -> None:
    async def talk(line: Line) -> None:
        sid = line.stream_sid
        await line.send(event="media", streamSid=sid, media={"payload": "//8=", "track": "outbound"})
        await line.send(event="mark", streamSid="MZ0", mark={"name": "x"})
        await line.send(event="mark", streamSid=sid, mark={"name": "y"}, sequenceNumber="1")
        await line.send(event="hangup", streamSid=sid)
        await line.send(event="media", streamSid=sid, media={"payload": "!"})
        await line.socket.send_text("not json")
        await line.socket.send_bytes(b"\xff" * 160)
        await line.send(event="mark", streamSid=sid, mark={"name": "good"})
        await line.until(lambda: "good" in line.marks)

    async with bench(tmp_path, someone(), talk=talk) as lab:
        call = await lab.over(await lab.dial())
        books = (tmp_path / "lab" / "books.jsonl").read_text()
        assert lab.agent.lines[0].marks == ["good"]
    assert sorted(warning["code"] for warning in call["warnings"]) == ["31950", "31951"]
    assert '"kind":"stream-rejections"' in books
    assert '"count":7' in books


# --- the lab's own API -----------------------------------------------------------------------------------------


async def test_the_books_show_refused_requests_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as lab:
        await lab.create("12345")
        books = (await lab.http.get(f"{lab.lab}/lab/calls")).json()
    assert books["calls"] == []
    assert [(refused["code"], refused["to"]) for refused in books["refused"]] == [(21211, "12345")]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("subscribers", [{"phone": TO, "persona": "rude", "givenName": "A", "birthYear": 1950}], "persona"),
        ("subscribers", {}, "list"),
        ("faults", {"create_429": 2}, "create_429"),
        ("faults", {"earthquake": 1}, "earthquake"),
    ],
)
async def test_bad_settings_are_refused_by_name(tmp_path: Path, path: str, body: object, named: str) -> None:
    async with bench(tmp_path) as lab:
        answer = await lab.http.put(f"{lab.lab}/lab/{path}", json=body)
    assert answer.status_code == 400
    assert named in answer.json()["error"]


async def test_the_number_of_live_calls_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end) as lab:
        sid = await lab.dial(TimeLimit="20")
        await lab.until(lambda: bool(lab.agent.lines))
        assert (await lab.http.get(f"{lab.lab}/lab/live")).json() == {"live": 1, "queued": 0}
        await lab.over(sid)
        assert (await lab.http.get(f"{lab.lab}/lab/live")).json() == {"live": 0, "queued": 0}
