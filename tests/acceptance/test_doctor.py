"""`careflow doctor` on a machine in trouble: each of the seed's troubles is made, named, and cured by the fix that is printed."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from careflow.hosting import Service, listen, running, url_of
from careflow.settings import load_settings
from doctor_kit import MORNING_JOB, Machine, Told, machine, serving, tomorrow_morning
from emulated import require_emulator
from surface import resident

FASTER = 40.0


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts that one machine has rendered are there for the next."""
    return tmp_path_factory.mktemp("audio")


@pytest.fixture(autouse=True)
def _nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoken: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAREFLOW_AUDIO_DIR", str(spoken))


async def aimed(one: Machine, **changed: str) -> dict[str, Any]:
    """The morning's job again, with other words; it keeps its schedule and its body."""
    job = await one.jobs("describe", MORNING_JOB)
    target = job["httpTarget"]
    words = {
        "schedule": job["schedule"],
        "time-zone": job["timeZone"],
        "uri": target["uri"],
        "account": target["oidcToken"]["serviceAccountEmail"],
        "audience": target["oidcToken"]["audience"],
        "body": base64.b64decode(target["body"]).decode(),
        "retries": "0",
        "deadline": "600",
    } | changed
    await one.jobs("delete", MORNING_JOB)
    given = [word for key, value in words.items() for word in (f"--{key}", value)]
    made: dict[str, Any] = await one.jobs("create", MORNING_JOB, *given)
    return made


def about(told: Told, job: str = MORNING_JOB) -> set[str]:
    """The checks that have a failure of the job."""
    return {one["check"] for one in told.findings("fail") if one["subject"] == job}


