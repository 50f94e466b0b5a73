"""No bytes of the API or of a stream hold a card that their reader may not see."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from pokerarena.api.hand_shapes import ViewShown, facts_shown
from pokerarena.auth.models import Role
from pokerarena.engine.cards import cards_text
from pokerarena.engine.rules import Rules
from pokerarena.engine.view import Viewer, see, visible_facts
from pokerarena.history.record import HandRecord
from pokerarena.ids import IdKind, id_text
from tests.api.arena import Arena, new_table, ok, sit, viewer_link
from tests.api.asgi import Client
from tests.api.stored import (
    own_cards,
    play_random_hand,
    reveal_seed,
    set_status,
    store,
    withheld_cards,
)
from tests.engine.hands import scaled

RULES = Rules(50, 100)
SEATS = (1, 2, 3, 4, 5, 6)


def leaks(body: bytes | str, cards: set[str]) -> set[str]:
    text = body if isinstance(body, str) else body.decode()
    return {card for card in cards if f'"{card}"' in text}


def test_no_prefix_of_a_hand_shows_a_withheld_card_to_any_viewer() -> None:
    """10,000 random hands, every prefix, every kind of viewer, on the bytes that are sent."""
    random = Random(20261127)
    prefixes = withheld_at_all = tabled = 0
    for _ in range(scaled(10_000)):
        count = random.choice((2, 2, 3, 3, 4, 6))
        seats = tuple(sorted(random.sample(range(1, 11), count)))
        record = play_random_hand(random, RULES, seats, hand_no=1)
        one = frozenset(random.sample(seats, 1))
        two = frozenset(random.sample(seats, 2))
        viewers = [
            (Viewer.SPECTATOR, frozenset[int]()),
            (Viewer.of_seats(one), one),
            (Viewer.of_seats(two), two),
        ]
        for transition in record.replay(RULES):
            hand = transition.hand
            prefixes += 1
            for viewer, own in viewers:
                withheld = withheld_cards(record, hand, own)
                undealt = set(cards_text(record.board)) - set(cards_text(hand.board))
                body = ViewShown.of(see(hand, viewer)).model_dump_json()
                told = "".join(
                    fact.model_dump_json()
                    for fact in facts_shown(0, visible_facts(transition.facts, viewer))
                )
                withheld_at_all += len(withheld)
                for text in (body, told):
                    assert not leaks(text, withheld | undealt), (record, len(hand.history), own)
                assert leaks(body, own_cards(record, own)) == own_cards(record, own)
        tabled += bool(hand.tabled)
    assert prefixes > scaled(30_000)
    assert withheld_at_all > prefixes
    assert tabled > scaled(500), "showdowns are among them"


async def six_seats(arena: Arena, **table: Any) -> tuple[str, str, dict[str, Client]]:
    """A table of alice's with seats of three members, and all who may look at it."""
    callers = {name: await arena.user(name) for name in ("alice", "bob", "carol", "dave")}
    callers["operator"] = await arena.user("operator", Role.OPERATOR)
    callers["anonymous"] = arena.anonymous
    table_id = await new_table(callers["alice"], visibility="public", **table)
    for seat_no, owner in enumerate(("alice", "bob", "bob", "carol", "carol", "carol"), 1):
        await sit(callers[owner], table_id, seat_no)
    # A link to one seat of somebody who has two.
    callers["link"] = await viewer_link(callers["bob"], table_id, 2)
    run = ok(await callers["alice"].post(f"/v1/tables/{table_id}/runs", {"hands": 1000}), 201)
    return table_id, run["id"], callers


OWN_SEATS = {
    "alice": frozenset({1}),
    "bob": frozenset({2, 3}),
    "carol": frozenset({4, 5, 6}),
    "dave": frozenset[int](),
    "operator": frozenset[int](),
    "link": frozenset({2}),
    "anonymous": frozenset[int](),
}


