"""What the generated requests meet: a server with one of everything, and callers of every kind.

Owns who asks and with which token, and the ids that exist: a request with a made-up id is a 404 and
says little about what lies behind. A caller whose session was ended by what it asked logs in again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from sqlalchemy import text

from pokerarena.auth.models import Role
from pokerarena.db import Database
from pokerarena.engine.rules import Rules
from pokerarena.ids import IdKind, id_text
from pokerarena.ops.accounts import create_account
from tests.api.arena import PASSWORD, settings_for
from tests.api.served import Server
from tests.api.stored import play_random_hand, store

MANY = "1000000"
# Bounds that would end the attack before it has begun; they have tests of their own.
ROOM = {
    "POKERARENA_LOG_LEVEL": "ERROR",
    "POKERARENA_ACCESS_TOKEN_TTL_S": "900",
    "POKERARENA_LOGIN_ATTEMPTS_PER_PAIR_MAX": "1000",
    "POKERARENA_LOGIN_ATTEMPTS_PER_ACCOUNT_MAX": "10000",
    "POKERARENA_LOGIN_ATTEMPTS_PER_ADDRESS_MAX": "100000",
    "POKERARENA_AGENTS_PER_USER_MAX": MANY,
    "POKERARENA_VERSIONS_PER_AGENT_MAX": MANY,
    "POKERARENA_TABLES_PER_USER_MAX": MANY,
    "POKERARENA_TOKENS_PER_USER_MAX": MANY,
    "POKERARENA_RUNS_ACTIVE_PER_USER_MAX": MANY,
    "POKERARENA_RUNS_ACTIVE_TOTAL_MAX": MANY,
    # A stream ends by itself, so that whoever reads all of it comes to an end.
    "POKERARENA_STREAM_MAX_S": "1",
}
RUN_SECONDS = 3600


class Caller:
    """One kind of caller: what it sends as Authorization, if anything."""

    def __init__(self, name: str, token: str | None = None) -> None:
        self.name = name
        self._token = token

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def was_refused(self) -> None:
        """A 401 came: whoever cannot help it stays as it is."""


class Account(Caller):
    """A caller with a password."""

    def __init__(self, name: str, server: Server, username: str) -> None:
        super().__init__(name)
        self._server = server
        self._credentials = {"username": username, "password": PASSWORD}
        self.log_in()

    def log_in(self) -> None:
        self._server.token = None
        found = self._server.ok("POST", "/v1/auth/login", self._credentials)
        self._token = found["access_token"]

    def was_refused(self) -> None:
        status, _, _ = self._server.request_as(self._token, "GET", "/v1/me")
        if status == 401:
            self.log_in()

    def do(self, method: str, path: str, body: Any = None) -> Any:
        status, answer, _ = self._server.request_as(self._token, method, path, body)
        assert 200 <= status < 300, (method, path, status, answer)
        return answer


class Program(Caller):
    """A personal token of an account's; made anew when it was revoked."""

    def __init__(self, name: str, account: Account, scopes: list[str]) -> None:
        super().__init__(name)
        self._account = account
        self._scopes = scopes
        self._make()

    def _make(self) -> None:
        self._account.was_refused()
        body = {"name": self.name, "scopes": self._scopes, "expires_in_s": RUN_SECONDS}
        self._token = self._account.do("POST", "/v1/tokens", body)["token"]

    def was_refused(self) -> None:
        status, _, _ = self._account._server.request_as(self._token, "GET", "/v1/me")
        if status == 401:
            self._make()


class World:
    """The callers, and by the name of each path parameter the ids that exist."""

    def __init__(self, callers: list[Caller], ids: dict[str, list[str]]) -> None:
        self.callers = callers
        self.ids = ids


@contextmanager
def attacked(database_url: str) -> Iterator[tuple[Server, World]]:
    """A server with something in it, and callers of every kind."""
    # Nobody reads its log while it is asked.
    server = Server(database_url, **ROOM)
    try:
        yield server, _world(server, database_url)
    finally:
        server.stop()


