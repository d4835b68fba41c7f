"""The command line in the hands of somebody who has not read the manual."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from careflow.cli import _ALONE, _GROUPS, build, main, output, progress
from careflow.cli.alerts import URGENCY
from careflow.cli.terminal import Told
from careflow.cli.whereabouts import announced, reached
from careflow.core.checkins import Alert, AlertKind
from careflow.settings import load_settings
from careflow.store.sqlite import SqliteStore

Answer = tuple[int, str, str]
Careflow = Callable[..., Answer]


@pytest.fixture
def careflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Careflow:
    """Run a command in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["careflow", *words])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("nosuch",), 2, "demo, up, serve"),
        (("roster", "lst"), 2, 'Did you mean "list"'),
        (("roster", "list", "--dat", "x"), 2, "--data-dir"),
        (("rounds", "run"), 2, "--hour"),
        (("rounds", "run", "--hour", "eight"), 2, "--hour"),
        (("calls", "show"), 2, "CALL_ID"),
        (("serve", "everything"), 2, "pulse"),
        (("rounds", "run", "--hour", "8"), 1, "no data directory careflow-data"),
        (("calls", "list"), 1, "careflow roster import"),
        (("roster", "list", "--data-dir", "file"), 1, "no CareFlow data in file"),
        (("roster", "import", "--sample", "--data-dir", "file"), 1, "file cannot be used"),
        (("roster", "import"), 1, "--sample"),
        (("roster", "import", "nowhere"), 1, "nowhere"),
        (("roster", "import", "file"), 1, "no whole patient"),
        (("up", "--data-dir", "file"), 1, "file cannot be used"),
        (("up", "--speed", "nan"), 1, "from 1 to 1000"),
        (("demo", "--data-dir", "file"), 1, "it exists"),
        (("demo", "--data-dir", "file/new"), 1, "cannot be made"),
        (("demo", "--speed", "0"), 1, "--speed 0"),
        (("roster", "list", "--hospital", "Not One"), 1, "CAREFLOW_HOSPITAL_ID"),
    ],
)
def test_a_mistake_is_told_in_words_and_in_one_json_document(
    careflow: Careflow, tmp_path: Path, words: tuple[str, ...], status: int, says: str
) -> None:
    (tmp_path / "file").write_text("not a directory, nor FHIR")
    plain = careflow(*words)
    assert (plain[0], plain[1]) == (status, "")
    assert says in plain[2]
    with_json = careflow(*words, "--json")
    assert with_json[0] == status
    assert says in json.loads(with_json[1])["error"]["message"]