def some_hands(random: Random, count: int) -> list[HandRecord]:
    return [
        play_random_hand(
            random,
            RULES,
            tuple(sorted(random.sample(SEATS, random.randint(2, 6)))),
            hand_no=number,
        )
        for number in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("reveal_policy", "status"),
    [
        ("showdown", "running"),
        ("showdown", "completed"),
        ("after_run", "running"),
        # Both can be resumed: what is told now would be told of a run that goes on.
        ("after_run", "stopped"),
        ("after_run", "failed"),
    ],
)
async def test_hands_actions_and_replays_show_nobody_a_withheld_card(
    arena: Arena, reveal_policy: str, status: str
) -> None:
    table_id, run_id, callers = await six_seats(arena, reveal_policy=reveal_policy)
    hands = some_hands(Random(f"{reveal_policy} {status}"), 10)
    await store(arena.database, run_id, hands, status=status)
    withheld_at_all = 0
    for name, caller in callers.items():
        own = OWN_SEATS[name]
        listing = (await caller.get(f"/v1/runs/{run_id}/hands?limit=200")).body
        state = (await caller.get(f"/v1/tables/{table_id}/state")).body
        for record in hands:
            last = record.last_hand(RULES)
            withheld = withheld_cards(record, last, own)
            withheld_at_all += len(withheld)
            path = f"/v1/hands/{id_text(IdKind.HAND, record.id)}"
            bodies = [(await caller.get(path + more)).body for more in ("", "/actions", "/replay")]
            for body in bodies:
                assert not leaks(body, withheld), (name, record)
            for body in (bodies[0], bodies[2]):
                assert leaks(body, own_cards(record, own)) == own_cards(record, own)
            notes = {note.note for note in record.notes if note.seat in own}
            for body in (bodies[1], bodies[2]):
                for note in record.notes:
                    assert (f'"{note.note}"' in body.decode()) == (note.note in notes), (name, note)
            assert ("secret failure" in bodies[1].decode()) == bool(notes)
        assert not leaks(state, withheld_cards(hands[-1], hands[-1].last_hand(RULES), own)), name
        summaries = {
            one["id"]: one for one in ok(await caller.get(f"/v1/runs/{run_id}/hands"))["items"]
        }
        assert len(summaries) == len(hands)
        assert b"cards" not in listing
        reply = await caller.get(f"/v1/runs/{run_id}/seed")
        assert (reply.status, reply.code) == (403, "seed_withheld"), name
    assert withheld_at_all > 50


async def test_after_a_completed_run_of_that_policy_everything_is_told_to_all_who_see_it(
    arena: Arena,
) -> None:
    import hashlib

    _, run_id, callers = await six_seats(arena, reveal_policy="after_run")
    hands = some_hands(Random(7), 5)
    await store(arena.database, run_id, hands, status="completed")
    await reveal_seed(arena.database, arena.anonymous.app.state.parts.sealer, run_id)
    for caller in callers.values():
        for record in hands:
            path = f"/v1/hands/{id_text(IdKind.HAND, record.id)}"
            every = {card for holding in record.holes for card in cards_text(holding)}
            for more in ("", "/replay"):
                assert leaks((await caller.get(path + more)).body, every) == every
        seed = ok(await caller.get(f"/v1/runs/{run_id}/seed"))
        assert hashlib.sha256(bytes.fromhex(seed["seed"])).hexdigest() == seed["seed_sha256"]
        assert seed["seed_sha256"] == ok(await caller.get(f"/v1/runs/{run_id}"))["seed_sha256"]
    # Cards are told; what an agent noted stays its owner's.
    noted = next(note for record in hands for note in record.notes if note.seat == 2)
    record = next(record for record in hands if noted in record.notes)
    path = f"/v1/hands/{id_text(IdKind.HAND, record.id)}/replay"
    assert noted.note in (await callers["bob"].get(path)).body.decode()
    assert noted.note not in (await callers["operator"].get(path)).body.decode()


async def test_a_replay_ends_where_the_hand_ended(arena: Arena) -> None:
    _, run_id, callers = await six_seats(arena)
    hands = some_hands(Random(11), 10)
    await store(arena.database, run_id, hands)
    for record in hands:
        path = f"/v1/hands/{id_text(IdKind.HAND, record.id)}"
        replay = ok(await callers["dave"].get(f"{path}/replay"))
        assert replay["hand"] == ok(await callers["dave"].get(path))
        assert replay["actions"] == ok(await callers["dave"].get(f"{path}/actions"))["items"]
        seats = replay["hand"]["view"]["seats"]
        assert [seat["net"] for seat in seats] == list(record.net)
        assert sum(seat["net"] for seat in seats) == 0
        assert replay["facts"][-1]["fact"] == "hand_ended"
        acted = [fact for fact in replay["facts"] if fact["fact"] == "acted"]
        assert [(fact["seat_no"], fact["action"], fact["amount"]) for fact in acted] == [
            (action.seat, action.kind.text, action.street_total) for action in record.actions
        ]


async def test_a_run_that_is_resumed_is_closed_again(arena: Arena) -> None:
    """Its seed is never told while it can still be played."""
    _, run_id, callers = await six_seats(arena, reveal_policy="after_run")
    await set_status(arena.database, run_id, "failed", 0)
    assert (await callers["alice"].get(f"/v1/runs/{run_id}/seed")).code == "seed_withheld"
    ok(await callers["alice"].post(f"/v1/runs/{run_id}/resume"))
    assert (await callers["alice"].get(f"/v1/runs/{run_id}/seed")).code == "seed_withheld"
