"""What a conversation needs of its surroundings: a socket, a dialogue, the attempt desk, and news of the attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from careflow.core.attempts import Attempt
from careflow.core.checkins import AlertKind, CheckIn
from careflow.core.conversation import Effect, Event, Finished
from careflow.errors import CareflowError

# Close codes (RFC 6455 section 7.4.1 and IANA's registry). All others say that the socket broke, 1005 too: our server reports it
# when no close frame came.
NORMAL_CLOSURES = frozenset({1000, 1001})
SERVICE_RESTART = 1012  # our own server ends its sockets, because it shuts down

Alerts = Sequence[tuple[AlertKind, str]]


class WireClosed(CareflowError):
    """The media socket is closed."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the media socket was closed with code {code}")
        self.code = code


class Wire(Protocol):
    """The media socket."""

    async def receive(self) -> str | None:
        """The next text frame; None for a binary one. Raises WireClosed."""
        ...

    async def send(self, text: str) -> None:
        """Send a text frame; does nothing once the socket is closed."""
        ...


class Talk(Protocol):
    """One dialogue with its script and patient: `core.dialogue` behind three methods."""

    def step(self, event: Event, now: datetime) -> Sequence[Effect]: ...

    def checkpoint(self) -> str: ...

    def check_in(self, attempt: Attempt, ended_at: datetime) -> CheckIn | None: ...


class Desk(Protocol):
    """The part of the attempt desk that a conversation needs. Durable when it returns, or raises StoreUnavailable.

    `stream` counts the attempt's streams: what is said on any but the latest changes nothing.
    """

    async def stream_started(self, attempt_id: str, token: str, call_sid: str) -> Attempt | None:
        """The attempt, answered; None when the token is not its present one or the attempt is over."""
        ...

    async def stream_lost(self, attempt_id: str, *, stream: int) -> object:
        """The socket broke without a word of the stream's end: find out whether the call lives on, and will come back."""
        ...

    async def checkpoint(self, attempt_id: str, text: str, *, stream: int) -> object: ...

    async def keep(self, attempt_id: str, *, stream: int) -> object:
        """Go on holding the conversation though there was nothing to store for a while."""
        ...

    async def hand_over(self, attempt_id: str, text: str, *, stream: int) -> object:
        """Store the checkpoint, unless it is empty, and give the conversation up to another process."""
        ...

    async def raise_alert(self, attempt_id: str, kind: AlertKind, code: str) -> object: ...

    async def conversation_over(
        self, attempt_id: str, finished: Finished, check_in: CheckIn | None, alerts: Alerts, *, stream: int
    ) -> object:
        """Record the end, with the alerts that are not stored yet, and hang up. Does nothing when the attempt has ended."""
        ...

    async def conversation_broken(
        self, attempt_id: str, check_in: CheckIn | None, alerts: Alerts = (), *, stream: int
    ) -> object:
        """Our side failed in the middle; what follows on the telephone is the TwiML's matter."""
        ...


class Watching(Protocol):
    """Following an attempt's changes."""

    def changes(self, attempt_id: str, after_version: int = -1) -> AsyncIterator[Attempt]: ...
