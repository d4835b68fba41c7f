"""Twilio's own Python client against the lab: what it can do there, it can do here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from careflow.lab.personas import Persona
from lab_bench import ACCOUNT, FROM, MORNING, TO, TOKEN, Bench, Line, bench, someone

T = TypeVar("T")


class _LabHttp(TwilioHttpClient):
    """The SDK's client, sent to the lab."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        return super().request(method, url.replace("https://api.twilio.com", self._base), *args, **kwargs)


def client(lab: Bench, token: str = TOKEN) -> Client:
    return Client(ACCOUNT, token, http_client=_LabHttp(lab.lab))


async def run(work: Callable[[], T]) -> T:
    """The SDK blocks, and the lab runs in this thread's loop."""
    return await asyncio.to_thread(work)


async def wait_for_the_end(line: Line) -> None:
    await line.until(lambda: line.stopped)


def order(lab: Bench, **changes: Any) -> dict[str, Any]:
    return {
        "to": TO,
        "from_": FROM,
        "url": f"{lab.agent.url}/voice/a-1",
        "status_callback": f"{lab.agent.url}/status/a-1",
        "status_callback_event": ["initiated", "ringing", "answered", "completed"],
        "timeout": 25,
        "time_limit": 600,
    } | changes


async def test_a_call_is_created_fetched_and_ends(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        sdk = client(lab)
        created = await run(lambda: sdk.calls.create(**order(lab)))
        assert created.status == "queued"
        assert created.date_created == MORNING.replace(microsecond=0) or created.date_created > MORNING
        await lab.over(created.sid)
        fetched = await run(lambda: sdk.calls(created.sid).fetch())
    assert (fetched.status, fetched.to, fetched.duration) == ("busy", TO, "0")
    assert fetched.start_time is not None


async def test_a_live_call_is_completed_and_a_queued_one_canceled(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end, calls_per_second=0.01) as lab:
        sdk = client(lab)
        first = await run(lambda: sdk.calls.create(**order(lab)))
        await lab.until(lambda: bool(lab.agent.lines))
        second = await run(lambda: sdk.calls.create(**order(lab)))
        updated = await run(lambda: sdk.calls(second.sid).update(status="canceled"))
        assert updated.status == "canceled"
        await run(lambda: sdk.calls(first.sid).update(status="completed"))
        call = await lab.over(first.sid)
        assert (call["status"], call["endedBy"]) == ("completed", "api")
        assert lab.agent.lines[0].messages[-1]["event"] == "stop"
        with pytest.raises(TwilioRestException) as refusal:
            await run(lambda: sdk.calls(first.sid).update(status="completed"))
        assert (refusal.value.status, refusal.value.code) == (400, 21220)
        await lab.until(lambda: [event["CallStatus"] for event in lab.agent.events()].count("canceled") == 1)


async def test_canceling_an_answered_call_changes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end) as lab:
        sdk = client(lab)
        call = await run(lambda: sdk.calls.create(**order(lab)))
        await lab.until(lambda: bool(lab.agent.lines))
        updated = await run(lambda: sdk.calls(call.sid).update(status="canceled"))
        assert updated.status == "in-progress"


async def test_a_ringing_call_is_canceled_and_not_answered(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end, speed=20.0) as lab:
        sdk = client(lab)
        call = await run(lambda: sdk.calls.create(**order(lab)))
        await lab.until(lambda: any(event["CallStatus"] == "ringing" for event in lab.agent.events()))
        assert (await run(lambda: sdk.calls(call.sid).update(status="canceled"))).status == "canceled"
        await lab.over(call.sid)
        assert not lab.agent.lines


async def test_new_twiml_replaces_the_stream_of_a_live_call(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end) as lab:
        sdk = client(lab)
        call = await run(lambda: sdk.calls.create(**order(lab)))
        await lab.until(lambda: bool(lab.agent.lines))
        document = "<Response><Say>A nurse will call you.</Say></Response>"
        await run(lambda: sdk.calls(call.sid).update(twiml=document))
        books = await lab.over(call.sid)
        assert lab.agent.lines[0].messages[-1]["event"] == "stop"
    assert books["transcript"][-1]["text"] == "A nurse will call you."


