"""A world with one of everything, in which every request can be tried without changing it.

Each request runs in the real application on real PostgreSQL, and is rolled back at its end: so the
same world serves any number of callers, and a refused request and a granted one are equally cheap.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.models import VersionStanding
from pokerarena.auth.models import Identity, LoginSession, Role, SecondFactor
from pokerarena.auth.permissions import MEMBER_SCOPES, RULES, Permission, Scope
from pokerarena.db import Database
from pokerarena.egress.models import EgressRule, VersionEgress
from pokerarena.engine.rules import Rules
from pokerarena.ids import IdKind, id_text, new_id, parse_id
from pokerarena.runs.models import DeadLetter, Run, RunSeat
from pokerarena.service_identity.keys import KeySet, ServiceName, new_private_key
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.watched_file import Fixed
from tests.api.arena import PASSWORD, Arena, new_agent, new_table, ok, viewer_link
from tests.api.asgi import Client, Reply
from tests.api.stored import play_random_hand, reveal_seed, store
from tests.auth.browsing import OWN_PAGE, Browser
from tests.auth.hostile_provider import HostileProvider

STANDING = "/v1/agents/{agent_id}/versions/{version_id}/standing"
NEW_PASSWORD = "a new one for the winter"
SANDBOX_REPORT = {
    "starts": 1,
    "cpu_ms": 10,
    "memory_peak_bytes": 1_000,
    "stray_lines": 0,
    "ends": [],
    "stderr": "its own words",
}


class RehearsalDatabase(Database):
    """Every unit of work is flushed, so that it meets all constraints, and then undone."""

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[AsyncSession]:
        async with self._sessions() as session:
            transaction = await session.begin()
            try:
                yield session
                await session.flush()
                # What was read stays readable, as it does after a commit.
                session.expunge_all()
            finally:
                if transaction.is_active:
                    await transaction.rollback()


@dataclass
class World:
    """Who there is and what there is. All of it is private."""

    arena: Arena
    rehearsal: Client
    callers: dict[str, Client]
    ids: dict[str, str]
    # What a route needs instead, to be able to succeed.
    other_ids: dict[tuple[str, str], dict[str, str]]
    # What the viewer link is for: its table, with a run and a hand of it.
    linked_ids: dict[str, str]
    agents: dict[str, tuple[str, str]]
    refresh_token: str
    seeds: dict[str, bytes]
    scoped: dict[Scope, Client]
    # What only a browser sends: its cookie and the headers of our own page.
    headers: dict[tuple[str, str], dict[str, str]]
    queries: dict[tuple[str, str], str]

    async def outcome(self, caller: str, method: str, path: str, permission: Permission) -> str:
        """What became of one caller's request: ``ok``, or the status of its refusal."""
        client = self.client(caller, permission)
        ids = self.ids | self.other_ids.get((method, path), {})
        if caller == "viewer link":
            ids |= self.linked_ids
        target = path
        for name, value in ids.items():
            target = target.replace(f"{{{name}}}", value)
        if path.endswith("/live"):
            async with client.stream(target) as stream:
                if await stream.chunks.get() is None:
                    raise AssertionError("a stream without a first chunk")
                return "ok" if stream.status == 200 else str(stream.status)
        target += self.queries.get((method, path), "")
        body = self.body(caller, method, path)
        more = {} if body is None else {"body": body}
        reply = await client.request(
            method, target, headers=self.headers.get((method, path)), **more
        )
        return self.judge(method, path, reply)

    @staticmethod
    def judge(method: str, path: str, reply: Reply) -> str:
        if reply.status == 409 and reply.code == PASSES_AS.get((method, path)):
            return "ok"
        if 200 <= reply.status < 400:
            return "ok"
        assert reply.status in (401, 403, 404), (method, path, reply)
        assert (reply.status == 401) == ("www-authenticate" in reply.headers)
        return str(reply.status)

    def client(self, caller: str, permission: Permission) -> Client:
        if caller != "wrong scope":
            return self.callers[caller]
        needed = RULES[permission].scope
        return self.scoped[
            Scope.AGENTS_READ if needed is not Scope.AGENTS_READ else Scope.RUNS_READ
        ]

    def body(self, caller: str, method: str, path: str) -> Any:
        person = PERSON_OF[caller]
        code = self.code(person)
        agent_id, version_id = self.agents[person]
        return {
            ("POST", "/v1/auth/register"): {"username": "newcomer", "password": NEW_PASSWORD},
            ("POST", "/v1/auth/login"): {
                "username": "alice",
                "password": PASSWORD,
                "code": self.code("alice"),
            },
            ("POST", "/v1/auth/refresh"): {"refresh_token": self.refresh_token},
            ("PUT", "/v1/me/password"): {
                "current_password": PASSWORD,
                "new_password": NEW_PASSWORD,
            },
            ("POST", "/v1/me/identities"): {
                "provider_id": "hostile",
                "current_password": PASSWORD,
            },
            ("POST", "/v1/me/second-factor"): {"current_password": PASSWORD},
            ("POST", "/v1/me/second-factor/confirm"): {"code": code},
            ("POST", "/v1/me/second-factor/recovery-codes"): {"code": code},
            ("POST", "/v1/me/second-factor/remove"): {"current_password": PASSWORD, "code": code},
            ("POST", "/v1/tokens"): {"name": "t", "scopes": ["runs:read"], "expires_in_s": 60},
            ("POST", "/v1/tokens/{token_id}/rotate"): {"expires_in_s": 60},
            ("POST", "/v1/users"): {"username": "newcomer", "password": NEW_PASSWORD},
            ("POST", "/v1/agents"): {"name": "New"},
            ("PATCH", "/v1/agents/{agent_id}"): {"name": "Renamed"},
            ("POST", "/v1/agents/{agent_id}/versions"): {"kind": "house", "house_name": "caller"},
            ("POST", f"{STANDING}/suspend"): {"reason": "It takes without giving."},
            ("POST", "/v1/tables"): {"name": "New"},
            ("PATCH", "/v1/tables/{table_id}"): {"name": "Renamed"},
            ("PUT", "/v1/tables/{table_id}/seats/{seat_no}"): {
                "agent_id": agent_id,
                "version_id": version_id,
            },
            ("POST", "/v1/tables/{table_id}/seats/{seat_no}/viewer-links"): {
                "name": "l",
                "expires_in_s": 60,
            },
            ("POST", "/v1/tables/{table_id}/runs"): {"hands": 2},
            ("POST", "/v1/egress/rules"): {"effect": "deny", "kind": "port", "value": "8080"},
            ("PUT", "/v1/egress/requests/{version_id}"): {
                "destination": "api.example.org:443",
                "state": "denied",
            },
        }.get((method, path))

    def code(self, person: str) -> str:
        from pokerarena.auth.second_factor import STEP_S, code_at

        return code_at(self.seeds[person], int(time.time() // STEP_S)).decode()


# Granted, although the world is not in the state that the request needs.
PASSES_AS = {
    ("POST", "/v1/me/second-factor"): "second_factor_present",
    ("POST", "/v1/me/second-factor/confirm"): "second_factor_present",
}

# In the order of the columns, and whose account each uses.
PERSON_OF = {
    "anonymous": "alice",
    "stranger": "stranger",
    "seat owner": "bob",
    "viewer link": "bob",
    "owner": "alice",
    "operator": "operator",
    "owner's token": "alice",
    "wrong scope": "alice",
    "operator's token": "operator",
    "expired": "alice",
    "revoked": "alice",
    "refresh token": "alice",
    "api": "alice",
    "worker": "alice",
    "agent-host": "alice",
}
CALLERS = tuple(PERSON_OF)


async def make_world(arena: Arena, rehearsal: Client, provider: HostileProvider) -> World:
    """One of everything, all of it alice's; bob has a seat; and everybody who may ask."""
    alice, bob, stranger = [await arena.user(name) for name in ("alice", "bob", "stranger")]
    operator = await arena.user("operator", Role.OPERATOR)
    people = {"alice": alice, "bob": bob, "stranger": stranger, "operator": operator}
    agents = {name: await new_agent(client, "Spare") for name, client in people.items()}
    ids = {
        "agent_id": agents["alice"][0],
        "version_id": agents["alice"][1],
        "table_id": await _table(alice, bob),
        "seat_no": "2",
        "run_id": await _run(alice, await _table(alice, bob)),
        "user_id": (await arena.user("spare")).id,
    }
    hand = play_random_hand(Random(1), Rules(50, 100), (1, 2), hand_no=1)
    await store(arena.database, ids["run_id"], [hand])
    ids["hand_id"] = id_text(IdKind.HAND, hand.id)
    async with arena.database.unit_of_work() as session:
        await session.execute(
            update(RunSeat)
            .where(RunSeat.run_id == parse_id(IdKind.RUN, ids["run_id"]), RunSeat.seat_no == 1)
            .values(sandbox=SANDBOX_REPORT)
        )
    failing = await new_agent(alice, "Failing")
    async with arena.database.unit_of_work() as session:
        session.add(
            VersionStanding(
                version_id=parse_id(IdKind.VERSION, failing[1]),
                suspended_at=func.now(),
                cause="only_failed",
                reason="It only failed.",
            )
        )
    suspended = {"agent_id": failing[0], "version_id": failing[1]}
    stopped = await _run(alice, await _table(alice, bob))
    ok(await alice.post(f"/v1/runs/{stopped}/stop"))
    letter_id = new_id()
    ids["letter_id"] = id_text(IdKind.DEAD_LETTER, letter_id)
    open_table = await _table(alice, bob, reveal_policy="after_run")
    open_run = await _run(alice, open_table)
    open_hand = play_random_hand(Random(2), Rules(50, 100), (1, 2), hand_no=1)
    await store(arena.database, open_run, [open_hand])
    link = await viewer_link(bob, open_table, 2)
    ids["link_id"] = (await viewer_link(alice, open_table, 1)).id
    async with arena.database.unit_of_work() as session:
        await session.execute(
            update(Run).where(Run.id == parse_id(IdKind.RUN, open_run)).values(status="completed")
        )
    await reveal_seed(arena.database, arena.anonymous.app.state.parts.sealer, open_run)
    async with arena.database.unit_of_work() as session:
        session.add(
            DeadLetter(
                id=letter_id,
                subject="run",
                run_id=parse_id(IdKind.RUN, stopped),
                code="infrastructure",
                detail="why",
                attempts=3,
                epoch=1,
                state="open",
            )
        )
    rule_id = new_id()
    ids["rule_id"] = id_text(IdKind.EGRESS_RULE, rule_id)
    async with arena.database.unit_of_work() as session:
        session.add(EgressRule(id=rule_id, effect="deny", kind="domain", value=".example.net"))
        version = parse_id(IdKind.VERSION, ids["version_id"])
        session.add(VersionEgress(version_id=version, host="api.example.org", port=443))
    seeds = {name: await _second_factor(client) for name, client in people.items()}

    other = await _login(arena, seeds["alice"])
    ids["session_id"] = other["session_id"]
    revoked = await _login(arena, seeds["alice"])
    ok(await alice.delete(f"/v1/sessions/{revoked['session_id']}"), 204)
    tokens = {scope: await _token(alice, [scope]) for scope in (Scope.AGENTS_READ, Scope.RUNS_READ)}
    ids["token_id"] = tokens[Scope.AGENTS_READ].id
    ids["provider_id"] = "hostile"
    ids["identity_id"] = await _identity(arena, alice.id, "alice-there")
    await _identity(arena, ids["user_id"], provider.subject, provider.issuer)
    leaving, back = Browser(arena.anonymous), Browser(arena.anonymous)
    callback = provider.authorize(await leaving.depart("hostile"))
    assert (await back.visit(provider.authorize(await back.depart("hostile")))).status == 303
    expired = await _expired(arena, other["access_token"])
    async with arena.database.unit_of_work() as session:
        await session.execute(update(SecondFactor).values(last_step=0))
        await session.execute(
            update(LoginSession).values(refreshed_at=func.now() - timedelta(minutes=1))
        )

    def as_(token: str | None) -> Client:
        return rehearsal.with_token(token)

    member_scopes = sorted(MEMBER_SCOPES)
    callers = {
        "anonymous": as_(None),
        "stranger": as_(stranger.token),
        "seat owner": as_(bob.token),
        "viewer link": as_(link.token),
        "owner": as_(alice.token),
        "operator": as_(operator.token),
        "owner's token": as_((await _token(alice, member_scopes)).token),
        "operator's token": as_((await _token(operator, member_scopes)).token),
        "expired": as_(expired),
        "revoked": as_(revoked["access_token"]),
        "refresh token": as_(other["refresh_token"]),
        **{service.value: as_(_service_token(service)) for service in ServiceName},
    }
    return World(
        arena=arena,
        rehearsal=rehearsal,
        callers=callers,
        ids=ids,
        other_ids={
            ("POST", f"{STANDING}/check"): suspended,
            ("POST", f"{STANDING}/lift"): suspended,
            ("POST", "/v1/runs/{run_id}/resume"): {"run_id": stopped},
            ("GET", "/v1/runs/{run_id}/seed"): {"run_id": open_run},
            ("GET", "/v1/runs/{run_id}/seats/{seat_no}/sandbox"): {"seat_no": "1"},
            ("PUT", "/v1/tables/{table_id}/seats/{seat_no}"): {"seat_no": "3"},
        },
        linked_ids={
            "table_id": open_table,
            "run_id": open_run,
            "hand_id": id_text(IdKind.HAND, open_hand.id),
        },
        agents=agents,
        refresh_token=other["refresh_token"],
        seeds=seeds,
        scoped={scope: as_(client.token) for scope, client in tokens.items()},
        headers={
            ("POST", "/v1/auth/providers/{provider_id}/login"): OWN_PAGE,
            ("GET", "/v1/auth/providers/{provider_id}/callback"): leaving.cookie_header(),
            ("POST", "/v1/auth/federated"): OWN_PAGE | back.cookie_header(),
        },
        queries={
            ("GET", "/v1/auth/providers/{provider_id}/callback"): callback[callback.index("?") :]
        },
    )


async def _table(alice: Client, bob: Client, **body: Any) -> str:
    """A private table of alice's, where bob took a seat before it became private."""
    table_id = await new_table(alice, visibility="unlisted", **body)
    for seat_no, client in ((1, alice), (2, bob)):
        agent_id, version_id = await new_agent(client, f"At {table_id[-12:]}")
        seat = {"agent_id": agent_id, "version_id": version_id}
        ok(await client.put(f"/v1/tables/{table_id}/seats/{seat_no}", seat))
    ok(await alice.patch(f"/v1/tables/{table_id}", {"visibility": "private"}))
    return table_id


async def _run(alice: Client, table_id: str) -> str:
    return str(ok(await alice.post(f"/v1/tables/{table_id}/runs", {"hands": 5}), 201)["id"])


async def _second_factor(client: Client) -> bytes:
    from tests.auth.test_second_factor import enrol

    phone, _ = await enrol(client)
    return phone.seed


async def _identity(
    arena: Arena, user_id: str, subject: str, issuer: str = "https://elsewhere.example"
) -> str:
    identity_id = new_id()
    async with arena.database.unit_of_work() as session:
        session.add(
            Identity(
                id=identity_id,
                user_id=parse_id(IdKind.USER, user_id),
                issuer=issuer,
                subject=subject,
                email="x@people.example",
            )
        )
    return id_text(IdKind.IDENTITY, identity_id)


async def _login(arena: Arena, seed: bytes) -> dict[str, Any]:
    from pokerarena.auth.second_factor import STEP_S, code_at

    async with arena.database.unit_of_work() as session:
        await session.execute(update(SecondFactor).values(last_step=0))
    code = code_at(seed, int(time.time() // STEP_S)).decode()
    body = {"username": "alice", "password": PASSWORD, "code": code}
    return dict(ok(await arena.anonymous.post("/v1/auth/login", body)))


async def _token(client: Client, scopes: list[Scope]) -> Client:
    body = {"name": "t", "scopes": scopes, "expires_in_s": 3600}
    made = ok(await client.post("/v1/tokens", body), 201)
    got = client.with_token(made["token"])
    got.id = made["id"]
    return got


def _service_token(service: ServiceName) -> str:
    """What one service shows another, shown to the API instead."""
    key = new_private_key()
    identity = ServiceIdentity(
        service,
        "somebody",
        key=Fixed(key),
        keys=Fixed(KeySet([key.published(service)])),
        believes=ServiceName,
    )
    return identity.token_for(ServiceName.API, "pokerarena-api").text


async def _expired(arena: Arena, token: str) -> str:
    """A genuine token that has just expired."""
    from tests.auth.test_access_tokens import Forger, genuine_key

    now = int(time.time())
    forger = Forger(token, await genuine_key(arena))
    return forger.signed(iat=now - 700, nbf=now - 700, exp=now - 100)
