"""A lab's ElevenLabs on a free port of this machine, on a virtual clock that runs while it is open."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette

from careflow.caller.elevenlabs import ElevenLabsSpeech
from careflow.caller.speech_cache import AudioCache
from careflow.clock import Pace, VirtualClock
from careflow.lab.elevenlabs import elevenlabs_routes
from careflow.lab.elevenlabs_account import LAB_VOICES, SpeechAccount, SpeechFaults
from careflow.lab.voice import Voice

KEY = "lab-key-for-tests"
ENGLISH, SPANISH = LAB_VOICES
VOICES = {"en": ENGLISH, "es": SPANISH}


@dataclass(slots=True)
class SpeechLab:
    url: str
    clock: VirtualClock
    account: SpeechAccount
    voice: Voice
    http: httpx.AsyncClient
    faults: SpeechFaults

    def speech(
        self, directory: Path, *, key: str = KEY, zero_retention: bool = True, concurrent: int = 4
    ) -> ElevenLabsSpeech:
        return ElevenLabsSpeech(
            self.http,
            base_url=self.url,
            api_key=SecretStr(key),
            voices=VOICES,
            tts_model="eleven_flash_v2_5",
            stt_model="scribe_v2_realtime",
            zero_retention=zero_retention,
            cache=AudioCache(directory),
            clock=self.clock,
            rng=random.Random(1),
            concurrent=concurrent,
        )


@asynccontextmanager
async def speech_lab(*, speed: float = 100.0) -> AsyncIterator[SpeechLab]:
    clock = VirtualClock(datetime(2026, 11, 23, 8, tzinfo=UTC))
    account, voice = SpeechAccount(api_key=KEY), Voice()
    async with httpx.AsyncClient(trust_env=False) as http:
        lab = SpeechLab("", clock, account, voice, http, SpeechFaults())
        routes = elevenlabs_routes(clock, voice, lambda: lab.faults, account=account, rng=random.Random(7))
        server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=routes), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
            )
        )
        listener = socket.create_server(("127.0.0.1", 0))
        lab.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.create_task(server.serve([listener]))
        running = asyncio.create_task(clock.run(lambda: Pace(speed, 0.5)))
        try:
            while not server.started:
                await asyncio.sleep(0.005)
            yield lab
        finally:
            server.should_exit = True
            await serving
            running.cancel()
            listener.close()
