"""One typed settings object, read once from the environment (`CAREFLOW_...`), validated at start with every problem at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from careflow.auth.issuers import LOCAL_ISSUER
from careflow.core.hospitals import Hospital, Hospitals
from careflow.errors import SettingsError
from careflow.hospitals import HOSPITAL_ID, PHONE, Profile, read_profiles
from careflow.safety import LOCAL_PROJECT, Problem, setting_of, settings_problems
from careflow.zones import Zone


def _no_trailing_slash(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not an http:// or https:// URL")
    return url.rstrip("/")


def _hours(value: object) -> object:
    """ "8,12,20" as it stands in the environment; ascending, at least one."""
    if not isinstance(value, str):
        return value
    try:
        hours = tuple(sorted({int(part) for part in value.split(",")}))
    except ValueError:
        raise ValueError(f"{value!r} is not a list of hours like '8,12,20'") from None
    if not all(0 <= hour <= 23 for hour in hours):
        raise ValueError(f"{value!r}: hours are 0 to 23")
    return hours


def _voices(value: object) -> object:
    """ "en=VOICE,es=VOICE" as it stands in the environment."""
    if not isinstance(value, str):
        return value
    pairs = [part.split("=", 1) for part in value.split(",") if part]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ValueError("voices are given as 'en=VOICE_ID,es=VOICE_ID'")
    return dict(pairs)


def _profiles(value: object) -> object:
    """The file's name as it stands in the environment."""
    if isinstance(value, str | Path):
        return read_profiles(Path(value)) if value != "" else ()
    return value


def _seconds(value: object) -> object:
    """A number of seconds as it stands in the environment."""
    if not isinstance(value, str):
        return value
    try:
        return timedelta(seconds=float(value))
    except (ValueError, OverflowError):
        raise ValueError(f"{value!r} is not a number of seconds") from None


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError(f"{value} is not longer than zero")
    return value


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if value and not (host and "/" not in host and port.isdigit() and 0 < int(port) <= 65535):
        raise ValueError(f"{value!r} is not host:port like '127.0.0.1:8080'")
    return value


Url = Annotated[str, AfterValidator(_no_trailing_slash)]
UrlOrNone = Annotated[str, AfterValidator(lambda url: _no_trailing_slash(url) if url else "")]
HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
Span = Annotated[timedelta, BeforeValidator(_seconds), AfterValidator(_positive)]


class Settings(BaseSettings):
    """Every setting. Defaults run the whole chain on one machine against the lab; secrets have no default worth keeping.

    Durations are in seconds on the environment's side (`CAREFLOW_CALL_LEASE=60`).
    """

    model_config = SettingsConfigDict(
        env_prefix="CAREFLOW_", env_ignore_empty=True, frozen=True, extra="ignore", populate_by_name=True
    )

    # where and what this deployment is
    data_dir: Path = Path("careflow-data")
    environment: str = Field("local", pattern=r"^[a-z][a-z0-9]{0,19}$")
    hospital_id: str = Field("default", pattern=HOSPITAL_ID)
    hospitals: Annotated[tuple[Profile, ...], NoDecode, BeforeValidator(_profiles)] = ()  # a file's name
    time_zone: Zone = "America/New_York"
    project: str = LOCAL_PROJECT
    location: str = Field("us-central1", pattern=r"^[a-z][a-z0-9-]{0,39}$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    clock_file: Path | None = None
    cloud_run_service: str = Field("", validation_alias="K_SERVICE")  # Cloud Run says it, nobody else

    # what keeps the ledger and what carries the tasks
    store: Literal["sqlite", "firestore"] = "sqlite"
    firestore_database: str = Field("(default)", pattern=r"^(\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9])$")
    firestore_emulator: HostAndPort = Field("", validation_alias="FIRESTORE_EMULATOR_HOST")  # Google's name
    queue: Literal["embedded", "cloud-tasks"] = "embedded"
    calls_queue: str = Field("careflow-calls", pattern=r"^[A-Za-z0-9-]{1,100}$")
    rounds_queue: str = Field("careflow-rounds", pattern=r"^[A-Za-z0-9-]{1,100}$")
    cloud_tasks_url: UrlOrNone = ""  # empty: Google's; else a work-alike's http:// address
    audio_dir: Path | None = None  # empty: `audio` in the data directory; several Callers may share one

    # ports, all on `host`
    host: str = "127.0.0.1"
    pulse_port: int = Field(8001, ge=0, le=65535)
    caller_port: int = Field(8002, ge=0, le=65535)
    lab_port: int = Field(8090, ge=0, le=65535)
    scheduler_port: int = Field(8085, ge=0, le=65535)
    tasks_port: int = Field(8086, ge=0, le=65535)
    pulse_url: Url = "http://127.0.0.1:8001"
    caller_url: Url = "http://127.0.0.1:8002"
    scheduler_url: Url = "http://127.0.0.1:8085"
    caller_public_url: Url = "http://127.0.0.1:8002"  # what Twilio is told to reach
    caller_routes: Literal["all", "a2a", "twilio"] = "all"  # the private routes, the public ones, or both

    # tokens
    oidc_issuer: str = LOCAL_ISSUER
    oidc_jwks: str = ""  # an https:// URL or a file; empty: the local issuer's file in the data directory
    pulse_audience: str = ""  # empty: pulse_url
    caller_audience: str = ""  # empty: caller_url
    scheduler_account: str = "careflow-scheduler@careflow-local.iam.gserviceaccount.com"
    queue_account: str = "careflow-queue@careflow-local.iam.gserviceaccount.com"
    pulse_account: str = "careflow-pulse@careflow-local.iam.gserviceaccount.com"
    trust_platform_tokens: bool = (
        False  # Cloud Run's own check has replaced the signature (google-cloud section 2)
    )

    # rounds and calls
    round_hours: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_hours)] = (8, 12, 20)
    max_attempts: int = Field(3, ge=1, le=10)
    retry_spacing: Span = timedelta(minutes=15)
    calls_per_second: float = Field(1.0, gt=0, le=100)
    calls_in_flight: int = Field(10, ge=1, le=1000)
    call_lease: Span = timedelta(seconds=60)
    task_deadline: Span = timedelta(minutes=30)
    attempt_deadline: Span = timedelta(
        minutes=20
    )  # an attempt that nobody has heard of for so long is settled
    planning_batch: int = Field(1000, ge=1, le=4000)  # one commit of Firestore takes that many calls

    # when a person is told (pulse/overdue.py)
    round_grace: Span = timedelta(minutes=30)
    red_flag_overdue: Span = timedelta(minutes=15)
    alert_overdue: Span = timedelta(hours=4)

    # Twilio
    twilio_url: Url = "https://api.twilio.com"
    twilio_account_sid: str = ""
    twilio_auth_token: SecretStr = SecretStr("")
    twilio_from: str = ""
    ring_seconds: int = Field(25, ge=5, le=600)
    call_time_limit: int = Field(900, ge=60, le=14400)
    record_calls: bool = False

    # ElevenLabs
    elevenlabs_url: Url = "https://api.elevenlabs.io"
    elevenlabs_api_key: SecretStr = SecretStr("")
    elevenlabs_voices: Annotated[
        dict[str, str], NoDecode, BeforeValidator(_voices)
    ] = {}  # language -> voice id, "en=...,es=..."
    elevenlabs_tts_model: str = "eleven_flash_v2_5"
    elevenlabs_stt_model: str = "scribe_v2_realtime"
    elevenlabs_zero_retention: bool = False

    # what the scripts say of us
    clinic_name: str = "Riverside Hospital"
    clinic_phone: str = Field("+18005550199", pattern=PHONE)

    @property
    def serves_a2a(self) -> bool:
        """Whether a Caller with these settings takes Pulse's orders."""
        return self.caller_routes != "twilio"

    @property
    def serves_twilio(self) -> bool:
        """Whether a Caller with these settings talks with Twilio and the patients."""
        return self.caller_routes != "a2a"

    @model_validator(mode="after")
    def _stand_together(self) -> Settings:
        if problems := settings_problems(self):
            raise _Contradiction(problems)
        return self

    @property
    def served(self) -> Hospitals:
        """The hospitals that this deployment serves: those of the file; without one any, as the settings say."""
        usual = Hospital(
            id=self.hospital_id,
            name=self.clinic_name,
            phone=self.clinic_phone,
            from_number=self.twilio_from,
            time_zone=self.time_zone,
            round_hours=self.round_hours,
        )
        return Hospitals({one.id: one.hospital(usual) for one in self.hospitals}, usual)


