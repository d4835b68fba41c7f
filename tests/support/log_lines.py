"""Log entries as Cloud Logging would hold them, written by the real Pulse, Caller and scheduler: never typed by hand."""

from __future__ import annotations

import io
import json
import logging
import random
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import structlog
from pydantic import SecretStr

from careflow.caller.elevenlabs import ElevenLabsSpeech
from careflow.caller.speech_cache import AudioCache
from careflow.caller.twilio import TwilioAccount, TwilioPhone
from careflow.caller.vendor_errors import CountedPhone, CountedSpeech
from careflow.clock import VirtualClock
from careflow.core.attempts import Attempt
from careflow.core.checkins import Alert, AlertKind
from careflow.errors import ProviderError
from careflow.ports import Clock
from careflow.scheduler.defaults import default_jobs
from careflow.scheduler.logs import attempt_finished, attempt_started
from careflow.scheduler.model import AttemptRecord
from careflow.settings import Settings
from careflow.store.sqlite import SqliteStore
from careflow.telemetry import configure_logging
from pulse_world import EIGHT_FIFTEEN, HOSPITAL, NO_ANSWER, ROUND_ID, WINDOW_END, World, patient

Entry = dict[str, Any]
PROJECT = "careflow-prod-000000"
NAMES = {"given_name": "Zebulon", "family_name": "Quux"}


class Lines:
    """The entries of one service, as they are written."""

    def __init__(self, stream: io.StringIO, service: str) -> None:
        self._stream = stream
        self._service = service

    def entries(self) -> list[Entry]:
        return [as_entry(json.loads(line), self._service) for line in self._stream.getvalue().splitlines()]


def as_entry(line: Mapping[str, Any], service: str) -> Entry:
    """What Cloud Run's agent makes of a line of JSON on standard error (reference/google-cloud section 4)."""
    lifted = {"severity", "time"}
    return {
        "logName": f"projects/{PROJECT}/logs/run.googleapis.com%2Fstderr",
        "resource": {
            "type": "cloud_run_revision",
            "labels": {"project_id": PROJECT, "location": "us-central1", "service_name": service},
        },
        "timestamp": line["time"],
        "severity": line["severity"],
        "jsonPayload": {key: value for key, value in line.items() if key not in lifted},
    }


