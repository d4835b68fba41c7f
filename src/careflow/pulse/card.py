"""Pulse's agent card (A2A 1.0, reference/a2a section 3)."""

from __future__ import annotations

from typing import Any


def agent_card(*, version: str) -> dict[str, Any]:
    """The card as served. Pulse is an A2A client; it lists no interface and no skill until it serves one."""
    return {
        "name": "CareFlow Pulse",
        "description": "Plans the check-in rounds of a hospital and sees every patient's call through to its outcome.",
        "version": version,
        "supportedInterfaces": [],
        "capabilities": {"streaming": False, "pushNotifications": False, "extendedAgentCard": False},
        "defaultInputModes": ["application/json"],
        "defaultOutputModes": ["application/json"],
        "skills": [],
        "securitySchemes": {
            "oidc": {
                "openIdConnectSecurityScheme": {
                    "openIdConnectUrl": "https://accounts.google.com/.well-known/openid-configuration"
                }
            }
        },
        "securityRequirements": [{"schemes": {"oidc": {"list": []}}}],
    }
