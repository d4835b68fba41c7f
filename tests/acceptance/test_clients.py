"""Other people's clients against a whole deployment: the A2A SDK orders a call that the lab puts through, Twilio's finds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, create_client
from a2a.helpers import get_data_parts, new_data_part
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    TaskState,
    TaskStatus,
)
from a2a.utils.errors import TaskNotCancelableError
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client as Twilio

from careflow.core.attempts import AttemptState, Disposition
from careflow.ports import AttemptOrder
from surface import Surface, deployed


@dataclass
class Practice:
    """A deployment in which the lab's patients pick up, and Pulse's own credentials for an A2A client."""

    surface: Surface
    client: Client
    http: httpx.AsyncClient

    async def order(self, number: int) -> AttemptOrder:
        """An order for a patient whom the lab knows by now."""
        order = await self.surface.ordered(number)
        phone = f"+1212555{100 + number:04d}"

        async def is_known() -> bool:
            return phone in (await self.http.get(f"{self.surface.settings.twilio_url}/lab/subscribers")).text

        await self.surface.until(is_known)
        return order

    async def calls(self, number: int) -> list[dict[str, Any]]:
        """What the lab's books say of the patient's telephone."""
        phone = f"+1212555{100 + number:04d}"
        books = (await self.http.get(f"{self.surface.settings.twilio_url}/lab/calls")).json()
        return [call for call in books["calls"] if call["to"] == phone]


@asynccontextmanager
async def practice(folder: Path, *, speed: float) -> AsyncIterator[Practice]:
    async with deployed(folder / "data", roles=("lab", "caller"), speed=speed) as surface:
        headers = {"Authorization": f"Bearer {surface.token('caller', 'pulse_account')}"}
        async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as http:
            client = await create_client(
                surface.url("caller"), ClientConfig(httpx_client=http, streaming=True)
            )
            yield Practice(surface, client, http)


def request(order: AttemptOrder) -> SendMessageRequest:
    data = {
        "attemptId": order.attempt_id,
        "number": str(order.number),
        "callId": order.call_id,
        "roundId": order.round_id,
        "hospitalId": order.hospital_id,
        "patientId": order.patient_id,
        "script": order.script,
        "notAfter": order.not_after.isoformat(),
    }
    return SendMessageRequest(
        message=Message(
            message_id=order.attempt_id,
            context_id=order.call_id,
            role=Role.ROLE_USER,
            parts=[new_data_part(data)],
        )
    )


def status_of(response: StreamResponse) -> TaskStatus:
    kind = response.WhichOneof("payload")
    return response.task.status if kind == "task" else response.status_update.status


def state_of(status: TaskStatus) -> str:
    [part] = get_data_parts(status.message.parts)
    assert isinstance(part, dict)
    return str(part["state"])


async def test_a_dropped_order_is_found_again_followed_and_cancelled_on_the_line(tmp_path: Path) -> None:
    async with practice(tmp_path, speed=20.0) as its:
        card = await A2ACardResolver(its.http, its.surface.url("caller")).get_agent_card()
        assert card.capabilities.streaming
        order = await its.order(1)
        sending = its.client.send_message(request(order))
        first = await anext(sending)
        assert (first.task.id, first.task.context_id) == (order.attempt_id, order.call_id)
        await sending.aclose()  # type: ignore[attr-defined]

        found = await its.client.get_task(GetTaskRequest(id=order.attempt_id))
        assert found.status.state == TaskState.TASK_STATE_WORKING
        following = its.client.subscribe(SubscribeToTaskRequest(id=order.attempt_id))
        seen = [state_of(status_of(await anext(following)))]
        while seen[-1] != "answered":
            seen.append(state_of(status_of(await anext(following))))
        assert seen == sorted(seen, key=["intended", "dialled", "ringing", "answered"].index)

        await its.client.cancel_task(CancelTaskRequest(id=order.attempt_id))
        rest = [status_of(response) async for response in following]
        assert rest[-1].state == TaskState.TASK_STATE_CANCELED
        over = await its.client.get_task(GetTaskRequest(id=order.attempt_id))
        assert over.status.state == TaskState.TASK_STATE_CANCELED
        with pytest.raises(TaskNotCancelableError):
            await its.client.cancel_task(CancelTaskRequest(id=order.attempt_id))
        [call] = await its.calls(1)
        assert (call["status"], call["endedBy"]) == ("completed", "api")


async def test_a_followed_order_tells_the_whole_call_and_twilio_s_client_finds_it_and_its_sound(
    tmp_path: Path,
) -> None:
    async with practice(tmp_path, speed=40.0) as its:
        order = await its.order(2)
        statuses = [status_of(one) async for one in its.client.send_message(request(order))]
        assert statuses[-1].state == TaskState.TASK_STATE_COMPLETED
        again = [status_of(one) async for one in its.client.send_message(request(order))]
        assert [status.state for status in again] == [TaskState.TASK_STATE_COMPLETED]
        attempt = await its.surface.assembly.store.attempt(order.attempt_id)
        assert attempt is not None
        assert (attempt.state, attempt.disposition) == (AttemptState.ENDED, Disposition.ANSWERED)
        heard = await its.surface.assembly.store.check_in("default", order.attempt_id)
        assert heard is not None
        assert heard.identity_confirmed
        [call] = await its.calls(2)
        assert call["sid"] == attempt.call_sid

        twilio = twilio_client(its.surface)
        await its.surface.until(lambda: not its.surface.assembly.lab.live_calls)  # type: ignore[union-attr]
        fetched = await asyncio.to_thread(lambda: twilio.calls(call["sid"]).fetch())
        [listed] = await asyncio.to_thread(lambda: twilio.calls.list(to=attempt.phone))
        assert (fetched.status, listed.sid) == ("completed", call["sid"])
        [recording] = await asyncio.to_thread(lambda: twilio.calls(call["sid"]).recordings.list())
        one = await asyncio.to_thread(lambda: twilio.recordings(recording.sid).fetch())
        assert one.call_sid == call["sid"]
        settings = its.surface.settings
        sound = await its.http.get(
            settings.twilio_url + one.uri.replace(".json", ".wav"),
            auth=(settings.twilio_account_sid, settings.twilio_auth_token.get_secret_value()),
        )
        assert sound.content[:4] == b"RIFF"


def twilio_client(surface: Surface) -> Twilio:
    """Twilio's own client, sent to the lab."""
    settings = surface.settings

    class ToTheLab(TwilioHttpClient):
        def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            return super().request(
                method, url.replace("https://api.twilio.com", settings.twilio_url), *args, **kwargs
            )

    return Twilio(
        settings.twilio_account_sid,
        settings.twilio_auth_token.get_secret_value(),
        http_client=ToTheLab(),
    )
