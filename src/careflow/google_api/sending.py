"""One HTTP request of a job or a task: what Cloud Scheduler and Cloud Tasks do alike when they send it.

Redirects are not followed: an identity token goes to the target and nowhere that the target names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from careflow.google_api.http_target import HttpTarget
from careflow.ports import Tokens

_COMPUTED = frozenset({"host", "content-length", "transfer-encoding", "connection", "user-agent"})
_LARGEST_ANSWER = (
    64 * 1024
)  # bytes that are read so that the connection can serve again; the status alone counts


class Sender:
    """Sends over `transport`, with tokens from the source that `tokens_for` gives for an account.

    `connect_seconds` bounds how long a connection may take to come about; all else is for the caller to bound.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        tokens_for: Callable[[str], Tokens],
        *,
        connect_seconds: float | None = None,
    ) -> None:
        self._transport = transport
        self._tokens_for = tokens_for
        self._tokens: dict[str, Tokens] = {}
        self._timeout = httpx.Timeout(None, connect=connect_seconds).as_dict()

    async def authorization(self, target: HttpTarget) -> dict[str, str]:
        """The header with the target's identity token, if it asks for one. Raises what the source of the tokens raises."""
        token = target.oidc_token
        if token is None:
            return {}
        account = token.service_account_email
        if account not in self._tokens:
            self._tokens[account] = self._tokens_for(account)
        return {"Authorization": f"Bearer {await self._tokens[account].token(token.audience or target.uri)}"}

    async def send(self, target: HttpTarget, headers: Mapping[str, str]) -> httpx.Response:
        """The answer, its body done with. Raises httpx.HTTPError, httpx.InvalidURL, OSError and ValueError."""
        request = httpx.Request(
            target.http_method,
            target.uri,
            headers=headers,
            content=target.body or None,
            extensions={"timeout": self._timeout},
        )
        response = await self._transport.handle_async_request(request)
        try:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            size = 0
            async for chunk in response.stream:
                size += len(chunk)
                if size > _LARGEST_ANSWER:
                    break
        finally:
            await response.aclose()
        return response


def users_headers(target: HttpTarget, reserved: tuple[str, ...]) -> dict[str, str]:
    """The target's headers without those that the service sets: what begins like one of `reserved`, and the token's."""
    own = _COMPUTED | ({"authorization"} if target.oidc_token or target.oauth_token else set())
    return {
        name: value
        for name, value in target.headers.items()
        if name.lower() not in own and not name.lower().startswith(reserved)
    }
