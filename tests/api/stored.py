"""Runs with hands that were played at random and stored through `history.append`."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.player import FallbackReason
from pokerarena.db import Database
from pokerarena.engine.cards import cards_text
from pokerarena.engine.deal import deal_from_deck
from pokerarena.engine.rules import Rules
from pokerarena.engine.state import Hand
from pokerarena.engine.transition import apply, start
from pokerarena.history.append import FencedHands, append_hands
from pokerarena.history.chain import first_link
from pokerarena.history.record import ActionRecord, HandRecord, NoteRecord
from pokerarena.ids import IdKind, new_id, parse_id
from pokerarena.runs.models import RevealedSeed, Run, RunSeed
from pokerarena.runs.service import SEED_PURPOSE
from pokerarena.sealing import Sealer
from tests.engine.hands import random_action


def play_random_hand(
    random: Random, rules: Rules, seats: tuple[int, ...], *, hand_no: int, actions_max: int = 1000
) -> HandRecord:
    """A hand of random legal actions; cut off after `actions_max` it is one in progress."""
    stacks = tuple(random.randint(rules.big_blind, 60 * rules.big_blind) for _ in seats)
    button_seat = random.choice(seats)
    cards = tuple(random.sample(range(52), 2 * len(seats) + 5))
    deal = deal_from_deck(cards, len(seats), seats.index(button_seat))
    hand = start(rules, seats, stacks, button_seat, deal).hand
    while not hand.complete and len(hand.history) < actions_max:
        hand = apply(hand, random_action(random, hand.legal())).hand
    actions = tuple(
        ActionRecord(
            acted.seat,
            acted.street,
            acted.kind,
            acted.amount,
            elapsed_ms=random.randrange(2000),
            fallback=random.choice((None, None, None, FallbackReason.TIMEOUT)),
        )
        for acted in hand.history
    )
    notes = tuple(
        NoteRecord(no, action.seat, f"secret thought of seat {action.seat}", "secret failure")
        for no, action in enumerate(actions)
        if random.random() < 0.5
    )
    return HandRecord(
        id=new_id(),
        hand_no=hand_no,
        deal_no=hand_no,
        level=0,
        ended_at=datetime.now(UTC),
        button_seat=button_seat,
        seats=seats,
        stacks=stacks,
        net=hand.net(),
        board=hand.board,
        holes=deal.holes,
        actions=actions,
        notes=notes,
    )


def last_hand(record: HandRecord, rules: Rules) -> Hand:
    return record.last_hand(rules)


def withheld_cards(record: HandRecord, hand: Hand, own_seats: frozenset[int]) -> set[str]:
    """By design §6, told without `engine.view`: other seats' cards that no showdown opened."""
    showdown = hand.complete and sum(not folded for folded in hand.folded) > 1
    withheld: set[str] = set()
    for at, seat in enumerate(record.seats):
        opened = showdown and not hand.folded[at]
        if seat not in own_seats and not opened:
            withheld |= set(cards_text(record.holes[at]))
    return withheld


def own_cards(record: HandRecord, own_seats: frozenset[int]) -> set[str]:
    return {
        card
        for at, seat in enumerate(record.seats)
        if seat in own_seats
        for card in cards_text(record.holes[at])
    }


async def store(
    database: Database, run_text: str, hands: list[HandRecord], *, status: str = "running"
) -> None:
    """Append the hands to the run and set its counters, as a worker would."""
    run_id = parse_id(IdKind.RUN, run_text)
    async with database.unit_of_work() as session:
        raw = await (await session.connection()).get_raw_connection()
        assert raw.driver_connection is not None
        async with raw.driver_connection.cursor() as cursor:
            await append_hands(
                cursor, [FencedHands(run_id, 1, hands, first_link(run_id, bytes(32)))]
            )
        await _set_status(session, run_id, status, len(hands))


async def set_status(database: Database, run_text: str, status: str, hands_done: int) -> None:
    async with database.unit_of_work() as session:
        await _set_status(session, parse_id(IdKind.RUN, run_text), status, hands_done)


async def _set_status(session: AsyncSession, run_id: UUID, status: str, hands_done: int) -> None:
    await session.execute(
        update(Run)
        .where(Run.id == run_id)
        .values(
            status=status,
            hands_done=hands_done,
            deals_done=hands_done,
            deals_reserved=hands_done,
            epoch=1,
            failure_code="test" if status == "failed" else None,
        )
    )


async def reveal_seed(database: Database, sealer: Sealer, run_text: str) -> None:
    """Tell the seed, as the worker that completes a run of that policy does."""
    run_id = parse_id(IdKind.RUN, run_text)
    async with database.unit_of_work() as session:
        sealed = (await session.get_one(RunSeed, run_id)).seed_sealed
        seed = await sealer.open(sealed, purpose=SEED_PURPOSE, owner=run_id.bytes)
        session.add(RevealedSeed(run_id=run_id, seed=seed))
