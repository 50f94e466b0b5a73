"""Re-encrypts everything sealed under the current master key, while the arena runs.

Owns the registry of sealed columns. Each value is replaced where it still is what was read, in
transactions of a bounded number of rows, and no lock is held while a key service answers: a crash
at any point leaves every value readable, and the next run goes on with what is left.
Must never: show a plaintext, or touch a value that the current key seals already.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from pokerarena.agents.models import AgentVersion
from pokerarena.agents.registry import SIGNING_SECRET_PURPOSE
from pokerarena.api import idempotency
from pokerarena.api.models import IdempotencyRecord
from pokerarena.auth import audit, second_factor, signing_keys
from pokerarena.auth.models import SecondFactor, SigningKey
from pokerarena.db import Database
from pokerarena.errors import Unavailable
from pokerarena.runs.models import RunSeed
from pokerarena.runs.service import SEED_PURPOSE
from pokerarena.sealing import Sealer, open_sealer
from pokerarena.sealing.sealer import key_id_of
from pokerarena.settings import Settings

ROWS_PER_BATCH: Final = 200

RowKey = tuple[UUID | bytes, ...]


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed values; the row's key is the owner that is authenticated with it."""

    purpose: str
    key: tuple[InstrumentedAttribute[Any], ...]
    value: InstrumentedAttribute[bytes] | InstrumentedAttribute[bytes | None]

    @property
    def name(self) -> str:
        return f"{self.value.class_.__tablename__}.{self.value.key}"


# Every column whose name ends in `_sealed`; a test compares.
SEALED_COLUMNS: Final = (
    SealedColumn(SEED_PURPOSE, (RunSeed.run_id,), RunSeed.seed_sealed),
    SealedColumn(signing_keys.SEAL_PURPOSE, (SigningKey.id,), SigningKey.private_sealed),
    SealedColumn(second_factor.SEAL_PURPOSE, (SecondFactor.user_id,), SecondFactor.seed_sealed),
    SealedColumn(SIGNING_SECRET_PURPOSE, (AgentVersion.id,), AgentVersion.signing_secret_sealed),
    SealedColumn(
        idempotency.SEAL_PURPOSE,
        (IdempotencyRecord.user_id, IdempotencyRecord.key_sha256),
        IdempotencyRecord.answer_sealed,
    ),
)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did: values re-encrypted by column, and what other keys still seal."""

    current_key_id: str
    renewed: Mapping[str, int]
    left: Mapping[str, int]


def rotate(settings: Settings, *, rows_per_batch: int = ROWS_PER_BATCH) -> Rotation:
    """One whole rotation, over the settings' database."""
    return asyncio.run(_rotate(settings, rows_per_batch))


async def _rotate(settings: Settings, rows_per_batch: int) -> Rotation:
    database = Database(
        settings.model_copy(update={"database_pool_size": 1}), application_name="pokerarena-admin"
    )
    try:
        return await rotate_all(database, open_sealer(settings), rows_per_batch=rows_per_batch)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unavailable(
            "database_unreachable", f"The database cannot be reached ({reason}): is it running?"
        ) from None
    finally:
        await database.close()


async def rotate_all(database: Database, sealer: Sealer, *, rows_per_batch: int) -> Rotation:
    """Re-encrypt every sealed column, then count by key what is still sealed otherwise."""
    prefix = await sealer.current_prefix()
    renewed: dict[str, int] = {}
    for column in SEALED_COLUMNS:
        renewed[column.name] = await _rotate_column(
            database, sealer, column, prefix, rows_per_batch
        )
    left: Counter[str] = Counter()
    for column in SEALED_COLUMNS:
        left += await _other_keys(database, column, prefix, rows_per_batch)
    key_id = prefix[2:].decode()
    async with database.unit_of_work() as session:
        audit.record(
            session,
            audit.Event.MASTER_KEY_ROTATED,
            key_id=key_id,
            renewed=sum(renewed.values()),
            left=left.total(),
        )
    return Rotation(key_id, renewed, left)


async def _rotate_column(
    database: Database, sealer: Sealer, column: SealedColumn, prefix: bytes, rows_per_batch: int
) -> int:
    renewed = 0
    after: RowKey | None = None
    while True:
        async with database.unit_of_work() as session:
            rows = await _sealed_otherwise(session, column, prefix, after, rows_per_batch)
        if not rows:
            return renewed
        fresh = [(key, old, await _again(sealer, column, key, old)) for key, old in rows]
        async with database.unit_of_work() as session:
            for key, old, new in fresh:
                replaced = await session.scalar(
                    update(column.value.class_)
                    .where(tuple_(*column.key) == key, column.value == old)
                    .values({column.value.key: new})
                    .returning(column.key[0])
                    .execution_options(synchronize_session=False)
                )
                renewed += replaced is not None
        after = rows[-1][0]


async def _again(sealer: Sealer, column: SealedColumn, key: RowKey, old: bytes) -> bytes:
    owner = owner_of(key)
    plaintext = await sealer.open(old, purpose=column.purpose, owner=owner)
    return await sealer.seal(plaintext, purpose=column.purpose, owner=owner)


def owner_of(key: RowKey) -> bytes:
    """The bytes of a row's key: what was authenticated with the value."""
    return b"".join(part.bytes if isinstance(part, UUID) else part for part in key)


async def _sealed_otherwise(
    session: AsyncSession,
    column: SealedColumn,
    prefix: bytes,
    after: RowKey | None,
    limit: int,
) -> Sequence[tuple[RowKey, bytes]]:
    """The next rows that the current key does not seal, in the order of their keys."""
    query = (
        select(*column.key, column.value)
        .where(column.value.is_not(None), func.substring(column.value, 1, len(prefix)) != prefix)
        .order_by(*column.key)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(*column.key) > after)
    rows = (await session.execute(query)).all()
    return [(tuple(row[:-1]), row[-1]) for row in rows]


async def _other_keys(
    database: Database, column: SealedColumn, prefix: bytes, limit: int
) -> Counter[str]:
    found: Counter[str] = Counter()
    after: RowKey | None = None
    while True:
        async with database.unit_of_work() as session:
            rows = await _sealed_otherwise(session, column, prefix, after, limit)
        if not rows:
            return found
        found.update(key_id_of(value) for _, value in rows)
        after = rows[-1][0]