@contextmanager
def logged(service: str, component: str, clock: Clock) -> Iterator[Lines]:
    """Logging configured as in production, into memory, and put back afterwards."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    configure_logging(component, clock=clock, stream=stream)
    try:
        yield Lines(stream, service)
    finally:
        sys.excepthook, threading.excepthook = hooks
        structlog.reset_defaults()
        root.handlers[:], root.level = handlers, level


@asynccontextmanager
async def hospital(*patients: Any, start: datetime = EIGHT_FIFTEEN) -> AsyncIterator[tuple[World, Lines]]:
    """Pulse on a store of its own, and what it writes to the log."""
    with tempfile.TemporaryDirectory() as folder:
        store, clock = await SqliteStore.open(Path(folder)), VirtualClock(start)
        try:
            await store.put_patients(patients)
            with logged("careflow-agent", "pulse", clock) as lines:
                yield World(store, clock), lines
        finally:
            await store.close()


async def a_good_day() -> list[Entry]:
    """A morning round from its trigger to its end in which everybody answers, with its sweeps."""
    async with hospital(*(patient(number, **NAMES) for number in range(1, 4))) as (it, lines):
        await it.trigger()
        await it.post("/tasks/sweep", {})
        await it.drain(WINDOW_END + timedelta(minutes=1))
        await it.post("/tasks/sweep", {})
        return lines.entries()


async def a_bad_day() -> list[Entry]:
    """Nobody answers in the morning, noon comes late and never ends, and no nurse looks."""
    noon = patient(20, hours=frozenset({12}), **NAMES)
    lot = [patient(number, **NAMES) for number in range(1, 13)]
    unusable = patient(30, time_zone="Mars/Base", **NAMES)
    async with hospital(*lot, noon, unusable) as (it, lines):
        it.caller.script = lambda _attempt: NO_ANSWER
        await it.trigger()
        await it.store.add_alert(red_flag(it.clock.now()))
        await it.drain(it.clock.now() + timedelta(minutes=16))
        await it.post("/tasks/sweep", {})
        await it.drain(WINDOW_END + timedelta(minutes=65))
        await it.post("/tasks/sweep", {})
        await it.trigger(scheduleHour=12)
        it.clock.advance(timedelta(hours=9).total_seconds())
        await it.post("/tasks/sweep", {})
        return lines.entries()


def red_flag(now: datetime) -> Alert:
    return Alert(
        id="a1",
        hospital_id=HOSPITAL,
        round_id=ROUND_ID,
        call_id="c1",
        attempt_id="c1-1",
        patient_id="p00001",
        kind=AlertKind.RED_FLAG,
        code="chest-pain",
        raised_at=now,
    )


async def vendors_that_fail() -> list[Entry]:
    """What the Caller writes when Twilio and ElevenLabs refuse, and when a dial comes too late."""
    clock = VirtualClock(EIGHT_FIFTEEN)
    refusal = {
        "code": 20003,
        "message": "Zebulon",
        "detail": {"status": "quota_exceeded", "message": "Zebulon"},
    }
    vendor = httpx.MockTransport(lambda _request: httpx.Response(401, json=refusal))
    attempt = Attempt(
        id="c1-1",
        hospital_id=HOSPITAL,
        round_id=ROUND_ID,
        call_id="c1",
        patient_id="p00001",
        number=1,
        phone="+12125550123",
        script="morning",
        stream_token="t",
        intended_at=EIGHT_FIFTEEN,
        not_after=WINDOW_END,
    )
    with tempfile.TemporaryDirectory() as folder, logged("caller-agent", "caller", clock) as lines:
        async with httpx.AsyncClient(transport=vendor) as http:
            settings = Settings(twilio_account_sid="AC1", twilio_from="+12125550100")
            phone = CountedPhone(TwilioPhone(http, TwilioAccount.of(settings), clock, random.random))
            speech = CountedSpeech(
                ElevenLabsSpeech(
                    http,
                    base_url="https://speech.test",
                    api_key=SecretStr("key"),
                    voices={"en": "v"},
                    tts_model="m",
                    stt_model="m",
                    zero_retention=False,
                    cache=AudioCache(Path(folder)),
                    clock=clock,
                    rng=random.Random(1),
                )
            )
            for failing in (
                phone.dial(attempt),
                phone.dial(replace(attempt, not_after=EIGHT_FIFTEEN)),
                phone.hang_up("CA1"),
                phone.fetch("CA1"),
                phone.calls_to("+12125550123"),
                speech.say("Good morning, Zebulon", "en"),
            ):
                with suppress(ProviderError):
                    await failing
        return lines.entries()


def deliveries(*results: str, job: str = "careflow-morning-rounds", every: int = 60) -> list[Entry]:
    """A job's attempts, one after the other, each with its google.rpc code; "OK" for a success."""
    settings = Settings(project=PROJECT)
    usual = default_jobs(settings, "https://careflow-agent-abc123-uc.a.run.app")[0]
    named = replace(usual, name=usual.name.rpartition("/")[0] + f"/{job}")
    entries = []
    for number, result in enumerate(results, 1):
        started = EIGHT_FIFTEEN + timedelta(seconds=every * (number - 1))
        record = AttemptRecord(
            job=named.name,
            execution_id="e1",
            slot=EIGHT_FIFTEEN,
            number=number,
            started_at=started,
            finished_at=started + timedelta(seconds=1),
            http_status=200 if result == "OK" else 503,
            code=result,
            debug_info="URL_CRAWLED. Original HTTP response code number = 200",
        )
        entries += [
            attempt_started(named, record),
            attempt_finished(named.name, named.http_target.uri, record),
        ]
    return entries
