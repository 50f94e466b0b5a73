"""What must hold of every run in the database, whatever happened to its workers."""

from __future__ import annotations

from uuid import UUID

from pokerarena.history import read
from pokerarena.runs import service
from pokerarena.runs.formats import Position, RunRules, first_position, next_unit, settle
from pokerarena.runs.totals import SeatTotals, add_unit
from tests.arena import Arena


async def assert_sound(arena: Arena, run_id: UUID) -> None:
    """Hands gapless, chips conserved, replay equal to play, totals exact, every deal used once."""
    async with arena.database.session() as session:
        run = await service.get_run(session, run_id)
        assert run is not None
        seats = await service.lineup(session, run_id)
        hands = await read.load_hands(session, run_id, 0, 1_000_000)
        voids = await read.void_deals(session, run_id, 0, 1_000_000)
    numbers = [hand.hand_no for hand in hands]
    assert numbers == list(range(1, run.hands_done + 1)), "hands are not 1, 2, 3, …"

    rules = RunRules.from_json(run.rules)
    position = first_position(rules, [seat.seat_no for seat in seats])
    totals = {seat.seat_no: SeatTotals() for seat in seats}
    at = 0
    while at < len(hands):
        unit = next_unit(rules, position, at + 1)
        played = hands[at : at + len(unit)]
        assert len(played) == len(unit), f"the deal of hand {at + 1} is stored only in part"
        assert len({hand.deal_no for hand in played}) == 1
        for setup, hand in zip(unit, played, strict=True):
            where = f"hand {hand.hand_no}"
            assert (hand.seats, hand.stacks) == (setup.seats, setup.stacks), where
            assert (hand.button_seat, hand.level) == (setup.button_seat, setup.level), where
            assert sum(hand.net) == 0, f"{where} does not conserve chips: {hand.net}"
            final = hand.final()
            assert final.complete, where
            assert final.net() == hand.net, f"{where}: the replay ends otherwise"
            assert final.board == hand.board, where
            position = settle(rules, position, setup, hand.net)
        totals = add_unit(
            totals,
            [hand.record for hand in played],
            unit[0].rebuys,
            dict.fromkeys(totals, 0),
        )
        at += len(unit)
    assert Position.from_json(run.position) == position

    for seat in seats:
        expected = totals[seat.seat_no]
        stored = SeatTotals(
            seat.net,
            seat.units,
            seat.unit_sum,
            seat.unit_sum_squares,
            seat.hands,
            seat.decisions,
            seat.rebuys,
            0,
            seat.fallbacks,
        )
        assert stored == expected, f"totals of seat {seat.seat_no}"

    played_deals = {hand.deal_no for hand in hands}
    void_deals = {void.deal_no for void in voids}
    assert not played_deals & void_deals, "a deal is both played and void"
    if run.status in ("completed", "stopped", "failed"):
        settled = played_deals | void_deals
        assert settled == set(range(1, run.deals_reserved + 1)), "a deal is unaccounted for"
    epochs = await arena.rows(
        "SELECT epoch FROM hands WHERE run_id = :id ORDER BY hand_no", id=run_id
    )
    assert [row[0] for row in epochs] == sorted(row[0] for row in epochs)
