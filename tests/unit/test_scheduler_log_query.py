"""entries:list over an execution log, and the query language it takes (reference/cloud-scheduler section 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from careflow.google_api.refusals import Code, Refused
from careflow.scheduler import log_filter
from careflow.scheduler.log_query import Entry, list_entries

FINISHED = "type.googleapis.com/google.cloud.scheduler.logging.AttemptFinished"


def entry(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "insertId": f"{number:012d}",
        "logName": "projects/p/logs/cloudscheduler.googleapis.com%2Fexecutions",
        "resource": {"type": "cloud_scheduler_job", "labels": {"job_id": "careflow-morning-rounds"}},
        "timestamp": f"2026-11-23T13:15:{number % 60:02d}Z",
        "severity": "ERROR",
        "jsonPayload": {"@type": FINISHED, "source": "cloud-scheduler", "patientsQueried": 45},
        "httpRequest": {"status": 500},
    } | changes


def holds(text: str, found: Entry) -> bool:
    return all(comparison.holds(found) for comparison in log_filter.parse(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("resource.type=cloud_scheduler_job   AND resource.labels.job_id=careflow-morning-rounds", True),
        ("resource.type=cloud_scheduler_job AND resource.labels.job_id=careflow-noon-rounds", False),
        ('resource.type=cloud_run_revision AND jsonPayload.source="cloud-scheduler"', False),
        ('resource.type="cloud_scheduler_job" jsonPayload."@type":"AttemptFinished" severity>=ERROR', True),
        ('jsonPayload."@type":"AttemptStarted"', False),
        ("severity>=error", True),
        ("severity>ERROR", False),
        ("severity>=NOTICE", True),  # by rank and not by letters
        ("severity<=400", False),
        ("severity!=INFO", True),
        ('timestamp>="2026-11-23T08:15:00-05:00" AND timestamp<"2026-11-23T13:16:00.5Z"', True),
        ('timestamp<"2026-11-23T13:15:01Z"', False),
        ("jsonPayload.patientsQueried>44", True),
        ("jsonPayload.patientsQueried>100", False),
        ("httpRequest.status=500", True),
        ("(httpRequest.status=500) AND (severity=ERROR)", True),
        ("resource.type=CLOUD_SCHEDULER_JOB", True),
        ("jsonPayload.absent!=x", False),
        ("jsonPayload.absent:x", False),
        ("jsonPayload.source:*", True),
        ("resource.labels:*", True),
        ("jsonPayload.absent:*", False),
        ('jsonPayload.source:"*"', False),  # in quotes it is a star
        ("severity.x=y", False),
        ('jsonPayload.source="a \\"quoted\\" word"', False),
    ],
)
def test_a_filter_holds_or_not(text: str, expected: bool) -> None:
    assert holds(text, entry()) is expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("severity=ERROR OR severity=INFO", "OR"),
        ("NOT severity=ERROR", "NOT"),
        ("-severity=ERROR", "-severity"),
        ('jsonPayload.source=~"cloud.*"', "=~"),
        ('jsonPayload.source!~"cloud.*"', "!~"),
        ("AttemptFinished", "AttemptFinished"),
        ("sample(insertId, 0.5)", "sample"),
        ("severity>=LOUD", "LOUD"),
        ("severity>=" + "9" * 5000, "999"),
        ("timestamp>=yesterday", "yesterday"),
        ("severity=", "severity="),
        ("severity=ERROR AND", "AND"),
        ("(severity=ERROR", "parenthesis"),
        ("severity=ERROR)", ")"),
        ('severity="ERROR', '"ERROR'),
        ("a..b=c", "a..b"),
        ("a=b " * 6000, "20000"),
    ],
)
def test_what_is_not_imitated_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(Refused) as refused:
        log_filter.parse(text)

    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.field == "filter"
    assert named in refused.value.message


class Log:
    """Entries of one project, oldest first."""

    def __init__(self, *entries: dict[str, Any], project: str = "p") -> None:
        self.entries = entries
        self.project = project
        self.looks: list[int] = []

    async def __call__(self, project: str, limit: int) -> Sequence[Entry]:
        self.looks.append(limit)
        return list(reversed(self.entries))[:limit] if project == self.project else []


async def ids(log: Log, **asked: Any) -> tuple[list[int], str]:
    answer = await list_entries([log], {"resourceNames": ["projects/p"], **asked})
    return [int(found["insertId"]) for found in answer.get("entries", [])], answer.get("nextPageToken", "")


@pytest.mark.parametrize(("order", "expected"), [("asc", [1, 2, 3, 4, 5]), ("desc", [5, 4, 3, 2, 1])])
async def test_pages_cover_every_entry_once_also_those_of_one_instant(
    order: str, expected: list[int]
) -> None:
    moments = ["13:15:00Z", "13:15:00.5Z", "13:15:00.5Z", "13:15:00.500001Z", "13:15:01Z"]
    log = Log(*[entry(n, timestamp=f"2026-11-23T{moment}") for n, moment in enumerate(moments, 1)])

    seen: list[int] = []
    token: str | None = ""
    while token is not None:
        page, following = await ids(
            log, orderBy=f"timestamp {order}", pageSize=2, **({"pageToken": token} if token else {})
        )
        seen += page
        token = following or None

    assert seen == expected


async def test_the_usual_order_is_the_oldest_first() -> None:
    assert (await ids(Log(entry(1), entry(2))))[0] == [1, 2]


async def test_only_the_projects_asked_for_are_searched() -> None:
    log = Log(entry(1), project="other")

    assert await ids(log) == ([], "")
    assert (await ids(log, resourceNames=["projects/other", "projects/p"]))[0] == [1]


async def test_it_looks_no_further_back_than_it_must() -> None:
    many = [entry(n, timestamp="2026-11-23T13:15:00Z", severity="INFO") for n in range(2, 3000)]
    log = Log(entry(1), *many)

    assert (await ids(log, orderBy="timestamp desc", pageSize=1))[0] == [2999]
    assert log.looks == [1000]
    assert (await ids(log, orderBy="timestamp desc", pageSize=1, filter="severity=ERROR"))[0] == [1]


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("resourceNames", {"resourceNames": []}),
        ("resourceNames", {"resourceNames": ["folders/1"]}),
        ("resourceNames", {"resourceNames": ["projects/p/locations/l/buckets/b/views/v"]}),
        ("resourceNames", {"resourceNames": "projects/p"}),
        ("orderBy", {"orderBy": "severity"}),
        ("pageSize", {"pageSize": -1}),
        ("pageToken", {"pageToken": "x"}),
        ("filter", {"filter": "a OR b"}),
        ("since", {"since": "today"}),
    ],
)
async def test_a_bad_question_is_named(field: str, asked: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        await ids(Log(entry(1)), **asked)

    assert refused.value.field == field