def _world(server: Server, database_url: str) -> World:
    for name in ("owner", "neighbour", "spare"):
        server.ok("POST", "/v1/auth/register", {"username": name, "password": PASSWORD})
    create_account(
        settings_for(database_url), username="operator", password=PASSWORD, role=Role.OPERATOR
    )
    owner = Account("owner", server, "owner")
    neighbour = Account("seat owner", server, "neighbour")
    operator = Account("operator", server, "operator")
    spare = next(
        user for user in operator.do("GET", "/v1/users")["items"] if user["username"] == "spare"
    )
    # Operators close accounts: the one that nobody uses.
    ids: dict[str, list[str]] = {"user_id": [spare["id"]], "seat_no": ["1", "2"]}
    for visibility in ("public", "private"):
        table = owner.do(
            "POST", "/v1/tables", {"name": "T", "visibility": "unlisted", "seat_count": 3}
        )["id"]
        ids.setdefault("table_id", []).append(table)
        for seat_no, account in ((1, owner), (2, neighbour)):
            agent = account.do("POST", "/v1/agents", {"name": f"{visibility} {seat_no}"})["id"]
            version = account.do(
                "POST", f"/v1/agents/{agent}/versions", {"kind": "house", "house_name": "caller"}
            )["id"]
            account.do(
                "PUT",
                f"/v1/tables/{table}/seats/{seat_no}",
                {"agent_id": agent, "version_id": version},
            )
            if account is owner:
                ids.setdefault("agent_id", []).append(agent)
                ids.setdefault("version_id", []).append(version)
        owner.do("PATCH", f"/v1/tables/{table}", {"visibility": visibility})
        run = owner.do("POST", f"/v1/tables/{table}/runs", {"hands": 5})["id"]
        ids.setdefault("run_id", []).append(run)
    ids["token_id"] = [
        owner.do(
            "POST", "/v1/tokens", {"name": "t", "scopes": ["runs:read"], "expires_in_s": 3600}
        )["id"]
    ]
    link = neighbour.do(
        "POST",
        f"/v1/tables/{ids['table_id'][0]}/seats/2/viewer-links",
        {"name": "a friend", "expires_in_s": 3600},
    )
    ids["link_id"] = [link["id"]]
    ids |= asyncio.run(_played(database_url, ids["run_id"]))
    program = Program("owner's program", owner, ["tables:read", "agents:read"])
    weak = Program("operator without scope", operator, ["tables:read", "runs:read"])
    forged = Caller("liar", "pka_" + "0" * 36)
    shown = Caller("viewer link", link["token"])
    return World([Caller("nobody"), owner, neighbour, operator, program, weak, forged, shown], ids)


async def _played(database_url: str, run_ids: list[str]) -> dict[str, list[str]]:
    """A hand in each run, and a run that gave up."""
    database = Database(settings_for(database_url), application_name="test")
    hands = []
    try:
        for number, run in enumerate(run_ids):
            hand = play_random_hand(Random(number), Rules(50, 100), (1, 2), hand_no=1)
            await store(database, run, [hand], status=("completed", "failed")[number % 2])
            hands.append(id_text(IdKind.HAND, hand.id))
        async with database.unit_of_work() as session:
            letter_id = await session.scalar(
                text(
                    "INSERT INTO dead_letters (id, subject, run_id, code, detail, attempts, epoch,"
                    " state) SELECT gen_random_uuid(), 'run', id, 'infrastructure', 'why', 3, 1,"
                    " 'open' FROM runs WHERE status = 'failed' LIMIT 1 RETURNING id"
                )
            )
    finally:
        await database.close()
    assert letter_id is not None
    return {"hand_id": hands, "letter_id": [id_text(IdKind.DEAD_LETTER, letter_id)]}
