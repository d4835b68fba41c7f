"""Moving by the commands: what is said, beside a running service, and a round on its way that goes on in the other store."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from careflow.app import assembled, bind
from careflow.clock import Pace, VirtualClock
from careflow.core.attempts import AttemptState
from careflow.core.calls import Outcome
from careflow.core.patients import Patient
from careflow.hosting import running
from careflow.lab.personas import Persona, Subscriber
from careflow.ports import Store
from careflow.settings import load_settings
from careflow.store.locks import hold_role
from contract.conftest import Records
from emulated import open_emulated, open_sqlite
from moving_kit import Careflow, a_day, at, export_all, filled, import_all, in_this_process, place


@pytest.fixture
def careflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Careflow:
    return in_this_process(monkeypatch, capsys, tmp_path)


def test_what_is_said_and_who_may_read_it(careflow: Careflow, tmp_path: Path) -> None:
    day = a_day()
    asyncio.run(filled(tmp_path / "old", day))
    private = ["Ada", "Example", "+1212", "Hello", "Lisinopril", *(one.phone for one in day[Patient])]
    said = [
        careflow("export", "archive", "--data-dir", "old"),
        careflow("export", "archive", "--mid-round", "--data-dir", "old"),
        careflow("import", "archive", "--data-dir", "new"),
        careflow("import", "archive", "--data-dir", "new", "--json"),
    ]
    assert [status for status, _, _ in said] == [1, 0, 0, 0]
    assert "work is under way (24 calls)" in said[0][2]
    assert "24 records of work under way" in said[2][1]
    assert json.loads(said[3][1])["digest"] in said[1][1]
    assert not [word for word in private for _, out, error in said if word in out + error]
    assert not [word for word in private if word in (tmp_path / "archive/manifest.json").read_text()]
    assert (tmp_path / "archive").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "archive").iterdir()} == {0o600}


@pytest.mark.parametrize("role", ["pulse", "caller"])
def test_nothing_moves_under_the_feet_of_a_running_service(
    careflow: Careflow, tmp_path: Path, role: str
) -> None:
    asyncio.run(filled(tmp_path / "old", a_day(patients=1)))
    with hold_role(tmp_path / "old", role):
        status, _, error = careflow("export", "archive", "--mid-round", "--data-dir", "old")
        assert (status, f"runs '{role}'" in error) == (1, True)
    assert careflow("export", "archive", "--mid-round", "--data-dir", "old")[0] == 0
    with hold_role(tmp_path / "new", role):
        assert careflow("import", "archive", "--data-dir", "new")[0] == 1
    assert careflow("import", "archive", "--data-dir", "new")[0] == 0


def test_a_command_that_only_checks_makes_nothing(careflow: Careflow, tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path / "old", {}))
    assert careflow("export", "archive", "--data-dir", "old")[0] == 0
    assert careflow("import", "archive", "--check", "--data-dir", "new")[0] == 1
    assert careflow("export", "other", "--data-dir", "new")[0] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"old", "archive"}


TEN_PAST_EIGHT = datetime(
    2026, 11, 23, 13, 14, 50, tzinfo=UTC
)  # ten seconds before the job of 8:15 in New York
ROUND = "local-default-20261123-08"
PEOPLE = [
    Records().patient(f"p{number}", hospital_id="default", given_name="Rosa", phone=f"+12125550{number}")
    for number in range(110, 116)
]


@asynccontextmanager
async def deployment(
    clock: VirtualClock, roles: Sequence[str], fields: dict[str, Any]
) -> AsyncIterator[tuple[Store, Any]]:
    """The services of one deployment at work, in one process."""
    configured, sockets = bind(load_settings(twilio_account_sid="", **fields), roles)
    async with AsyncExitStack() as stack:
        assembly = await stack.enter_async_context(assembled(configured, sockets, clock))
        ticking = asyncio.create_task(clock.run(lambda: Pace(speed=60.0, step=0.12)))
        stack.callback(ticking.cancel)
        await stack.enter_async_context(running(assembly.services))
        yield assembly.store, assembly.lab


async def ended(store: Store) -> Counter[str]:
    counts = await store.count_calls("default", ROUND)
    return Counter(
        {outcome: sum(n for (_, o, _), n in counts.items() if o == outcome) for _, outcome, _ in counts}
    )


async def until(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(100):
        while not await done():
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(240)
@pytest.mark.parametrize("to", ["firestore", "sqlite"])
async def test_a_round_goes_on_in_the_other_store_and_nobody_is_phoned_twice(tmp_path: Path, to: str) -> None:
    """Twilio, which is the lab here, stays where it is; the deployment that phones through it is another one."""
    openers = {"sqlite": open_sqlite, "firestore": open_emulated}
    source, target = ("sqlite", "firestore") if to == "firestore" else ("firestore", "sqlite")
    ports = {f"{role}_port": free_port() for role in ("pulse", "caller", "lab", "scheduler")}
    clock = VirtualClock(TEN_PAST_EIGHT)
    old_place = {"calls_in_flight": 2, **ports, **place(source, tmp_path / "old")}
    new_place = {**ports, **place(target, tmp_path / "new")}

    async with deployment(clock, ("lab", "caller", "pulse", "scheduler"), old_place) as (store, lab):
        await store.put_patients(PEOPLE)
        lab.exchange.set_subscribers(
            [
                Subscriber(phone=one.phone or "", persona=Persona.WELL, given_name="Rosa", birth_year=1950)
                for one in PEOPLE
            ]
        )

        async def some_are_over_and_some_are_talking() -> bool:
            talking = [one for one in await store.open_attempts() if one.state is AttemptState.ANSWERED]
            return bool(talking) and (await ended(store))[Outcome.COMPLETED] >= 2

        await until(some_are_over_and_some_are_talking)
    (tmp_path / "new").mkdir()
    shutil.move(tmp_path / "old/lab", tmp_path / "new/lab")
    async with at(openers[source], tmp_path / "old") as store:
        manifest = await export_all(store, tmp_path / "archive")
        assert manifest.summaries["calls"].unfinished > 0
    async with at(openers[target], tmp_path / "new") as store:
        await import_all(store, tmp_path / "archive")
        before = await ended(store)
        assert before[Outcome.COMPLETED] >= 2

    async with deployment(clock, ("lab", "caller", "pulse"), new_place) as (store, lab):

        async def everybody_has_an_outcome() -> bool:
            return set(await ended(store)) and not (await ended(store))[""]

        await until(everybody_has_an_outcome)
        after = await ended(store)
        alerts = await store.alerts("default", round_id=ROUND)
        books = [call.to_json() for call in lab.exchange.network.books.calls.values()]
    # Who was only ringing when the network stopped, which is the lab too, may ring again; who has picked up may not.
    answered = Counter(call["to"] for call in books if call["answeredAt"])
    assert answered == Counter(one.phone for one in PEOPLE)
    assert {call["endedBy"] for call in books if not call["answeredAt"]} <= {"lab"}
    assert after.total() == len(PEOPLE)
    assert after[Outcome.COMPLETED] > before[Outcome.COMPLETED]
    assert after[Outcome.UNREACHABLE] == len(alerts)  # whose conversation the move cut

    async with at(openers[target], tmp_path / "new") as store:
        manifest = await export_all(store, tmp_path / "back", mid_round=False)
    async with at(openers[source], tmp_path / "third") as store:
        await import_all(store, tmp_path / "back")
        assert (await export_all(store, tmp_path / "again")).digest == manifest.digest
