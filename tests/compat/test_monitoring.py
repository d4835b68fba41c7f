"""`infra/monitoring` under the real terraform, offline: its filters over real lines, its queries over their counts.

What this cannot show is that Google's API takes it: docs/monitoring.md says what is unconfirmed.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from tests.compat.terraform.workshop import ROOT, Workshop, by_address, standin_python, terraform_binary

from careflow.telemetry import FIELDS
from log_lines import Entry, a_bad_day, a_good_day, as_entry, deliveries, vendors_that_fail
from monitors import CONFIGURATION, counted, extracted, holds, later, metrics, named, selectors
from promql import evaluate

LINE, QUERY = "google_monitoring_alert_policy.on_a_line", "google_monitoring_alert_policy.on_a_query"

# Google's own metrics that the dashboard uses (reference/google-cloud section 4; the Cloud Tasks one is a documented name too).
DOCUMENTED = {"run_googleapis_com:request_count", "cloudtasks_googleapis_com:queue_depth"}


@pytest.fixture(scope="module")
def python() -> Path:
    terraform_binary()
    return standin_python()


@pytest.fixture(scope="module")
def shop(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    home = tmp_path_factory.mktemp("monitoring")
    return Workshop.open(home, python, configuration=CONFIGURATION, values="vars/prod.tfvars")


@pytest.fixture(scope="module")
def state(shop: Workshop) -> dict[str, Any]:
    return shop.apply()


@pytest.fixture(scope="module")
def lines() -> dict[str, list[Entry]]:
    """What was logged, by what happened."""
    return {
        "good": asyncio.run(a_good_day()),
        "bad": asyncio.run(a_bad_day()),
        "vendors": asyncio.run(vendors_that_fail()),
        "jobs": [
            *deliveries("UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE"),
            *deliveries("OK", job="careflow-noon-rounds"),
            *deliveries("DEADLINE_EXCEEDED", "OK", job="careflow-evening-rounds-hospital-a"),
            *deliveries("OK", "UNAVAILABLE", job="careflow-sweep"),
        ],
    }


class TestConfiguration:
    def test_it_is_formatted_as_terraform_formats(self) -> None:
        Workshop(CONFIGURATION, terraform_binary(), {}).run("fmt", "-check", "-recursive")

    def test_it_is_valid(self, shop: Workshop) -> None:
        shop.run("validate")

    def test_its_own_tests_pass(self, shop: Workshop) -> None:
        told = shop.run("test").stdout
        assert re.search(r"Success! 3 passed, 0 failed", told), told

    def test_it_plans_with_the_values_of_staging_too(self, shop: Workshop) -> None:
        shop.run("plan", "-input=false", "-state=none.tfstate", "-var-file=vars/staging.tfvars")

    def test_an_apply_that_is_repeated_changes_nothing(self, shop: Workshop, state: dict[str, Any]) -> None:
        shop.run("plan", "-input=false", "-detailed-exitcode", "-var-file=vars/prod.tfvars")


class TestNotifications:
    def test_everybody_is_told_of_everything_and_the_pager_of_what_cannot_wait(
        self, state: dict[str, Any]
    ) -> None:
        emails = {
            one["name"] for one in named(state, "google_monitoring_notification_channel.emails").values()
        }
        pager = "projects/careflow-prod-000000/notificationChannels/1234567890"
        policies = named(state, LINE) | named(state, QUERY)
        for policy in policies.values():
            told = set(policy["notification_channels"])
            assert told == emails | ({pager} if policy["severity"] == "CRITICAL" else set())
        critical = {key for key, one in policies.items() if one["severity"] == "CRITICAL"}
        assert critical == {"failures_in_a_row", "red_flag_waiting", "round_missing", "sweep_silent"}

    def test_every_policy_names_its_environment_and_says_what_to_do(self, state: dict[str, Any]) -> None:
        for policy in (named(state, LINE) | named(state, QUERY)).values():
            assert policy["display_name"].startswith("CareFlow prod: ")
            assert len(policy["documentation"][0]["content"]) > 60

    def test_a_link_leads_to_a_section_that_the_runbook_has(self, shop: Workshop) -> None:
        planned = by_address(shop.plan(runbook_url="https://docs.hospital.test/runbook")["planned_values"])
        links = {
            link["url"]
            for policy in (named(planned, LINE) | named(planned, QUERY)).values()
            for link in policy["documentation"][0]["links"]
        }
        headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
        there = {heading.lower().replace(" ", "-") for heading in headings}
        assert links
        assert {link.split("#")[1] for link in links} <= there

    def test_a_log_match_stands_alone_and_is_limited(self, state: dict[str, Any]) -> None:
        for policy in named(state, LINE).values():
            assert len(policy["conditions"]) == 1
            assert policy["alert_strategy"][0]["notification_rate_limit"][0]["period"]


# For each policy on a line: the messages it fires on among all that was logged, and near misses it must not fire on.
FIRES: Mapping[str, tuple[set[str], set[str]]] = {
    "alert_waiting": ({"Alert not acknowledged"}, {"Alert raised", "Sweep done"}),
    "red_flag_waiting": ({"Alert not acknowledged"}, {"Alert raised", "Sweep done"}),
    "round_late": ({"Round late"}, {"Round missing", "Scheduled rounds triggered"}),
    "round_missing": ({"Round missing"}, {"Round late", "Scheduled rounds triggered"}),
    "round_not_closed": ({"Round not closed"}, {"Round closed"}),
    "software_error": ({"Patient cannot be planned"}, {"Alert raised", "Telephone error", "Round missing"}),
}


class TestLines:
    """Each filter over every line that the services wrote."""

    def test_every_policy_on_a_line_is_tried(self, state: dict[str, Any]) -> None:
        assert named(state, LINE).keys() == FIRES.keys()

    @pytest.mark.parametrize("key", FIRES)
    def test_a_policy_fires_on_its_line_and_on_no_other(
        self, state: dict[str, Any], lines: dict[str, list[Entry]], key: str
    ) -> None:
        text = named(state, LINE)[key]["conditions"][0]["condition_matched_log"][0]["filter"]
        everything = [entry for of_one in lines.values() for entry in of_one]
        wanted, near = FIRES[key]
        messages = {entry["jsonPayload"].get("message") for entry in everything}
        assert near <= messages
        assert {entry["jsonPayload"].get("message") for entry in everything if holds(text, entry)} == wanted

    @pytest.mark.parametrize("key", FIRES)
    def test_nothing_fires_on_a_good_day(
        self, state: dict[str, Any], lines: dict[str, list[Entry]], key: str
    ) -> None:
        text = named(state, LINE)[key]["conditions"][0]["condition_matched_log"][0]["filter"]
        jobs = deliveries("OK")
        assert not any(holds(text, entry) for entry in [*lines["good"], *jobs])

    def test_a_red_flag_and_any_other_alert_are_told_apart(
        self, state: dict[str, Any], lines: dict[str, list[Entry]]
    ) -> None:
        policies = named(state, LINE)
        kinds = {}
        for key in ("alert_waiting", "red_flag_waiting"):
            text = policies[key]["conditions"][0]["condition_matched_log"][0]["filter"]
            kinds[key] = {entry["jsonPayload"]["kind"] for entry in lines["bad"] if holds(text, entry)}
        assert kinds == {"alert_waiting": {"unreachable"}, "red_flag_waiting": {"red-flag"}}

    @pytest.mark.parametrize("key", FIRES)
    def test_another_service_s_line_or_a_text_payload_is_not_ours(
        self, state: dict[str, Any], lines: dict[str, list[Entry]], key: str
    ) -> None:
        text = named(state, LINE)[key]["conditions"][0]["condition_matched_log"][0]["filter"]
        for entry in lines["bad"]:
            if not holds(text, entry):
                continue
            others = {"type": "k8s_container", "labels": entry["resource"]["labels"]}
            assert not holds(text, entry | {"resource": others})
            without = {name: value for name, value in entry.items() if name != "jsonPayload"}
            assert not holds(text, without | {"textPayload": entry["jsonPayload"]["message"]})

    @pytest.mark.parametrize("key", FIRES)
    def test_what_a_policy_extracts_is_in_its_line(
        self, state: dict[str, Any], lines: dict[str, list[Entry]], key: str
    ) -> None:
        condition = named(state, LINE)[key]["conditions"][0]["condition_matched_log"][0]
        (found, *_) = [entry for entry in lines["bad"] if holds(condition["filter"], entry)]
        assert all(extracted(found, extractor) for extractor in condition["label_extractors"].values())


COUNTS: Mapping[str, tuple[str, int]] = {
    "alerts_raised": ("bad", 12),
    "calls_ended": ("bad", 12),
    "rounds_closed": ("good", 1),
    "speech_errors": ("vendors", 1),
    "sweeps": ("good", 2),
    "telephone_errors": (
        "vendors",
        4,
    ),  # of five lines: one dial was too late, and that is not Twilio's error
    "trigger_attempts": ("jobs", 7),  # the sweep's two are none of the rounds'
    "trigger_seconds": ("good", 1),
}


class TestMetrics:
    def test_every_metric_is_tried(self, state: dict[str, Any]) -> None:
        assert metrics(state).keys() == COUNTS.keys()

    @pytest.mark.parametrize("key", COUNTS)
    def test_it_counts_its_lines_and_no_others(
        self, state: dict[str, Any], lines: dict[str, list[Entry]], key: str
    ) -> None:
        metric, (where, number) = metrics(state)[key], COUNTS[key]
        counted_lines = [entry for entry in lines[where] if holds(metric["filter"], entry)]
        assert len(counted_lines) == number
        assert len({entry["jsonPayload"].get("message") for entry in counted_lines}) == 1

    @pytest.mark.parametrize("key", COUNTS)
    def test_its_labels_and_value_are_in_the_line(
        self, state: dict[str, Any], lines: dict[str, list[Entry]], key: str
    ) -> None:
        metric = metrics(state)[key]
        extractors = metric["label_extractors"] or {}
        assert {one["key"] for one in metric["metric_descriptor"][0]["labels"]} == extractors.keys()
        (*_, entry) = [one for of in lines.values() for one in of if holds(metric["filter"], one)]
        fields = [extractor for label, extractor in extractors.items() if label != "status"]
        assert all(extracted(entry, extractor) for extractor in fields)
        if metric["value_extractor"]:
            assert float(extracted(entry, metric["value_extractor"])) >= 0

    def test_a_failed_delivery_says_why_and_a_good_one_has_no_status(
        self, state: dict[str, Any], lines: dict[str, list[Entry]]
    ) -> None:
        found = [one for one in counted(state, lines["jobs"]) if one.name.endswith("trigger_attempts")]
        assert {(one.labels["result"], one.labels["status"]) for one in found} == {
            ("INFO", ""),
            ("ERROR", "UNAVAILABLE"),
            ("ERROR", "DEADLINE_EXCEEDED"),
        }

    def test_an_alert_is_counted_by_its_kind_and_never_by_its_cause(
        self, state: dict[str, Any], lines: dict[str, list[Entry]]
    ) -> None:
        raised = [one for one in counted(state, lines["bad"]) if one.name.endswith("alerts_raised")]
        assert {one.labels["kind"] for one in raised} == {"unreachable"}

    def test_no_name_number_or_word_of_a_patient_is_in_any_line(self, lines: dict[str, list[Entry]]) -> None:
        ours = [entry for of_one in lines.values() for entry in of_one if "message" in entry["jsonPayload"]]
        assert not any(word in json.dumps(ours) for word in ("Zebulon", "Quux", "chest", "555", "dropped"))
        assert {key for entry in ours for key in entry["jsonPayload"]} <= FIELDS


def slow(seconds: float) -> list[Entry]:
    """A trigger's own line, with another duration."""
    (line,) = [
        entry
        for entry in asyncio.run(a_good_day())
        if entry["jsonPayload"]["message"] == "Scheduled rounds triggered"
    ]
    return [line | {"jsonPayload": line["jsonPayload"] | {"seconds": seconds}}]


