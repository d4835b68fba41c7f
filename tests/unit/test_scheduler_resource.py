"""The Job resource: what is read from JSON, what is refused and how, what added (reference/cloud-scheduler sections 1 to 3)."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from careflow.google_api import masks, wire
from careflow.google_api.http_target import OidcToken
from careflow.google_api.refusals import Code, Refused, invalid
from careflow.scheduler import resource
from careflow.scheduler.model import Job, JobState, RetryConfig

PARENT = "projects/careflow-local/locations/us-central1"
URI = "https://pulse.example.com/"


def body(**changes: Any) -> dict[str, Any]:
    return {"name": f"{PARENT}/jobs/morning", "schedule": "15 8 * * *", "httpTarget": {"uri": URI}} | changes


def target(**changes: Any) -> dict[str, Any]:
    return body(httpTarget={"uri": URI} | changes)


def read(given: Any) -> Job:
    return resource.new_job(given, PARENT, "invented")


def updated(job: Job, given: dict[str, Any], *mask: str) -> Job:
    chosen = masks.paths(resource.SCHEMA, mask, camel_case=True)
    return resource.updated_job(job, resource.read_body(given), chosen)


def refusal(given: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        read(given)
    assert refused.value.code is Code.INVALID_ARGUMENT
    return refused.value


class TestReading:
    def test_what_is_left_out_has_the_services_defaults(self) -> None:
        job = read(body())

        assert job.time_zone == "UTC"
        assert job.http_target.http_method == "POST"
        assert job.retry == RetryConfig()
        assert job.attempt_deadline == timedelta(minutes=3)
        assert job.state is JobState.ENABLED

    def test_a_job_without_a_name_gets_the_invented_one(self) -> None:
        assert read(body(name=None)).name == f"{PARENT}/jobs/invented"

    def test_both_forms_of_a_name_are_taken(self) -> None:
        job = read(
            {
                "name": f"{PARENT}/jobs/j",
                "schedule": "* * * * *",
                "time_zone": "Europe/Berlin",
                "http_target": {"uri": URI, "http_method": 4},
            }
        )

        assert (job.time_zone, job.http_target.http_method) == ("Europe/Berlin", "PUT")

    @pytest.mark.parametrize(("given", "method"), [("GET", "GET"), (2, "GET"), (0, "POST"), (None, "POST")])
    def test_enums_come_as_names_and_as_numbers(self, given: Any, method: str) -> None:
        assert read(target(httpMethod=given)).http_target.http_method == method

    @pytest.mark.parametrize("text", ["+/8=", "-_8=", "+/8", "-_8"])
    def test_bytes_are_base64_of_either_alphabet_padded_or_not(self, text: str) -> None:
        assert read(target(body=text)).http_target.body == b"\xfb\xff"

    @pytest.mark.parametrize("number", [3, 3.0, "3"])
    def test_whole_numbers_come_as_numbers_and_in_strings(self, number: Any) -> None:
        assert read(body(retryConfig={"retryCount": number})).retry.retry_count == 3

    def test_a_zero_is_as_good_as_nothing(self) -> None:
        given = {"maxDoublings": 0, "minBackoffDuration": "0s", "maxBackoffDuration": "0s", "retryCount": 0}

        assert read(body(retryConfig=given)).retry == RetryConfig()

    def test_what_the_service_sets_is_ignored(self) -> None:
        given = body(state="PAUSED", userUpdateTime="nonsense", scheduleTime=1, status={"code": 5})

        assert read(given) == read(body())

    def test_a_user_agent_of_the_users_is_ignored(self) -> None:
        assert read(target(headers={"user-agent": "mine", "X-A": "b"})).http_target.headers == {"X-A": "b"}


BAD: list[tuple[str, Any]] = [
    ("body", []),
    ("nmae", body(nmae="x")),
    ("httpTarget.url", target(url=URI)),
    ("name", body(name="morning")),
    ("name", body(name=f"{PARENT}/jobs/a.b")),
    ("name", body(name=f"{PARENT}/jobs/{'x' * 501}")),
    ("name", body(name="projects/other/locations/us-central1/jobs/x")),
    ("time_zone", body(timeZone="UTC", time_zone="UTC")),
    ("description", body(description="x" * 501)),
    ("description", body(description=7)),
    ("description", body(description="\ud800")),
    ("schedule", body(schedule="")),
    ("schedule", body(schedule=None)),
    ("httpTarget", body(httpTarget=None)),
    ("httpTarget", body(httpTarget="https://example.com")),
    ("pubsubTarget", body(httpTarget=None, pubsubTarget={"topicName": "t", "data": "eA=="})),
    ("appEngineHttpTarget", body(httpTarget=None, appEngineHttpTarget={"relativeUri": "/"})),
    ("pubsubTarget", body(pubsubTarget={})),
    ("httpTarget.uri", body(httpTarget={})),
    ("httpTarget.uri", target(uri="ftp://example.com/")),
    ("httpTarget.uri", target(uri="https:///path")),
    ("httpTarget.uri", target(uri="https://user:word@example.com/")),
    ("httpTarget.uri", target(uri="https://example.com:port/")),
    ("httpTarget.uri", target(uri="https://example.com/a b")),
    ("httpTarget.uri", target(uri="https://example.com/\r\nX-A: b")),
    ("httpTarget.uri", target(uri="https://example.com/" + "x" * 2083)),
    ("httpTarget.uri", target(uri="https://example.com/" + "é" * 400)),
    ("httpTarget.httpMethod", target(httpMethod="BREW")),
    ("httpTarget.httpMethod", target(httpMethod=8)),
    ("httpTarget.httpMethod", target(httpMethod=True)),
    ("httpTarget.body", target(body="?")),
    ("httpTarget.body", target(body={"scheduleHour": 8})),
    *(
        ("httpTarget.body", target(httpMethod=method, body="eA=="))
        for method in ("GET", "HEAD", "DELETE", "OPTIONS")
    ),
    ("httpTarget.headers", target(headers={"a b": "c"})),
    ("httpTarget.headers", target(headers={"": "c"})),
    ("httpTarget.headers", target(headers={"X-A": "b", "x-a": "c"})),
    ("httpTarget.headers['X-A']", target(headers={"X-A": "b\r\nX-B: c"})),
    ("httpTarget.headers['X-A']", target(headers={"X-A": 1})),
    ("httpTarget.headers", target(headers={"X-A": "b" * 80 * 1024})),
    ("httpTarget.oidcToken.serviceAccountEmail", target(oidcToken={})),
    ("httpTarget.oidcToken.serviceAccountEmail", target(oidcToken={"serviceAccountEmail": "nobody"})),
    ("httpTarget.oidcToken", target(oidcToken={}, oauthToken={})),
    ("retryConfig.retryCount", body(retryConfig={"retryCount": 6})),
    ("retryConfig.retryCount", body(retryConfig={"retryCount": -1})),
    ("retryConfig.retryCount", body(retryConfig={"retryCount": 1.5})),
    ("retryConfig.retryCount", body(retryConfig={"retryCount": True})),
    ("retryConfig.retryCount", body(retryConfig={"retryCount": 2**31})),
    ("retryConfig.maxDoublings", body(retryConfig={"maxDoublings": -1})),
    ("retryConfig.minBackoffDuration", body(retryConfig={"minBackoffDuration": "-1s"})),
    ("retryConfig.maxRetryDuration", body(retryConfig={"maxRetryDuration": "315576000000s"})),
    ("retryConfig.maxBackoffDuration", body(retryConfig={"maxBackoffDuration": "5m"})),
    ("retryConfig.maxBackoffDuration", body(retryConfig={"maxBackoffDuration": 5})),
    ("retryConfig.maxBackoffDuration", body(retryConfig={"maxBackoffDuration": "0.000000001s"})),
    ("attemptDeadline", body(attemptDeadline="14.999s")),
    ("attemptDeadline", body(attemptDeadline="1800.001s")),
    ("attemptDeadline", body(attemptDeadline="284400s")),  # 79 hours
    ("attemptDeadline", body(attemptDeadline="0s")),
    ("job", target(body=base64.b64encode(b"x" * (1 << 20)).decode())),
    ("job", target(body=base64.b64encode(b"x" * (2 << 20)).decode())),
]


@pytest.mark.parametrize(("field", "given"), BAD, ids=[f"{n}-{field}" for n, (field, _) in enumerate(BAD)])
def test_a_bad_field_is_named(field: str, given: Any) -> None:
    refused = refusal(given)

    assert refused.field == field
    assert field in refused.message
    assert len(refused.message) < 600


def test_the_largest_things_are_taken() -> None:
    read(target(body=base64.b64encode(b"x" * ((1 << 20) - 2048)).decode()))
    read(target(headers={"X-A": "b" * (80 * 1024 - 4)}))
    read(target(uri="https://example.com/" + "x" * (2083 - 20)))
    read(body(description="x" * 500, name=f"{PARENT}/jobs/{'x' * 500}"))
    read(body(attemptDeadline="15s"))
    read(body(attemptDeadline="1800s"))
    read(body(retryConfig={"retryCount": 5, "maxDoublings": 2**31 - 1}))


def test_a_refusal_tells_the_value_and_what_is_accepted_but_no_payload() -> None:
    assert "'BREW'" in refusal(target(httpMethod="BREW")).message
    assert "OPTIONS" in refusal(target(httpMethod="BREW")).message
    assert "'284400s'" in refusal(body(attemptDeadline="284400s")).message
    assert "secret" not in refusal(target(headers={"Authorization": "secret\n"})).message
    assert "secret" not in refusal(target(body="secret!")).message


class TestUpdating:
    stored = read(
        body(
            description="before",
            timeZone="America/New_York",
            retryConfig={"retryCount": 3, "minBackoffDuration": "60s"},
            attemptDeadline="600s",
            httpTarget={
                "uri": URI,
                "headers": {"X-A": "b"},
                "body": "eA==",
                "oidcToken": {"serviceAccountEmail": "a@example.com", "audience": "x"},
            },
        )
    )

    def test_only_the_masked_fields_change(self) -> None:
        job = updated(self.stored, {"description": "after", "schedule": "0 9 * * *"}, "schedule")

        assert (job.schedule, job.description) == ("0 9 * * *", "before")

    def test_nested_paths_come_in_both_forms(self) -> None:
        given = {"retryConfig": {"retryCount": 1, "minBackoffDuration": "9s"}}

        assert updated(self.stored, given, "retryConfig.retryCount").retry.retry_count == 1
        assert updated(self.stored, given, "retry_config.retry_count") == updated(
            self.stored, given, "retryConfig.retryCount"
        )
        assert updated(self.stored, given, "retryConfig.retryCount").retry.min_backoff == timedelta(minutes=1)

    def test_a_masked_field_that_the_body_lacks_is_reset(self) -> None:
        job = updated(self.stored, {}, "description", "retryConfig.minBackoffDuration", "attemptDeadline")

        assert job.description == ""
        assert job.retry == RetryConfig(retry_count=3)
        assert job.attempt_deadline == timedelta(minutes=3)

    def test_headers_are_replaced_as_a_whole(self) -> None:
        job = updated(self.stored, {"httpTarget": {"headers": {"X-B": "c"}}}, "httpTarget.headers")

        assert job.http_target.headers == {"X-B": "c"}
        assert job.http_target.body == b"x"

    def test_without_a_mask_everything_is_replaced_save_a_schedule_left_out(self) -> None:
        """Terraform sends no mask and no name, and expects dropped fields to be gone."""
        job = updated(self.stored, {"httpTarget": {"uri": "https://example.com/"}})

        assert job == read(body(httpTarget={"uri": "https://example.com/"}))
        assert updated(self.stored, {"httpTarget": {"uri": URI}, "schedule": "1 1 * * *"}, "*").schedule == (
            "1 1 * * *"
        )

    def test_a_mask_of_what_the_service_sets_changes_nothing(self) -> None:
        given = {"state": "PAUSED", "name": "x", "status": {"code": 1}}

        assert updated(self.stored, given, "state", "name", "status.code", "userUpdateTime") == self.stored

    def test_setting_one_kind_of_token_removes_the_other(self) -> None:
        """gcloud's mask names the new one's address only."""
        given = {"httpTarget": {"oauthToken": {"serviceAccountEmail": "b@example.com"}}}

        job = updated(self.stored, given, "httpTarget.oauthToken.serviceAccountEmail")

        assert job.http_target.oidc_token is None
        assert job.http_target.oauth_token is not None

    def test_a_token_whose_every_field_is_reset_is_gone(self) -> None:
        """gcloud's --clear-auth-token."""
        paths = [
            f"httpTarget.{token}"
            for token in (
                "oidcToken.serviceAccountEmail",
                "oidcToken.audience",
                "oauthToken.serviceAccountEmail",
                "oauthToken.scope",
            )
        ]

        assert updated(self.stored, {}, *paths).http_target.oidc_token is None

    def test_the_rules_hold_for_what_comes_out(self) -> None:
        with pytest.raises(Refused, match=r"httpTarget\.body"):
            updated(self.stored, {"httpTarget": {"httpMethod": "GET"}}, "httpTarget.httpMethod")
        with pytest.raises(Refused, match="schedule"):
            updated(self.stored, {}, "schedule")
        with pytest.raises(Refused, match="httpTarget"):
            updated(self.stored, {}, "httpTarget")
        with pytest.raises(Refused, match="httpTarget"):
            updated(self.stored, {})

    @pytest.mark.parametrize(
        "mask",
        [
            "patience",
            "schedule.x",
            "httpTarget.headers.X-A",
            "httpTarget.",
            ".",
            "Schedule",
            "http_Target",
            "pubsubTarget.topicName",
        ],
    )
    def test_a_path_that_is_none_is_refused_by_name(self, mask: str) -> None:
        with pytest.raises(Refused, match="updateMask") as refused:
            updated(self.stored, {"description": "x"}, "description", mask)

        assert mask in refused.value.message
        assert refused.value.code is Code.INVALID_ARGUMENT

    def test_the_services_part_stays(self) -> None:
        ran = replace(self.stored, state=JobState.PAUSED, status_code=5, schedule_time=datetime.now(UTC))

        job = updated(ran, {"description": "after"}, "description")

        assert (job.state, job.status_code, job.schedule_time) == (JobState.PAUSED, 5, ran.schedule_time)


