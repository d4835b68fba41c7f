"""Following an attempt: at once when this process changed it, about a second later when another one did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from careflow.clock import wait_until
from careflow.core.attempts import Attempt, AttemptState
from careflow.ports import Clock, Store


class Watch:
    """Wakes whoever follows an attempt. `poll_seconds`, of the clock, is how late another process's change may be seen."""

    def __init__(self, store: Store, clock: Clock, *, poll_seconds: float = 1.0) -> None:
        self._store = store
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._followers: dict[str, set[asyncio.Event]] = {}

    def notify(self, attempt_id: str) -> None:
        """Tell this process's followers that the attempt was changed."""
        for event in self._followers.get(attempt_id, ()):
            event.set()

    async def changes(self, attempt_id: str, after_version: int = -1) -> AsyncIterator[Attempt]:
        """The stored attempt if it is newer than `after_version`, then each newer version that is seen.

        Versions that follow each other fast may be seen as one. Ends after the ended attempt, or at once for an unknown one.
        """
        event = asyncio.Event()
        followers = self._followers.setdefault(attempt_id, set())
        followers.add(event)
        try:
            while True:
                event.clear()  # before reading: a change after the read must wake us
                attempt = await self._store.attempt(attempt_id)
                if attempt is None:
                    return
                if attempt.version > after_version:
                    after_version = attempt.version
                    yield attempt
                if attempt.state is AttemptState.ENDED:
                    return
                await wait_until(self._clock, self._poll_seconds, event)
        finally:
            followers.discard(event)
            if not followers and self._followers.get(attempt_id) is followers:
                del self._followers[attempt_id]

    async def ended(self, attempt_id: str, seconds: float) -> Attempt | None:
        """The attempt once it has ended, or as it is after `seconds` of the clock; None for an unknown one."""
        deadline = asyncio.ensure_future(self._clock.sleep(seconds))
        follower = asyncio.ensure_future(self._until_ended(attempt_id))
        try:
            await asyncio.wait({deadline, follower}, return_when=asyncio.FIRST_COMPLETED)
            if follower.done():
                return follower.result()
            return await self._store.attempt(attempt_id)
        finally:
            deadline.cancel()
            follower.cancel()

    async def _until_ended(self, attempt_id: str) -> Attempt | None:
        last = None
        async for attempt in self.changes(attempt_id):
            last = attempt
        return last
