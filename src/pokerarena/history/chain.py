"""The chain of a run's hands: each stored hand carries a hash over itself and the link before it.

Owns what is hashed and in which order. A changed, missing, added or reordered row breaks the chain
at that hand. It is no signature: whoever may write every row may also write the chain anew. Pure;
revision ``reliability_0003`` computes the same links in SQL, so what is hashed never changes.

A link is the first 16 bytes of SHA-256 over the link before it and the row: id, numbers big-endian,
the moment in microseconds, and each packed part (board, seats, actions, hole cards) after its length.
The link before the first hand is made of the run's id and the published hash of its seed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

LINK_BYTES: Final = 16

_ANCHOR: Final = b"pokerarena hands"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ROW: Final = struct.Struct(">16siiihhq")
_LENGTH: Final = struct.Struct(">i")


def first_link(run_id: UUID, seed_sha256: bytes) -> bytes:
    """The link before a run's first hand."""
    return hashlib.sha256(_ANCHOR + run_id.bytes + seed_sha256).digest()[:LINK_BYTES]


def next_link(
    previous: bytes,
    *,
    hand_id: UUID,
    hand_no: int,
    deal_no: int,
    epoch: int,
    level: int,
    button_seat: int,
    ended_at: datetime,
    parts: Iterable[bytes],
) -> bytes:
    """The link of a hand after the link of the hand before it."""
    at_us = (ended_at - _EPOCH) // _MICROSECOND
    row = _ROW.pack(hand_id.bytes, hand_no, deal_no, epoch, level, button_seat, at_us)
    digest = hashlib.sha256(previous + row)
    for part in parts:
        digest.update(_LENGTH.pack(len(part)) + part)
    return digest.digest()[:LINK_BYTES]