class TestRendering:
    def test_what_the_service_adds_on_reading(self) -> None:
        shown = resource.render(read(target(body="eA==", oidcToken={"serviceAccountEmail": "a@example.com"})))

        assert shown["httpTarget"] == {
            "uri": URI,
            "httpMethod": "POST",
            "headers": {"User-Agent": "Google-Cloud-Scheduler", "Content-Type": "application/octet-stream"},
            "body": "eA==",
            "oidcToken": {"serviceAccountEmail": "a@example.com", "audience": URI},
        }
        assert shown["retryConfig"] == {
            "maxRetryDuration": "0s",
            "minBackoffDuration": "5s",
            "maxBackoffDuration": "3600s",
            "maxDoublings": 5,
        }
        assert (shown["attemptDeadline"], shown["state"]) == ("180s", "ENABLED")
        assert "status" not in shown
        assert "description" not in shown

    def test_a_content_type_of_the_users_stays_in_any_case_of_letters(self) -> None:
        shown = resource.render(read(target(body="eA==", headers={"content-type": "application/json"})))

        assert shown["httpTarget"]["headers"] == {
            "content-type": "application/json",
            "User-Agent": "Google-Cloud-Scheduler",
        }

    def test_an_access_token_has_the_platforms_scope_unless_told(self) -> None:
        shown = resource.render(read(target(oauthToken={"serviceAccountEmail": "a@example.com"})))

        assert shown["httpTarget"]["oauthToken"]["scope"].endswith("/auth/cloud-platform")

    def test_enums_are_numbers_when_asked_for(self) -> None:
        shown = resource.render(read(target(httpMethod="DELETE")), enum_numbers=True)

        assert (shown["state"], shown["httpTarget"]["httpMethod"]) == (1, 5)

    def test_the_last_result_shows_success_as_an_empty_status(self) -> None:
        assert resource.render(replace(read(body()), status_code=0))["status"] == {}
        assert resource.render(replace(read(body()), status_code=14))["status"] == {"code": 14}

    @pytest.mark.parametrize(
        ("moment", "text"),
        [
            (datetime(2026, 11, 23, 13, 15, tzinfo=UTC), "2026-11-23T13:15:00Z"),
            (datetime(2026, 11, 23, 13, 15, 0, 804000, tzinfo=UTC), "2026-11-23T13:15:00.804Z"),
            (datetime(2026, 11, 23, 13, 15, 0, 804492, tzinfo=UTC), "2026-11-23T13:15:00.804492Z"),
        ],
    )
    def test_instants_are_in_utc_with_as_many_decimals_as_the_service_shows(
        self, moment: datetime, text: str
    ) -> None:
        assert wire.timestamp_text(moment) == text

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("60s", "60s"),
            ("60.0s", "60s"),
            ("060s", "60s"),
            ("3.5s", "3.500s"),
            ("0.000001s", "0.000001s"),
            ("1.500000000s", "1.500s"),
        ],
    )
    def test_durations_come_back_normalised(self, given: str, shown: str) -> None:
        """Terraform compares them as strings."""
        job = read(body(retryConfig={"minBackoffDuration": given}))

        assert resource.render(job)["retryConfig"]["minBackoffDuration"] == shown


def test_the_account_of_a_token_is_what_is_stored() -> None:
    given = {"serviceAccountEmail": "a@example.com", "audience": "https://x.example.com"}

    assert read(target(oidcToken=given)).http_target.oidc_token == OidcToken(
        service_account_email="a@example.com", audience="https://x.example.com"
    )


@pytest.mark.parametrize("character", ["x", "é", "\N{TELEPHONE RECEIVER}"])
def test_what_a_refusal_says_is_short_in_bytes_whatever_the_script(character: str) -> None:
    refused = invalid("schedule", "is not understood: " + character * 5000, character * 5000)
    assert len(refused.message.encode()) < 600
