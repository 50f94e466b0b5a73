"""Passwords: what is accepted, how it is kept, and what a guess costs."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest
from argon2 import extract_parameters

from pokerarena.auth.passwords import PasswordHasher, check_new_password
from pokerarena.errors import Invalid, Unavailable
from pokerarena.settings import Settings, load_settings

GOOD = "seven of clubs on the river"


def settings(**changes: object) -> Settings:
    return load_settings(
        **{"database_url": "postgresql+psycopg://u@/d", "argon2_memory_kib": 8192} | changes
    )


async def test_a_hash_is_argon2id_with_the_settings_memory_and_a_salt_of_its_own() -> None:
    hasher = PasswordHasher(settings(argon2_memory_kib=19 * 1024))
    first, second = await hasher.hash(GOOD), await hasher.hash(GOOD)
    assert first.startswith("$argon2id$")
    assert first != second
    parameters = extract_parameters(first)
    assert parameters.memory_cost == 19 * 1024
    assert (parameters.time_cost, parameters.parallelism) == (2, 1)
    assert (await hasher.verify(first, GOOD)) == (True, False)
    assert not (await hasher.verify(first, GOOD + "!")).right
    assert not (await hasher.verify("$argon2id$broken", GOOD)).right
    hasher.close()


async def test_a_hash_of_weaker_days_is_found_outdated() -> None:
    weak, strong = PasswordHasher(settings()), PasswordHasher(settings(argon2_memory_kib=16384))
    old = await weak.hash(GOOD)
    assert (await strong.verify(old, GOOD)) == (True, True)
    assert (await strong.verify(old, "wrong")) == (False, False)
    weak.close()
    strong.close()


async def test_an_unknown_user_costs_as_much_as_a_wrong_password() -> None:
    hasher = PasswordHasher(settings(argon2_memory_kib=32 * 1024))
    known = await hasher.hash(GOOD)
    await hasher.verify(None, GOOD)

    async def cost(stored: str | None) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            await hasher.verify(stored, "a wrong password")
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    unknown_s, wrong_s = await cost(None), await cost(known)
    assert 0.4 < unknown_s / wrong_s < 2.5, (unknown_s, wrong_s)
    hasher.close()


async def test_the_same_text_in_another_normal_form_is_the_same_password() -> None:
    hasher = PasswordHasher(settings())
    stored = await hasher.hash("caf\u00e9 by the river tonight")
    assert (await hasher.verify(stored, "cafe\u0301 by the river tonight")).right
    hasher.close()


async def test_logins_beyond_the_bound_are_turned_away_and_the_loop_goes_on() -> None:
    hasher = PasswordHasher(settings(argon2_parallel_hashes=1, argon2_memory_kib=32 * 1024))
    tasks = [asyncio.create_task(hasher.hash(GOOD)) for _ in range(40)]
    ticks = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.002)
        ticks += 1
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [one for one in results if isinstance(one, Unavailable)]
    assert len(refused) == 40 - 16
    assert all(one.code == "login_busy" for one in refused)
    assert ticks > 20, "the event loop ran while passwords were hashed"
    hasher.close()


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("x" * 14, "password_too_short"),
        ("", "password_too_short"),
        ("ab1!" * 33, "password_too_long"),
        ("correcthorsebatterystaple", "password_common"),
        ("Correct Horse Battery Staple", "password_common"),
        ("passwordpassword", "password_common"),
        ("PASSWORD!!!!!!!!!!!!", "password_common"),
        ("iloveyou123456789", "password_common"),
        ("123456789012345", "password_common"),
        ("abcdefghijklmnop", "password_common"),
        ("ponmlkjihgfedcba", "password_common"),
        ("qwertyqwertyqwerty", "password_common"),
        ("aaaaaaaaaaaaaaaa", "password_common"),
        ("abababababababab", "password_common"),
        ("abcabcabcabcabcabc", "password_common"),
        ("grandmother1234567", "password_common"),
    ],
)
def test_what_is_guessed_first_is_refused(password: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_new_password(password, username="grandmother", min_length=15)
    assert refused.value.code == code
    assert not password or password not in refused.value.message


@pytest.mark.parametrize("password", [GOOD, "d7#kQ9!mZ2@pL5x", "å" * 5 + " fjord og fjell 7"])
def test_a_good_password_is_accepted(password: str) -> None:
    check_new_password(password, username="grandmother", min_length=15)
