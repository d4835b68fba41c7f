"""What an operator asks of a running deployment: a trigger for Pulse, the recording of a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from careflow.auth import setup as auth
from careflow.errors import CareflowError
from careflow.ports import Clock
from careflow.settings import Settings


async def trigger_round(
    settings: Settings, hour: int, clock: Clock, *, trigger_type: str, source: str = "careflow-cli"
) -> tuple[int, dict[str, Any]]:
    """Send Pulse the seed's trigger with a token of the scheduler's account; its status and JSON body.

    Raises CareflowError when Pulse does not answer.
    """
    async with httpx.AsyncClient(timeout=httpx.Timeout(600, connect=5)) as http:
        tokens = auth.tokens(settings, settings.scheduler_account, http, clock)
        try:
            response = await http.post(
                settings.pulse_url + "/",
                json={
                    "scheduleHour": hour,
                    "timezone": settings.time_zone,
                    "triggerType": trigger_type,
                    "source": source,
                    "environment": settings.environment,
                    "hospitalId": settings.hospital_id,
                },
                headers={
                    "Authorization": f"Bearer {await tokens.token(settings.pulse_audience or settings.pulse_url)}"
                },
            )
        except httpx.HTTPError as error:
            raise CareflowError(
                f"Pulse does not answer at {settings.pulse_url} ({type(error).__name__}): is `careflow up` running?"
            ) from error
    try:
        body = response.json()
    except ValueError:
        body = {}
    return response.status_code, body


async def recording_of(settings: Settings, call_sid: str) -> bytes:
    """The recording of a call, as WAV, from Twilio's recordings API. Raises CareflowError when there is none."""
    base = f"/2010-04-01/Accounts/{settings.twilio_account_sid}"
    async with httpx.AsyncClient(
        base_url=settings.twilio_url,
        auth=(settings.twilio_account_sid, settings.twilio_auth_token.get_secret_value()),
        timeout=30,
    ) as http:
        try:
            listed = await http.get(f"{base}/Calls/{call_sid}/Recordings.json")
            recordings = listed.json()["recordings"] if listed.status_code == 200 else []
            if not recordings:
                raise CareflowError(
                    f"{settings.twilio_url} keeps no recording of {call_sid}; recording is the setting "
                    "CAREFLOW_RECORD_CALLS, and is always on in the lab"
                )
            answer = await http.get(f"{base}/Recordings/{recordings[0]['sid']}.wav")
            answer.raise_for_status()
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise CareflowError(
                f"{settings.twilio_url} does not give the recording of {call_sid} ({type(error).__name__})"
            ) from error
        return answer.content


def local_recording(data_dir: Path, call_sid: str) -> bytes | None:
    """The lab's recording of a call, which is there also when the lab no longer runs; None for a call it never had."""
    path = data_dir / "lab" / "recordings" / f"{call_sid}.wav"
    return path.read_bytes() if path.is_file() else None
