#!/usr/bin/env python3
"""TEST SCRIPT ONLY: does a round go on when the client that started it is cut off?

Starts a round of a local Pulse through A2A, follows its stream, cuts the connection, and then watches from outside until
everybody in the round has an outcome. Ends with 0 when the round went on to its end, else with 1 and the reason. The
production scheduler is Cloud Scheduler (terraform/), and on one machine the one in `careflow up`.

    python3 run_daily_job.py --hour 8
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]

try:
    import httpx

    from careflow.auth.setup import local_issuer
    from careflow.cli.context import clock_of
    from careflow.cli.whereabouts import reached
    from careflow.errors import CareflowError, SettingsError
    from careflow.settings import load_settings
except ModuleNotFoundError as error:
    _PYTHON = ROOT / ".venv" / "bin" / "python"
    if _PYTHON.exists() and Path(sys.prefix) != _PYTHON.parents[1]:
        os.execv(_PYTHON, [str(_PYTHON), *sys.argv])  # noqa: S606 - the same script, with the project's packages
    sys.exit(f"{error.name} is not installed here: `make up` in {ROOT} installs the project")

HOURS = (8, 12, 20)
CARD = "/.well-known/agent-card.json"
SKILL = "run-round"
FIRST_EVENT_SECONDS = 120.0  # planning a very large roster comes before the first event
POLL_SECONDS = 1.0
OVER = "TASK_STATE_COMPLETED"


class Failed(Exception):
    """The round did not go on to its end, or that could not be shown; the message says why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the round is, as Pulse tells it."""

    round_id: str
    state: str
    queried: int
    calls: Mapping[str, int]
    outcomes: Mapping[str, int]

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> Progress:
        """From a task, or from a status update of one."""
        (part,) = task["status"]["message"]["parts"]
        data = part["data"]
        return cls(
            task.get("id") or task["taskId"],
            task["status"]["state"],
            int(data["patientsQueried"]),
            {name: int(count) for name, count in data["calls"].items()},
            {name: int(count) for name, count in data["outcomes"].items()},
        )

    @property
    def is_over(self) -> bool:
        return self.state == OVER

    @property
    def open_calls(self) -> int:
        return sum(count for state, count in self.calls.items() if state != "ended")

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in (self.outcomes or self.calls).items())
        return f"{self.open_calls} of {sum(self.calls.values())} calls open ({counts or 'nobody is due'})"


class Pulse:
    """A Pulse Agent, spoken to by hand: a2a.md section 2 of the protocol, JSON-RPC over POST."""

    def __init__(self, http: httpx.AsyncClient, url: str, token: Callable[[str], str]) -> None:
        self._http = http
        self._url = url
        self._token = token
        self._audience = url

    async def meet(self) -> None:
        """Read the agent card: it says under which name Pulse is to be spoken to. Raises Failed."""
        try:
            answer = await self._http.get(self._url + CARD)
            answer.raise_for_status()
            card = answer.json()
            interface = next(
                one for one in card["supportedInterfaces"] if one["protocolBinding"] == "JSONRPC"
            )
            skills = {skill["id"] for skill in card["skills"]}
        except (httpx.HTTPError, ValueError, KeyError, StopIteration) as error:
            raise Failed(
                f"no Pulse Agent answers at {self._url} ({type(error).__name__}): is `careflow up` running?"
            ) from error
        if SKILL not in skills:
            raise Failed(f"the agent at {self._url} has no skill {SKILL}; it has {', '.join(sorted(skills))}")
        self._audience = interface["url"].removesuffix("/a2a")

    async def run_round(self, hour: int) -> AsyncIterator[Progress]:
        """Start the round, or join it, and follow it."""
        data = {"scheduleHour": str(hour), "triggerType": "manual", "source": "run-daily-job"}
        message = {"messageId": uuid.uuid4().hex, "role": "ROLE_USER", "parts": [{"data": data}]}
        request = self._request("SendStreamingMessage", {"message": message})
        async with self._http.stream("POST", **request, timeout=FIRST_EVENT_SECONDS) as answer:
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                await answer.aread()
                _result(answer)
                raise Failed("Pulse answered without a stream")
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    event = json.loads(line.removeprefix("data:"))
                    result = event.get("result") or {}
                    if not (told := result.get("task") or result.get("statusUpdate")):
                        raise Failed(f"the stream broke off: {event.get('error', event)}")
                    yield Progress.of(told)

    async def progress(self, round_id: str) -> Progress:
        """The round as it stands. Raises Failed or httpx.HTTPError."""
        return Progress.of(_result(await self._http.post(**self._request("GetTask", {"id": round_id}))))

    async def summary(self, round_id: str) -> dict[str, Any]:
        """The round as `GET /rounds/{id}` shows it: another way in than the one that was cut."""
        hospital = round_id.partition("-")[2].rsplit("-", 2)[0]
        answer = await self._http.get(
            f"{self._url}/rounds/{round_id}", params={"hospitalId": hospital}, headers=self._headers()
        )
        return dict(_result(answer))

    def _headers(self) -> dict[str, str]:
        return {"A2A-Version": "1.0", "Authorization": f"Bearer {self._token(self._audience)}"}

    def _request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return {"url": self._url + "/a2a", "json": body, "headers": self._headers()}


def _result(answer: httpx.Response) -> Any:
    """What Pulse answered. Raises Failed with its words when it refused."""
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if answer.is_success and "error" not in body:
        return body.get("result", body)
    said = body.get("error", {}).get("message", "no reason given")
    raise Failed(f"Pulse refused with {answer.status_code}: {said}")


async def follow_and_cut(pulse: Pulse, hour: int, after: float) -> Progress:
    """Follow the stream for `after` seconds from its first event, then drop the connection; the last that was seen."""
    seen: Progress | None = None
    stream = pulse.run_round(hour)
    try:
        seen = await anext(stream)
        say(f"round {seen.round_id}: {seen}")
        async with asyncio.timeout(after):
            async for seen in stream:
                say(str(seen))
    except TimeoutError:
        pass
    except StopAsyncIteration:
        raise Failed("Pulse answered with an empty stream") from None
    except httpx.HTTPError as error:
        raise Failed(f"the stream broke before it was cut ({type(error).__name__})") from error
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    assert seen is not None
    if seen.is_over or not seen.open_calls:
        raise Failed(
            "no call was open when the connection was to be cut, so nothing is shown: the round is over, nobody is due now, "
            "or --after is too long"
        )
    return seen


async def watch_to_the_end(pulse: Pulse, cut: Progress, patience: float) -> Progress:
    """Ask for the round until it is over. Raises Failed when nothing moves for `patience` seconds."""
    seen, moved = cut, time.monotonic()
    while not seen.is_over:
        if time.monotonic() - moved > patience:
            raise Failed(f"the round stands still for {patience:.0f} s after the cut: {seen}")
        await asyncio.sleep(POLL_SECONDS)
        try:
            now = await pulse.progress(cut.round_id)
        except httpx.HTTPError as error:
            say(f"Pulse does not answer ({type(error).__name__}); asking again")
            continue
        if now != seen:
            say(str(now))
            seen, moved = now, time.monotonic()
    return seen


async def verify(pulse: Pulse, cut: Progress, end: Progress) -> None:
    """Everybody has one outcome, and nobody lost a call to the cut. Raises Failed."""
    summary = await pulse.summary(cut.round_id)
    outcomes: Mapping[str, int] = summary["outcomes"]
    if set(summary["calls"]) - {"ended"}:
        raise Failed(f"the round is said to be over, and GET /rounds shows open calls: {summary['calls']}")
    if sum(outcomes.values()) != end.queried or end.queried < cut.queried:
        raise Failed(f"{end.queried} patients are in the round, and the outcomes are {dict(outcomes)}")
    if outcomes.get("cancelled", 0) > cut.outcomes.get("cancelled", 0):
        raise Failed(f"calls were cancelled after the cut: {dict(outcomes)}")


async def run(url: str, hour: int, after: float, patience: float, token: Callable[[str], str]) -> None:
    # A proxy of the environment knows nothing of this machine's own addresses.
    async with httpx.AsyncClient(timeout=30, trust_env=not is_local(url)) as http:
        pulse = Pulse(http, url, token)
        await pulse.meet()
        cut = await follow_and_cut(pulse, hour, after)
        say(f"connection cut after {after:g} s with {cut.open_calls} calls open; watching from outside")
        end = await watch_to_the_end(pulse, cut, patience)
        await verify(pulse, cut, end)
        say(f"passed: the round went on to its end without us: {end}")


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)  # noqa: T201 - a script prints


def is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def deployment(data_dir: Path | None) -> tuple[Path | None, Sequence[Path]]:
    """The local deployment's data directory, None when there is none, and where it was looked for."""
    given = data_dir or (Path(os.environ["CAREFLOW_DATA_DIR"]) if "CAREFLOW_DATA_DIR" in os.environ else None)
    places = [given] if given else [Path("careflow-data"), ROOT / "careflow-data"]
    return next((one for one in places if (one / "issuer" / "signing-key.pem").exists()), None), places


