"""The doors of a served deployment, knocked at over the wire: whose token is let in, and a store that is away."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from careflow.store.database import FILE
from doors import door, error_of
from surface import DOORS, FORGERIES, GET_TASK, ROUND, TRIGGER, Door, Surface, claims_of, deployed, resident

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = ("/healthz", "/readyz", "/.well-known/agent-card.json")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Surface]:
    async with deployed(tmp_path_factory.mktemp("surface") / "data", body_seconds=0.3) as surface:
        yield surface


class TestTokens:
    @pytest.mark.parametrize("where", DOORS, ids=str)
    @pytest.mark.parametrize("what", FORGERIES)
    async def test_a_token_that_proves_nothing_opens_no_door(
        self, here: Surface, where: Door, what: str
    ) -> None:
        forge, status, code = FORGERIES[what]
        token = forge(here.issuer, claims_of(here.token(where.role, where.account)))
        answer = await here.knock(where, token)
        assert (answer.status_code, error_of(answer)["code"]) == (status, code)
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert token is None or token not in answer.text

    @pytest.mark.parametrize("where", DOORS, ids=str)
    async def test_the_door_s_own_account_comes_in(self, here: Surface, where: Door) -> None:
        assert (await here.enter(where)).status_code == where.status

    @pytest.mark.parametrize(
        ("where", "account"),
        [
            (door("pulse", "/"), "queue_account"),
            (door("pulse", "/"), "pulse_account"),
            (door("pulse", "/tasks/call"), "scheduler_account"),
            (door("pulse", "/tasks/close"), "pulse_account"),
            (door("caller", "/"), "scheduler_account"),
            (door("caller", "/"), "queue_account"),
        ],
        ids=str,
    )
    async def test_an_account_of_ours_opens_its_own_doors_only(
        self, here: Surface, where: Door, account: str
    ) -> None:
        answer = await here.knock(where, here.token(where.role, account))
        assert (answer.status_code, error_of(answer)["code"]) == (403, "account")

    async def test_a_token_for_one_service_does_not_open_the_other(self, here: Surface) -> None:
        for_pulse = here.issuer.mint(here.settings.pulse_account, here.url("pulse"), here.clock.now())
        answer = await here.knock(door("caller", "/"), for_pulse)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "audience")

    async def test_a_token_is_good_until_its_end_and_not_after(self, tmp_path: Path) -> None:
        async with deployed(tmp_path / "data") as its:
            where = door("caller", "/")
            token = its.token("caller", where.account)
            its.clock.advance(3600)  # its end, within the leeway
            assert (await its.knock(where, token)).status_code == where.status
            its.clock.advance(31)
            answer = await its.knock(where, token)
            assert (answer.status_code, error_of(answer)["code"]) == (401, "expired")

    async def test_rotated_keys_stay_good_until_they_are_removed(self, tmp_path: Path) -> None:
        async with deployed(tmp_path / "data") as its:
            before = [(one, its.token(one.role, one.account)) for one in DOORS]
            its.issuer.rotate()
            for where, token in before:
                assert (await its.knock(where, token)).status_code == where.status
                assert (await its.enter(where)).status_code == where.status
            its.issuer.rotate()  # the set holds two
            for where, token in before:
                answer = await its.knock(where, token)
                assert (answer.status_code, error_of(answer)["code"]) == (401, "unknown-key")
                assert (await its.enter(where)).status_code == where.status

    async def test_without_any_key_the_doors_stay_shut_and_say_when_to_come_back(
        self, tmp_path: Path
    ) -> None:
        async with deployed(tmp_path / "data") as its:
            tokens = [(one, its.token(one.role, one.account)) for one in DOORS]
            its.issuer.jwks_path.unlink()
            for where, token in tokens:
                answer = await its.knock(where, token)
                assert (answer.status_code, error_of(answer)["code"]) == (503, "keys-unavailable")
                assert int(answer.headers["retry-after"]) > 0

    async def test_refused_requests_leave_nothing_behind(self, tmp_path: Path) -> None:
        async with deployed(tmp_path / "data") as its:
            where = door("pulse", "/")
            for forge, _, _ in FORGERIES.values():
                await its.knock(where, forge(its.issuer, claims_of(its.token(where.role, where.account))))
            await its.enter(where, json=TRIGGER | {"environment": "prod"})
            assert await its.assembly.store.round("default", ROUND) is None
            assert (await its.enter(where)).status_code == 200
            assert await its.assembly.store.round("default", ROUND) is not None  # the same, once it may

    @pytest.mark.parametrize("role", ["pulse", "caller"])
    @pytest.mark.parametrize("path", PUBLIC)
    async def test_public_paths_need_no_token(self, here: Surface, role: str, path: str) -> None:
        assert (await here.http.get(here.url(role) + path)).status_code == 200

    @pytest.mark.parametrize("role", ["pulse", "caller"])
    @pytest.mark.parametrize(
        "path",
        [
            "/docs",
            "/openapi.json",
            "/redoc",
            "/tasks",
            "/tasks/",
            "/rounds",
            "/healthz/",
            "/lab/calls",
            "/%2e%2e/x",
        ],
    )
    async def test_what_is_not_offered_is_not_there(self, here: Surface, role: str, path: str) -> None:
        for token in (None, here.token(role, "pulse_account"), here.token(role, "queue_account")):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = await here.http.get(here.url(role) + path, headers=headers)
            assert answer.status_code in (401, 403, 404, 405)
            error_of(answer)

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
    async def test_another_method_is_405_with_those_that_are_accepted(
        self, here: Surface, method: str
    ) -> None:
        for role in ("pulse", "caller"):
            answer = await here.http.request(method, here.url(role) + "/")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
            error_of(answer)


@contextmanager
def locked(its: Surface) -> Iterator[None]:
    """Another process writes and does not stop; nobody has the ten seconds to wait for it."""
    its.assembly.store.database._connections[0].execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(its.settings.data_dir / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def full(its: Surface) -> Iterator[None]:
    """The disk holds no page more."""
    writer = its.assembly.store.database._connections[0]
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        writer.execute("PRAGMA max_page_count = 1000000")


class TestStoreDown:
    async def test_a_store_that_cannot_be_written_is_503_everywhere_and_then_all_is_as_before(
        self, tmp_path: Path
    ) -> None:
        async with deployed(tmp_path / "data") as its:
            attempt = await its.dialled(1)
            order = {
                "attemptId": attempt.id,
                "number": "1",
                "callId": attempt.call_id,
                "roundId": attempt.round_id,
                "hospitalId": "default",
                "patientId": attempt.patient_id,
                "script": "morning",
                "notAfter": "2026-11-23T17:00:00Z",
            }
            send = GET_TASK | {
                "method": "SendMessage",
                "params": {
                    "message": {
                        "messageId": attempt.id,
                        "role": "ROLE_USER",
                        "parts": [{"data": order}],
                    }
                },
            }
            form = {"CallSid": str(attempt.call_sid), "CallStatus": "ringing"}
            with locked(its):
                answers = [
                    await its.enter(door("pulse", "/")),
                    await its.enter(door("caller", "/"), json=send),
                    await its.enter(door("caller", "/"), json=send | {"method": "SendStreamingMessage"}),
                    await its.webhook(f"/twilio/status/{attempt.id}", form),
                    await its.http.get(its.url("pulse") + "/readyz"),
                    await its.http.get(its.url("caller") + "/readyz"),
                ]
                for role in ("pulse", "caller"):
                    assert (await its.http.get(its.url(role) + "/healthz")).status_code == 200
            for answer in answers:
                assert answer.status_code == 503, answer.request.url
                assert int(answer.headers["retry-after"]) > 0
                assert "sqlite" not in answer.text.lower()
                error_of(answer)
            assert await its.assembly.store.attempt(attempt.id) == attempt
            assert (await its.http.get(its.url("pulse") + "/readyz")).status_code == 200
            assert (await its.webhook(f"/twilio/status/{attempt.id}", form)).status_code == 204

    async def test_a_full_disk_refuses_the_trigger_and_half_a_round_is_completed_later(
        self, tmp_path: Path
    ) -> None:
        async with deployed(tmp_path / "data") as its:
            await its.assembly.store.put_patients(
                [resident(number, consent=False) for number in range(1, 100)]
            )
            with full(its):
                answer = await its.enter(door("pulse", "/"))
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
                error_of(answer)
            answer = await its.enter(door("pulse", "/"))
            assert (answer.status_code, answer.json()["patientsQueried"]) == (200, 99)
            assert answer.json()["skipped"] == {"no-consent": 99}
