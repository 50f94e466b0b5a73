"""Passwords: what is accepted as one, and how it is kept (Argon2id).

Owns the cost of a guess. Hashing runs off the event loop in a bounded pool with a bounded queue,
so that logins can slow each other down but never the rest of the program. This module must never
log a password, nor answer faster for an unknown user than for a wrong password.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple, TypeVar, TypeVarTuple

from argon2 import PasswordHasher as Argon2
from argon2 import Type
from argon2.exceptions import InvalidHashError, VerificationError

from pokerarena.errors import Invalid, Unavailable
from pokerarena.settings import Settings

PASSWORD_MAX_LENGTH = 128
ARGON2_TIME_COST = 2
ARGON2_LANES = 1
Args = TypeVarTuple("Args")
Result = TypeVar("Result")

# Logins that may wait for a hash, per hash that may run at once.
WAITING_PER_HASH = 16


class Verdict(NamedTuple):
    """Whether a password was right, and whether its hash is weaker than today's parameters."""

    right: bool
    outdated: bool


class PasswordHasher:
    """Hashes and verifies in its own bounded pool of threads."""

    def __init__(self, settings: Settings) -> None:
        self._argon2 = Argon2(
            time_cost=ARGON2_TIME_COST,
            memory_cost=settings.argon2_memory_kib,
            parallelism=ARGON2_LANES,
            type=Type.ID,
        )
        self._pool = ThreadPoolExecutor(
            max_workers=settings.argon2_parallel_hashes, thread_name_prefix="argon2"
        )
        self._waiting_max = settings.argon2_parallel_hashes * WAITING_PER_HASH
        self._waiting = 0
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        """The Argon2id hash of a password, with its parameters and salt inside."""
        return await self._in_pool(self._hash, password)

    async def verify(self, stored_hash: str | None, password: str) -> Verdict:
        """Judge a password; ``None`` (an unknown user) costs the same and is always wrong."""
        return await self._in_pool(self._verify, stored_hash, password)

    def close(self) -> None:
        """Give the threads back; a hash under way is finished first."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _in_pool(self, work: Callable[[*Args], Result], *args: *Args) -> Result:
        if self._waiting >= self._waiting_max:
            raise Unavailable("login_busy", "Too many logins at once: try again in a few seconds.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        finally:
            self._waiting -= 1

    def _hash(self, password: str) -> str:
        return self._argon2.hash(_normal(password))

    def _verify(self, stored_hash: str | None, password: str) -> Verdict:
        if stored_hash is None:
            if self._decoy is None:
                self._decoy = self._argon2.hash("nobody has this password")
            self._judge(self._decoy, password)
            return Verdict(right=False, outdated=False)
        return self._judge(stored_hash, password)

    def _judge(self, stored_hash: str, password: str) -> Verdict:
        try:
            self._argon2.verify(stored_hash, _normal(password))
        except (VerificationError, InvalidHashError):
            return Verdict(right=False, outdated=False)
        return Verdict(right=True, outdated=self._argon2.check_needs_rehash(stored_hash))


def check_new_password(password: str, *, username: str, min_length: int) -> None:
    """Raise `Invalid` for a password that is too short, too long, or one of the first guesses."""
    normal = _normal(password)
    if len(normal) < min_length:
        raise Invalid(
            "password_too_short",
            f"A password has at least {min_length} characters; a sentence is a good one.",
            min_length=min_length,
        )
    if len(normal) > PASSWORD_MAX_LENGTH:
        raise Invalid(
            "password_too_long",
            f"A password has at most {PASSWORD_MAX_LENGTH} characters.",
            max_length=PASSWORD_MAX_LENGTH,
        )
    folded = normal.casefold()
    # A common password with decoration ("Password1234567!") falls at the same guess.
    core = folded.strip("0123456789!?.,;:-_+*#$%&@ ")
    guessable = (
        folded in _common_passwords()
        or core in _common_passwords()
        or len(set(folded)) <= 3
        or _is_period(folded)
        or username.casefold() == core
        or _is_sequence(folded)
    )
    if guessable:
        raise Invalid(
            "password_common",
            "This password is among the first that an attacker tries; choose another.",
        )


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


def _is_period(folded: str) -> bool:
    """Whether it is a common password or a short text written again and again."""
    for length in range(1, len(folded) // 2 + 1):
        unit = folded[:length]
        repeated = (unit * (len(folded) // length + 1))[: len(folded)]
        if repeated == folded and (length <= 4 or unit in _common_passwords()):
            return True
    return False


def _is_sequence(folded: str) -> bool:
    steps = {ord(after) - ord(before) for before, after in pairwise(folded)}
    return len(steps) == 1


@lru_cache(maxsize=1)
def _common_passwords() -> frozenset[str]:
    text = files("pokerarena.auth").joinpath("common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))
