"""What the tests of the API do again and again: accounts, agents, tables, seats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from pokerarena.auth import accounts
from pokerarena.auth.models import Role
from pokerarena.db import Database
from pokerarena.settings import Settings, load_settings
from tests.api.asgi import Client, Reply

PASSWORD = "the river card was a seven"
NO_RATE_LIMITS = {
    **{f"rate_{name}_per_min": 0 for name in ("read", "expensive", "write", "auth", "stream")},
    "rate_pace_per_s": 0,
}
RELATIONS = (
    "users", "api_tokens", "viewer_links", "sessions", "signing_keys", "second_factors",
    "recovery_codes", "identities",
    "agents", "agent_versions", "tables", "seats", "runs", "run_seats",
    "hands", "hand_cards", "procrastinate_jobs",
)  # fmt: skip


def ok(reply: Reply, status: int = 200) -> Any:
    """The body of an answer that must be a success."""
    assert reply.status == status, reply
    return reply.json if reply.body else None


def settings_for(database_url: str, **changes: Any) -> Settings:
    return load_settings(
        **{
            "database_url": database_url,
            "registration": "open",
            # Tests ask more often than anybody may; those of the limits set their own.
            **NO_RATE_LIMITS,
            "argon2_memory_kib": 8 * 1024,
            "database_pool_size": 5,
            "callback_schemes": ("https", "http"),
            # What ends must be seen at once; the bound for other processes has tests of its own.
            "session_staleness_s": 0,
        }
        | changes
    )


@dataclass
class Arena:
    """The application with what tests do again and again."""

    settings: Settings
    database: Database
    anonymous: Client

    async def user(self, name: str, role: Role = Role.MEMBER) -> Client:
        """A new account, logged in."""
        parts = self.anonymous.app.state.parts
        async with self.database.unit_of_work() as session:
            await accounts.create(
                session, parts.hasher, username=name, password=PASSWORD, role=role,
                settings=self.settings,
            )  # fmt: skip
        return await self.login(name)

    async def login(self, name: str) -> Client:
        reply = await self.anonymous.post(
            "/v1/auth/login", {"username": name, "password": PASSWORD}
        )
        body = ok(reply)
        client = self.anonymous.with_token(body["access_token"])
        client.id = body["user"]["id"]
        return client

    async def counts(self) -> dict[str, int]:
        """How many rows each relation has: what a refused request must not change."""
        async with self.database.unit_of_work() as session:
            return {
                name: (await session.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one()
                for name in RELATIONS
            }


async def new_agent(client: Client, name: str = "Agent", **body: Any) -> tuple[str, str]:
    """An agent with one house version: both ids."""
    agent = ok(await client.post("/v1/agents", {"name": name} | body), 201)
    version = ok(
        await client.post(
            f"/v1/agents/{agent['id']}/versions", {"kind": "house", "house_name": "caller"}
        ),
        201,
    )
    return agent["id"], version["id"]


async def new_table(client: Client, **body: Any) -> str:
    """A table's id; private unless said otherwise."""
    return str(ok(await client.post("/v1/tables", {"name": "Table"} | body), 201)["id"])


async def viewer_link(client: Client, table_id: str, seat_no: int, **body: Any) -> Client:
    """A client with a new viewer link to a seat of this one's; the link's id is the client's."""
    order = {"name": "for a friend", "expires_in_s": 3600} | body
    path = f"/v1/tables/{table_id}/seats/{seat_no}/viewer-links"
    made = ok(await client.post(path, order), 201)
    link = client.with_token(made["token"])
    link.id = made["id"]
    return link


async def sit(client: Client, table_id: str, seat_no: int, name: str | None = None) -> str:
    """Seat a new house agent; its id."""
    agent_id, version_id = await new_agent(client, name or f"Seat {seat_no} of {table_id[-6:]}")
    ok(
        await client.put(
            f"/v1/tables/{table_id}/seats/{seat_no}",
            {"agent_id": agent_id, "version_id": version_id},
        )
    )
    return agent_id
