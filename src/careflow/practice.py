"""Credentials of the practice account, for one machine without Twilio and ElevenLabs: made once, kept in the data directory."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from careflow.errors import StoreUnavailable
from careflow.settings import Settings

FROM_NUMBER = "+18005550199"  # reserved for fiction, and no patient's: a sample roster has other area codes


@dataclass(frozen=True, slots=True)
class PracticeAccount:
    """What the lab accepts and the Caller presents. Forged webhooks would need the token, so it is not a constant."""

    account_sid: str
    auth_token: str
    elevenlabs_api_key: str

    @classmethod
    def of(cls, data_dir: Path) -> PracticeAccount:
        """The account of this data directory; made now if there is none. Two processes asking at once get the same one."""
        path = data_dir / "lab" / "account.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                fresh = cls(
                    "AC" + secrets.token_hex(16), secrets.token_hex(16), "lab-" + secrets.token_hex(16)
                )
                draft = path.with_name(f".account-{os.getpid()}-{secrets.token_hex(4)}")
                descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    json.dump(asdict(fresh), file)
                try:
                    os.link(draft, path)  # unlike a rename, loses to whoever was first
                except FileExistsError:
                    pass
                finally:
                    draft.unlink()
            return cls(**json.loads(path.read_text()))
        except OSError as error:
            raise StoreUnavailable(f"data directory {data_dir} cannot be used: {error.strerror}") from error


def with_practice(settings: Settings, lab_url: str) -> Settings:
    """The settings with the lab in the place of Twilio and ElevenLabs."""
    account = PracticeAccount.of(settings.data_dir)
    return settings.model_validate(
        settings.model_dump()
        | {
            "twilio_url": lab_url,
            "twilio_account_sid": account.account_sid,
            "twilio_auth_token": account.auth_token,
            "twilio_from": FROM_NUMBER,
            "record_calls": True,
            "elevenlabs_url": lab_url,
            "elevenlabs_api_key": account.elevenlabs_api_key,
            "elevenlabs_voices": {"en": "lab-en", "es": "lab-es"},
        }
    )
