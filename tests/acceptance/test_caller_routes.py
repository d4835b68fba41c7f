"""A Caller as two services: the private one takes Pulse's orders, the public one talks with Twilio."""

from __future__ import annotations

from pathlib import Path

import pytest
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from emulated import emulator_address, project_of
from surface import DOORS, Surface, deployed

ORDERS = next(door for door in DOORS if door.role == "caller")
CARD = "/.well-known/agent-card.json"
ATTEMPT = "0123456789abcdef01234567-1"
WEBHOOKS = [f"/twilio/{kind}/{ATTEMPT}" for kind in ("voice", "status", "amd", "resume")]


async def socket_opens(here: Surface) -> bool:
    url = here.settings.caller_public_url.replace("http", "ws", 1) + "/twilio/media"
    signer = RequestValidator(here.settings.twilio_auth_token.get_secret_value())
    try:
        async with connect(
            url, proxy=None, additional_headers={"X-Twilio-Signature": signer.compute_signature(url, {})}
        ):
            return True
    except InvalidHandshake:
        return False


@pytest.mark.parametrize("routes", ["all", "a2a", "twilio"])
async def test_a_caller_answers_on_the_routes_it_is_told_to_serve_and_on_no_other(
    tmp_path: Path, routes: str
) -> None:
    private, public = routes != "twilio", routes != "a2a"
    async with deployed(tmp_path, roles=("caller",), caller_routes=routes) as here:
        assert (await here.enter(ORDERS)).status_code == (200 if private else 404)
        assert (await here.knock(ORDERS)).status_code == (401 if private else 404)
        assert (await here.http.get(here.url("caller") + CARD)).status_code == (200 if private else 404)
        for path in WEBHOOKS:
            refused = await here.webhook(path, {"CallSid": "CA1"}, signed="forged")
            assert refused.status_code == (403 if public else 404), path
        with_token = {
            "Authorization": f"Bearer {here.token('caller', 'pulse_account')}",
            "X-Twilio-Signature": "x",
        }
        behind = await here.http.post(
            here.url("caller") + WEBHOOKS[0], data={"CallSid": "CA1"}, headers=with_token
        )
        assert behind.status_code == (403 if public else 404)
        assert await socket_opens(here) == public
        for path in ("/healthz", "/readyz"):
            assert (await here.http.get(here.url("caller") + path)).status_code == 200
        assert (await here.http.get(here.url("caller") + "/openapi.json")).status_code == 404


async def test_what_twilio_tells_the_public_caller_reaches_who_follows_the_private_one(
    tmp_path: Path,
) -> None:
    shared = {
        "store": "firestore",
        "firestore_emulator": emulator_address(),
        "project": project_of(tmp_path),
    }
    async with (
        deployed(tmp_path, roles=("caller",), caller_routes="a2a", speed=20, **shared) as private,
        deployed(tmp_path, roles=("caller",), caller_routes="twilio", speed=20, **shared) as public,
    ):
        attempt = await private.dialled(1)
        asked = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": attempt.id}}
        headers = {
            "Authorization": f"Bearer {private.token('caller', 'pulse_account')}",
            "A2A-Version": "1.0",
            "Accept": "text/event-stream",
        }
        async with private.http.stream(
            "POST", private.url("caller") + "/", json=asked, headers=headers
        ) as following:
            lines = following.aiter_lines()
            assert "TASK_STATE_WORKING" in await anext(line async for line in lines if line)
            busy = {"CallSid": str(attempt.call_sid), "CallStatus": "busy"}
            assert (await public.webhook(f"/twilio/status/{attempt.id}", busy)).status_code == 204
            seen = [line async for line in lines if line]
        assert "TASK_STATE_COMPLETED" in seen[-1]
        assert '"disposition":"busy"' in seen[-1].replace(" ", "")
