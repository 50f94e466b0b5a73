"""Rotating the master key: online, in bounded steps, and repeatable after a crash at any point."""

from __future__ import annotations

import base64
import os
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from pokerarena.agents.models import AgentVersion
from pokerarena.db import Base
from pokerarena.errors import ConfigurationError
from pokerarena.ops import migrate
from pokerarena.ops.rotation import SEALED_COLUMNS, RowKey, owner_of, rotate_all
from pokerarena.sealing import Sealer, open_sealer
from pokerarena.sealing.sealer import key_id_of
from tests.arena import Arena, arena_settings, open_arena


def key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


async def values(arena: Arena) -> dict[str, dict[RowKey, bytes]]:
    found = {}
    for column in SEALED_COLUMNS:
        relation, name = column.name.split(".")
        rows = await arena.rows(
            f"SELECT {', '.join(part.key for part in column.key)}, {name} FROM {relation}"
            f" WHERE {name} IS NOT NULL"
        )
        found[column.name] = {tuple(row[:-1]): row[-1] for row in rows}
    return found


async def plaintexts(arena: Arena, sealer: Sealer) -> dict[str, dict[RowKey, bytes]]:
    return {
        column.name: {
            key: await sealer.open(value, purpose=column.purpose, owner=owner_of(key))
            for key, value in (await values(arena))[column.name].items()
        }
        for column in SEALED_COLUMNS
    }


async def key_ids(arena: Arena) -> set[str]:
    return {key_id_of(value) for rows in (await values(arena)).values() for value in rows.values()}


async def fill(arena: Arena, runs: int = 3) -> None:
    for _ in range(runs):
        await arena.order(["random", "http://127.0.0.1:9/"], 10)


def test_every_column_that_is_named_sealed_is_in_the_registry(database_url: str) -> None:
    migrate.drift(database_url)  # loads every room's models
    named = {
        f"{relation.name}.{column.name}"
        for relation in Base.metadata.tables.values()
        for column in relation.columns
        if column.name.endswith("_sealed")
    }
    assert named == {column.name for column in SEALED_COLUMNS}


async def test_after_a_rotation_the_new_key_alone_opens_everything(database_url: str) -> None:
    old, new = key(), key()
    async with open_arena(database_url, master_key=old) as arena:
        await fill(arena, runs=4)
        before = await plaintexts(arena, arena.sealer)
        both = open_sealer(arena_settings(database_url, master_key=new, master_keys_previous=old))
        done = await rotate_all(arena.database, both, rows_per_batch=2)
        assert done.renewed["run_seeds.seed_sealed"] == 4
        assert done.renewed["agent_versions.signing_secret_sealed"] == 4
        assert not done.left
        alone = open_sealer(arena_settings(database_url, master_key=new))
        assert await plaintexts(arena, alone) == before
        assert await key_ids(arena) == {done.current_key_id}
        again = await rotate_all(arena.database, alone, rows_per_batch=2)
        assert set(again.renewed.values()) == {0}
        assert await arena.rows("SELECT event FROM audit_records") == [("master_key.rotated",)] * 2


async def test_a_rotation_that_crashed_anywhere_leaves_all_readable_and_goes_on(
    database_url: str,
) -> None:
    old, new = key(), key()
    settings = arena_settings(database_url, master_key=new, master_keys_previous=old)

    class Crashing(Sealer):
        __slots__ = ("left",)
        left: int

        async def seal(self, plaintext: bytes, **bound: Any) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("the power went")
            return await super().seal(plaintext, **bound)

    async with open_arena(database_url, master_key=old) as arena:
        await fill(arena, runs=3)
        before = await plaintexts(arena, arena.sealer)
        renewed_before = -1
        for seals_before_the_crash in (0, 1, 3):
            crashing = Crashing(rotation_provider(settings))
            crashing.left = seals_before_the_crash
            with pytest.raises(ConnectionError):
                await rotate_all(arena.database, crashing, rows_per_batch=1)
            both = open_sealer(settings)
            assert await plaintexts(arena, both) == before
            prefix = await both.current_prefix()
            renewed = sum(
                value.startswith(prefix)
                for rows in (await values(arena)).values()
                for value in rows.values()
            )
            assert renewed > renewed_before
            renewed_before = renewed
        done = await rotate_all(arena.database, open_sealer(settings), rows_per_batch=1)
        assert sum(done.renewed.values()) == 6 - renewed_before
        assert await plaintexts(arena, open_sealer(settings)) == before


async def test_what_changes_meanwhile_is_never_overwritten(database_url: str) -> None:
    old, new = key(), key()
    settings = arena_settings(database_url, master_key=new, master_keys_previous=old)
    async with open_arena(database_url, master_key=old) as arena:
        await fill(arena, runs=1)

        class Overtaken(Sealer):
            """Somebody replaces the secret between the rotation's reading and its writing."""

            async def open(self, sealed: bytes, *, purpose: str, owner: bytes) -> bytes:
                plaintext = await super().open(sealed, purpose=purpose, owner=owner)
                if purpose == "signing-secret":
                    fresh = await arena.sealer.seal(b"fresh", purpose=purpose, owner=owner)
                    async with arena.database.unit_of_work() as session:
                        await session.execute(
                            update(AgentVersion)
                            .where(AgentVersion.id == UUID(bytes=owner))
                            .values(signing_secret_sealed=fresh)
                        )
                return plaintext

        done = await rotate_all(
            arena.database, Overtaken(rotation_provider(settings)), rows_per_batch=10
        )
        assert done.renewed["agent_versions.signing_secret_sealed"] == 0
        # What a process sealed under its older key is told, so that the old key stays for now.
        assert sum(done.left.values()) == 1
        opened = await plaintexts(arena, open_sealer(settings))
        assert list(opened["agent_versions.signing_secret_sealed"].values()) == [b"fresh"]


async def test_a_value_that_no_key_opens_stops_the_rotation_with_its_reason(
    database_url: str,
) -> None:
    async with open_arena(database_url, master_key=key()) as arena:
        await fill(arena, runs=1)
        before = await values(arena)
        stranger = open_sealer(arena_settings(database_url, master_key=key()))
        with pytest.raises(ConfigurationError, match="POKERARENA_MASTER_KEYS_PREVIOUS"):
            await rotate_all(arena.database, stranger, rows_per_batch=10)
        assert await values(arena) == before


def rotation_provider(settings: Any) -> Any:
    from pokerarena.sealing.configured import key_provider

    return key_provider(settings)
