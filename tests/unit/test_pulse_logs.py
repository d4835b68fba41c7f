"""Invariant 7 and the seed's log line: what a round writes to the log, and that a key for health data does not exist."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from careflow.clock import VirtualClock
from careflow.telemetry import FIELDS, configure_logging
from pulse_world import NO_ANSWER, ROUND_ID, WINDOW_END, patient, world


def lines_of(emit: Any) -> list[dict[str, Any]]:
    """The JSON lines that `emit` makes with logging configured as in production."""
    stream = io.StringIO()
    root, before = logging.getLogger(), (logging.getLogger().handlers[:], logging.getLogger().level)
    hooks = sys.excepthook, threading.excepthook
    configure_logging("pulse", clock=VirtualClock(datetime(2026, 10, 16, 12, 15, tzinfo=UTC)), stream=stream)
    try:
        emit(structlog.get_logger())
    finally:
        sys.excepthook, threading.excepthook = hooks
        structlog.reset_defaults()
        root.handlers[:], root.level = before
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_trigger_writes_the_seeds_log_line_with_its_fields() -> None:
    async with world([patient(1), patient(2, consent=False)]) as it:
        await it.trigger()
        (line,) = [one for one in it.logs if one["event"] == "Scheduled rounds triggered"]
        assert (line["source"], line["scheduleHour"]) == ("cloud-scheduler", 8)
        assert (line["patientsQueried"], line["callsInitiated"]) == (2, 1)
        assert (line["roundId"], line["environment"], line["executionId"]) == (ROUND_ID, "test", "id-0")


async def test_a_whole_round_logs_known_keys_only_and_no_name_or_number() -> None:
    async with world([patient(1, given_name="Zebulon"), patient(2, family_name="Quux")]) as it:
        it.caller.script = lambda attempt: NO_ANSWER
        await it.trigger()
        it.caller.unreachable = True
        await it.drain(it.clock.now() + timedelta(minutes=2))
        it.caller.unreachable = False
        await it.drain(WINDOW_END + timedelta(hours=1))
        assert {"Call waits", "Call ended", "Caller not reached", "Round closed"} <= {
            one["event"] for one in it.logs
        }
        assert {key for one in it.logs for key in one} - {"event", "log_level", "exc_info"} <= FIELDS
        everything = repr(it.logs)
        assert not any(secret in everything for secret in ("Zebulon", "Quux", "Pat", "555"))


def test_a_line_has_googles_form() -> None:
    (line,) = lines_of(lambda log: log.warning("Round closed", roundId="r"))
    assert line == {
        "severity": "WARNING",
        "message": "Round closed",
        "component": "pulse",
        "time": "2026-10-16T12:15:00Z",
        "roundId": "r",
    }


def test_a_key_that_is_not_known_is_dropped_and_named() -> None:
    (line,) = lines_of(lambda log: log.info("x", phone="+12125550123", roundId="r"))
    assert (line["dropped"], line["roundId"]) == (["phone"], "r")
    assert "+12125550123" not in json.dumps(line)


def test_an_exception_is_its_class_and_place_and_none_of_its_words() -> None:
    def emit(log: Any) -> None:
        for logger in (log, logging.getLogger("library")):
            try:
                raise ValueError("Jane Roe has a fever")
            except ValueError as error:
                logger.error("it failed", exc_info=error)

    ours, theirs = lines_of(emit)
    for line in (ours, theirs):
        assert (line["error"], line["severity"]) == ("ValueError", "ERROR")
        assert line["where"].startswith("test_pulse_logs.py:")
        assert "Jane" not in json.dumps(line)


def test_libraries_that_log_urls_and_bodies_are_quiet() -> None:
    assert lines_of(lambda _: logging.getLogger("httpx").info("POST https://example.com/secret")) == []


def test_a_measurement_passes_as_a_number_and_not_as_words() -> None:
    (line,) = lines_of(
        lambda log: log.info("media stream over", frames_lost=3, heard="my chest hurts", how="stop")
    )
    assert (line["framesLost"], line["how"]) == (3, "stop")
    assert line["dropped"] == ["heard"]
    assert "chest" not in json.dumps(line)


async def _forgotten() -> None:
    raise ValueError("Jane Roe has a fever")


def test_a_forgotten_task_shows_its_error_and_none_of_its_words() -> None:
    def emit(_: Any) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(_forgotten())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del task
            gc.collect()
            asyncio.get_running_loop().call_soon(_fails, "Jane Roe")
            await asyncio.sleep(0)

        asyncio.run(main())

    forgotten, callback = lines_of(emit)
    assert forgotten["message"].startswith("Task exception was never retrieved")
    assert (forgotten["error"], forgotten["logger"]) == ("ValueError", "asyncio")
    assert callback["message"].startswith("Exception in callback _fails")
    assert "Jane" not in json.dumps([forgotten, callback])


def _fails(name: str) -> None:
    raise ValueError(name)


@pytest.mark.parametrize(
    "logged", [("cannot read %s", "Jane Roe"), ("cannot read: Jane Roe",), ("read 'Jane Roe'",)]
)
def test_a_library_is_quoted_up_to_its_values(logged: tuple[str, ...]) -> None:
    (line,) = lines_of(lambda _: logging.getLogger("library").warning(*logged))
    assert "Jane" not in json.dumps(line)
    assert "read" in line["message"]
    assert "test_pulse_logs.py:" in line["message"]


def test_an_error_that_nobody_caught_is_its_class_and_place() -> None:
    def emit(_: Any) -> None:
        thread = threading.Thread(target=_fails, args=("Jane Roe",))
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError("Jane Roe"), None)

    in_a_thread, outside = lines_of(emit)
    assert (in_a_thread["error"], outside["error"]) == ("ValueError", "ValueError")
    assert "Jane" not in json.dumps([in_a_thread, outside])


def test_our_own_records_are_whole() -> None:
    (line,) = lines_of(
        lambda _: logging.getLogger("careflow.caller.dialling").warning("attempt %s: gone", "c-1")
    )
    assert line["message"] == "attempt c-1: gone"
