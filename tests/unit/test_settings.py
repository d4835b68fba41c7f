"""Settings: read once, every problem named at once, no secret shown."""

from __future__ import annotations

from datetime import timedelta

import pytest

from careflow.app import bind
from careflow.errors import SettingsError
from careflow.practice import check_accounts
from careflow.settings import load_settings


def test_every_bad_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_ROUND_HOURS", "8,x")
    monkeypatch.setenv("CAREFLOW_TIME_ZONE", "Mars/Olympus")
    monkeypatch.setenv("CAREFLOW_CALL_LEASE", "-1")
    monkeypatch.setenv("CAREFLOW_PULSE_URL", "ftp://x")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    for name in ("ROUND_HOURS", "TIME_ZONE", "CALL_LEASE", "PULSE_URL"):
        assert f"CAREFLOW_{name}" in str(refused.value)


def test_lists_maps_and_durations_are_read_as_a_person_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_ROUND_HOURS", "20, 8")
    monkeypatch.setenv("CAREFLOW_ELEVENLABS_VOICES", "en=anna,es=luz")
    monkeypatch.setenv("CAREFLOW_RETRY_SPACING", "90.5")
    settings = load_settings()
    assert settings.round_hours == (8, 20)
    assert settings.elevenlabs_voices == {"en": "anna", "es": "luz"}
    assert settings.retry_spacing == timedelta(seconds=90.5)


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_TWILIO_AUTH_TOKEN", "very-secret-value")
    assert "very-secret-value" not in repr(load_settings())


def test_no_attempt_is_given_up_while_its_call_may_still_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREFLOW_CALL_TIME_LIMIT", "1200")
    with pytest.raises(SettingsError, match="CAREFLOW_ATTEMPT_DEADLINE: 1200 s is not longer"):
        load_settings()
    monkeypatch.setenv("CAREFLOW_ATTEMPT_DEADLINE", "1300")
    assert load_settings().call_time_limit == 1200


ACCOUNTS = {
    "TWILIO_AUTH_TOKEN": "token",
    "TWILIO_FROM": "+18005550199",
    "ELEVENLABS_API_KEY": "key",
    "ELEVENLABS_VOICES": "en=anna",
}


@pytest.mark.parametrize("missing", [None, *ACCOUNTS])
def test_real_people_are_phoned_only_with_all_that_a_conversation_needs(
    monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    check_accounts(load_settings())  # the lab needs nothing
    monkeypatch.setenv("CAREFLOW_TWILIO_ACCOUNT_SID", "AC1")
    for name, value in ACCOUNTS.items():
        if name != missing:
            monkeypatch.setenv(f"CAREFLOW_{name}", value)
    if missing is None:
        check_accounts(load_settings())
        return
    with pytest.raises(SettingsError, match=missing):
        bind(load_settings(caller_port=0), ["caller"])
