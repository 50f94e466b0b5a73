"""Sealed values: what opens them, what does not, and how keys are used and replaced."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokerarena.errors import ConfigurationError
from pokerarena.sealing import Sealer, WrappedKey
from pokerarena.sealing.local import LocalKeys
from pokerarena.sealing.sealer import (
    DATA_KEY_LIFETIME_S,
    DATA_KEY_VALUES_MAX,
    OPENED_KEYS_MAX,
    key_id_of,
)

OWNER = b"o" * 16


class Counted(LocalKeys):
    """Local keys that count what they are asked."""

    def __init__(self, current: bytes) -> None:
        super().__init__(current)
        self.wraps = 0
        self.unwraps = 0

    async def wrap(self, data_key: bytes) -> WrappedKey:
        self.wraps += 1
        await asyncio.sleep(0)
        return await super().wrap(data_key)

    async def unwrap(self, key: WrappedKey) -> bytes:
        self.unwraps += 1
        return await super().unwrap(key)


def sealer(current: bytes | None = None, *previous: bytes) -> Sealer:
    return Sealer(LocalKeys(current or os.urandom(32), previous))


@given(
    plaintext=st.binary(max_size=300), purpose=st.text(max_size=20), owner=st.binary(max_size=20)
)
@settings(max_examples=50)
def test_what_is_sealed_opens_for_the_same_purpose_and_owner(
    plaintext: bytes, purpose: str, owner: bytes
) -> None:
    one = sealer()

    async def there_and_back() -> bytes:
        sealed = await one.seal(plaintext, purpose=purpose, owner=owner)
        return await one.open(sealed, purpose=purpose, owner=owner)

    assert asyncio.run(there_and_back()) == plaintext


async def test_no_changed_byte_goes_unnoticed() -> None:
    one = sealer()
    sealed = await one.seal(b"a seed", purpose="seed", owner=OWNER)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(ConfigurationError):
            await one.open(bytes(changed), purpose="seed", owner=OWNER)
    for length in range(len(sealed)):
        with pytest.raises(ConfigurationError):
            await one.open(sealed[:length], purpose="seed", owner=OWNER)


@pytest.mark.parametrize(("purpose", "owner"), [("other", OWNER), ("seed", b"p" * 16)])
async def test_a_value_copied_to_another_row_or_column_does_not_open(
    purpose: str, owner: bytes
) -> None:
    one = sealer()
    sealed = await one.seal(b"a seed", purpose="seed", owner=OWNER)
    with pytest.raises(ConfigurationError, match="damaged or belongs to another row"):
        await one.open(sealed, purpose=purpose, owner=owner)


async def test_equal_values_look_different_and_show_nothing_of_themselves() -> None:
    one = sealer()
    first, second = [await one.seal(b"x" * 40, purpose="p", owner=OWNER) for _ in range(2)]
    assert first[-60:] != second[-60:]
    assert b"xx" not in first


async def test_a_previous_key_opens_and_only_the_current_one_seals() -> None:
    old, new = os.urandom(32), os.urandom(32)
    before = await sealer(old).seal(b"kept", purpose="p", owner=OWNER)
    both = sealer(new, old)
    assert await both.open(before, purpose="p", owner=OWNER) == b"kept"
    after = await both.seal(b"new", purpose="p", owner=OWNER)
    assert await sealer(new).open(after, purpose="p", owner=OWNER) == b"new"
    assert after.startswith(await both.current_prefix())
    assert not before.startswith(await both.current_prefix())
    assert key_id_of(before) != key_id_of(after)
    with pytest.raises(ConfigurationError, match="POKERARENA_MASTER_KEYS_PREVIOUS") as told:
        await sealer(new).open(before, purpose="p", owner=OWNER)
    assert key_id_of(before) in told.value.message


async def test_a_process_wraps_one_data_key_for_many_values_and_opens_it_once() -> None:
    keys = Counted(os.urandom(32))
    writer, reader = Sealer(keys), Sealer(keys)
    sealed = await asyncio.gather(
        *(writer.seal(bytes((n,)), purpose="p", owner=OWNER) for n in range(50))
    )
    opened = [await reader.open(value, purpose="p", owner=OWNER) for value in sealed]
    assert opened == [bytes((n,)) for n in range(50)]
    assert (keys.wraps, keys.unwraps) == (1, 1)


async def test_a_data_key_is_replaced_by_its_age_and_by_its_use() -> None:
    now_s = 0.0
    keys = Counted(os.urandom(32))
    one = Sealer(keys, monotonic=lambda: now_s)
    await one.seal(b"", purpose="p", owner=OWNER)
    now_s = DATA_KEY_LIFETIME_S - 1
    await one.seal(b"", purpose="p", owner=OWNER)
    assert keys.wraps == 1
    now_s = DATA_KEY_LIFETIME_S
    await one.seal(b"", purpose="p", owner=OWNER)
    assert keys.wraps == 2
    for _ in range(DATA_KEY_VALUES_MAX - 1):
        await one.seal(b"", purpose="p", owner=OWNER)
    assert keys.wraps == 2
    await one.seal(b"", purpose="p", owner=OWNER)
    assert keys.wraps == 3


async def test_opened_keys_are_kept_within_bounds() -> None:
    keys = Counted(os.urandom(32))
    reader = Sealer(keys)
    values = [
        await Sealer(keys).seal(b"v", purpose="p", owner=OWNER) for _ in range(OPENED_KEYS_MAX + 1)
    ]
    for value in values:
        await reader.open(value, purpose="p", owner=OWNER)
    asked = keys.unwraps
    await reader.open(values[-1], purpose="p", owner=OWNER)
    assert keys.unwraps == asked
    await reader.open(values[0], purpose="p", owner=OWNER)
    assert keys.unwraps == asked + 1