_SECRETS = frozenset(name for name, field in Settings.model_fields.items() if field.annotation is SecretStr)


class _Contradiction(ValueError):
    """Settings that are good one by one, and not together."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(_line(problem) for problem in problems))
        self.problems = tuple(problems)


def load_settings(kind: type[Settings] = Settings, /, **overrides: object) -> Settings:
    """The settings from the environment, `overrides` first. Raises SettingsError naming every bad setting."""
    try:
        return kind(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        single, together = _told_apart(error)
        if single:
            # The rules about several settings could not be asked yet. With the bad ones at their defaults they can; what they
            # then say of a bad one means nothing.
            bad = {field for field, _ in single}
            defaults = {field: Settings.model_fields[field].get_default() for field in bad}
            try:
                kind(**overrides | defaults)  # type: ignore[arg-type]
            except ValidationError as second:
                together = [one for one in _told_apart(second)[1] if not bad & set(one.fields)]
        lines = [f"{setting_of(field)}: {text}" for field, text in single]
        raise refused([*lines, *map(_line, together)]) from error


def refused(lines: Sequence[str]) -> SettingsError:
    """The error that names them all."""
    return SettingsError("settings refused:\n  " + "\n  ".join(lines))


def check_roles(settings: Settings, roles: Sequence[str]) -> None:
    """Raises SettingsError, with every reason, unless these settings are safe and whole for serving `roles` in one process."""
    from careflow.safety import role_problems

    if problems := role_problems(settings, roles):
        raise refused([_line(problem) for problem in problems])


def _line(problem: Problem) -> str:
    return f"{setting_of(problem.fields[0])}: {problem.text}"


def _told_apart(error: ValidationError) -> tuple[list[tuple[str, str]], list[Problem]]:
    """What is wrong with single settings, each with its field; and with several together."""
    names: dict[Any, str] = {
        name: field for field, one in Settings.model_fields.items() for name in (field, one.validation_alias)
    }
    single: list[tuple[str, str]] = []
    together: list[Problem] = []
    for problem in error.errors():
        if problem["loc"]:
            name, *within = problem["loc"]
            field, given = names[name], problem["input"]
            text = problem["msg"].removeprefix("Value error, ")
            if isinstance(given, str) and repr(given) not in text and field not in _SECRETS:
                text = f"{given!r}: {text}"
            single.append((field, ": ".join([*map(str, within), text])))
        else:
            cause = problem.get("ctx", {}).get("error")
            together += cause.problems if isinstance(cause, _Contradiction) else []
    return single, together
