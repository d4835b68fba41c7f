"""The doctor's verdicts on the queue, the vendors, the rosters and the rounds of the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from careflow.clock import VirtualClock
from careflow.core.hospitals import Hospital
from careflow.core.rounds import Trigger, round_for
from careflow.doctor import agents, ledger, queue, rounds, vendors
from careflow.doctor.findings import Examined, Finding, Level, Report, wrong
from careflow.doctor.set_up import NoAnswer
from careflow.errors import StoreError
from careflow.store.sqlite import SqliteStore
from careflow.tasks.limits import cloud_tasks_settings, queue_limits
from examined import NOW, PUBLIC, set_up
from surface import resident

NUMBER = "+18005550199"


class TestTheQueue:
    LIMITS = queue_limits(calls_per_second=1.0, calls_in_flight=10)["calls"]

    def document(self, **changed: Any) -> dict[str, Any]:
        return {
            "name": "projects/p/locations/l/queues/careflow-calls",
            **cloud_tasks_settings(self.LIMITS),
        } | changed

    def test_with_our_limits_is_well(self, tmp_path: Path) -> None:
        (found,) = queue.judged_queue(self.document(state="RUNNING"), self.LIMITS, set_up(tmp_path))
        assert found.level is Level.OK

    @pytest.mark.parametrize(
        ("changed", "fix"),
        [
            ({"state": "PAUSED"}, "gcloud tasks queues resume careflow-calls"),
            ({"rateLimits": {"maxDispatchesPerSecond": 500}}, "--max-dispatches-per-second=1"),
            ({"retryConfig": {"maxRetryDuration": "60s"}}, "--max-retry-duration=86400s"),
        ],
    )
    def test_that_differs_has_its_fix(self, tmp_path: Path, changed: dict[str, Any], fix: str) -> None:
        (found,) = queue.judged_queue(self.document(**changed), self.LIMITS, set_up(tmp_path))
        assert found.level in (Level.FAIL, Level.WARN)
        assert fix in found.fix[0]

    def test_with_a_late_task_is_looked_at(self, tmp_path: Path) -> None:
        tasks = [{"scheduleTime": (NOW - timedelta(minutes=minutes)).isoformat()} for minutes in (1, 45)]
        (found,) = queue.judged_tasks("careflow-calls", tasks, set_up(tmp_path))
        assert (found.level, "45 min late" in found.said) == (Level.WARN, True)


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (httpx.Response(200, json={"status": "active", "type": "Full"}), "ok"),
        (httpx.Response(200, json={"status": "active", "type": "Trial"}), "warn"),
        (httpx.Response(200, json={"status": "suspended", "type": "Full"}), "fail"),
        (httpx.Response(401, json={"code": 20003}), "fail"),
        (httpx.Response(404, text="no"), "fail"),
        (NoAnswer("ConnectError"), "fail"),
    ],
)
def test_a_twilio_account_is_judged(tmp_path: Path, answer: Any, level: str) -> None:
    assert vendors.judged_account("https://api.twilio.com", answer, set_up(tmp_path)).level == level


@pytest.mark.parametrize(
    ("listed", "level"),
    [
        ([], "fail"),
        ([{"phone_number": "+18005550188", "capabilities": {"voice": True}}], "fail"),
        ([{"phone_number": NUMBER, "capabilities": {"voice": False}}], "fail"),
        ([{"phone_number": NUMBER, "capabilities": {"voice": True}}], "ok"),
    ],
)
def test_a_number_is_the_accounts_and_speaks(listed: list[Any], level: str) -> None:
    answer = httpx.Response(200, json={"incoming_phone_numbers": listed})
    assert vendors.judged_number(NUMBER, answer).level == level


def test_money_and_characters_that_run_out_are_told() -> None:
    assert [one.level.value for one in vendors.judged_balance({"balance": "3.20", "currency": "USD"})] == [
        "warn"
    ]
    assert [one.level.value for one in vendors.judged_balance({"balance": "300"})] == ["ok"]
    assert vendors.judged_balance({"message": "not here"}) == []
    assert [
        one.level.value for one in vendors.judged_quota({"character_count": 95, "character_limit": 100})
    ] == ["warn"]
    assert vendors.judged_quota({}) == []


def test_each_language_of_the_scripts_needs_a_voice_of_the_account(tmp_path: Path) -> None:
    given = set_up(tmp_path, settings={"elevenlabs_voices": {"en": "gone"}})
    found = vendors.judged_voices(httpx.Response(200, json={"voices": [{"voice_id": "there"}]}), given)
    assert {one.subject: one.level.value for one in found} == {
        "ElevenLabs": "ok",
        "voice for en": "fail",
        "voice for es": "warn",
    }
    assert vendors.judged_voices(httpx.Response(401), given)[0].level is Level.FAIL


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (httpx.Response(403, json={"error": {"code": "http-403"}}), "ok", "not signed"),
        (httpx.Response(403, text="<html>"), "fail", "private"),
        (httpx.Response(401), "fail", "private"),
        (httpx.Response(404), "fail", "CAREFLOW_CALLER_ROUTES=a2a"),
        (httpx.Response(200), "fail", "not the Caller"),
        (NoAnswer("ConnectTimeout"), "fail", "cannot reach"),
    ],
)
def test_what_twilio_reaches_is_judged_by_an_unsigned_webhook(
    tmp_path: Path, answer: Any, level: str, words: str
) -> None:
    found = agents.judged_webhook(PUBLIC, answer, set_up(tmp_path))
    assert found.level == level
    assert words in found.said + found.means


HOSPITAL = Hospital(
    id="default",
    name="H",
    phone=NUMBER,
    from_number=NUMBER,
    time_zone="America/New_York",
    round_hours=(8, 12, 20),
)
MORNING = Trigger(
    schedule_hour=8,
    time_zone="America/New_York",
    trigger_type="scheduled",
    source="test",
    environment="local",
    hospital_id="default",
)


def test_a_roster_is_judged_by_who_may_be_phoned_and_when(tmp_path: Path) -> None:
    counted = ledger.Roster()
    for patient in (resident(1), resident(2, consent=False), resident(3, phone=None)):
        counted.count(patient, NOW)
    found = ledger.judged(counted, HOSPITAL, set_up(tmp_path, cloud=False))
    assert "1 may be phoned: 1 at 8:00, 0 at 12:00, 0 at 20:00; 1 no-consent, 1 no-number" in found[0].said
    assert [one.said for one in found[1:]] == ["nobody is due at 12:00", "nobody is due at 20:00"]
    assert not any(resident().family_name in str(one) for one in found)


def test_a_round_that_reached_few_is_told() -> None:
    round_ = round_for(MORNING, NOW, (8, 12, 20))
    most = {
        ("ended", "unreachable", "failed"): 6,
        ("ended", "completed", ""): 4,
        ("ended", "skipped", "paused"): 90,
    }
    (found,) = rounds.judged_outcomes(round_, most, "show")
    assert "6 of 10" in found.said
    assert rounds.judged_outcomes(round_, {**most, ("ended", "unreachable", "failed"): 4}, "show") == []


class TestTheLedgersRounds:
    async def found(self, tmp_path: Path, now: datetime) -> list[Finding]:
        one = set_up(tmp_path, cloud=False)
        one.clock = VirtualClock(now)
        return [finding async for finding in rounds.rounds(one)]

    @pytest.mark.parametrize(
        ("began", "consent", "level"),
        [(True, True, Level.FAIL), (False, True, Level.WARN), (True, False, None)],
    )
    async def test_a_round_that_did_not_come_is_made_up_for(
        self, tmp_path: Path, began: bool, consent: bool, level: Level | None
    ) -> None:
        store = await SqliteStore.open(tmp_path)
        await store.put_patients([resident(consent=consent)])
        if began:
            before = await store.open_round(round_for(MORNING, NOW - timedelta(days=1), (8, 12, 20)))
            assert await store.update_round(replace(before, closed_at=before.window_end))
        await store.close()
        found = await self.found(tmp_path, NOW + timedelta(hours=1))
        missing = [one for one in found if "did not come" in one.said]
        assert [one.level for one in missing] == ([level] if level else [])
        if level:
            assert missing[0].fix == ("careflow rounds run --hour 8 --hospital default",)

    async def test_a_round_that_nobody_closed_is_told(self, tmp_path: Path) -> None:
        store = await SqliteStore.open(tmp_path)
        opened = await store.open_round(round_for(MORNING, NOW, (8, 12, 20)))
        await store.close()
        found = await self.found(tmp_path, opened.window_end + timedelta(hours=3))
        (unclosed,) = [one for one in found if one.level is Level.FAIL]
        assert (unclosed.subject, "is not closed, 3.0 h" in unclosed.said) == (opened.id, True)


async def test_a_query_without_its_index_is_named(tmp_path: Path) -> None:
    class Lacking:
        """A store whose calls of a round need an index that is not there."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            if name == "count_calls":
                return self._refuse
            return getattr(self._inner, name)

        async def _refuse(self, *_words: Any) -> None:
            raise StoreError("Firestore lacks an index for this query")

    one = set_up(tmp_path)
    store = await SqliteStore.open(tmp_path)
    one._store = Lacking(store)  # type: ignore[assignment]
    (found,) = [finding async for finding in ledger.queries(one)]
    await store.close()
    assert "1 of 17 kinds are not answered: counts of calls" in found.said
    assert found.fix[0].startswith("gcloud firestore indexes composite list")


def test_a_finding_is_json_and_a_block_is_told() -> None:
    one = Examined(check="a", about="b", writes="", findings=[wrong("x", "y", "z", blocks=True)])
    assert one.blocked
    assert Report([one]).counts["fail"] == 1
