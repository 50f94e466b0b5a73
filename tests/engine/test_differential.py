"""Our rules and PokerKit's agree, decision by decision, on tens of thousands of random hands.

At every decision both are asked about the same actions: fold, check or call, and bets or raises to
the least, one below it, the most, one above it, and something between. Then one legal action is
taken in both. Bets, stacks and turns must agree throughout, and so must the final stacks.

PokerKit and the TDA rules, which we follow, differ in a few places. In none of them is the test
silent: it works out the answer of the TDA rules in a plain way of its own, from the public history
alone, and holds our engine to that.

* **Reopening (TDA rule 47).** PokerKit adds up only an unbroken series of short all-ins, and
  measures "full" by the largest wager so far even if that was below a full bet. The TDA rule asks
  what a player who already acted is facing: at least a full bet or raise, or less.
* **A big blind posted short.** PokerKit lets the others enter for what was posted. Under the TDA
  rules the price of entry is the full big blind. PokerKit is then told of such a call as a raise.
* **Nobody left to answer.** Within a street PokerKit asks a player to check even if every opponent
  has folded or is all-in. We ask nobody who has no choice; the test makes that check for PokerKit.
* **Odd chips of several pots (TDA rule 21).** Each pot is split separately. PokerKit first discards
  the hands that win nothing, which may merge pots and leave fewer odd chips.
* **Equal blinds heads-up.** PokerKit then lets the big blind act first. Under the TDA rules the
  button does, always; such tables are left to `test_betting`.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from pokerkit import State

from pokerarena.engine.actions import Action, IllegalAction, Kind
from pokerarena.engine.pots import build_pots, split
from pokerarena.engine.ranking import rank_holdings
from pokerarena.engine.state import Hand, Street
from pokerarena.engine.transition import apply, start
from tests.engine.hands import Table, describe, random_action, random_table, scaled
from tests.engine.pokerkit_oracle import oracle, order_of_play, quiet_unshuffled

CHUNKS = 20
HANDS_A_CHUNK = 2_500

REOPENED = "reopened by short all-ins that PokerKit does not add up"
NOT_REOPENED = "not reopened by less than a full bet, which PokerKit takes for full"
ODD_CHIPS = "odd chips of pots that PokerKit merges"
SHORT_BIG_BLIND = "short big blind"
FORCED_CHECK = "forced check"


def is_legal(hand: Hand, kind: Kind, amount: int | None = None) -> bool:
    """Whether our engine takes the action when it is really tried."""
    try:
        apply(hand, Action(kind, amount))
    except IllegalAction:
        return False
    return True


def can_raise_to(hand: Hand, amount: int) -> bool:
    return is_legal(hand, Kind.BET, amount) or is_legal(hand, Kind.RAISE, amount)


class TdaPrice:
    """What the player to act faces under the TDA rules, worked out from the public history alone."""

    def __init__(self, table: Table, hand: Hand) -> None:
        count = len(table.seats)
        big_blind = table.rules.big_blind
        position = hand.to_act
        assert position is not None
        self.price = 0
        self.full_raise = big_blind
        price_at_last_action = None
        if hand.street == Street.PREFLOP:
            self.price = big_blind
        for acted in hand.history:
            if acted.street != hand.street:
                continue
            if acted.kind in {Kind.BET, Kind.RAISE}:
                assert acted.amount is not None
                self.full_raise = max(self.full_raise, acted.amount - self.price)
                self.price = acted.amount
            if acted.seat == table.seats[position]:
                price_at_last_action = self.price
        self.facing_since_action = (
            None if price_at_last_action is None else self.price - price_at_last_action
        )
        reaches = [
            hand.bets[other] + hand.stacks[other]
            for other in range(count)
            if other != position and not hand.folded[other]
        ]
        mine = hand.bets[position] + hand.stacks[position]
        self.to_call = min(self.price, max(reaches), mine) - hand.bets[position]

    @property
    def reopened(self) -> bool:
        """TDA rule 47: whoever already acted may raise only when facing a full bet or raise."""
        return self.facing_since_action is None or self.facing_since_action >= self.full_raise


def agree_on_raises(table: Table, hand: Hand, state: State, random: Random) -> str:
    """Compare the legality of bets and raises; return the name of a known difference, or nothing."""
    legal = hand.legal()
    tda = TdaPrice(table, hand)
    position = hand.to_act
    assert position is not None
    mine = hand.bets[position] + hand.stacks[position]
    if legal.min_raise_to is not None and legal.max_raise_to is not None:
        assert tda.reopened
        assert legal.min_raise_to == min(mine, tda.price + tda.full_raise)
        assert legal.max_raise_to == mine
        least, most = legal.min_raise_to, legal.max_raise_to
    else:
        least, most = min(mine, tda.price + tda.full_raise), mine
    amounts = {least, least - 1, most, most + 1, random.randint(1, 2 * most)}
    ours = {amount: can_raise_to(hand, amount) for amount in amounts}
    theirs = {amount: state.can_complete_bet_or_raise_to(amount) for amount in amounts}
    if ours == theirs:
        return ""
    assert tda.facing_since_action is not None, (ours, theirs)
    if any(ours.values()):
        assert tda.reopened and not any(theirs.values()), (ours, theirs)
        return REOPENED
    assert not tda.reopened, (ours, theirs)
    return NOT_REOPENED


def play_both(table: Table, random: Random, seen: Counter[str]) -> None:
    """Play one random hand in both engines."""
    rules, seats, stacks, button_seat, deal = table
    hand = start(rules, seats, stacks, button_seat, deal).hand
    order = order_of_play(len(seats), table.button)
    short_blind = posted_big_blind(table) < rules.big_blind
    state = oracle(rules, stacks, table.button, deal, 1 if short_blind else rules.big_blind)
    while state.actor_index is not None:
        if order[state.actor_index] != hand.to_act:
            assert state.checking_or_calling_amount == 0, "PokerKit still waits for a decision"
            assert state.min_completion_betting_or_raising_to_amount is None
            state.check_or_call()
            seen[FORCED_CHECK] += 1
            continue
        assert [hand.bets[position] for position in order] == state.bets
        assert [hand.stacks[position] for position in order] == state.stacks
        difference = ""
        priced_short = short_blind and hand.street == Street.PREFLOP
        legal = hand.legal()
        assert is_legal(hand, Kind.FOLD) and state.can_fold()
        assert is_legal(hand, Kind.CHECK) != is_legal(hand, Kind.CALL)
        if priced_short:
            seen[SHORT_BIG_BLIND] += 1
            assert legal.to_call == TdaPrice(table, hand).to_call
        else:
            assert legal.to_call == state.checking_or_calling_amount
            assert is_legal(hand, Kind.CHECK) == (legal.to_call == 0)
            difference = agree_on_raises(table, hand, state, random)
            seen[difference or "compared"] += 1
        action = random_action(random, legal)
        if (
            action.kind in {Kind.BET, Kind.RAISE}
            and (priced_short or difference == REOPENED)
            and not state.can_complete_bet_or_raise_to(action.amount)
        ):
            action = Action(Kind.CALL if legal.to_call else Kind.CHECK)
        seen["short all-in"] += is_short_all_in(table, hand, action)
        seen["decisions"] += 1
        tell(state, hand, action)
        hand = apply(hand, action).hand
    assert hand.complete, hand.history
    if [hand.stacks[position] for position in order] != state.stacks:
        merged = stacks_with_merged_pots(table, hand)
        assert [merged[position] for position in order] == state.stacks, hand.awards
        seen[ODD_CHIPS] += 1
    seen["hands"] += 1
    seen[f"{len(seats)} players"] += 1


def is_short_all_in(table: Table, hand: Hand, action: Action) -> bool:
    """Whether the action puts a player all-in for less than a call or a full raise."""
    position = hand.to_act
    assert position is not None
    everything = hand.bets[position] + hand.stacks[position]
    tda = TdaPrice(table, hand)
    if action.kind == Kind.CALL:
        return everything < tda.price
    return action.amount == everything and everything < tda.price + tda.full_raise


def stacks_with_merged_pots(table: Table, hand: Hand) -> list[int]:
    """Return the final stacks if pots were drawn up only among the seats that won something."""
    winners = {seat for award in hand.awards for seat in award.seats}
    assert len(winners) > 1 and len(hand.awards) > 1, "only split pots have odd chips"
    out = [seat not in winners for seat in table.seats]
    stacks = list(hand.stacks)
    for award in hand.awards:
        for seat, share in zip(award.seats, award.shares, strict=True):
            stacks[table.seats.index(seat)] -= share
    ante = table.rules.ante if table.rules.ante_kind == "big_blind" else 0
    big = big_blind_position(table)
    dead = min(ante, max(0, table.stacks[big] - table.rules.big_blind))
    contributed = list(hand.invested)
    contributed[big] -= dead
    by_strength = rank_holdings(hand.board, table.deal.holes)
    for pot in build_pots(contributed, out, dead):
        for position, share in zip(
            *split(pot, by_strength, table.button, len(table.seats)), strict=True
        ):
            stacks[position] += share
    return stacks


def big_blind_position(table: Table) -> int:
    count = len(table.seats)
    return (table.button + (1 if count == 2 else 2)) % count


def posted_big_blind(table: Table) -> int:
    ante = table.rules.ante if table.rules.ante_kind == "each" else 0
    return min(table.rules.big_blind, max(0, table.stacks[big_blind_position(table)] - ante))


def tell(state: State, hand: Hand, action: Action) -> None:
    """Take our action in PokerKit."""
    if action.kind == Kind.FOLD:
        state.fold()
    elif action.kind in {Kind.BET, Kind.RAISE}:
        state.complete_bet_or_raise_to(action.amount)
    else:
        to_call = hand.legal().to_call
        if to_call == state.checking_or_calling_amount:
            state.check_or_call()
        else:
            position = hand.to_act
            assert position is not None
            state.complete_bet_or_raise_to(hand.bets[position] + to_call)
            # It was no raise: it neither sets a size for the next one nor adds to short all-ins.
            state.completion_betting_or_raising_amount = 0
            state.consecutive_short_all_in_amounts.clear()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_hands_are_played_as_pokerkit_plays_them(chunk: int) -> None:
    random = Random(f"differential {chunk}")
    seen: Counter[str] = Counter()
    wanted = scaled(HANDS_A_CHUNK)
    with quiet_unshuffled():
        while seen["hands"] < wanted:
            table = random_table(random)
            if len(table.seats) == 2 and table.rules.small_blind == table.rules.big_blind:
                continue
            try:
                play_both(table, random, seen)
            except (AssertionError, ValueError) as error:
                raise AssertionError(describe(table, error)) from error
    # The known differences must stay rare, or the test would compare little.
    differences = seen[REOPENED] + seen[NOT_REOPENED] + seen[ODD_CHIPS]
    assert differences < 10 + seen["decisions"] / 100, seen
    assert seen["compared"] > 3 * seen["hands"], seen
    if wanted >= 1_000:
        assert all(seen[f"{count} players"] > wanted / 100 for count in range(2, 11)), seen
        assert seen["short all-in"] > wanted / 2, seen
        assert seen[SHORT_BIG_BLIND] and seen[FORCED_CHECK], seen
