"""The two issuers of tokens that we know by name: Google, and this machine's own."""

from __future__ import annotations

GOOGLE_ISSUER = "https://accounts.google.com"
GOOGLE_ISSUERS = frozenset({GOOGLE_ISSUER, "accounts.google.com"})  # both spellings are in its tokens
LOCAL_ISSUER = "https://careflow.local"
