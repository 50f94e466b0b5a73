"""The keys that sign access tokens: made, published, used, retired.

A key is published one cache time before it signs, and verifies for one token life after it signed
last, so that a rotation refuses no valid token on any process. Private keys are sealed at rest.
This module must never give a private key to anything but `access_tokens`, and never lets a key
verify that it does not itself list.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from joserfc.jwk import ECKey
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.auth.models import SigningKey
from pokerarena.auth.tokens import invalid
from pokerarena.db import Database
from pokerarena.errors import Unavailable
from pokerarena.ids import new_id
from pokerarena.sealing import Sealer
from pokerarena.settings import Settings

ALGORITHM: Final = "ES256"
CURVE: Final = "P-256"
SEAL_PURPOSE: Final = "signing-key"
# How far the clocks of two of our hosts may be apart.
CLOCK_LEEWAY_S: Final = 10
# An unknown key id makes a process look again, but forged ones not more often than this.
LOOK_AGAIN_S: Final = 1.0
# "poker" and "keys" as bytes: an arbitrary number that only this module uses.
_ADVISORY_LOCK: Final = 0x706F6B65_6B657973


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A key pair as one process uses it."""

    kid: str
    pair: ECKey
    use_from: datetime
    verify_until: datetime | None


class SigningKeys:
    """One process's view of the keys, read anew every `signing_keys_refresh_s`."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        settings: Settings,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._refresh_s = settings.signing_keys_refresh_s
        self._monotonic = monotonic
        self._keys: dict[str, LoadedKey] = {}
        self._read_at = float("-inf")

    async def to_sign(self, now: datetime) -> LoadedKey:
        """The newest key whose time to sign has come; the first one is made here."""
        await self._keep_fresh(self._refresh_s)
        usable = [key for key in self._valid(now) if key.use_from <= now]
        if not usable:
            await self._make_first()
            await self._read()
            usable = self._valid(now)
        if not usable:
            raise Unavailable(
                "signing_key_missing", "No key to sign with yet: the clocks of our hosts disagree."
            )
        return max(usable, key=lambda key: key.use_from)

    async def to_verify(self, kid: str, now: datetime) -> LoadedKey:
        """The key of this id, as long as it verifies; `Unauthenticated` for any other id."""
        await self._keep_fresh(self._refresh_s)
        if kid not in self._keys:
            await self._keep_fresh(LOOK_AGAIN_S)
        key = self._keys.get(kid)
        if key is None or (key.verify_until is not None and key.verify_until <= now):
            raise invalid()
        return key

    async def published(self, now: datetime) -> dict[str, Any]:
        """The JSON Web Key Set: every key that verifies now or will sign soon."""
        await self._keep_fresh(self._refresh_s)
        return {
            "keys": [
                {
                    **key.pair.as_dict(private=False),
                    "kid": key.kid,
                    "use": "sig",
                    "alg": ALGORITHM,
                }
                for key in sorted(self._valid(now), key=lambda key: key.use_from)
            ]
        }

    def _valid(self, now: datetime) -> list[LoadedKey]:
        return [
            key for key in self._keys.values() if key.verify_until is None or key.verify_until > now
        ]

    async def _keep_fresh(self, age_s: float) -> None:
        now = self._monotonic()
        if now - self._read_at < age_s:
            return
        if self._keys:
            # Others go on with what is known while this one looks.
            self._read_at = now
        await self._read()

    async def _read(self) -> None:
        async with self._database.unit_of_work() as session:
            rows = list(await session.scalars(select(SigningKey)))
        known, keys = self._keys, {}
        for row in rows:
            pair = known[row.kid].pair if row.kid in known else await self._open(row)
            keys[row.kid] = LoadedKey(row.kid, pair, row.use_from, row.verify_until)
        self._keys = keys
        self._read_at = self._monotonic()

    async def _open(self, row: SigningKey) -> ECKey:
        private = await self._sealer.open(
            row.private_sealed, purpose=SEAL_PURPOSE, owner=row.id.bytes
        )
        return ECKey.import_key(private)

    async def _make_first(self) -> None:
        async with self._database.unit_of_work() as session:
            await _take_turn(session)
            # Not the transaction's time: it began before the turn was ours.
            now = func.clock_timestamp()
            present = await session.scalar(
                select(SigningKey.id).where(
                    SigningKey.use_from <= now,
                    SigningKey.verify_until.is_(None) | (SigningKey.verify_until > now),
                )
            )
            if present is None:
                await _add(session, self._sealer, publish_s=0)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did."""

    kid: str
    use_from: datetime
    retired: int


async def rotate(
    session: AsyncSession, sealer: Sealer, settings: Settings, *, compromised: bool = False
) -> Rotation:
    """Publish a new key and set the end of all others.

    Where a key is `compromised`, the new one signs at once and no other verifies any more: every
    access token is refused, within `signing_keys_refresh_s`, and every session refreshes.
    """
    await _take_turn(session)
    await session.execute(delete(SigningKey).where(SigningKey.verify_until < func.now()))
    made = await _add(
        session, sealer, publish_s=0 if compromised else settings.signing_key_publish_s
    )
    audit.record(session, Event.SIGNING_KEY_ROTATED, kid=made.kid, compromised=compromised)
    others = SigningKey.id != made.id
    if compromised:
        gone = await session.scalars(delete(SigningKey).where(others).returning(SigningKey.id))
        return Rotation(made.kid, made.use_from, len(gone.all()))
    last_signature = made.use_from + timedelta(seconds=settings.signing_keys_refresh_s)
    until = last_signature + timedelta(seconds=settings.access_token_ttl_s + CLOCK_LEEWAY_S)
    ended = await session.scalars(
        update(SigningKey)
        .where(others, SigningKey.verify_until.is_(None))
        .values(verify_until=until)
        .returning(SigningKey.id)
    )
    return Rotation(made.kid, made.use_from, len(ended.all()))


async def _take_turn(session: AsyncSession) -> None:
    await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})


async def _add(session: AsyncSession, sealer: Sealer, *, publish_s: int) -> SigningKey:
    pair = ECKey.generate_key(CURVE)
    key_id = new_id()
    row = SigningKey(
        id=key_id,
        kid=pair.thumbprint(),
        public_pem=pair.as_pem(private=False).decode(),
        private_sealed=await sealer.seal(
            pair.as_pem(private=True), purpose=SEAL_PURPOSE, owner=key_id.bytes
        ),
        use_from=func.now() + timedelta(seconds=publish_s),
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row
