"""Short-lived tokens with which a worker proves to one agent-host that it may use it.

Owns their form: a JWT signed with Ed25519. Workers hold the private key; an agent-host holds the
public one only, so that nothing it could lose lets anybody in. Each token names one audience.
"""

from __future__ import annotations

import json
import os
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pokerarena.errors import ConfigurationError, Unauthenticated

LIFETIME_S: Final = 60
MAX_LIFETIME_S: Final = 300
CLOCK_SKEW_S: Final = 10
MAX_TOKEN_BYTES: Final = 2_048
TYPE: Final = "pokerarena-service+jwt"
_NO_CLAIMS: Final[Mapping[str, Any]] = MappingProxyType({})


class Grant(NamedTuple):
    """What a valid token says."""

    subject: str
    expires_at_s: float
    claims: Mapping[str, Any] = _NO_CLAIMS


class TokenMaker:
    """A worker's side: makes tokens for any agent-host."""

    def __init__(self, key: Ed25519PrivateKey, subject: str, clock: Callable[[], float]) -> None:
        self._key = key
        self._subject = subject
        self._clock = clock

    def __repr__(self) -> str:
        return f"TokenMaker(subject={self._subject!r})"

    def make(
        self,
        audience: str,
        lifetime_s: int = LIFETIME_S,
        *,
        kind: str = TYPE,
        claims: Mapping[str, Any] = _NO_CLAIMS,
    ) -> str:
        """A token that this one agent-host accepts, for a short time; other kinds say more."""
        now_s = int(self._clock())
        claims = {
            **claims,
            "aud": audience,
            "sub": self._subject,
            "iat": now_s,
            "exp": now_s + lifetime_s,
            "jti": secrets.token_urlsafe(12),
        }
        signed = f"{_encode(_header(kind))}.{_encode(claims)}"
        return f"{signed}.{_base64(self._key.sign(signed.encode()))}"


class TokenJudge:
    """An agent-host's side: accepts tokens that name it, and nothing else."""

    def __init__(
        self,
        key: Ed25519PublicKey,
        audience: str,
        clock: Callable[[], float],
        *,
        kind: str = TYPE,
        max_bytes: int = MAX_TOKEN_BYTES,
    ) -> None:
        self._key = key
        self._audience = audience
        self._clock = clock
        self._header = _header(kind)
        self._max_bytes = max_bytes

    def judge(self, token: str) -> Grant:
        """What the token grants. Raises `Unauthenticated`, with a reason that gives nothing away."""
        if len(token) > self._max_bytes or token.count(".") != 2 or not token.isascii():
            raise _refused("it is not a service token")
        signed, _, signature = token.rpartition(".")
        header, claims = (_decode(part) for part in signed.split("."))
        # The algorithm is ours to choose, never the token's.
        if header != self._header:
            raise _refused("it is not a service token")
        try:
            self._key.verify(_unbase64(signature), signed.encode())
        except InvalidSignature:
            raise _refused("its signature is wrong") from None
        issued_s, expires_s, subject = (claims.get(name) for name in ("iat", "exp", "sub"))
        if not (
            isinstance(issued_s, int) and isinstance(expires_s, int) and isinstance(subject, str)
        ):
            raise _refused("it lacks a claim")
        if claims.get("aud") != self._audience:
            raise _refused("it is meant for another agent-host")
        now_s = self._clock()
        if not issued_s - CLOCK_SKEW_S <= now_s < expires_s + CLOCK_SKEW_S:
            raise _refused("it is not valid at this time")
        if expires_s - issued_s > MAX_LIFETIME_S:
            raise _refused("it lives too long")
        return Grant(subject, expires_s + CLOCK_SKEW_S, claims)


def write_key_pair(private: Path, public: Path) -> None:
    """Make a key pair: the private file for workers (mode 0600), the public one for agent-hosts."""
    key = Ed25519PrivateKey.generate()
    _write(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(
        public,
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        0o644,
    )


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """A worker's key. Raises `ConfigurationError`."""
    try:
        return parse_private_key(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except ConfigurationError:
        raise ConfigurationError(
            f"{path} is not an Ed25519 private key; make a pair anew"
        ) from None


def parse_private_key(pem: bytes) -> Ed25519PrivateKey:
    """A worker's key from the text of its file. Raises `ConfigurationError`, without the text."""
    try:
        key = load_pem_private_key(pem, None)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("the agent-hosts' key is not an Ed25519 private key in PEM")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """An agent-host's key. Raises `ConfigurationError`, also for a private key."""
    key = _load(path, load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(
            f"{path} is not an Ed25519 public key; an agent-host holds no other"
        )
    return key


def _load(path: Path, loader: Callable[[bytes], Any]) -> Any:
    try:
        return loader(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        return None


def _write(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as out:
        out.write(data)


def _header(kind: str) -> dict[str, str]:
    """One kind of token is never taken for another."""
    return {"alg": "EdDSA", "typ": kind}


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated("service_token_refused", f"The token is refused: {why}.")


def _encode(fields: dict[str, Any]) -> str:
    return _base64(json.dumps(fields, separators=(",", ":")).encode())


def _decode(part: str) -> dict[str, Any]:
    try:
        fields = json.loads(_unbase64(part))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise _refused("it is not a service token")
    return fields


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64(text: str) -> bytes:
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        data = b""
    # One text for one value: anything that only decodes to the same bytes is refused.
    if _base64(data) != text:
        raise _refused("it is not a service token")
    return data