def local_pulse(data_dir: Path | None) -> str:
    """Where the local deployment says its Pulse is; the seed's address when there is none."""
    found, _ = deployment(data_dir)
    return reached(load_settings(data_dir=found)).pulse_url if found else "http://localhost:8001"


def local_tokens(data_dir: Path | None) -> Callable[[str], str]:
    """Tokens of the scheduler's account from this machine's own issuer. Raises Failed when it is not found."""
    found, places = deployment(data_dir)
    if found is None:
        looked = " or ".join(str(one) for one in places)
        raise Failed(
            f"no issuer of tokens in {looked}: start `careflow up`, or name its directory with --data-dir"
        )
    settings = load_settings(data_dir=found)
    issuer = local_issuer(settings)
    if issuer is None:
        raise Failed(
            "this deployment does not use the local issuer (CAREFLOW_OIDC_ISSUER): give a token with --token"
        )

    def token(audience: str) -> str:
        now = clock_of(settings).now()  # of the deployment: with `careflow up --speed` it is ahead of ours
        return issuer.mint(settings.scheduler_account, settings.pulse_audience or audience, now)

    return token


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hour", type=int, choices=HOURS, required=True, help="the round's scheduleHour")
    parser.add_argument(
        "--after", type=_seconds, default=10.0, help="seconds until the connection is cut (10)"
    )
    parser.add_argument("--url", help="the Pulse Agent (the local deployment's, http://localhost:8001)")
    parser.add_argument(
        "--token", help="an identity token of the scheduler's account, where Pulse is not on this machine"
    )
    parser.add_argument(
        "--data-dir", type=Path, help="data directory of the local deployment (./careflow-data)"
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=1500.0,
        help="seconds without any change after which it failed (1500)",
    )
    return parser.parse_args(words)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text}: accepted are seconds above 0, up to 86400")
    return value


def main(words: list[str] | None = None) -> int:
    asked = arguments(words)
    try:
        url = (asked.url or local_pulse(asked.data_dir)).rstrip("/")
        if asked.token is None and not is_local(url):
            raise Failed(
                f"{url} is not on this machine: give a token of the scheduler's account with --token"
            )
        token = (lambda _audience: asked.token) if asked.token else local_tokens(asked.data_dir)
        asyncio.run(run(url, asked.hour, asked.after, asked.patience, token))
    except (Failed, CareflowError, SettingsError, httpx.HTTPError) as error:
        print(f"failed: {error or type(error).__name__}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("stopped; the round goes on", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
