"""Where documents are: every document's id is made of its record's key, and of a secret that only the database knows.

So ids name nobody, are spread evenly over the key space and are never sequential (reference/google-cloud section 3), and what
a request from outside names can never leave its collection. Names of documents reach Google's audit logs; a plain hash of a
telephone number would be undone there by trying all numbers.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

ID_DIGITS = 24  # 96 bits


@dataclass(frozen=True, slots=True)
class Place:
    """A document of a collection: what its id is made of, and the document it is under, if any.

    `name` is the id itself, for the few documents that are about nobody.
    """

    collection: str
    key: tuple[str, ...] = ()
    under: Place | None = None
    name: str = ""

    def path(self, secret: bytes) -> str:
        """Its path relative to the database's documents."""
        above = "" if self.under is None else f"{self.under.path(secret)}/"
        return f"{above}{self.collection}/{self.name or self._id(secret)}"

    def _id(self, secret: bytes) -> str:
        text = "\0".join((self.collection, *self.key)).encode()
        return hmac.digest(secret, text, "sha256").hex()[:ID_DIGITS]
