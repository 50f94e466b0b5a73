"""How often something secret may be tried: per account, per address, and for both together.

An attempt is counted before it is judged, so that a thousand at once are a thousand attempts, and
counted the same whether the account exists or not. A success takes its own attempt back. What is
counted is stored as a MAC only. This module must never know whether an account exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv6Address, ip_address
from typing import Final

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth.models import LoginAttempts
from pokerarena.auth.tokens import TokenMac
from pokerarena.db import Database
from pokerarena.errors import Throttled
from pokerarena.settings import Settings

# A provider gives each customer a network of this size: counting single addresses counts nothing.
IPV6_CUSTOMER_BITS: Final = 64
OLD_WINDOWS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Count:
    """One thing that is counted, and how many attempts in a window it may have."""

    key: bytes
    attempts_max: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: what it counts for."""

    pair: Count
    address: Count
    account: Count


def attempt_of(mac: TokenMac, settings: Settings, *, account: str, address: str) -> Attempt:
    """What an attempt for an account's name from an address counts for."""
    account = account.casefold()
    address = _counted_address(address)
    return Attempt(
        pair=Count(_key(mac, "pair", account, address), settings.login_attempts_per_pair_max),
        address=Count(_key(mac, "address", address), settings.login_attempts_per_address_max),
        account=Count(_key(mac, "account", account), settings.login_attempts_per_account_max),
    )


async def begin(database: Database, attempt: Attempt, *, window_s: int) -> None:
    """Count an attempt; raises `Throttled` where it is one too many.

    It has a transaction of its own: what was counted stays, also where the attempt is refused, and
    no connection waits while a password is hashed.
    """
    async with database.unit_of_work() as session:
        await _forget_old(session)
        wait_s = None
        # From the narrowest on: who is stopped as a pair must not use up what the account has for
        # everybody else. Always in this order, so that two attempts never wait for each other.
        for count in (attempt.pair, attempt.address, attempt.account):
            wait_s = await _count(session, count, window_s)
            if wait_s is not None:
                break
    if wait_s is not None:
        raise Throttled(
            "too_many_attempts",
            f"Too many attempts: try again in {wait_s} seconds.",
            retry_after_s=wait_s,
        )


async def _count(session: AsyncSession, count: Count, window_s: int) -> int | None:
    """Count one more; how many seconds to wait where that is too many."""
    window = func.now() + timedelta(seconds=window_s)
    over = LoginAttempts.window_ends_at <= func.now()
    attempts, wait_s = (
        await session.execute(
            insert(LoginAttempts)
            .values(key=count.key, attempts=1, window_ends_at=window)
            .on_conflict_do_update(
                index_elements=[LoginAttempts.key],
                set_={
                    # Bounded, so that no patience overflows it.
                    "attempts": case(
                        (over, 1),
                        else_=func.least(LoginAttempts.attempts, count.attempts_max) + 1,
                    ),
                    # Trying on does not prolong a window.
                    "window_ends_at": case((over, window), else_=LoginAttempts.window_ends_at),
                },
            )
            .returning(
                LoginAttempts.attempts,
                func.ceil(func.extract("epoch", LoginAttempts.window_ends_at - func.now())),
            )
        )
    ).one()
    return max(1, int(wait_s)) if attempts > count.attempts_max else None


async def succeeded(session: AsyncSession, attempt: Attempt) -> None:
    """End the counts of the account, and take this one attempt back from its address."""
    await session.execute(delete(LoginAttempts).where(LoginAttempts.key == attempt.pair.key))
    await session.execute(
        update(LoginAttempts)
        .where(LoginAttempts.key == attempt.address.key, LoginAttempts.attempts > 0)
        .values(attempts=LoginAttempts.attempts - 1)
    )
    await session.execute(delete(LoginAttempts).where(LoginAttempts.key == attempt.account.key))


async def _forget_old(session: AsyncSession) -> None:
    """Windows that are over go, a bounded number at a time; nobody waits for another's."""
    old = (
        select(LoginAttempts.key)
        .where(LoginAttempts.window_ends_at <= func.now())
        .limit(OLD_WINDOWS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await session.execute(delete(LoginAttempts).where(LoginAttempts.key.in_(old)))


def _key(mac: TokenMac, *what: str) -> bytes:
    return mac.of("\x00".join(("attempts", *what)).encode("unicode_escape").decode("ascii"))


def _counted_address(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.packed[: IPV6_CUSTOMER_BITS // 8].hex()