async def test_every_page_of_a_list_is_followed(tmp_path: Path) -> None:
    other = "+12125550124"
    async with bench(tmp_path, someone(Persona.BUSY), calls_per_second=50.0) as lab:
        sdk = client(lab)
        sids = [await lab.dial() for _ in range(7)]
        await lab.dial(other)
        for sid in sids:
            await lab.over(sid)
        found = await run(lambda: sdk.calls.list(to=TO, from_=FROM, page_size=2))
        busy = await run(lambda: sdk.calls.list(to=TO, status="busy"))
        today = await run(lambda: sdk.calls.list(to=TO, start_time=MORNING))
        before = await run(lambda: sdk.calls.list(to=TO, start_time_before=MORNING.replace(day=22)))
        limited = await run(lambda: sdk.calls.list(to=TO, limit=3, page_size=2))
    assert [call.sid for call in found] == list(reversed(sids))
    assert (len(busy), len(today), len(before), len(limited)) == (7, 7, 0, 3)


async def test_a_finished_call_is_deleted(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        sdk = client(lab)
        sid = await lab.dial()
        await lab.over(sid)
        assert await run(lambda: sdk.calls(sid).delete())
        with pytest.raises(TwilioRestException) as refusal:
            await run(lambda: sdk.calls(sid).fetch())
        assert (refusal.value.status, refusal.value.code) == (404, 20404)
        assert await run(lambda: sdk.calls.list(to=TO)) == []


async def test_recordings_are_listed(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(), talk=wait_for_the_end) as lab:
        sdk = client(lab)
        call = await run(lambda: sdk.calls.create(**order(lab, record=True, time_limit=5)))
        await lab.over(call.sid)
        recordings = await run(lambda: sdk.calls(call.sid).recordings.list())
    assert [recording.call_sid for recording in recordings] == [call.sid]
    assert int(recordings[0].duration) == 5


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": ""}, 21201),
        ({"to": "555-0123"}, 21211),
        ({"to": FROM}, 21211),
        ({"to": "+19005550123"}, 21202),
        ({"from_": ""}, 21213),
        ({"from_": "nobody"}, 21212),
        ({"from_": "+12125550111"}, 21210),
        ({"url": "ftp://somewhere"}, 21205),
        ({"url": "http://[half"}, 21205),
        ({"url": "", "twiml": ""}, 21205),
        ({"status_callback_event": ["answered", "exploded"]}, 20001),
        ({"timeout": 601}, 20001),
        ({"url": "", "twiml": "x" * 4001}, 20001),
        ({"machine_detection": "Perhaps"}, 20001),
    ],
)
async def test_bad_parameters_are_refused_with_twilios_codes(
    tmp_path: Path, changes: dict[str, Any], code: int
) -> None:
    async with bench(tmp_path) as lab:
        with pytest.raises(TwilioRestException) as refusal:
            await run(lambda: client(lab).calls.create(**order(lab, **changes)))
    assert (refusal.value.status, refusal.value.code) == (400, code)


async def test_bad_credentials_are_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as lab:
        with pytest.raises(TwilioRestException) as refusal:
            await run(lambda: client(lab, "wrong").calls.create(**order(lab)))
    assert (refusal.value.status, refusal.value.code) == (401, 20003)


async def test_an_error_body_is_shaped_as_users_report_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as lab:
        answer = await lab.create("nobody")
    assert answer.json() == {
        "code": 21211,
        "message": "The 'To' number nobody is not a valid phone number: E.164 is accepted",
        "more_info": "https://www.twilio.com/docs/errors/21211",
        "status": 400,
    }


async def test_the_account_its_balance_and_its_numbers_are_read(tmp_path: Path) -> None:
    async with bench(tmp_path, someone(Persona.BUSY)) as lab:
        sdk = client(lab)
        account = await run(lambda: sdk.api.accounts(ACCOUNT).fetch())
        assert (account.sid, account.status, account.type) == (ACCOUNT, "active", "Full")
        balance = await run(lambda: sdk.api.v2010.account.balance.fetch())
        assert float(balance.balance) > 0
        (number,) = await run(lambda: sdk.incoming_phone_numbers.list(phone_number=FROM))
        assert (number.phone_number, number.capabilities["voice"]) == (FROM, True)
        assert await run(lambda: sdk.incoming_phone_numbers.list(phone_number="+12125550198")) == []
        with pytest.raises(TwilioRestException, match="401"):
            await run(lambda: client(lab, "wrong").api.accounts(ACCOUNT).fetch())