def again(entries: Sequence[Entry], message: str, number: int) -> list[Entry]:
    """The first line with the message, so often, a minute apart."""
    first = next(entry for entry in entries if entry["jsonPayload"].get("message") == message)
    return [
        first | {"timestamp": later(minutes=minute).isoformat().replace("+00:00", "Z")}
        for minute in range(number)
    ]


FAILED, OK = "UNAVAILABLE", "OK"


class TestQueries:
    """Each query over what the metrics count, when somebody must be told and when not."""

    def fires(self, state: dict[str, Any], key: str, entries: Sequence[Entry], now: datetime) -> bool:
        query = named(state, QUERY)[key]["conditions"][0]["condition_prometheus_query_language"][0]["query"]
        return bool(evaluate(query, counted(state, entries), now))

    def test_three_failures_in_a_row_fire_and_two_do_not(self, state: dict[str, Any]) -> None:
        for results, expected in (
            ((FAILED, FAILED, FAILED), True),
            ((FAILED, FAILED), False),
            ((FAILED, FAILED, FAILED, OK), False),
            ((OK, OK, OK, OK), False),
        ):
            entries = deliveries(*results)
            assert self.fires(state, "failures_in_a_row", entries, later(minutes=10)) is expected, results

    def test_failures_of_two_jobs_are_not_added_nor_is_one_job_excused_by_another(
        self, state: dict[str, Any]
    ) -> None:
        two = [*deliveries(FAILED, FAILED), *deliveries(FAILED, FAILED, job="careflow-noon-rounds")]
        assert not self.fires(state, "failures_in_a_row", two, later(minutes=10))
        excused = [*deliveries(FAILED, FAILED, FAILED), *deliveries(OK, job="careflow-noon-rounds")]
        assert self.fires(state, "failures_in_a_row", excused, later(minutes=10))

    def test_three_deliveries_that_each_ran_to_the_deadline_are_seen_together(
        self, state: dict[str, Any]
    ) -> None:
        entries = deliveries(FAILED, FAILED, FAILED, every=720)  # 600 s and a wait of up to 120 s
        assert self.fires(state, "failures_in_a_row", entries, later(minutes=25))

    def test_a_retry_rate_needs_a_share_and_a_number(self, state: dict[str, Any]) -> None:
        day = [*deliveries(OK, OK, OK, every=4 * 3600)]
        one, two = deliveries(FAILED), deliveries(FAILED, FAILED)
        assert not self.fires(state, "retry_rate", [*day, *one], later(hours=12))
        assert self.fires(state, "retry_rate", [*day, *two], later(hours=12))
        many = [entry for n in range(10) for entry in deliveries(OK, OK, OK, job=f"careflow-noon-rounds-{n}")]
        assert not self.fires(state, "retry_rate", [*many, *two], later(hours=12))

    def test_a_round_that_reaches_few_fires_one_that_reaches_most_does_not(
        self, state: dict[str, Any], lines: dict[str, list[Entry]]
    ) -> None:
        assert self.fires(state, "round_failed", lines["bad"], later(hours=2))
        assert not self.fires(state, "round_failed", lines["good"], later(hours=2))
        few = again(lines["bad"], "Call ended", 9)
        assert not self.fires(state, "round_failed", few, later(hours=2))
        half = [*again(lines["bad"], "Call ended", 10), *again(lines["good"], "Call ended", 11)]
        assert not self.fires(state, "round_failed", half, later(hours=2))

    def test_planning_over_thirty_seconds_fires_and_under_does_not(self, state: dict[str, Any]) -> None:
        assert self.fires(state, "trigger_slow", slow(31), later(minutes=5))
        assert not self.fires(state, "trigger_slow", slow(24), later(minutes=5))
        assert not self.fires(state, "trigger_slow", [], later(minutes=5))

    def test_no_sweep_in_half_an_hour_fires_also_when_there_never_was_one(
        self, state: dict[str, Any], lines: dict[str, list[Entry]]
    ) -> None:
        assert self.fires(state, "sweep_silent", [], later())
        assert not self.fires(state, "sweep_silent", lines["good"], later(minutes=20))
        assert self.fires(state, "sweep_silent", lines["good"], later(minutes=40))

    @pytest.mark.parametrize(
        ("key", "message"), [("telephone_errors", "Telephone error"), ("speech_errors", "Speech error")]
    )
    def test_five_errors_of_a_vendor_in_a_quarter_hour_fire_and_four_do_not(
        self, state: dict[str, Any], lines: dict[str, list[Entry]], key: str, message: str
    ) -> None:
        assert self.fires(state, key, again(lines["vendors"], message, 5), later(minutes=10))
        assert not self.fires(state, key, again(lines["vendors"], message, 4), later(minutes=10))
        assert not self.fires(state, key, again(lines["vendors"], message, 5), later(minutes=60))

    def test_every_query_is_tried(self, state: dict[str, Any]) -> None:
        source = Path(__file__).read_text()
        assert [key for key in named(state, QUERY) if source.count(f'"{key}"') < 1] == []


