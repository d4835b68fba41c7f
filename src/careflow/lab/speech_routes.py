"""The lab's ElevenLabs as `create_lab` mounts it."""

from __future__ import annotations

from random import Random

from starlette.routing import BaseRoute

from careflow.lab.config import LabConfig
from careflow.lab.elevenlabs import elevenlabs_routes
from careflow.lab.elevenlabs_account import SpeechAccount, SpeechFaults
from careflow.lab.faults import FaultSource
from careflow.lab.voice import Voice
from careflow.ports import Clock


def speech_routes(config: LabConfig, clock: Clock, faults: FaultSource, voice: Voice) -> list[BaseRoute]:
    """The routes under /v1 for the lab's one account, with the faults that the lab is set to at the moment of each occasion."""

    def chances() -> SpeechFaults:
        now = faults.chances
        return SpeechFaults(
            http_429=now.speech_429,
            http_500=now.speech_500,
            cut_audio=now.speech_cut,
            rate_limited=now.stt_rate_limited,
            late_transcript=now.late_transcript,
            duplicate_transcript=now.duplicate_transcript,
            tripled_words=now.tripled_words,
            empty_transcript=now.empty_transcript,
            transcriber_error=now.transcriber_error,
            disconnect=now.speech_disconnect,
            unknown_message=now.unknown_message,
        )

    return elevenlabs_routes(
        clock,
        voice,
        chances,
        account=SpeechAccount(api_key=config.elevenlabs_api_key),
        rng=Random(f"{config.seed}:speech"),
    )
