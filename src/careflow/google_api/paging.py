"""Page tokens: where a list goes on, and until when one may ask."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime, timedelta

from careflow.google_api.refusals import Refused, invalid
from careflow.ports import Clock

TOKEN_LIFE = timedelta(hours=2)


class PageTokens:
    """Tokens for lists that are ordered by name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def after(self, name: str) -> str:
        """The token of the page that follows this name."""
        until = int((self._clock.now() + TOKEN_LIFE).timestamp())
        return base64.urlsafe_b64encode(json.dumps([name, until]).encode()).decode("ascii")

    def read(self, token: str, prefix: str) -> str:
        """The name after which the page starts; one of the list whose names begin with `prefix`. Raises Refused."""
        try:
            after, until = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
            expires = datetime.fromtimestamp(until, UTC)
            name = after if isinstance(after, str) and after.startswith(prefix) else ""
        except (binascii.Error, ValueError, TypeError, OverflowError, OSError, RecursionError):
            raise _bad_token() from None
        if not name or self._clock.now() >= expires:
            raise _bad_token()
        return name


def _bad_token() -> Refused:
    hours = TOKEN_LIFE // timedelta(hours=1)
    return invalid("pageToken", f"must be a token that this list answered within the last {hours} hours")
