"""The value that a media stream must present: unguessable, good for one stream, and counting.

It is stored as the attempt's `stream_token`, `{resumes}.{streams}.{secret}`: how often the call was sent back to a new stream
after one broke, how many streams were accepted, and the secret of the next one. The number of streams also says who may
speak for the conversation: of two processes that believe they hold it, the one with the latest stream.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPass:
    resumes: int = 0
    streams: int = 0
    secret: str

    @classmethod
    def parse(cls, token: str) -> StreamPass:
        """The pass in a stored token; a token of another form counts as never used."""
        match token.split(".", 2):
            case [resumes, streams, secret] if resumes.removeprefix("-").isdecimal() and streams.isdecimal():
                return cls(resumes=int(resumes), streams=int(streams), secret=secret)
        return cls(secret=token)

    def token(self) -> str:
        return f"{self.resumes}.{self.streams}.{self.secret}"

    def accepted(self, secret: str) -> StreamPass:
        """The pass after a stream began: the old secret opens nothing any more."""
        return replace(self, streams=self.streams + 1, secret=secret)

    def resumed(self, secret: str) -> StreamPass:
        """The pass for one more try to connect the call with us."""
        return replace(self, resumes=self.resumes + 1, secret=secret)

    def handed_over(self, secret: str) -> StreamPass:
        """The pass after its holder gave the conversation up on purpose: the resume that follows is no failure's."""
        return replace(self, resumes=self.resumes - 1, secret=secret)


def same_token(stored: str, presented: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(stored.encode(), presented.encode())
