"""Hospital profiles: the file, what it makes of the deployment, and what each part does with it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import SecretStr

from careflow.caller.talks import ScriptedTalks
from careflow.caller.twilio import TwilioAccount, TwilioPhone
from careflow.caller.warming import warm
from careflow.cli.context import NotFound, settings_at
from careflow.clock import VirtualClock
from careflow.core.attempts import Attempt
from careflow.core.conversation import Say, Started
from careflow.core.patients import Patient
from careflow.errors import CareflowError, ProviderError, SettingsError
from careflow.safety import role_problems
from careflow.scheduler.defaults import default_jobs
from careflow.scripts import load_scripts
from careflow.settings import Settings, load_settings
from pulse_world import EIGHT_FIFTEEN, World, patient, world

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)

TWO: list[dict[str, Any]] = [
    {
        "id": "general",
        "name": "General Hospital",
        "phone": "+1 212 555 0101",
        "fromNumber": "+12125550102",
    },
    {
        "id": "lakeside",
        "name": "Lakeside Clinic",
        "phone": "+1 312 555 0101",
        "fromNumber": "+13125550102",
        "timeZone": "America/Chicago",
        "roundHours": [20, 9],
    },
]


def file_of(folder: Path, hospitals: object = TWO) -> Path:
    if isinstance(hospitals, str):
        path = folder / "hospitals.toml"
        path.write_text(hospitals)
    else:
        path = folder / "hospitals.json"
        path.write_text(json.dumps({"hospitals": hospitals}))
    return path


def settings_of(folder: Path, **more: Any) -> Settings:
    return load_settings(hospitals=file_of(folder), **more)


class TestFile:
    def test_a_hospital_has_its_own_and_what_it_leaves_out_is_the_deployments(self, tmp_path: Path) -> None:
        served = settings_of(tmp_path, time_zone="America/Denver").served
        general, lakeside = served["general"], served["lakeside"]
        assert (general.name, general.phone, general.from_number) == (
            "General Hospital",
            "+1 212 555 0101",
            "+12125550102",
        )
        assert (general.time_zone, general.round_hours) == ("America/Denver", (8, 12, 20))
        assert (lakeside.time_zone, lakeside.round_hours) == ("America/Chicago", (9, 20))
        assert "default" not in served
        assert served.get("default") is None

    def test_without_a_file_any_hospital_is_as_the_settings_say(self) -> None:
        served = load_settings(clinic_name="Riverside", round_hours="7").served
        assert (served["anything"].id, served["anything"].name) == ("anything", "Riverside")
        assert served["anything"].round_hours == (7,)
        assert "anything" in served

    def test_the_environment_names_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CAREFLOW_HOSPITALS", str(file_of(tmp_path)))
        assert [one.id for one in load_settings().served] == ["general", "lakeside"]
        monkeypatch.setenv("CAREFLOW_HOSPITALS", "")
        assert load_settings().hospitals == ()

    def test_toml_is_read_as_json_is(self, tmp_path: Path) -> None:
        text = '[[hospitals]]\nid = "general"\nname = "General Hospital"\nphone = "+1 212 555 0101"\n'
        served = load_settings(hospitals=file_of(tmp_path, text), twilio_from="+12125550109").served
        assert served["general"].from_number == "+12125550109"

    def test_the_example_in_the_docs_is_a_file_of_two_hospitals(self, tmp_path: Path) -> None:
        page = (Path(__file__).parents[2] / "docs/hospitals.md").read_text()
        example = page.partition("```toml\n")[2].partition("```")[0]
        served = load_settings(hospitals=file_of(tmp_path, example)).served
        assert [(one.id, one.round_hours) for one in served] == [
            ("general", (8, 12, 20)),
            ("lakeside", (8, 20)),
        ]

    def test_settings_dumped_and_read_again_have_the_same_hospitals(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        assert Settings.model_validate(settings.model_dump()).served == settings.served

    def test_what_a_profile_leaves_out_can_be_read_again(self, tmp_path: Path) -> None:
        """With the lab in Twilio's place settings are dumped and read: no number of a hospital's own must be no defect."""
        one = {"id": "general", "name": "General", "phone": "+12125550101"}
        settings = load_settings(hospitals=file_of(tmp_path, [one]), hospital_id="general")
        assert Settings.model_validate(settings.model_dump()).served == settings.served

    def test_every_problem_is_told_at_once_with_its_place(self, tmp_path: Path) -> None:
        bad = [
            {"id": "General", "name": "", "phone": 12125550101, "fromNumber": "0123"},
            {
                "id": "lakeside",
                "name": "{clinic_name}",
                "phone": "+13125550101",
                "timeZone": "Chicago",
                "fromNumber": 13125550102,
            },
            {"id": "lakeside", "name": "L", "phone": "+13125550101", "roundHours": [24], "colour": "red"},
        ]
        with pytest.raises(SettingsError) as refused:
            load_settings(hospitals=file_of(tmp_path, bad), ring_seconds=1)
        told = str(refused.value)
        for place in (
            "CAREFLOW_RING_SECONDS",
            "CAREFLOW_HOSPITALS",
            "hospitals[0].id",
            "hospitals[0].name",
            "hospitals[0].phone: is a number; a telephone number stands in quotes",
            "hospitals[0].fromNumber",
            "hospitals[1].name",
            "hospitals[1].fromNumber: is a number; a telephone number stands in quotes",
            "hospitals[1].timeZone: 'Chicago' is not an IANA time zone",
            "hospitals[2].roundHours[0]",
            "hospitals[2].colour",
            "'lakeside' is the id of 2 of them",
        ):
            assert place in told

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("hospitals = []", "hospitals: "),
            ("", "hospitals: Field required"),
            ("hospitals = [", "is not TOML"),
            ('[[hospitals]]\nname = "A"\nname = "B"', "is not TOML: Cannot overwrite a value"),
        ],
    )  # fmt: skip
    def test_a_file_that_is_no_list_of_hospitals_is_refused(
        self, tmp_path: Path, text: str, told: str
    ) -> None:
        with pytest.raises(SettingsError) as refused:
            load_settings(hospitals=file_of(tmp_path, text))
        assert told in str(refused.value)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[]", "is not TOML"),
            ("{", "is not JSON"),
            ('{"hospitals": [{"id": "a", "id": "b"}]}', "is not JSON"),
        ],
    )
    def test_json_that_is_no_list_of_hospitals_is_refused(self, tmp_path: Path, text: str, told: str) -> None:
        (tmp_path / "hospitals.json").write_text(text)
        with pytest.raises(SettingsError) as refused:
            load_settings(hospitals=tmp_path / "hospitals.json")
        assert told in str(refused.value)

    def test_the_usual_hospital_must_be_one_of_them(self, tmp_path: Path) -> None:
        with pytest.raises(
            SettingsError, match=r"CAREFLOW_HOSPITAL_ID: 'riverside' is not in .*: general, lakeside"
        ):
            settings_of(tmp_path, hospital_id="riverside")
        assert settings_of(tmp_path, hospital_id="lakeside").hospital_id == "lakeside"

    def test_a_real_account_needs_a_number_for_every_hospital(self, tmp_path: Path) -> None:
        without = [TWO[0], {key: value for key, value in TWO[1].items() if key != "fromNumber"}]

        def told(hospitals: object, **more: str) -> str:
            settings = load_settings(hospitals=file_of(tmp_path, hospitals), twilio_account_sid="AC1", **more)
            return " ".join(str(one) for one in role_problems(settings, ["caller"]))

        assert "nor is every hospital's fromNumber" in told(without)
        assert "fromNumber" not in told(TWO)
        assert "fromNumber" not in told(without, twilio_from="+12125550103")

    def test_a_file_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
            load_settings(hospitals=tmp_path / "nowhere.toml")


class TestTrigger:
    @staticmethod
    def lakeside(number: int) -> Patient:
        return patient(number, hospital_id="lakeside", hours=frozenset({9}), time_zone="America/Chicago")

    async def test_a_hospital_that_is_not_served_is_refused_with_those_that_are(self, tmp_path: Path) -> None:
        async with world(hospitals=file_of(tmp_path)) as here:
            answer = await here.trigger(hospitalId="riverside")
            assert answer.status_code == 400
            assert answer.json()["error"] == {
                "code": "unknown-hospital",
                "field": "hospitalId",
                "message": "hospitalId: not served here; accepted: general, lakeside",
            }
            assert await here.store.hospitals() == []

    async def test_a_trigger_that_names_none_is_refused_unless_one_is_the_usual(self, tmp_path: Path) -> None:
        async with world(hospitals=file_of(tmp_path)) as here:
            answer = await here.trigger()
            assert answer.status_code == 400
            assert "hospitalId: missing; accepted: general, lakeside" in answer.text
        async with world(hospitals=file_of(tmp_path), hospital_id="general") as here:
            assert (await here.trigger()).json()["roundId"] == "test-general-20261016-08"

    async def test_a_hospitals_hours_are_its_own(self, tmp_path: Path) -> None:
        async with world([self.lakeside(1)], hospitals=file_of(tmp_path)) as here:
            refused = await here.trigger(hospitalId="lakeside", timezone="America/Chicago")
            assert "scheduleHour: got another number; accepted: 9, 20" in refused.text
            assert (await here.trigger(hospitalId="general", scheduleHour=9)).status_code == 400
            here.clock.advance(2 * 3600)  # a quarter past nine in Chicago
            done = await here.trigger(hospitalId="lakeside", timezone="America/Chicago", scheduleHour=9)
            assert done.json()["callsInitiated"] == 1
            round_ = await here.store.round("lakeside", done.json()["roundId"])
            assert round_ is not None
            assert round_.window_end - round_.window_start == timedelta(hours=11)

    async def test_a_trigger_plans_for_nobody_of_another_hospital(self, tmp_path: Path) -> None:
        people = [patient(1, hospital_id="general"), patient(1, hospital_id="lakeside", phone="+13125550110")]
        async with world(people, hospitals=file_of(tmp_path)) as here:
            done = await here.trigger(hospitalId="general")
            assert done.json()["patientsQueried"] == 1
            await here.drain(EIGHT_FIFTEEN + timedelta(hours=5))
            assert [attempt.hospital_id for _, attempt in here.caller.dialled] == ["general"]
            assert await here.store.rounds("lakeside") == []
            assert await here.store.interactions("lakeside") == []

    async def test_a_round_is_told_to_its_own_hospital_only(self, tmp_path: Path) -> None:
        async with world([patient(1, hospital_id="general")], hospitals=file_of(tmp_path)) as here:
            round_id = (await here.trigger(hospitalId="general")).json()["roundId"]
            assert (await _round(here, round_id, "general")).status_code == 200
            assert (await _round(here, round_id, "lakeside")).status_code == 404

    @pytest.mark.parametrize("path", ["/tasks/call", "/tasks/close"])
    async def test_a_task_in_another_hospitals_name_does_nothing(self, tmp_path: Path, path: str) -> None:
        async with world([patient(1, hospital_id="general")], hospitals=file_of(tmp_path)) as here:
            await here.trigger(hospitalId="general")
            task = next(one for one in here.queue.enqueued if one.path == path)
            here.clock.advance(5 * 3600)
            before = await here.store.calls("general", task.body["roundId"])
            answer = await here.post(path, dict(task.body) | {"hospitalId": "lakeside"})
            assert answer.status_code == 404
            assert await here.store.calls("general", task.body["roundId"]) == before
            assert here.caller.orders == []

    async def test_the_schema_tells_the_hospitals_and_every_hour(self, tmp_path: Path) -> None:
        async with world(hospitals=file_of(tmp_path)) as here:
            schema = (await here.get("/openapi.json")).json()["paths"]["/"]["post"]["requestBody"]
            fields = schema["content"]["application/json"]["schema"]["properties"]
            assert fields["hospitalId"] == {"enum": ["general", "lakeside"]}
            assert fields["scheduleHour"]["enum"] == [8, 9, 12, 20]


async def _round(here: World, round_id: str, hospital_id: str) -> httpx.Response:
    return await here.get(f"/rounds/{round_id}", params={"hospitalId": hospital_id})


def attempt_of(hospital_id: str) -> Attempt:
    return Attempt(
        id="c1-1",
        hospital_id=hospital_id,
        round_id="r1",
        call_id="c1",
        patient_id="p1",
        number=1,
        phone="+12125550123",
        script="morning",
        stream_token="t",
        intended_at=NOW,
        not_after=NOW + timedelta(hours=1),
    )


class TestTelephone:
    requests: list[httpx.Request]

    def phone(self, folder: Path, *answers: httpx.Response) -> TwilioPhone:
        self.requests = []
        left = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return left.pop(0)

        account = TwilioAccount(
            api_url="https://twilio.test",
            account_sid="AC1",
            auth_token=SecretStr("hush"),
            hospitals=settings_of(folder).served,
            public_url="https://caller.test",
        )
        http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        return TwilioPhone(http, account, VirtualClock(NOW), lambda: 0.5)

    @pytest.mark.parametrize(
        ("hospital_id", "number"), [("general", "+12125550102"), ("lakeside", "+13125550102")]
    )
    async def test_a_call_comes_from_its_hospitals_number(
        self, tmp_path: Path, hospital_id: str, number: str
    ) -> None:
        created = httpx.Response(201, json={"sid": "CA1"})
        await self.phone(tmp_path, created).dial(attempt_of(hospital_id))
        assert parse_qs(self.requests[0].content.decode())["From"] == [number]

    async def test_an_attempt_of_a_hospital_that_left_is_refused_for_good_and_not_dialled(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(ProviderError) as refused:
            await self.phone(tmp_path).dial(attempt_of("gone"))
        assert (refused.value.code, refused.value.permanent) == ("unknown-hospital", True)
        assert self.requests == []

    async def test_a_lost_call_is_looked_for_among_those_from_every_number_of_ours(
        self, tmp_path: Path
    ) -> None:
        def found(sid: str, minute: int) -> httpx.Response:
            made = f"Mon, 23 Nov 2026 15:{minute:02}:00 +0000"
            return httpx.Response(200, json={"calls": [{"sid": sid, "date_created": made}]})

        phone = self.phone(tmp_path, found("CA1", 1), found("CA2", 2))
        assert [call.sid for call in await phone.calls_to("+12125550123")] == ["CA2", "CA1"]
        assert [one.url.params["From"] for one in self.requests] == ["+12125550102", "+13125550102"]


class TestWords:
    @pytest.mark.parametrize(
        ("hospital_id", "name", "other"),
        [
            ("general", "General Hospital", "Lakeside"),
            ("lakeside", "Lakeside Clinic", "General"),
        ],
    )
    def test_a_patient_hears_their_own_hospitals_name(
        self, tmp_path: Path, hospital_id: str, name: str, other: str
    ) -> None:
        talks = ScriptedTalks(scripts=load_scripts(), hospitals=settings_of(tmp_path).served)
        who = patient(1, hospital_id=hospital_id)
        said = [
            effect.text
            for effect in talks(attempt_of(hospital_id), who).step(Started(), NOW)
            if isinstance(effect, Say)
        ]
        assert name in " ".join(said)
        assert other not in " ".join(said)

    def test_a_conversation_is_taken_up_in_the_same_name(self, tmp_path: Path) -> None:
        talks = ScriptedTalks(scripts=load_scripts(), hospitals=settings_of(tmp_path).served)
        who = patient(1, hospital_id="lakeside")
        begun = talks(attempt_of("lakeside"), who)
        begun.step(Started(), NOW)
        resumed = talks(replace(attempt_of("lakeside"), checkpoint=begun.checkpoint()), who)
        assert resumed._state.context.clinic_name == "Lakeside Clinic"

    def test_nobody_speaks_for_a_hospital_that_left(self, tmp_path: Path) -> None:
        talks = ScriptedTalks(scripts=load_scripts(), hospitals=settings_of(tmp_path).served)
        with pytest.raises(KeyError):
            talks(attempt_of("gone"), patient(1))

    async def test_the_prompts_of_each_hospital_are_rendered_before_anybody_is_on_the_line(
        self, tmp_path: Path
    ) -> None:
        said: list[str] = []

        class Voice:
            async def say(self, text: str, _language: str) -> bytes:
                said.append(text)
                return b""

        await warm(Voice(), load_scripts().values(), settings_of(tmp_path).served)  # type: ignore[arg-type]
        assert len(said) > 40
        for name in ("General Hospital", "Lakeside Clinic"):
            assert any(name in text for text in said)


class TestJobs:
    def test_each_hospital_has_a_job_for_each_of_its_rounds_as_terraform_makes_them(
        self, tmp_path: Path
    ) -> None:
        jobs = default_jobs(settings_of(tmp_path), "http://pulse")
        assert [job.id for job in jobs] == [
            "careflow-morning-rounds-general",
            "careflow-noon-rounds-general",
            "careflow-evening-rounds-general",
            "careflow-09-rounds-lakeside",
            "careflow-evening-rounds-lakeside",
        ]
        last = jobs[-1]
        assert (last.schedule, last.time_zone) == ("15 20 * * *", "America/Chicago")
        assert last.description == "Lakeside Clinic: Evening medication and review"
        assert json.loads(last.http_target.body) == {
            "scheduleHour": 20,
            "timezone": "America/Chicago",
            "triggerType": "scheduled",
            "source": "cloud-scheduler",
            "environment": "local",
            "hospitalId": "lakeside",
        }


class TestCommands:
    def test_a_command_lives_by_its_hospitals_clock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CAREFLOW_HOSPITALS", str(file_of(tmp_path)))
        assert settings_at(None, "lakeside").time_zone == "America/Chicago"
        assert settings_at(None, "general").time_zone == "America/New_York"

    @pytest.mark.parametrize(("named", "refusal"), [(None, NotFound), ("riverside", SettingsError)])
    def test_a_command_names_a_hospital_that_is_served(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        named: str | None,
        refusal: type[CareflowError],
    ) -> None:
        monkeypatch.setenv("CAREFLOW_HOSPITALS", str(file_of(tmp_path)))
        with pytest.raises(refusal, match=r": general, lakeside"):
            settings_at(None, named)