class TestAWholeMachine:
    async def test_is_well_and_told_so_within_seconds(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            told = await one.doctor()
            assert (told.status, told.document["healthy"]) == (0, True), told.text
            assert [f for f in told.findings("warn") if f["check"] != "data"] == []  # `up` holds no lock here
            assert {f["check"] for f in told.findings("skipped")} == {"rights"}
            assert told.document["seconds"] < 10
            assert {check["check"] for check in told.document["checks"]} >= {
                *("store", "queue", "pulse", "caller", "jobs", "rehearsal", "telephone", "speech", "rounds")
            }
            status, text = await one.careflow("doctor", "--data-dir", str(one.data_dir), "--all")
            assert status == 0
            assert "Pulse takes its token, path and payload" in text

    async def test_is_left_as_it_was_but_for_the_probe(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            assert one.assembly is not None
            store = one.assembly.store

            async def seen() -> Any:
                kept = [*one.data_dir.iterdir(), *(one.data_dir / "issuer").iterdir()]
                return await one.jobs("list"), await store.rounds("default"), sorted(kept)

            before = await seen()
            told = await one.doctor()
            assert [check["writes"] for check in told.document["checks"] if check["writes"]] == [
                "one probe, a counter"
            ]
            assert await seen() == before
            assert await store.executions("default") == []

    async def test_shows_no_patient_and_no_secret(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            assert one.assembly is not None
            await aimed(one, audience="https://elsewhere.test")
            await one.ran()
            given = one.assembly.settings
            for words in (("--json",), ("--all",)):
                _, text = await one.careflow("doctor", "--data-dir", str(one.data_dir), *words)
                secrets = (given.twilio_auth_token, given.elevenlabs_api_key)
                hidden = [one_.get_secret_value() for one_ in secrets]
                patient = resident()
                for word in (*hidden, patient.given_name, patient.family_name, patient.phone, "eyJ"):
                    assert word is not None
                    assert word not in text

    async def test_has_nobody_to_phone(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            assert one.assembly is not None
            await one.assembly.store.put_patients([resident(number, consent=False) for number in (1, 2)])
            finding = (await one.doctor()).failure("roster")
            assert "2 no-consent" in finding["said"]
            assert "--assume-consent" in finding["fix"][0]


class TestJobsNotExecuting:
    async def test_a_paused_job_is_named_and_resumed(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            await one.jobs("pause", MORNING_JOB)
            told = await one.doctor()
            assert told.status == 1
            finding = told.failure("jobs", MORNING_JOB)
            assert finding["evidence"]["state"] == "PAUSED"
            await one.carry_out(finding["fix"])
            await one.ran(fresh=False)
            assert (await one.doctor()).status == 0

    async def test_a_deleted_job_is_missed_and_made_again(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            await one.jobs("delete", MORNING_JOB)
            finding = (await one.doctor()).failure("jobs", "8:00 of default")
            await one.carry_out(finding["fix"])
            await one.ran()
            assert (await one.doctor()).status == 0

    async def test_a_job_that_fires_at_the_wrong_hour_is_moved_back(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            await one.jobs("update", MORNING_JOB, "--schedule", "15 15 * * *")
            finding = (await one.doctor()).failure("jobs", MORNING_JOB)
            assert "outside the window of the 8:00 round" in finding["said"]
            await one.carry_out(finding["fix"])
            assert (await one.doctor()).status == 0


class TestForbidden:
    async def test_a_wrong_account_is_403_before_and_after_it_ran(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            await aimed(one, account="somebody@careflow-local.iam.gserviceaccount.com")
            told = await one.doctor()
            assert about(told) == {"jobs", "rehearsal"}
            rehearsed = told.failure("rehearsal", MORNING_JOB)
            assert (rehearsed["evidence"]["status"], rehearsed["evidence"]["code"]) == ("403", "account")

            assert (await one.ran())["status"]["code"] == 7
            told = await one.doctor()
            ended = [f for f in told.findings("fail", "jobs") if "PERMISSION_DENIED" in f["said"]]
            assert ended[0]["evidence"]["http"] == "403"
            assert "roles/run.invoker" in ended[0]["means"]

            await one.carry_out(told.failure("jobs", MORNING_JOB)["fix"])
            await one.ran()
            assert (await one.doctor()).status == 0

    async def test_a_wrong_audience_is_401_and_said_to_be_another_matter(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            await aimed(one, audience="https://elsewhere.test")
            assert (await one.ran())["status"]["code"] == 16
            told = await one.doctor()
            assert told.failure("rehearsal", MORNING_JOB)["evidence"]["code"] == "audience"
            assert any("UNAUTHENTICATED" in f["said"] for f in told.findings("fail", "jobs"))
            await one.carry_out(told.failure("rehearsal", MORNING_JOB)["fix"])
            await one.ran()
            assert (await one.doctor()).status == 0

    async def test_a_payload_that_pulse_refuses_is_told_by_its_field(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            await one.jobs("update", MORNING_JOB, "--body", '{"scheduleHour": 8, "environment": "local"}')
            finding = (await one.doctor()).failure("rehearsal", MORNING_JOB)
            assert (finding["evidence"]["status"], finding["evidence"]["field"]) == ("400", "timezone")

    async def test_a_body_that_goes_out_as_octets_is_given_its_header(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            body = (
                '{"scheduleHour":8,"timezone":"America/New_York","triggerType":"scheduled",'
                '"source":"cloud-scheduler","environment":"local"}'
            )
            await one.jobs("update", MORNING_JOB, "--body", "octets")
            assert one.assembly is not None
            url = one.assembly.settings.scheduler_url
            name = f"projects/careflow-local/locations/us-central1/jobs/{MORNING_JOB}"
            target = {"body": base64.b64encode(body.encode()).decode(), "headers": {}}
            async with httpx.AsyncClient() as http:
                answer = await http.patch(
                    f"{url}/v1/{name}",
                    params={"updateMask": "httpTarget.body,httpTarget.headers"},
                    json={"httpTarget": target},
                )
            assert answer.is_success, answer.text
            told = await one.doctor()
            assert told.failure("rehearsal", MORNING_JOB)["evidence"]["status"] == "415"
            await one.carry_out(told.failure("jobs", MORNING_JOB)["fix"])
            assert (await one.doctor()).status == 0


class TestTimingOut:
    async def test_a_deadline_too_short_for_a_slow_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with machine(tmp_path) as one:
            assert one.assembly is not None
            kind = type(one.assembly.store)
            quick = kind.open_round

            async def slow(self: Any, round_: Any) -> Any:
                await asyncio.sleep(40 / FASTER)
                return await quick(self, round_)

            # Deadlines are real seconds, and at least fifteen: here a second is shorter.
            hasty = {**vars(asyncio), "timeout": lambda seconds: asyncio.timeout(seconds / FASTER)}
            monkeypatch.setattr("careflow.scheduler.delivery.asyncio", SimpleNamespace(**hasty))
            monkeypatch.setattr(kind, "open_round", slow)
            await aimed(one, deadline="15")
            assert (await one.ran())["status"]["code"] == 4
            told = await one.doctor()
            finding = told.failure("jobs", MORNING_JOB)
            assert "DEADLINE_EXCEEDED" in finding["said"]
            assert "phones afterwards" in finding["means"]
            assert any("gives Pulse 15 s" in one_["said"] for one_ in told.findings("warn", "jobs"))
            await one.carry_out([line for line in finding["fix"] if " update " in line])
            assert not (await one.ran()).get("status", {}).get("code")
            assert (await one.doctor()).status == 0


class TestWrongAgentUrl:
    async def test_another_environments_pulse_refuses_and_is_recognised(self, tmp_path: Path) -> None:
        async with machine(tmp_path / "local") as one:
            assert one.assembly is not None
            given = one.assembly.settings
            async with machine(
                tmp_path / "staging",
                roles=("lab", "caller", "pulse"),
                environment="staging",
                oidc_jwks=str(one.data_dir / "issuer" / "jwks.json"),
                pulse_audience=given.pulse_url,
            ) as other:
                assert other.assembly is not None
                await one.jobs("update", MORNING_JOB, "--uri", other.assembly.settings.pulse_url)
                assert (await one.ran())["status"]["code"] == 3
                told = await one.doctor()
                assert "another Pulse is" in told.failure("rehearsal", MORNING_JOB)["means"]
                assert any("INVALID_ARGUMENT" in f["said"] for f in told.findings("fail", "jobs"))
                assert await other.assembly.store.rounds("default") == []
            await one.carry_out(told.failure("jobs", MORNING_JOB)["fix"])
            await one.ran(fresh=False)
            assert (await one.doctor()).status == 0

    async def test_a_stranger_that_answers_200_is_found_in_the_ledger(self, tmp_path: Path) -> None:
        headers: list[str] = []

        async def anything(request: Request) -> PlainTextResponse:
            headers.append(f"{request.method} {request.headers.get('authorization', '')}")
            return PlainTextResponse("hello")

        routes = [Route("/{path:path}", anything, methods=["GET", "POST"])]
        bound = listen("127.0.0.1", 0, "PORT")
        async with machine(tmp_path) as one, running([Service("stranger", Starlette(routes=routes), bound)]):
            await one.ran()  # this one arrives
            one.clock.advance(360)
            await one.jobs("update", MORNING_JOB, "--uri", url_of(bound))
            job = await one.ran()
            assert not job["status"].get("code")  # it succeeds
            headers.clear()
            told = await one.doctor()
            assert about(told) == {"jobs", "rehearsal", "arrivals"}
            assert "no trace of it" in told.failure("arrivals", MORNING_JOB)["said"]
            assert "answers 2xx" in told.failure("rehearsal", MORNING_JOB)["means"]
            assert headers == ["GET "]  # and no token went there
            await one.carry_out(told.failure("arrivals", MORNING_JOB)["fix"])
            await one.ran(fresh=False)
            assert (await one.doctor()).status == 0

    async def test_a_path_behind_pulse_is_no_place_for_triggers(self, tmp_path: Path) -> None:
        async with machine(tmp_path) as one:
            assert one.assembly is not None
            await one.jobs("update", MORNING_JOB, "--uri", one.assembly.settings.pulse_url + "/trigger")
            told = await one.doctor()
            assert told.failure("rehearsal", MORNING_JOB)["evidence"]["status"] == "404"
            await one.carry_out(told.failure("jobs", MORNING_JOB)["fix"])


class TestPulseDown:
    async def test_what_does_not_run_is_said_and_the_rest_is_examined(self, tmp_path: Path) -> None:
        async with machine(tmp_path, roles=("lab", "caller", "scheduler"), pulse_port=_free()) as one:
            assert one.assembly is not None
            port = one.assembly.settings.pulse_url.rpartition(":")[2]
            (one.data_dir / "pulse.url").write_text(
                one.assembly.settings.pulse_url
            )  # as a killed one leaves it
            assert (await one.ran())["status"]["code"] == 14
            told = await one.doctor()
            assert told.failed == {"pulse", "jobs"}
            assert "careflow up" in told.failure("pulse")["fix"][0]
            assert {f["check"] for f in told.findings("skipped")} >= {"trigger", "rehearsal"}
            assert told.findings("ok", "store")
            async with serving(one, ("pulse",), pulse_port=int(port)):
                await one.ran()
                assert (await one.doctor()).status == 0

    async def test_nothing_at_all_is_made_by_looking(self, tmp_path: Path) -> None:
        one = Machine(tmp_path / "none", _clock())
        told = await one.doctor()
        assert told.status == 1
        assert "careflow roster import --sample" in told.failure("data")["fix"][0]
        assert {"store", "queries", "roster", "queue", "rounds"} <= {
            f["check"] for f in told.findings("skipped")
        }
        assert list(tmp_path.iterdir()) == []

    async def test_every_bad_setting_is_told_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CAREFLOW_PULSE_PORT", "eighty")
        monkeypatch.setenv("CAREFLOW_STORE", "oracle")
        told = await Machine(tmp_path / "none", _clock()).doctor()
        assert {f["subject"] for f in told.findings("fail")} == {"CAREFLOW_PULSE_PORT", "CAREFLOW_STORE"}
        assert {f["level"] for f in told.findings() if f["check"] != "settings"} == {"skipped"}

    async def test_a_ruined_database_hides_nothing_else(self, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "careflow.sqlite3").write_bytes(b"nothing that SQLite knows" * 100)
        told = await Machine(folder, _clock()).doctor()
        assert "NOTADB" in told.failure("store")["said"]
        assert {"pulse", "caller", "jobs"} <= told.failed


class TestCloudTasksHere:
    async def test_a_paused_queue_is_named_and_resumed(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setenv("CAREFLOW_QUEUE", "cloud-tasks")
        async with machine(tmp_path, roles=("lab", "tasks", "caller", "pulse", "scheduler")) as one:
            assert (await one.doctor()).findings("ok", "queues")
            assert one.assembly is not None
            base = one.assembly.settings.cloud_tasks_url
            name = "projects/careflow-local/locations/us-central1/queues/careflow-calls"
            async with httpx.AsyncClient() as http:
                assert (await http.post(f"{base}/v2/{name}:pause", json={})).is_success
            finding = (await one.doctor()).failure("queues", "careflow-calls")
            assert "PAUSED" in finding["said"]
            await _shell(finding["fix"][0])
            assert (await one.doctor()).status == 0


class TestFirestoreHere:
    async def test_the_emulator_is_examined_and_said_to_be_one(
        self, tmp_path: Path, monkeypatch: Any
    ) -> None:
        require_emulator()
        from emulated import _address

        monkeypatch.setenv("CAREFLOW_STORE", "firestore")
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", _address())
        monkeypatch.setenv("CAREFLOW_PROJECT", f"doctor-{tomorrow_morning():%H%M%S%f}")
        (tmp_path / "data").mkdir()
        told = await Machine(tmp_path / "data", _clock()).doctor()
        assert "emulator" in told.findings("ok", "store")[0]["subject"]
        assert told.findings("ok", "queries")

    async def test_nobody_at_the_address_is_told_in_time(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setenv("CAREFLOW_STORE", "firestore")
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{_free()}")
        (tmp_path / "data").mkdir()
        told = await Machine(tmp_path / "data", _clock()).doctor()
        assert told.findings("fail", "store")
        assert not any(one["writes"] for one in told.document["checks"])
        assert told.document["seconds"] < 10


def _clock() -> Any:
    from careflow.clock import VirtualClock

    return VirtualClock(tomorrow_morning())


def _free() -> int:
    with listen("127.0.0.1", 0, "PORT") as bound:
        return int(bound.getsockname()[1])


async def _shell(line: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run, line, shell=True, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr


def test_the_defaults_are_this_machines() -> None:
    from careflow.cli.doctor import as_running

    assert as_running(load_settings()).pulse_url == "http://127.0.0.1:8001"
