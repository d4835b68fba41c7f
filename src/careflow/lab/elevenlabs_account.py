"""The lab's ElevenLabs account: what it may use, what goes wrong on purpose, how it says no."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import JSONResponse

from careflow.lab.mulaw import from_pcm16, to_pcm16

TTS_MODELS: Mapping[str, int] = {  # model -> characters in one request (reference/elevenlabs section 2)
    "eleven_flash_v2_5": 40_000,
    "eleven_flash_v2": 30_000,
    "eleven_turbo_v2_5": 40_000,
    "eleven_turbo_v2": 30_000,
    "eleven_multilingual_v2": 10_000,
    "eleven_v3": 5_000,
}
STT_MODELS = frozenset({"scribe_v2_realtime"})
LAB_VOICES: Mapping[str, str] = {"lab-en": "Lab English", "lab-es": "Lab Spanish"}
FORMATS: Mapping[str, int] = {"ulaw_8000": 8000, "pcm_8000": 8000, "pcm_16000": 16000}  # name -> samples/s
_VENDOR_FORMAT = re.compile(r"(mp3|pcm|ulaw|alaw|opus)_\d{4,5}(_\d{2,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechFaults:
    """The chance (0 to 1) of each unpleasant behaviour, per request, session, commit or second of audio.

    The references' sources for each: reference/elevenlabs sections 6.3, 6.4, 7 and 8.
    """

    # text-to-speech over HTTP, per request
    http_429: float = 0.0  # too many at once, or the system is busy; nothing was done
    http_500: float = 0.0
    quota_exceeded: float = 0.0  # also speech-to-text, per session
    cut_audio: float = 0.0  # the connection breaks in the middle of the body
    # speech-to-text, per session
    rate_limited: float = 0.0
    resource_exhausted: float = 0.0
    session_seconds: float | None = None  # session_time_limit_exceeded after so long; None: no limit
    # speech-to-text, per commit
    late_transcript: float = 0.0  # three to eight seconds late
    duplicate_transcript: float = 0.0  # the message comes twice
    tripled_words: float = 0.0  # "yes yes yes"
    empty_transcript: float = 0.0
    transcriber_error: float = 0.0
    # speech-to-text, per second of audio
    disconnect: float = 0.0
    unknown_message: float = 0.0


@dataclass(slots=True)
class Usage:
    """What the vendor would charge for; counted from the lab's start."""

    tts_requests: int = 0
    tts_characters: int = 0
    stt_sessions: int = 0
    stt_audio_seconds: float = 0.0
    stt_commits: int = 0


@dataclass(slots=True, kw_only=True)
class SpeechAccount:
    """One account. Limits are numbers at once; `tts_running` and `stt_running` are how many there are now.

    `warm_up_seconds` of audio must have come before anything is transcribed. A session that is ahead of real time by more than
    `overflow_seconds` of audio is ended.
    """

    api_key: str
    voices: Mapping[str, str] = field(default_factory=lambda: dict(LAB_VOICES))
    tts_limit: int = 20
    stt_limit: int = 100
    character_limit: int = 10_000_000  # of a month, as the plan says; nothing is refused beyond it
    enterprise: bool = True  # zero retention is refused on lower plans (section 10)
    warm_up_seconds: float = 2.0
    overflow_seconds: float = 30.0
    largest_chunk_bytes: int = 64_000
    usage: Usage = field(default_factory=Usage)
    tts_running: int = 0
    stt_running: int = 0