def test_a_command_that_looks_makes_nothing(careflow: Careflow, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words in (("roster", "list"), ("alerts", "list"), ("rounds", "run", "--hour", "8")):
        assert careflow(*words)[0] == 1
        assert careflow(*words, "--data-dir", "empty")[0] == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_every_bad_setting_is_named_at_once(careflow: Careflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_TIME_ZONE", "Mars")
    monkeypatch.setenv("CAREFLOW_PULSE_PORT", "x")
    status, _, said = careflow("roster", "list")
    assert status == 1
    assert "CAREFLOW_TIME_ZONE" in said
    assert "CAREFLOW_PULSE_PORT" in said


def test_a_defect_tells_where_and_not_what(careflow: Careflow, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "Maria Example, +12125550123"

    def broken() -> None:
        raise ValueError(words)

    monkeypatch.setattr("careflow.cli.build", lambda: lambda *words, **options: broken())
    status, _, said = careflow()
    assert status == 1
    assert "ValueError" in said
    assert "in broken" in said
    assert "Maria" not in said


def test_the_help_of_the_whole_is_that_of_the_parts() -> None:
    for name, text in _GROUPS.items():
        assert import_module(f"careflow.cli.{name}").app.help == text
    shown = {name for name in build() if not name.startswith("-")}
    assert shown == {*_ALONE, *_GROUPS}


def test_a_reader_who_has_seen_enough_is_no_accident(careflow: Careflow, tmp_path: Path) -> None:
    assert careflow("roster", "import", "--sample")[0] == 0
    program = "from careflow.cli import main; main()"
    command = f'"{sys.executable}" -c "{program}" roster list --json | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout == "{\n"
    assert done.stderr == ""


class TestAlerts:
    async def store(self, folder: Path) -> None:
        store = await SqliteStore.open(folder)
        for minute, kind in enumerate(reversed(URGENCY)):
            alert = Alert(
                id=f"alert-{kind}", hospital_id="default", round_id="r", call_id="c", attempt_id="a", patient_id="p",
                kind=kind, code="x", raised_at=datetime(2026, 11, 23, 13, minute, tzinfo=UTC),
            )  # fmt: skip
            assert await store.add_alert(alert)
        await store.close()

    def test_the_most_urgent_comes_first_and_what_is_acknowledged_is_gone(
        self, careflow: Careflow, tmp_path: Path
    ) -> None:
        import asyncio

        asyncio.run(self.store(tmp_path / "careflow-data"))

        def listed(*words: str) -> list[str]:
            return [
                alert["kind"]
                for alert in json.loads(careflow("alerts", "list", "--json", *words)[1])["alerts"]
            ]

        assert listed() == list(URGENCY)
        assert "1 patient waits for a person, 1 red flag first." in careflow("alerts", "list")[1]
        careflow("alerts", "ack", "alert-red-flag")
        assert listed()[0] == "interrupted"
        assert listed("--all")[-1] == "red-flag"

    def test_every_kind_has_its_urgency(self) -> None:
        assert set(URGENCY) == set(AlertKind)


class TestTable:
    ROWS = (("0123456789abcdef01234567", "completed"), ("fedcba987654321001234567", "unreachable"))

    def shown(self, monkeypatch: pytest.MonkeyPatch, width: int, *, terminal: bool) -> str:
        file = StringIO()
        monkeypatch.setattr(sys, "stdout", file)
        console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
        monkeypatch.setattr(output, "Console", lambda **options: console)
        output.print_table("Calls", ("call", "outcome"), self.ROWS)
        return file.getvalue()

    @pytest.mark.parametrize(("width", "terminal"), [(60, True), (30, True), (10, False)])
    def test_ids_are_never_torn(self, monkeypatch: pytest.MonkeyPatch, width: int, terminal: bool) -> None:
        shown = self.shown(monkeypatch, width, terminal=terminal)
        for row in self.ROWS:
            for cell in row:
                assert cell in shown

    def test_in_a_pipe_a_row_is_a_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = self.shown(monkeypatch, 10, terminal=False).splitlines()
        assert [line.split() for line in lines[2:]] == [list(row) for row in self.ROWS]


def test_without_a_terminal_the_standing_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with progress.Progress(clock=lambda: now) as shown:
        for now in (0.0, 0.5, 1.9, 2.5, 9.0):
            shown.stands(f"at {now}")
    assert capsys.readouterr().err.split("\n") == ["at 0.0", "at 2.5", "at 9.0", ""]


def test_a_terminal_hears_of_rounds_and_trouble_and_the_file_of_all() -> None:
    file, terminal = StringIO(), StringIO()
    told = Told(file, terminal, "America/New_York")
    entries: list[dict[str, Any]] = [
        {"severity": "INFO", "message": "Call ended", "time": "2026-11-23T13:15:00Z"},
        {"severity": "INFO", "message": "Round closed", "roundId": "r-1", "outcomes": {"completed": 2},
         "time": "2026-11-23T13:15:00Z"},
        {"severity": "WARNING", "message": "Caller not reached", "callId": "c-1", "time": "2026-11-23T13:15:01Z"},
    ]  # fmt: skip
    for entry in entries:
        print(json.dumps(entry), file=told)
    assert [json.loads(line) for line in file.getvalue().splitlines()] == entries
    assert terminal.getvalue().splitlines() == [
        "08:15:00 EST  Round closed; r-1; 2 completed",
        "08:15:01 EST  warning: Caller not reached; c-1",
    ]


class TestWhereabouts:
    def test_a_command_goes_where_pulse_says_it_is(self, tmp_path: Path) -> None:
        settings = load_settings(data_dir=tmp_path, pulse_port=8123)
        with announced(tmp_path, {"pulse": "http://127.0.0.1:4711"}):
            assert reached(settings).pulse_url == "http://127.0.0.1:4711"
        assert reached(settings).pulse_url == "http://127.0.0.1:8123"

    def test_what_the_environment_says_counts_more(self, tmp_path: Path) -> None:
        settings = load_settings(data_dir=tmp_path, pulse_url="http://pulse.example")
        with announced(tmp_path, {"pulse": "http://127.0.0.1:4711"}):
            assert reached(settings).pulse_url == "http://pulse.example"

    def test_rubbish_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "pulse.url").write_bytes(b"\xff\xfe")
        assert reached(load_settings(data_dir=tmp_path)).pulse_url == "http://127.0.0.1:8001"


def test_the_next_command_is_of_the_same_place(careflow: Careflow) -> None:
    status, said, _ = careflow("roster", "import", "--sample", "--data-dir", "here", "--hospital", "general")
    assert status == 0
    assert "rounds run --hour 8 --data-dir here --hospital general" in said
