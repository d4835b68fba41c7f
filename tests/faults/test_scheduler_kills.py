"""kill -9 between any two steps of the scheduler neither loses nor silently doubles a slot."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from careflow.clock import published_time
from faults import scheduler_child

START = datetime(2026, 11, 23, 13, 0, 30, tzinfo=UTC)
LAST = datetime(2026, 11, 23, 13, 2, tzinfo=UTC)
SLOTS = ["2026-11-23T13:01:00Z", "2026-11-23T13:02:00Z"]


@pytest.fixture
def target():
    """Fails every slot's first request and takes the next; `received` has their slots."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            slot = self.headers["X-CloudScheduler-ScheduleTime"]
            received.append(slot)
            self.send_response(500 if received.count(slot) == 1 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.url = received, f"http://127.0.0.1:{server.server_port}/"
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def run_child(data_dir, url, start, at):
    arguments = [
        sys.executable,
        scheduler_child.__file__,
        str(data_dir),
        url,
        start.isoformat(),
        LAST.isoformat(),
        str(at),
    ]
    return subprocess.run(arguments, timeout=60, check=False).returncode


def history(data_dir):
    """Every attempt, and the slots recorded as missed."""
    with sqlite3.connect(data_dir / "careflow.sqlite3") as connection:
        rows = connection.execute("SELECT document FROM scheduler_attempts ORDER BY sequence").fetchall()
        logged = connection.execute("SELECT document FROM scheduler_log ORDER BY sequence").fetchall()
    missed = [
        entry["jsonPayload"]
        for (document,) in logged
        if (entry := json.loads(document))["jsonPayload"]["@type"].endswith("SlotsMissed")
    ]
    return [json.loads(document) for (document,) in rows], missed


def check(data_dir, received):
    attempts, missed = history(data_dir)
    assert not [
        one for one in missed if one["firstScheduledTime"] in SLOTS
    ]  # no outage was longer than the grace
    of_slot = {}
    for attempt in attempts:
        of_slot.setdefault(attempt["slot"].replace("+00:00", "Z"), []).append(attempt)
    assert sorted(of_slot)[:2] == SLOTS
    requests = Counter(received)
    for slot in SLOTS:
        tries = of_slot[slot]
        assert len({one["executionId"] for one in tries}) == 1, "a slot ran as two executions"
        assert [one["number"] for one in tries] == list(range(1, len(tries) + 1))
        assert tries[-1]["code"] == "OK"
        # Every request that the target saw was announced by an attempt; what is more than retries is marked as interrupted.
        assert requests[slot] <= len(tries)
        interrupted = sum(one["debugInfo"].startswith("INTERRUPTED") for one in tries)
        assert requests[slot] >= len(tries) - interrupted
        assert sum(one["code"] == "INTERNAL" for one in tries) + interrupted >= 1
        assert len(tries) <= 2 + interrupted


@pytest.mark.parametrize("step", range(1, 26, 2), ids=lambda step: f"steps-{step}-{step + 1}")
def test_whichever_step_it_dies_at(step, target, tmp_path):
    for at in (step, step + 1):
        data_dir = tmp_path / str(at)
        data_dir.mkdir()
        target.received.clear()
        assert run_child(data_dir, target.url, START, at) == -signal.SIGKILL
        back = published_time(data_dir / "clock") + timedelta(seconds=3)
        asyncio.run(scheduler_child.main(data_dir, target.url, back.isoformat(), LAST.isoformat(), 0))
        check(data_dir, target.received)


def test_dying_again_and_again(target, tmp_path):
    now, deaths = START, 0
    while (code := run_child(tmp_path, target.url, now, 9 + deaths % 5)) != 0:
        assert code == -signal.SIGKILL
        deaths += 1
        assert deaths < 30
        now = published_time(tmp_path / "clock") + timedelta(seconds=1)
    assert deaths >= 2
    check(tmp_path, target.received)
