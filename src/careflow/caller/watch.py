"""Following an attempt: at once when this process changed it, a little later when another one did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from careflow.clock import wait_until
from careflow.core.attempts import Attempt, AttemptState
from careflow.ports import Clock, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How late another process's change may be seen, in seconds of the clock. Each look is one read of the store.

    A call rings `waiting`; when it was answered, the verdict on who answered is awaited `listening`, as the greeting is being
    spoken, for `verdict_within` at the most; from then on nothing is to come but the end, or the wish for it: `talking`.
    """

    waiting: float = 2.0
    listening: float = 1.0
    talking: float = 5.0
    verdict_within: timedelta = timedelta(seconds=30)

    def until_next_look(self, attempt: Attempt, now: datetime) -> float:
        if attempt.answered_at is None:
            return self.waiting
        if attempt.answered_by is None and now - attempt.answered_at < self.verdict_within:
            return self.listening
        return self.talking


class _Followed:
    """One attempt with all its followers here: whoever looks, looks for all of them."""

    def __init__(self) -> None:
        self.news: set[asyncio.Event] = set()
        self.looking = asyncio.Lock()
        self.looks = 0
        self.attempt: Attempt | None = None
        self.is_stale = True

    def tell(self, *, but: asyncio.Event | None = None) -> None:
        for event in self.news:
            if event is not but:
                event.set()


class Watch:
    """Wakes whoever follows an attempt, and looks once at the store for all of them."""

    def __init__(self, store: Store, clock: Clock, *, pace: Pace | None = None) -> None:
        self._store = store
        self._clock = clock
        self._pace = pace or Pace()
        self._followed: dict[str, _Followed] = {}

    def notify(self, attempt_id: str) -> None:
        """Tell this process's followers that the attempt was changed."""
        followed = self._followed.get(attempt_id)
        if followed is not None:
            followed.is_stale = True
            followed.tell()

    async def changes(self, attempt_id: str, after_version: int = -1) -> AsyncIterator[Attempt]:
        """The stored attempt if it is newer than `after_version`, then each newer version that is seen.

        Versions that follow each other fast may be seen as one. Ends after the ended attempt, or at once for an unknown one.
        Raises StoreUnavailable.
        """
        followed = self._followed.setdefault(attempt_id, _Followed())
        news = asyncio.Event()
        followed.news.add(news)
        is_due = True
        try:
            while True:
                news.clear()  # before looking: a change after the look must wake us
                if is_due or followed.is_stale:
                    await self._look(attempt_id, followed, news)
                attempt = followed.attempt
                if attempt is None:
                    return
                if attempt.version > after_version:
                    after_version = attempt.version
                    yield attempt
                if attempt.state is AttemptState.ENDED:
                    return
                pause = self._pace.until_next_look(attempt, self._clock.now())
                is_due = not await wait_until(self._clock, pause, news)
        finally:
            followed.news.discard(news)
            if not followed.news and self._followed.get(attempt_id) is followed:
                del self._followed[attempt_id]

    async def _look(self, attempt_id: str, followed: _Followed, news: asyncio.Event) -> None:
        before = followed.looks
        async with followed.looking:
            if followed.looks != before and not followed.is_stale:
                return  # somebody looked while we waited for our turn
            followed.is_stale = False  # before reading, like the news
            try:
                followed.attempt = await self._store.attempt(attempt_id)
            except BaseException:
                followed.is_stale = True
                raise
            followed.looks += 1
        followed.tell(but=news)

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
