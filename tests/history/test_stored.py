"""Hands in the database: written by COPY, read back, unpacked by SQL, and shown without a leak."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from pokerarena.agents.player import FallbackReason
from pokerarena.engine.cards import CARD_TEXTS
from pokerarena.engine.view import Viewer, see
from pokerarena.history import read
from pokerarena.history.live import MAX_PAYLOAD_BYTES, decode_live, encode_live
from pokerarena.history.record import NoteRecord
from pokerarena.ids import new_id
from pokerarena.protocol.messages import encode, hand_end_from_view
from pokerarena.runs import claim as claims
from pokerarena.runs.ledger import Batch, store
from pokerarena.runs.play import play_run
from pokerarena.runs.seams import Clock, Control
from pokerarena.tables.models import Format
from pokerarena.worker.committer import libpq_url
from tests.arena import Arena, open_arena
from tests.runs.stages import Recorder, Told, seat, spec


async def played(hands: int, format_: Format = Format.CASH) -> Recorder:
    players = {
        number: Told(name, number)
        for number, name in enumerate(["random", "tight", "caller", "random"], start=1)
    }
    recorder = Recorder(watched=True)
    run = spec([1, 2, 3, 4], hands, format_, starting_stack=10_000)
    await play_run(run, seat(players), recorder, Control(), Clock())
    return recorder


async def stored(arena: Arena, recorder: Recorder) -> UUID:
    """A run in the database with just these hands."""
    run_id = await arena.order(["random", "tight", "caller", "random"], len(recorder.hands))
    async with arena.database.unit_of_work() as session:
        claim = await claims.claim(
            session, run_id, claimed_by="a test", lease_s=60, max_hands_ahead=8
        )
    assert claim is not None
    last = recorder.units[-1].deal_no
    batch = Batch(run_id, claim.epoch, recorder.units, [], deals_done=last, reserve_to=last)
    async with await psycopg.AsyncConnection.connect(libpq_url(arena.settings)) as connection:
        verdict = await store(connection, [batch], lease_s=60)
    assert set(verdict.stored) == {run_id}
    return run_id


async def test_a_hand_comes_back_as_it_was_played(database_url: str) -> None:
    recorder = await played(40)
    async with open_arena(database_url) as arena:
        run_id = await stored(arena, recorder)
        async with arena.database.session() as session:
            listed = await read.list_hands(session, run_id, 0, 100)
            page = await read.list_hands(session, run_id, 10, 5)
            for before, row in zip(recorder.hands, listed, strict=True):
                after = await read.load_hand(session, before.id)
                assert after is not None
                assert after.record == replace(before, notes=())
                assert row.record == replace(before, holes=(), notes=())
                assert after.final().net() == before.net
            assert await read.load_hand(session, new_id()) is None
    assert [hand.hand_no for hand in page] == [11, 12, 13, 14, 15]


async def test_a_listed_hand_has_no_hole_cards_to_show(database_url: str) -> None:
    async with open_arena(database_url) as arena:
        run_id = await stored(arena, await played(1))
        async with arena.database.session() as session:
            (hand,) = await read.list_hands(session, run_id, 0, 1)
    with pytest.raises(read.HoleCardsNotLoaded):
        hand.final()
    with pytest.raises(read.HoleCardsNotLoaded):
        hand.replay()


async def test_the_sql_view_has_one_row_an_action(database_url: str) -> None:
    recorder = await played(30)
    first = recorder.units[0].hands[0]
    failed = first.actions[0]._replace(fallback=FallbackReason.ILLEGAL_ACTION, elapsed_ms=70_000)
    recorder.units[0] = replace(
        recorder.units[0], hands=(replace(first, actions=(failed, *first.actions[1:])),)
    )
    async with open_arena(database_url) as arena:
        run_id = await stored(arena, recorder)
        rows = await arena.rows(
            "SELECT hand_no, action_no, street, seat_no, action, street_total, elapsed_ms, fallback"
            " FROM hand_actions WHERE run_id = :id ORDER BY hand_no, action_no",
            id=run_id,
        )
    expected = [
        (
            hand.hand_no,
            number,
            action.street,
            action.seat,
            action.kind.text,
            action.street_total,
            min(action.elapsed_ms, 65_535),
            action.fallback.value if action.fallback else None,
        )
        for hand in recorder.hands
        for number, action in enumerate(hand.actions)
    ]
    assert rows == expected
    assert any(row[-1] == "illegal_action" for row in rows)


async def test_notes_are_read_for_the_given_seats_only(database_url: str) -> None:
    recorder = await played(1)
    first = recorder.units[0].hands[0]
    notes = (NoteRecord(0, 1, "I am seat one", None), NoteRecord(1, 2, None, "a\0b" + "x" * 2_000))
    recorder.units[0] = replace(recorder.units[0], hands=(replace(first, notes=notes),))
    async with open_arena(database_url) as arena:
        await stored(arena, recorder)
        async with arena.database.session() as session:
            of_one = await read.notes(session, first.id, [1])
            of_two = await read.notes(session, first.id, [2])
            of_nobody = await read.notes(session, first.id, [])
    assert [(note.seat_no, note.note) for note in of_one] == [(1, "I am seat one")]
    assert [(note.seat_no, len(note.failure or "")) for note in of_two] == [(2, 1024)]
    assert of_nobody == []


async def test_what_a_viewer_is_shown_of_stored_hands_holds_no_card_that_is_hidden(
    database_url: str,
) -> None:
    recorder = await played(150)
    async with open_arena(database_url) as arena:
        run_id = await stored(arena, recorder)
        async with arena.database.session() as session:
            hands = await read.load_hands(session, run_id, 0, 1_000)
    folded_hidden = 0
    for hand in hands:
        final = hand.final()
        for seat_no in hand.seats:
            message = encode(
                hand_end_from_view(
                    see(final, Viewer.of_seats((seat_no,))),
                    seat=seat_no,
                    run_id="run_1",
                    table_id="table_1",
                    hand_id="hand_1",
                    hand_no=hand.hand_no,
                )
            )
            for other, holding in zip(hand.seats, hand.record.holes, strict=True):
                if other != seat_no and other not in final.tabled:
                    folded_hidden += 1
                    for card in holding:
                        assert f'"{CARD_TEXTS[card]}"'.encode() not in message
    assert folded_hidden > 100


async def test_a_live_moment_arrives_as_it_was_and_without_the_rest_of_the_board() -> None:
    recorder = await played(60)
    table_id, run_id = new_id(), new_id()
    for moment in recorder.moments:
        payload = encode_live(table_id, run_id, moment, datetime.now(UTC))
        assert payload is not None
        assert len(payload) < MAX_PAYLOAD_BYTES
        live = decode_live(payload)
        assert (live.table_id, live.run_id, live.hand_id) == (table_id, run_id, moment.hand_id)
        hand = live.hand()
        assert (hand.board, hand.stacks, hand.bets) == (
            moment.hand.board,
            moment.hand.stacks,
            moment.hand.bets,
        )
        assert (hand.to_act, hand.history) == (moment.hand.to_act, moment.hand.history)
        assert live.record.board == moment.hand.board


@pytest.mark.parametrize("payload", ["", "{}", "[]", '{"table_id": 1}', "null", "\0"])
def test_a_payload_that_nobody_wrote_is_refused(payload: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_live(payload)
