"""Requests from the lab to the account's own server, signed as Twilio signs them (reference/twilio sections 3 and 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urldefrag, urlencode

import httpx
from twilio.request_validator import RequestValidator

from careflow.lab.faults import FaultSource
from careflow.lab.orders import Hook
from careflow.ports import Clock

# Real seconds: the other side's patience does not grow because the lab's clock runs faster.
TIMEOUT = httpx.Timeout(15.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered; `error` is "" or why there is no usable answer."""

    status: int = 0
    content_type: str = ""
    text: str = ""
    error: str = ""


class Webhooks:
    """Delivers webhooks; a failed one is tried a second time with the same idempotency token."""

    def __init__(self, client: httpx.AsyncClient, auth_token: str, new_id: Callable[[], str]) -> None:
        self._client = client
        self._validator = RequestValidator(auth_token)
        self._new_id = new_id

    def signature(self, url: str, parameters: Mapping[str, str]) -> str:
        """X-Twilio-Signature of a request with these form parameters."""
        signature: str = self._validator.compute_signature(url, parameters)
        return signature

    async def ask(self, hook: Hook, parameters: Mapping[str, str]) -> Answer:
        """Request the hook and give its answer; one retry after a 5xx or a broken connection. Raises nothing."""
        # The fragment holds connection overrides for the sender; it is neither sent nor signed.
        url = urldefrag(hook.url).url
        if hook.method == "GET":
            url += ("&" if "?" in url else "?") + urlencode(parameters)
        form = {} if hook.method == "GET" else dict(parameters)
        headers = {
            "X-Twilio-Signature": self.signature(url, form),
            "I-Twilio-Idempotency-Token": self._new_id(),
            "User-Agent": "TwilioProxy/1.1",
        }
        answer = Answer()
        for _ in range(2):
            try:
                response = await self._client.request(
                    hook.method, url, data=form or None, headers=headers, timeout=TIMEOUT
                )
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                answer = Answer(error=type(error).__name__)
                continue
            answer = Answer(
                response.status_code,
                response.headers.get("content-type", ""),
                response.text,
                "" if response.is_success else f"HTTP {response.status_code}",
            )
            if response.status_code < 500:
                break
        return answer


class CallbackLine:
    """The callbacks of one call: in order, one at a time, unless the faults say otherwise."""

    def __init__(
        self,
        webhooks: Webhooks,
        clock: Clock,
        faults: FaultSource,
        failed: Callable[[str, Answer], None],
    ) -> None:
        self._webhooks = webhooks
        self._clock = clock
        self._faults = faults
        self._failed = failed
        self._waiting: asyncio.Queue[tuple[str, Hook, dict[str, str]]] = asyncio.Queue()
        self._held: list[tuple[str, Hook, dict[str, str]]] = []
        self._late: set[asyncio.Task[None]] = set()
        self._worker: asyncio.Task[None] | None = None

    def send(self, what: str, hook: Hook, parameters: dict[str, str]) -> None:
        """Deliver this after what was given before; returns at once."""
        self._waiting.put_nowait((what, hook, parameters))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._work())

    async def drained(self) -> None:
        """Return when everything was delivered, the late ones and those that nothing followed too."""
        if self._worker is not None:
            await self._worker
        await self._release()
        if self._late:
            await asyncio.wait(self._late)

    def drop(self) -> None:
        """Deliver nothing more: the lab is being stopped."""
        for task in (*self._late, *([self._worker] if self._worker else [])):
            task.cancel()

    async def _work(self) -> None:
        while not self._waiting.empty():
            item = self._waiting.get_nowait()
            if self._faults.happens("out_of_order_callback"):
                self._held.append(item)
                continue
            if self._faults.happens("delayed_callback"):
                task = asyncio.ensure_future(self._deliver_late(item))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
            else:
                await self._deliver(item)
            await self._release()

    async def _release(self) -> None:
        held, self._held = self._held, []
        for item in held:
            await self._deliver(item)

    async def _deliver_late(self, item: tuple[str, Hook, dict[str, str]]) -> None:
        await self._clock.sleep(self._faults.seconds(1.0, 10.0))
        await self._deliver(item)

    async def _deliver(self, item: tuple[str, Hook, dict[str, str]]) -> None:
        what, hook, parameters = item
        for _ in range(2 if self._faults.happens("duplicate_callback") else 1):
            answer = await self._webhooks.ask(hook, parameters)
            if answer.error:
                self._failed(what, answer)
