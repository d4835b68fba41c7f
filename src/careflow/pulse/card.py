"""Pulse's agent card (A2A 1.0, reference/a2a section 3)."""

from __future__ import annotations

from typing import Any

A2A_PATH = "/a2a"


def agent_card(*, version: str, url: str) -> dict[str, Any]:
    """The card as served by the Pulse at `url`: one interface, one skill (`a2a.py`)."""
    return {
        "name": "CareFlow Pulse",
        "description": "Plans the check-in rounds of a hospital and sees every patient's call through to its outcome.",
        "version": version,
        "supportedInterfaces": [
            {"url": url + A2A_PATH, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        ],
        "capabilities": {"streaming": True, "pushNotifications": False, "extendedAgentCard": False},
        "defaultInputModes": ["application/json"],
        "defaultOutputModes": ["application/json"],
        "skills": [
            {
                "id": "run-round",
                "name": "Run a round",
                "description": (
                    "Opens and plans the round of an hour, or finds it, and streams its progress until everybody has an "
                    "outcome. One data part: scheduleHour, and what else POST / takes."
                ),
                "tags": ["rounds", "check-in"],
                "examples": ['{"scheduleHour": "8"}'],
            }
        ],
        "securitySchemes": {
            "oidc": {
                "openIdConnectSecurityScheme": {
                    "openIdConnectUrl": "https://accounts.google.com/.well-known/openid-configuration"
                }
            }
        },
        "securityRequirements": [{"schemes": {"oidc": {"list": []}}}],
    }
