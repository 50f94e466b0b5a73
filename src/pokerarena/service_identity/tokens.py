"""Short-lived tokens with which one process of the arena proves to another who it is.

Owns their form: a JWT with one pinned algorithm, the key's `kid`, the service as `iss`, the process
as `sub`, and one process as `aud`. Each is accepted once, for a minute; other kinds of token in the
same form (`egress.grants`) are told apart by their `typ`. Which services a process
believes is its own to say: a token of any other one is refused, however well it is signed.
"""

from __future__ import annotations

import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature

from pokerarena.errors import Unauthenticated
from pokerarena.service_identity.keys import KeySet, PrivateKey, PublicKey, ServiceName
from pokerarena.watched_file import Source

LIFETIME_S: Final = 60
MAX_LIFETIME_S: Final = 300
CLOCK_SKEW_S: Final = 10
MAX_TOKEN_BYTES: Final = 2_048
# How long after its key was taken out of use a token may still be shown.
LAPSES_AFTER_S: Final = LIFETIME_S + 2 * CLOCK_SKEW_S
# Tokens that were seen and have not lapsed; far more than honest processes make in that time.
REMEMBERED_MAX: Final = 10_000
TYPE: Final = "pokerarena-service+jwt"
ALGORITHM: Final = "EdDSA"
_NO_CLAIMS: Final[Mapping[str, Any]] = MappingProxyType({})


class Made(NamedTuple):
    """A token, and the id by which an answer refers to it."""

    text: str
    token_id: str


class Grant(NamedTuple):
    """What a valid token says."""

    service: ServiceName
    subject: str
    token_id: str
    expires_at_s: float
    claims: Mapping[str, Any] = _NO_CLAIMS


class TokenJudge:
    """What one process believes: tokens of one kind, of some services, that name it."""

    def __init__(
        self,
        audience: str,
        *,
        keys: Source[KeySet],
        believes: Collection[ServiceName],
        kind: str = TYPE,
        max_bytes: int = MAX_TOKEN_BYTES,
        once: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audience = audience
        self._keys = keys
        self._believes = frozenset(believes)
        self._kind = kind
        self._max_bytes = max_bytes
        self._once = once
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()

    def judge(self, token: str, *, answers: str | None = None) -> Grant:
        """What the token grants. Raises `Unauthenticated`, with a reason that gives nothing away."""
        if len(token) > self._max_bytes or token.count(".") != 2 or not token.isascii():
            raise _refused("it is not a service token")
        signed, _, signature = token.rpartition(".")
        header, claims = (_decode(part) for part in signed.split("."))
        key = self._key_of(header)
        try:
            key.key.verify(_unbase64(signature), signed.encode())
        except InvalidSignature:
            raise _refused("its signature is wrong") from None
        subject, token_id = claims.get("sub"), claims.get("jti")
        issued_s, expires_s = claims.get("iat"), claims.get("exp")
        if not (
            isinstance(issued_s, int)
            and isinstance(expires_s, int)
            and isinstance(subject, str)
            and isinstance(token_id, str)
        ):
            raise _refused("it lacks a claim")
        if claims.get("iss") != key.service.value or key.service not in self._believes:
            raise _refused("its service is not believed here")
        if claims.get("aud") != self._audience:
            raise _refused("it is meant for another process")
        if claims.get("answers") != answers:
            raise _refused("it answers something else")
        now_s = self._clock()
        if not issued_s - CLOCK_SKEW_S <= now_s < expires_s + CLOCK_SKEW_S:
            raise _refused("it is not valid at this time")
        if expires_s - issued_s > MAX_LIFETIME_S:
            raise _refused("it lives too long")
        grant = Grant(key.service, subject, token_id, expires_s + CLOCK_SKEW_S, claims)
        if self._once:
            self._take_once(grant, now_s)
        return grant

    def _key_of(self, header: dict[str, Any]) -> PublicKey:
        kid = header.get("kid")
        # The algorithm is ours to choose, never the token's; nor is there anything else to say.
        if not isinstance(kid, str) or header != {"alg": ALGORITHM, "typ": self._kind, "kid": kid}:
            raise _refused("it is not a service token")
        # A key that is not known may have been published since.
        key = self._keys.current().get(kid) or self._keys.fresh().get(kid)
        if key is None:
            raise _refused("its key is not known here")
        return key

    def _take_once(self, grant: Grant, now_s: float) -> None:
        while self._seen and next(iter(self._seen.values())) < now_s:
            self._seen.popitem(last=False)
        if grant.token_id in self._seen:
            raise _refused("it was shown before")
        self._seen[grant.token_id] = grant.expires_at_s
        if len(self._seen) > REMEMBERED_MAX:
            self._seen.popitem(last=False)


class ServiceIdentity:
    """One process: its service, its name, its key, the keys it knows, and whom it believes."""

    def __init__(
        self,
        service: ServiceName,
        name: str,
        *,
        key: Source[PrivateKey],
        keys: Source[KeySet],
        believes: Collection[ServiceName],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.service = service
        self.name = name
        self._key = key
        self._clock = clock
        self._judge = TokenJudge(
            audience_of(service, name), keys=keys, believes=believes, clock=clock
        )

    def __repr__(self) -> str:
        return f"ServiceIdentity({audience_of(self.service, self.name)})"

    def token_for(
        self,
        service: ServiceName,
        name: str,
        *,
        answers: str | None = None,
        lifetime_s: int = LIFETIME_S,
        kind: str = TYPE,
        claims: Mapping[str, Any] = _NO_CLAIMS,
    ) -> Made:
        """A token that this one process accepts, once, for a short time; other kinds say more.

        `answers` is the id of the token that it replies to: such a one is good for nothing else.
        """
        key = self._key.current()
        now_s = int(self._clock())
        token_id = secrets.token_urlsafe(12)
        claims = {
            **claims,
            "iss": self.service.value,
            "sub": self.name,
            "aud": audience_of(service, name),
            "iat": now_s,
            "exp": now_s + lifetime_s,
            "jti": token_id,
        }
        if answers is not None:
            claims["answers"] = answers
        header = {"alg": ALGORITHM, "typ": kind, "kid": key.kid}
        signed = f"{_encode(header)}.{_encode(claims)}"
        return Made(f"{signed}.{_base64(key.key.sign(signed.encode()))}", token_id)

    def judge(self, token: str, *, answers: str | None = None) -> Grant:
        """What the token grants. Raises `Unauthenticated`, with a reason that gives nothing away."""
        return self._judge.judge(token, answers=answers)


def audience_of(service: ServiceName, name: str) -> str:
    """How one process is named as the audience of a token."""
    return f"{service.value}/{name}"


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
