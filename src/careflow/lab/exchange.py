"""The telephone network: takes orders for calls, dials them at the account's rate, and knows which are live."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from careflow.lab.books import BookedCall
from careflow.lab.config import LabConfig
from careflow.lab.faults import Faults
from careflow.lab.live import LiveCall, Network
from careflow.lab.orders import CreateOrder, Fields, UpdateOrder, create_order
from careflow.lab.personas import Subscriber
from careflow.lab.refusals import Refusal, not_found

_log = logging.getLogger(__name__)
_QUEUE_LIMIT = timedelta(hours=24)  # reference/twilio section 3, Rates and concurrency


class Exchange:
    """All calls of the account. `start` takes up what a kill left behind; `stop` cuts every call off, as a kill would."""

    def __init__(self, config: LabConfig, network: Network) -> None:
        self.network = network
        self.live: dict[str, LiveCall] = {}
        self.subscribers: dict[str, Subscriber] = {}
        self._config = config
        self._folder = config.data_dir / "lab"
        self._queue: asyncio.Queue[tuple[BookedCall, CreateOrder]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._load()

    # --- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to dial. Queued calls stay queued; those that were being made end as cut off, and our server is told."""
        for call in list(self.network.books.calls.values()):
            if call.over:
                continue
            order = create_order(call.form, self._config.from_numbers)
            if call.status == "queued":
                self._queue.put_nowait((call, order))
            else:
                self._spawn(self._live_call(call, order).settle("lab"))
        self._spawn(self._dial())

    async def stop(self) -> None:
        """Stop dialling and drop every live call where it is."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a part of the lab's network broke", exc_info=error)

    # --- orders ------------------------------------------------------------------------------------------------

    def create(self, fields: Fields) -> BookedCall:
        """Queue a call; it is in the books when this returns. Raises Refusal, which is in the books too."""
        now = self.network.clock.now()
        try:
            order = create_order(fields, self._config.from_numbers)
        except Refusal as refusal:
            self.network.books.refuse(now, refusal.code, dict(fields).get("To", ""))
            raise
        call = BookedCall(
            sid="CA" + self.network.new_id(),
            to=order.to,
            from_=order.from_,
            created_at=now,
            updated_at=now,
            form=list(fields),
            attempt=_last_segment(order.voice.url) if order.voice else "",
        )
        self.network.books.created(call)
        call = self.network.books.calls[call.sid]
        self._queue.put_nowait((call, order))
        return call

    def call(self, sid: str) -> BookedCall:
        """The call, unless it is deleted. Raises Refusal 20404."""
        call = self.network.books.calls.get(sid)
        if call is None or call.deleted:
            raise not_found(f"/2010-04-01/Accounts/{self._config.account_sid}/Calls/{sid}.json")
        return call

    def update(self, sid: str, order: UpdateOrder) -> BookedCall:
        """Change a call (reference/twilio section 1.3). Raises Refusal 20404, or 21220 when its state does not allow it."""
        call = self.call(sid)
        if call.over:
            raise Refusal(
                400, 21220, f"Call {sid} is {call.status}. Invalid call state: it cannot be updated"
            )
        live = self.live.get(sid)
        if order.status == "completed" or (order.status == "canceled" and call.status != "in-progress"):
            if live is not None:
                live.end("api")
            else:
                self._end_queued(call)
        elif order.voice or order.twiml:
            if live is None or call.status != "in-progress":
                raise Refusal(400, 21220, f"Call {sid} is not in-progress. Cannot redirect")
            live.redirect(order.voice, order.twiml)
        if order.time_limit and live is not None:
            live.limit(order.time_limit)
        return call

    def delete(self, sid: str) -> None:
        """Forget a finished call: it is not listed or fetched any more. Raises Refusal."""
        call = self.call(sid)
        if not call.over:
            raise Refusal(400, 20009, f"Call {sid} is {call.status}: only a finished call can be deleted")
        self._enter(call, "deleted")

    # --- subscribers and faults ------------------------------------------------------------------------------------

    def set_subscribers(self, subscribers: Sequence[Subscriber]) -> None:
        """Who has which number from now on; durable."""
        self.subscribers = {subscriber.phone: subscriber for subscriber in subscribers}
        self._save("subscribers.json", [subscriber.to_json() for subscriber in subscribers])

    def set_faults(self, faults: Faults) -> None:
        """Which faults may happen from now on; durable."""
        self.network.faults.chances = faults
        self._save("faults.json", faults.to_json())

    def _load(self) -> None:
        subscribers, faults = self._folder / "subscribers.json", self._folder / "faults.json"
        if subscribers.exists():
            known = (Subscriber.from_json(item) for item in json.loads(subscribers.read_text()))
            self.subscribers = {subscriber.phone: subscriber for subscriber in known}
        if faults.exists():
            self.network.faults.chances = Faults.from_json(json.loads(faults.read_text()))

    def _save(self, name: str, document: object) -> None:
        _replace(self._folder / name, json.dumps(document, ensure_ascii=False, indent=1))

    # --- dialling ----------------------------------------------------------------------------------------------

    async def _dial(self) -> None:
        """Take queued calls to the network, at the account's calls per second."""
        while True:
            call, order = await self._queue.get()
            if call.over:
                continue
            if self.network.clock.now() - call.created_at > _QUEUE_LIMIT:
                self._end_queued(call, by="network")
                continue
            if len(self.live) >= self._config.max_concurrent:
                self._enter(
                    call, "warning", code="10004", text="the account's call concurrency limit is reached"
                )
                self._enter(call, "status", status="failed", by="network")
                self._spawn(self._live_call(call, order).settle("network"))
            else:
                live = self._live_call(call, order)
                self.live[call.sid] = live
                self._spawn(self._carry(call.sid, live))
            await self.network.clock.sleep(1 / self._config.calls_per_second)

    async def _carry(self, sid: str, live: LiveCall) -> None:
        try:
            await live.run()
        finally:
            self.live.pop(sid, None)

    def _live_call(self, call: BookedCall, order: CreateOrder) -> LiveCall:
        subscriber = self.subscribers.get(call.to)
        default = self._config.default_persona
        if subscriber is None and default is not None:
            subscriber = Subscriber(phone=call.to, persona=default, given_name="Alex", birth_year=1950)
        attempt = self.network.books.times_dialled(call.to)
        seed = f"{self._config.seed}:{subscriber.seed if subscriber else ''}:{call.to}:{attempt}"
        engaged = any(
            other.to == call.to and other.sid != call.sid and not other.over
            for other in map(self.network.books.calls.__getitem__, self.live)
        )
        return LiveCall(self.network, call, order, subscriber=subscriber, engaged=engaged, rng=Random(seed))

    def _end_queued(self, call: BookedCall, by: str = "api") -> None:
        self._enter(call, "status", status="canceled", by=by, sip=487)
        order = create_order(call.form, self._config.from_numbers)
        self._spawn(self._live_call(call, order).settle(by))

    def _enter(self, call: BookedCall, kind: str, **details: object) -> None:
        self.network.books.enter(call, self.network.clock.now(), kind, **details)


def _last_segment(url: str) -> str:
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]


def _replace(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)