@pytest.fixture(scope="module")
def board(state: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(state["google_monitoring_dashboard.rounds"]["dashboard_json"]))


@pytest.fixture(scope="module")
def queries(board: dict[str, Any], state: dict[str, Any]) -> list[str]:
    """Those of the dashboard and of the policies."""
    charts = [
        data["timeSeriesQuery"]["prometheusQuery"]
        for tile in board["mosaicLayout"]["tiles"]
        for data in tile["widget"]["xyChart"]["dataSets"]
    ]
    policies = [
        policy["conditions"][0]["condition_prometheus_query_language"][0]["query"]
        for policy in named(state, QUERY).values()
    ]
    return [*charts, *policies]


class TestDashboard:
    def test_it_answers_what_the_seed_asks_for(self, board: dict[str, Any]) -> None:
        titles = " ".join(tile["widget"]["title"] for tile in board["mosaicLayout"]["tiles"])
        for wanted in ("Success by job", "Planning a round", "Calls completed", "Twilio errors"):
            assert wanted in titles

    def test_its_tiles_lie_beside_each_other(self, board: dict[str, Any]) -> None:
        tiles = board["mosaicLayout"]["tiles"]
        assert all(tile["xPos"] + tile["width"] <= board["mosaicLayout"]["columns"] for tile in tiles)
        corners = sorted((tile["yPos"], tile["xPos"]) for tile in tiles)
        assert all(
            (one[0] == two[0] and two[1] - one[1] >= 24) or two[0] - one[0] >= 16
            for one, two in pairwise(corners)
        )

    def test_every_metric_that_a_query_names_is_there_with_the_labels_it_is_asked_for(
        self, queries: list[str], state: dict[str, Any]
    ) -> None:
        ours = {f"logging_googleapis_com:user_{one['name']}": one for one in metrics(state).values()}
        used = set()
        for query in queries:
            for selector in selectors(promql_parser.parse(query)):
                name = re.sub(r"_(bucket|sum|count)$", "", selector.name)
                name = selector.name if selector.name in DOCUMENTED else name
                used.add(name)
                asked = {one.name: one.value for one in selector.matchers.matchers}
                if name in DOCUMENTED:
                    continue
                metric = ours[name]
                kind = asked.pop("monitored_resource")
                assert f'resource.type="{kind}"' in metric["filter"], query
                assert asked.keys() <= (metric["label_extractors"] or {}).keys(), query
                is_distribution = metric["metric_descriptor"][0]["value_type"] == "DISTRIBUTION"
                assert is_distribution == (name != selector.name), query
        assert used == ours.keys() | DOCUMENTED

    def test_every_label_that_a_query_groups_by_exists(
        self, queries: list[str], state: dict[str, Any]
    ) -> None:
        known = {"job_id", "service_name", "queue_id", "le", "response_code_class"}
        known |= {label for one in metrics(state).values() for label in one["label_extractors"] or {}}
        grouped = {
            label.strip()
            for query in queries
            for found in re.findall(r"(?:by|on) \(([^)]*)\)", query)
            for label in found.split(",")
        }
        assert grouped <= known

    def test_a_query_over_a_whole_day_gives_what_happened(
        self, board: dict[str, Any], state: dict[str, Any], lines: dict[str, list[Entry]]
    ) -> None:
        (query,) = [
            data["timeSeriesQuery"]["prometheusQuery"]
            for tile in board["mosaicLayout"]["tiles"]
            if tile["widget"]["title"].startswith("Calls completed")
            for data in tile["widget"]["xyChart"]["dataSets"]
        ]
        both = counted(state, [*lines["good"], *lines["bad"]])
        assert evaluate(query, both, later(hours=14)) == {frozenset({("hospital", "default")}): 3 / 15}


def test_a_line_of_the_caller_s_public_service_counts_as_the_caller_s(state: dict[str, Any]) -> None:
    line = {"severity": "WARNING", "time": "2026-10-16T12:15:00Z", "message": "Speech error", "code": "x"}
    (text,) = [one["filter"] for key, one in metrics(state).items() if key == "speech_errors"]
    assert holds(text, as_entry(line, "caller-agent-twilio"))
    assert not holds(text, as_entry(line, "careflow-agent"))
