"""The local issuer: tokens with the claims that Google's have, signed by a key that only local settings accept."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from careflow.auth.issuers import LOCAL_ISSUER

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

JWKS_FILE = "jwks.json"
LIFETIME = timedelta(hours=1)  # Google's

_KEY_FILE = "signing-key.pem"


class LocalIssuer:
    """Issues tokens as `issuer` with the key in `directory`, which is made when it is not there.

    The directory holds `signing-key.pem` (mode 0600) and `jwks.json` (the public keys: the present one and the one before).
    Processes that share the directory share the key, whoever comes first. Raises OSError when it cannot be written.
    """

    def __init__(self, directory: Path, issuer: str = LOCAL_ISSUER) -> None:
        self.issuer = issuer
        self._directory = directory
        self._key_path = directory / _KEY_FILE
        self._jwks_path = directory / JWKS_FILE
        self._seen: tuple[int, int] | None = None
        self._signing: tuple[RSAPrivateKey, str] | None = None
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            if not self._key_path.exists():
                self._make_key()
            elif not self._jwks_path.exists():
                self._publish(_jwk(_read_key(self._key_path)))

    @property
    def jwks_path(self) -> Path:
        """Where the public keys are published, for `jwks.FileKeys`."""
        return self._jwks_path

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JSON Web Key Set (RFC 7517 section 5), the present key first."""
        document: dict[str, Any] = json.loads(self._jwks_path.read_bytes())
        return document

    def mint(self, account: str, audience: str, now: datetime, lifetime: timedelta = LIFETIME) -> str:
        """A token that speaks for the service account to `audience` from `now` on."""
        import jwt

        key, kid = self._current()
        issued_at = int(now.timestamp())
        subject = str(int(hashlib.sha256(account.encode()).hexdigest(), 16))[:21]  # Google's: 21 digits
        claims = {
            "iss": self.issuer,
            "aud": audience,
            "azp": subject,
            "sub": subject,
            "email": account,
            "email_verified": True,
            "iat": issued_at,
            "exp": issued_at + int(lifetime.total_seconds()),
        }
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid})

    def rotate(self) -> str:
        """Sign with a new key from now on, in every process; the old one's tokens stay valid. The new key's id."""
        with self._locked():
            return self._make_key()

    def _make_key(self) -> str:
        from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = generate_private_key(public_exponent=65537, key_size=2048)
        entry = _jwk(key)
        # Published before it is used: a verifier never meets a key that it cannot find.
        self._publish(entry)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _replace(self._key_path, pem, mode=0o600)
        kid: str = entry["kid"]
        return kid

    def _publish(self, entry: dict[str, Any]) -> None:
        before = self.jwks()["keys"][:1] if self._jwks_path.exists() else []
        keys = [entry, *(old for old in before if old["kid"] != entry["kid"])]
        _replace(self._jwks_path, json.dumps({"keys": keys}, indent=2).encode(), mode=0o644)

    def _current(self) -> tuple[RSAPrivateKey, str]:
        stat = self._key_path.stat()
        seen = (stat.st_mtime_ns, stat.st_ino)
        if self._signing is None or seen != self._seen:
            key = _read_key(self._key_path)
            self._signing = (key, str(_jwk(key)["kid"]))
            self._seen = seen
        return self._signing

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read_key(path: Path) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"{path} does not hold an RSA key")
    return key


def _jwk(key: RSAPrivateKey) -> dict[str, Any]:
    """The public half as a JSON Web Key; its id is the thumbprint (RFC 7638)."""
    from jwt.algorithms import RSAAlgorithm

    public: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    thumbprint = json.dumps({name: public[name] for name in ("e", "kty", "n")}, separators=(",", ":"))
    kid = hashlib.sha256(thumbprint.encode()).hexdigest()[:40]
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": public["n"], "e": public["e"]}


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    """Write the file whole or not at all, never readable by others in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