class Refusal(Exception):
    """An HTTP error in the vendor's shape (section 7). `legacy` is the older `status` word."""

    def __init__(
        self, status: int, kind: str, code: str, message: str, *, param: str = "", legacy: str = ""
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self._kind = kind
        self._param = param
        self._legacy = legacy

    def response(self, request_id: str) -> JSONResponse:
        detail = {
            "type": self._kind,
            "code": self.code,
            "message": self.message,
            "status": self._legacy or self.code,
            "request_id": request_id,
        }
        if self._param:
            detail["param"] = self._param
        return JSONResponse({"detail": detail}, self.status, headers={"request-id": request_id})


def subscription(account: SpeechAccount) -> dict[str, object]:
    """The plan, and what of it was used, as /v1/user/subscription tells it."""
    return {
        "tier": "enterprise" if account.enterprise else "creator",
        "status": "active",
        "currency": "usd",
        "character_count": account.usage.tts_characters,
        "character_limit": account.character_limit,
        "can_extend_character_limit": False,
        "allowed_to_extend_character_limit": False,
        "max_credit_limit_extension": 0,
        "voice_slots_used": 0,
        "professional_voice_slots_used": 0,
        "professional_voice_slots_used_in_workspace": 0,
        "voice_limit": len(account.voices),
        "voice_add_edit_counter": 0,
        "professional_voice_limit": 0,
        "can_extend_voice_limit": False,
        "can_use_instant_voice_cloning": False,
        "can_use_professional_voice_cloning": False,
        "current_overage": {"amount": "0", "currency": "usd"},
        "open_invoices": [],
        "has_open_invoices": False,
    }


def invalid(param: str, message: str, *, code: str = "invalid_parameters") -> Refusal:
    """A 400: the request can never succeed as it is."""
    return Refusal(400, "validation_error", code, message, param=param)


def check_key(account: SpeechAccount, key: str | None) -> None:
    """Raises Refusal (401) unless the key is the account's."""
    if key != account.api_key:
        said = "Invalid API key" if key else "Neither authorization header nor xi-api-key received"
        raise Refusal(401, "authentication_error", "invalid_api_key", said)


def check_retention(account: SpeechAccount, enable_logging: str) -> None:
    """Raises Refusal when the switch is not a boolean, or asks for zero retention on a plan without it."""
    if enable_logging not in ("true", "false"):
        raise invalid("enable_logging", f"enable_logging is {enable_logging!r}: true or false is accepted")
    if enable_logging == "false" and not account.enterprise:
        raise Refusal(
            403, "authorization_error", "zero_retention_not_allowed", "Zero retention is for Enterprise"
        )


def check_speech(account: SpeechAccount, voice_id: str, model: str, audio_format: str) -> None:
    """Raises Refusal unless the lab can speak so."""
    if voice_id not in account.voices:
        raise Refusal(
            404,
            "not_found",
            "voice_not_found",
            f"A voice with ID {voice_id!r} was not found",
            param="voice_id",
        )
    if model not in TTS_MODELS:
        accepted = ", ".join(TTS_MODELS)
        raise invalid("model_id", f"model_id is {model!r}: {accepted} are accepted")
    if audio_format not in FORMATS:
        real = " (the vendor has it, the lab has not)" if _VENDOR_FORMAT.fullmatch(audio_format) else ""
        accepted = ", ".join(FORMATS)
        raise invalid("output_format", f"output_format is {audio_format!r}{real}: {accepted} are accepted")


def encode(audio: bytes, audio_format: str) -> bytes:
    """Mu-law as the asked format."""
    if audio_format == "ulaw_8000":
        return audio
    pcm = to_pcm16(audio)
    if audio_format == "pcm_8000":
        return pcm
    doubled = bytearray(2 * len(pcm))
    for offset in range(4):
        doubled[offset::4] = pcm[offset % 2 :: 2]
    return bytes(doubled)


def decode(audio: bytes, audio_format: str) -> bytes:
    """The given format as mu-law; of 16 kHz every second sample."""
    if audio_format == "ulaw_8000":
        return audio
    if audio_format == "pcm_8000":
        return from_pcm16(audio)
    halved = bytearray(2 * len(audio[0::4]))
    low, high = audio[0::4], audio[1::4]
    halved[0::2], halved[1 : 1 + 2 * len(high) : 2] = low, high
    return from_pcm16(bytes(halved))
