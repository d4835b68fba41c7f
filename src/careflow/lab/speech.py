"""The lab's speech provider, set up for the lab's account and its one set of faults."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from starlette.routing import BaseRoute

from careflow.lab.config import LabConfig
from careflow.lab.elevenlabs import elevenlabs_routes
from careflow.lab.elevenlabs_account import SpeechAccount, SpeechFaults
from careflow.lab.faults import FaultSource
from careflow.lab.voice import Voice
from careflow.ports import Clock


def speech_routes(config: LabConfig, clock: Clock, faults: FaultSource, voice: Voice) -> Sequence[BaseRoute]:
    """ElevenLabs' routes, with the chances that the lab's own API was last told."""

    def speech_faults() -> SpeechFaults:
        chances = faults.chances
        return SpeechFaults(
            http_429=chances.speech_429,
            http_500=chances.speech_500,
            cut_audio=chances.speech_cut,
            rate_limited=chances.stt_rate_limited,
            late_transcript=chances.late_transcript,
            duplicate_transcript=chances.duplicate_transcript,
            tripled_words=chances.tripled_words,
            empty_transcript=chances.empty_transcript,
            transcriber_error=chances.transcriber_error,
            disconnect=chances.speech_disconnect,
            unknown_message=chances.unknown_message,
        )

    return elevenlabs_routes(
        clock,
        voice,
        speech_faults,
        account=SpeechAccount(api_key=config.elevenlabs_api_key),
        rng=Random(f"{config.seed}:speech"),
    )
