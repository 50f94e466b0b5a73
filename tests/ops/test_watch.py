"""A table is drawn from what the API says of it, and from nothing else."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rich.console import Console

from pokerarena.errors import ArenaError, ConfigurationError, Unavailable
from pokerarena.ops import watch as watching
from pokerarena.ops.api_client import ApiClient
from pokerarena.ops.table_picture import HIDDEN, LiveTable, one_line, picture
from pokerarena.ops.watch import watch
from tests.ops.test_cli import here

TABLE = "table_" + "0" * 32
NAMES = {1: "Ada", 2: "Ben", 3: "Cleo"}


def seat(seat_no: int, **changes: Any) -> dict[str, Any]:
    return {
        "seat_no": seat_no, "starting_stack": 10_000, "stack": 9_900, "bet": 100, "invested": 100,
        "net": 0, "folded": False, "all_in": False, "tabled": False, "cards": None, **changes,
    }  # fmt: skip


def hand(hand_no: int = 7, **changes: Any) -> dict[str, Any]:
    view = {
        "button_seat": 1, "small_blind": 50, "big_blind": 100, "ante": 0, "ante_kind": "each",
        "street": "flop", "board": ["Kh", "7c", "2d"], "pot": 1_250,
        "seats": [seat(1), seat(2, cards=["As", "Td"]), seat(3, folded=True)],
        "seat_to_act": 2, "legal": None, "pots": [], "complete": False,
        "history": [{"street": "flop", "seat_no": 1, "action": "bet", "amount": 100}],
        **changes,
    }  # fmt: skip
    return {"table_id": TABLE, "run_id": "r", "hand_id": f"h{hand_no}", "hand_no": hand_no,
            "view": view}  # fmt: skip


def complete(hand_no: int) -> dict[str, Any]:
    return hand(
        hand_no,
        complete=True,
        seat_to_act=None,
        seats=[seat(1, net=600), seat(2, net=-600), seat(3, folded=True)],
        pots=[{"pot": 0, "chips": 1_200, "seats": [1], "shares": [1_200]}],
    )


def test_the_picture_shows_names_cards_board_pot_and_whose_turn_it_is() -> None:
    text = picture(LiveTable("Felt", NAMES, hand())).plain
    for expected in ("Felt", "hand 7", "Ada", "A♠ T♦", "K♥ 7♣ 2♦ ·· ··", "pot 1,250", "▶ Ben"):
        assert expected in text
    assert "Ada bet 100" in text
    assert "folded" in text


def test_cards_that_the_api_withholds_are_drawn_face_down() -> None:
    drawn = picture(LiveTable("Felt", NAMES, hand(seats=[seat(1), seat(2), seat(3)]))).plain
    assert drawn.count(HIDDEN) == 3


@pytest.mark.parametrize("count", range(2, 11))
def test_every_number_of_seats_has_its_place(count: int) -> None:
    names = {number: f"Player{number}" for number in range(1, count + 1)}
    seats = [seat(number, stack=1_000_000_000) for number in names]
    drawn = picture(LiveTable("Felt", names, hand(seats=seats))).plain
    assert [name for name in names.values() if name not in drawn] == []
    assert drawn.count("1,000,000,000") == count, "seats lie on top of each other"
    assert max(len(line) for line in drawn.splitlines()) <= 80


def test_a_complete_hand_is_one_line_with_who_won_what() -> None:
    line = one_line(LiveTable("Felt", NAMES, complete(7)))
    assert line == "hand 7  Kh 7c 2d  pot 1,200  Ada +600, Ben -600"


class FakeArena:
    """Serves a table whose stream says what a test wants: for what a real one rarely does."""

    def __init__(self, streams: list[list[tuple[str, Any]]]) -> None:
        self.streams = list(streams)
        arena = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/live"):
                    events = arena.streams.pop(0)
                    body = "retry: 2000\n\n: keep-alive\n\n" if not events else "".join(
                        f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events
                    )  # fmt: skip
                elif self.path.endswith("/seats"):
                    body = json.dumps(
                        {"items": [{"seat_no": no, "agent_name": n} for no, n in NAMES.items()]}
                    )
                elif self.path == f"/v1/tables/{TABLE}":
                    body = json.dumps({"name": "Felt"})
                else:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.client = ApiClient(f"http://127.0.0.1:{self.server.server_port}")

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeArena]]:
    monkeypatch.setattr(watching, "RECONNECT_PAUSE_S", 0.01)
    arenas: list[FakeArena] = []

    def make(*streams: list[tuple[str, Any]]) -> FakeArena:
        arenas.append(FakeArena(list(streams)))
        return arenas[-1]

    yield make
    for arena in arenas:
        arena.close()


def watched(arena: FakeArena, *, once: bool = False) -> str:
    output = io.StringIO()
    watch(arena.client, TABLE, Console(file=output, width=100), once=once)
    return output.getvalue()


def test_without_a_terminal_each_complete_hand_is_printed_once(
    fake: Callable[..., FakeArena],
) -> None:
    arena = fake(
        [
            ("run", {"status": "running", "hands_done": 6, "hands_target": 9}),
            ("hand", hand(7)),
            ("hand", complete(7)),
            ("hand", complete(7)),
            ("hand", complete(8)),
            ("end", {"reason": "shutdown"}),
        ]
    )
    lines = watched(arena).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["hand 7", "hand 8", "the server stops"]


def test_a_stream_that_reached_its_limit_is_asked_for_again(
    fake: Callable[..., FakeArena],
) -> None:
    arena = fake(
        [("hand", complete(1)), ("end", {"reason": "limit"})],
        [("hand", complete(2))],  # cut off without a word, as by a broken connection
        [("hand", complete(3)), ("end", {"reason": "not_found"})],
    )
    lines = watched(arena).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "hand 1", "hand 2", "hand 3", "the table can be seen no more",
    ]  # fmt: skip


def test_once_draws_one_picture_even_where_nobody_plays(fake: Callable[..., FakeArena]) -> None:
    assert "K♥" in watched(fake([("hand", hand())]), once=True)
    assert "no hand is being played" in watched(fake([]), once=True)


def test_a_table_that_cannot_be_seen_is_one_sentence(fake: Callable[..., FakeArena]) -> None:
    with pytest.raises(ArenaError, match="not that of an arena"):
        watch(fake().client, "table_1", Console(file=io.StringIO()), once=True)


def test_an_arena_that_is_not_there_is_one_line_that_says_how_to_start_one() -> None:
    done = here("watch", TABLE, "--server", "http://127.0.0.1:9", "--once")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "pokerarena up" in done.stderr


def test_what_is_no_table_is_wrong_usage() -> None:
    done = here("watch", "kitchen-table")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("address", ["ftp://x", "http://", "http://host:port", "http://h:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError):
        ApiClient(address)


def test_a_redirect_is_not_followed(fake: Callable[..., FakeArena]) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{target.server.server_port}/v1/tables")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    target = fake()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(Unavailable, match="status 302"):
            ApiClient(f"http://127.0.0.1:{server.server_port}").get("/v1/tables")
    finally:
        server.shutdown()
        server.server_close()
