"""A Caller as two services: the private one takes Pulse's orders, the public one talks with Twilio."""

from __future__ import annotations

from pathlib import Path

import pytest
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

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
