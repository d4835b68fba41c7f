"""The account's own resources in Twilio's REST API: the account, its balance, its numbers. Only looked at, never changed."""

from __future__ import annotations

from typing import Any

from careflow.lab.config import LabConfig

_BORN = "Mon, 05 Jan 2026 09:00:00 +0000"
_PARTS = ("calls", "incoming_phone_numbers", "recordings")


def account_json(config: LabConfig) -> dict[str, Any]:
    """The Account resource. Its token is masked: whoever asks has it."""
    uri = f"/2010-04-01/Accounts/{config.account_sid}"
    return {
        "sid": config.account_sid,
        "owner_account_sid": config.account_sid,
        "friendly_name": "CareFlow lab",
        "auth_token": "*" * 32,
        "type": "Full",
        "status": "active",
        "date_created": _BORN,
        "date_updated": _BORN,
        "uri": f"{uri}.json",
        "subresource_uris": {
            part: f"{uri}/{''.join(word.title() for word in part.split('_'))}.json" for part in _PARTS
        },
    }


def balance_json(config: LabConfig) -> dict[str, Any]:
    """The Balance resource. The lab's calls cost nothing."""
    return {"account_sid": config.account_sid, "balance": "1000.00", "currency": "USD"}


def numbers_json(config: LabConfig, path: str, wanted: str) -> dict[str, Any]:
    """The list of IncomingPhoneNumbers, those that hold `wanted` where it is given."""
    digits = wanted.lstrip("+")
    numbers = sorted(one for one in config.from_numbers if one and digits in one)
    return {
        "incoming_phone_numbers": [_number_json(config, one) for one in numbers],
        "page": 0,
        "page_size": 50,
        "start": 0,
        "end": max(0, len(numbers) - 1),
        "uri": path,
        "first_page_uri": path,
        "next_page_uri": None,
        "previous_page_uri": None,
    }


def _number_json(config: LabConfig, number: str) -> dict[str, Any]:
    sid = "PN" + number.lstrip("+").rjust(32, "0")
    return {
        "sid": sid,
        "account_sid": config.account_sid,
        "friendly_name": number,
        "phone_number": number,
        "capabilities": {"voice": True, "sms": False, "mms": False, "fax": False},
        "status": "in-use",
        "beta": False,
        "origin": "twilio",
        "api_version": "2010-04-01",
        "date_created": _BORN,
        "date_updated": _BORN,
        "uri": f"/2010-04-01/Accounts/{config.account_sid}/IncomingPhoneNumbers/{sid}.json",
    }
