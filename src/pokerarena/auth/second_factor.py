"""The second factor: time-based codes (RFC 6238) and recovery codes.

A seed is sealed, because it must be read back; recovery codes are stored as MACs. A code counts
once: the time step of the last accepted one is remembered, and older ones are refused with it.
This module must never show a seed again after it was made, nor say why a code was refused.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from uuid import UUID

from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.auth.models import RecoveryCode, SecondFactor
from pokerarena.auth.tokens import TokenMac
from pokerarena.errors import Conflict, Forbidden
from pokerarena.ids import IdKind, id_text
from pokerarena.sealing import Sealer

SEAL_PURPOSE: Final = "totp-seed"
SEED_BYTES: Final = 20
DIGITS: Final = 6
STEP_S: Final = 30
# Codes of one step before and after count too: clocks differ, and people type slowly.
STEPS_AROUND: Final = 1
RECOVERY_CODES: Final = 10
RECOVERY_GROUPS: Final = 4
RECOVERY_GROUP_CHARACTERS: Final = 4
# Crockford's alphabet in lower case: nothing in it is mistaken for another.
_RECOVERY_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # pragma: allowlist secret
_ISSUER: Final = "pokerarena"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A seed that was just made, in the two forms that authenticators take; shown once."""

    secret: str
    uri: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What an account has."""

    enabled: bool
    recovery_codes_left: int


async def standing(session: AsyncSession, user_id: UUID) -> Standing:
    """Whether the account has a confirmed second factor, and how many recovery codes are left."""
    enabled = await session.scalar(
        select(SecondFactor.confirmed_at.is_not(None)).where(SecondFactor.user_id == user_id)
    )
    left = await session.scalar(
        select(func.count()).select_from(RecoveryCode).where(RecoveryCode.user_id == user_id)
    )
    return Standing(bool(enabled), left or 0)


async def enrol(
    session: AsyncSession, sealer: Sealer, *, user_id: UUID, username: str
) -> Enrolment:
    """Make a seed that counts once a code of it is shown; an unconfirmed one is replaced."""
    present = await session.get(SecondFactor, user_id, with_for_update=True)
    if present is not None and present.confirmed_at is not None:
        raise Conflict(
            "second_factor_present", "You have a second factor; remove it to set up another."
        )
    seed = secrets.token_bytes(SEED_BYTES)
    sealed = await sealer.seal(seed, purpose=SEAL_PURPOSE, owner=user_id.bytes)
    if present is None:
        session.add(SecondFactor(user_id=user_id, seed_sealed=sealed))
    else:
        present.seed_sealed, present.last_step = sealed, 0
    await session.flush()
    secret = base64.b32encode(seed).decode("ascii")
    label = quote(f"{_ISSUER}:{username}")
    uri = (
        f"otpauth://totp/{label}?secret={secret}&issuer={_ISSUER}"
        f"&algorithm=SHA1&digits={DIGITS}&period={STEP_S}"
    )
    return Enrolment(secret, uri)


async def confirm(
    session: AsyncSession, sealer: Sealer, mac: TokenMac, *, user_id: UUID, code: str, moment: float
) -> list[str]:
    """Let the seed count from now on, where its code is right; gives the recovery codes."""
    row = await session.get(SecondFactor, user_id, with_for_update=True)
    if row is None:
        raise Conflict("second_factor_missing", "Begin to set up a second factor first.")
    if row.confirmed_at is not None:
        raise Conflict("second_factor_present", "Your second factor is confirmed already.")
    if not await _accept(session, sealer, row, code, moment):
        raise wrong_code()
    row.confirmed_at = await session.scalar(select(func.now()))
    audit.record(session, Event.SECOND_FACTOR_ENROLLED, subject=id_text(IdKind.USER, user_id))
    return await renew_recovery_codes(session, mac, user_id)


async def renew_recovery_codes(session: AsyncSession, mac: TokenMac, user_id: UUID) -> list[str]:
    """New recovery codes, shown once; those of before count no more."""
    await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
    session.add_all(
        RecoveryCode(
            mac=mac.of(_recovery_text(user_id, code)), user_id=user_id, pepper_id=mac.pepper_id
        )
        for code in codes
    )
    await session.flush()
    audit.record(session, Event.RECOVERY_CODES_RENEWED, subject=id_text(IdKind.USER, user_id))
    return codes


async def is_required(session: AsyncSession, user_id: UUID) -> bool:
    """Whether a login of the account needs a code."""
    return (await standing(session, user_id)).enabled


async def accept(
    session: AsyncSession, sealer: Sealer, mac: TokenMac, *, user_id: UUID, code: str, moment: float
) -> bool:
    """Whether a code, of the authenticator or for recovery, is right; it is used up by that."""
    row = await session.get(SecondFactor, user_id, with_for_update=True)
    if row is None or row.confirmed_at is None:
        return False
    if await _accept(session, sealer, row, code, moment):
        return True
    used = await session.execute(
        delete(RecoveryCode)
        .where(
            RecoveryCode.mac.in_(mac.candidates(_recovery_text(user_id, code))),
            RecoveryCode.user_id == user_id,
        )
        .returning(RecoveryCode.mac)
    )
    if used.one_or_none() is None:
        return False
    audit.record(session, Event.RECOVERY_CODE_USED, subject=id_text(IdKind.USER, user_id))
    return True


async def remove(session: AsyncSession, user_id: UUID) -> None:
    """Take the second factor and its recovery codes away."""
    await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    await session.execute(delete(SecondFactor).where(SecondFactor.user_id == user_id))
    audit.record(session, Event.SECOND_FACTOR_REMOVED, subject=id_text(IdKind.USER, user_id))


def wrong_code() -> Forbidden:
    """The one answer to a code that is wrong, old, or used."""
    return Forbidden(
        "second_factor_wrong", "This code is not right, or was used before: wait for the next one."
    )


async def _accept(
    session: AsyncSession, sealer: Sealer, row: SecondFactor, code: str, moment: float
) -> bool:
    seed = await sealer.open(row.seed_sealed, purpose=SEAL_PURPOSE, owner=row.user_id.bytes)
    step = matching_step(seed, code, moment)
    if step is None:
        return False
    # The row is locked; the condition says for itself that no step counts twice.
    accepted = await session.scalar(
        update(SecondFactor)
        .where(SecondFactor.user_id == row.user_id, SecondFactor.last_step < step)
        .values(last_step=step)
        .returning(SecondFactor.user_id)
    )
    return accepted is not None


def matching_step(seed: bytes, code: str, moment: float) -> int | None:
    """The time step around a moment whose code this is. Every step is compared, found or not."""
    given = code.replace(" ", "").encode("utf-8")
    now = int(moment // STEP_S)
    found = None
    for step in range(now - STEPS_AROUND, now + STEPS_AROUND + 1):
        if bytes_eq(code_at(seed, step), given):
            found = step
    return found


def code_at(seed: bytes, step: int) -> bytes:
    """The code of one time step."""
    # SHA-1 is what every authenticator does; HMAC does not need it to be free of collisions.
    return HOTP(seed, DIGITS, SHA1()).generate(max(0, step))  # noqa: S303


def _new_recovery_code() -> str:
    return "-".join(
        "".join(secrets.choice(_RECOVERY_ALPHABET) for _ in range(RECOVERY_GROUP_CHARACTERS))
        for _ in range(RECOVERY_GROUPS)
    )


def _recovery_text(user_id: UUID, code: str) -> str:
    """What a code is stored as, before its MAC: however it is typed, and bound to its account."""
    written = "".join(character for character in code.lower() if character.isalnum())
    return f"recovery {user_id.hex} {written.encode('unicode_escape').decode('ascii')}"
