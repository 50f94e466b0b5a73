"""The hand that is being played now, on its way from the worker to those who watch.

Owns the payload of the channel ``pokerarena_live`` and the question who watches. A payload holds
hole cards: whoever decodes one must go through `engine.view` before showing anything of it. It
holds only cards that were dealt, never the rest of the board.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.history.codec import decode_hand, encode_hand
from pokerarena.history.record import ActionRecord, HandRecord
from pokerarena.runs.seams import Moment
from pokerarena.tables.models import LiveWatch

LIVE_CHANNEL: Final = "pokerarena_live"
# PostgreSQL refuses a notification of 8,000 bytes.
MAX_PAYLOAD_BYTES: Final = 7_900


class LiveHand(NamedTuple):
    """A hand in progress, or one that has just ended."""

    table_id: UUID
    run_id: UUID
    rules: Rules
    record: HandRecord

    @property
    def hand_no(self) -> int:
        return self.record.hand_no

    @property
    def hand_id(self) -> UUID:
        return self.record.id

    def hand(self) -> Hand:
        """The hand as it is now; show it through `engine.view.see` only."""
        return self.record.last_hand(self.rules)


def encode_live(table_id: UUID, run_id: UUID, moment: Moment, now: datetime) -> str | None:
    """The payload of a moment; None for a hand so long that no notification holds it."""
    hand = moment.hand
    record = HandRecord(
        id=moment.hand_id,
        hand_no=moment.setup.hand_no,
        deal_no=moment.deal_no,
        level=moment.setup.level,
        ended_at=now,
        button_seat=hand.button_seat,
        seats=hand.seats,
        stacks=hand.starting_stacks,
        net=hand.net(),
        board=hand.board,
        holes=moment.holes,
        actions=tuple(
            [
                ActionRecord(acted.seat, acted.street, acted.kind, acted.amount)
                for acted in hand.history
            ]
        ),
    )
    rules = hand.rules
    payload = json.dumps(
        {
            "table_id": str(table_id),
            "run_id": str(run_id),
            "hand_no": record.hand_no,
            "hand_id": str(record.id),
            "rules": [rules.small_blind, rules.big_blind, rules.ante, rules.ante_kind],
            "record": b64encode(encode_hand(record)).decode("ascii"),
        },
        separators=(",", ":"),
    )
    return payload if len(payload) <= MAX_PAYLOAD_BYTES else None


def decode_live(payload: str) -> LiveHand:
    """The inverse of `encode_live`. Raises ValueError for anything else."""
    try:
        fields: dict[str, Any] = json.loads(payload)
        return LiveHand(
            UUID(fields["table_id"]),
            UUID(fields["run_id"]),
            Rules(*fields["rules"]),
            decode_hand(b64decode(fields["record"], validate=True)),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a live payload: {error}") from None


async def watched_tables(session: AsyncSession, table_ids: Iterable[UUID]) -> frozenset[UUID]:
    """Those of the tables that somebody watches now."""
    watched = await session.scalars(
        select(LiveWatch.table_id).where(
            LiveWatch.table_id.in_(list(table_ids)), LiveWatch.expires_at > func.now()
        )
    )
    return frozenset(watched)


async def publish(session: AsyncSession, payloads: Sequence[str]) -> None:
    """Send the payloads to every process that listens, when the caller commits."""
    await session.execute(
        text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) payload"),
        {"channel": LIVE_CHANNEL, "payloads": list(payloads)},
    )
