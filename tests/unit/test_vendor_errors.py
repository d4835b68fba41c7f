"""Failures of Twilio and ElevenLabs as countable lines: one each, passed on, without a word of anybody's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from careflow.caller.vendor_errors import CountedPhone, CountedSpeech
from careflow.errors import ProviderError
from careflow.ports import Transcript
from careflow.telemetry import FIELDS
from log_lines import vendors_that_fail

GONE = ProviderError("Zebulon cannot be spoken to", code="quota_exceeded", permanent=True)


class Listening:
    """Hears one thing and breaks off."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.done: list[str] = []

    async def send(self, audio: bytes) -> None:
        self.done.append("send")

    async def commit(self) -> None:
        self.done.append("commit")

    async def transcripts(self) -> AsyncIterator[Transcript]:
        yield Transcript("yes", final=True)
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.done.append("close")


@dataclass
class Vendor:
    """Answers everything with this error, or with the question's name."""

    error: Exception | None
    listening: Listening | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def asked(*_: Any) -> Any:
            if self.error is not None:
                raise self.error
            return self.listening if name == "listen" else name

        return asked


class Attempted:
    id = "c1-1"


ASKED: list[tuple[str, str, str, Callable[[Any], Awaitable[Any]]]] = [
    ("Telephone error", "dial", "dial", lambda vendor: CountedPhone(vendor).dial(Attempted())),  # type: ignore[arg-type]
    ("Telephone error", "hang-up", "", lambda vendor: CountedPhone(vendor).hang_up("CA1")),
    ("Telephone error", "fetch", "fetch", lambda vendor: CountedPhone(vendor).fetch("CA1")),
    ("Telephone error", "list", "calls_to", lambda vendor: CountedPhone(vendor).calls_to("+12125550123")),
    ("Speech error", "say", "say", lambda vendor: CountedSpeech(vendor).say("Zebulon", "en")),
    ("Speech error", "listen", "listen", lambda vendor: CountedSpeech(vendor).listen("en")),
]


@pytest.mark.parametrize(("message", "operation", "_name", "ask"), ASKED, ids=[one[1] for one in ASKED])
async def test_a_failure_is_one_line_and_still_a_failure(
    message: str, operation: str, _name: str, ask: Callable[[Any], Awaitable[Any]]
) -> None:
    with capture_logs() as logs, pytest.raises(ProviderError) as raised:
        await ask(Vendor(GONE))
    assert raised.value is GONE
    (line,) = logs
    assert (line["event"], line["operation"], line["code"]) == (message, operation, "quota_exceeded")
    assert "Zebulon" not in repr(line)
    assert line.keys() - {"event", "log_level"} <= FIELDS


@pytest.mark.parametrize(("_message", "operation", "name", "ask"), ASKED, ids=[one[1] for one in ASKED])
async def test_an_answer_is_passed_on_and_no_line(
    _message: str, operation: str, name: str, ask: Callable[[Any], Awaitable[Any]]
) -> None:
    with capture_logs() as logs:
        answer = await ask(Vendor(None))
    assert logs == []
    assert operation in ("listen", "hang-up") or answer == name


async def test_what_is_not_the_vendor_s_failure_is_no_line() -> None:
    with capture_logs() as logs, pytest.raises(ValueError, match="ours"):
        await CountedPhone(Vendor(ValueError("ours"))).fetch("CA1")  # type: ignore[arg-type]
    assert logs == []


@pytest.mark.parametrize(("error", "lines"), [(GONE, 1), (None, 0)])
async def test_a_session_that_breaks_off_is_one_line_after_what_it_heard(
    error: ProviderError | None, lines: int
) -> None:
    inner = Listening(error)
    session = await CountedSpeech(Vendor(None, inner)).listen("en")  # type: ignore[arg-type]
    heard: list[str] = []
    with capture_logs() as logs:
        await session.send(b"")
        await session.commit()
        try:
            async for transcript in session.transcripts():
                heard += [transcript.text]
        except ProviderError:
            heard.append("broken")
        await session.close()
    assert heard == ["yes", "broken"][: 1 + lines]
    assert inner.done == ["send", "commit", "close"]
    assert [line["operation"] for line in logs] == ["transcripts"] * lines


async def test_the_real_clients_are_counted_and_quote_nobody() -> None:
    lines = [entry["jsonPayload"] for entry in await vendors_that_fail()]
    told = [(line["message"], line["operation"], line["code"]) for line in lines]
    assert told == [
        ("Telephone error", "dial", "20003"),
        ("Telephone error", "dial", "too-late"),
        ("Telephone error", "hang-up", "20003"),
        ("Telephone error", "fetch", "20003"),
        ("Telephone error", "list", "20003"),
        ("Speech error", "say", "quota_exceeded"),
    ]
    assert not any(word in repr(lines) for word in ("Zebulon", "555", "dropped"))
