"""Every route is declared, and closed to whom it is not declared for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from pokerarena.api.access import Undeclared, declared_permissions, needs
from pokerarena.api.app import create_app
from pokerarena.api.bodies import StrictRoute
from pokerarena.auth.models import Role
from pokerarena.auth.permissions import (
    RULES,
    LinkedSeat,
    Ownership,
    Permission,
    Principal,
    Scope,
    TokenKind,
    Who,
    authorize,
    role_scopes,
)
from pokerarena.errors import Forbidden, Unauthenticated
from pokerarena.ids import IdKind, id_text, new_id
from tests.api.arena import Arena, ok, settings_for

KINDS = {
    "agent_id": IdKind.AGENT,
    "version_id": IdKind.VERSION,
    "table_id": IdKind.TABLE,
    "run_id": IdKind.RUN,
    "hand_id": IdKind.HAND,
    "user_id": IdKind.USER,
    "token_id": IdKind.TOKEN,
    "link_id": IdKind.VIEWER_LINK,
    "session_id": IdKind.SESSION,
    "identity_id": IdKind.IDENTITY,
    "letter_id": IdKind.DEAD_LETTER,
}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/tokens"): {"name": "t", "scopes": ["runs:read"], "expires_in_s": 60},
    ("POST", "/v1/tokens/{token_id}/rotate"): {"expires_in_s": 60},
    ("POST", "/v1/me/identities"): {"provider_id": "unknown"},
    ("POST", "/v1/me/second-factor"): {"current_password": "x"},
    ("POST", "/v1/me/second-factor/confirm"): {"code": "000000"},
    ("POST", "/v1/me/second-factor/recovery-codes"): {"code": "000000"},
    ("POST", "/v1/me/second-factor/remove"): {"current_password": "x", "code": "000000"},
    ("POST", "/v1/users"): {"username": "newcomer", "password": "a river runs through"},
    ("PUT", "/v1/me/password"): {"current_password": "x", "new_password": "y"},
    ("POST", "/v1/agents"): {"name": "a"},
    ("PUT", "/v1/egress/requests/{version_id}"): {
        "destination": "api.example.org:443",
        "state": "approved",
    },
    ("PATCH", "/v1/agents/{agent_id}"): {"name": "a"},
    ("POST", "/v1/agents/{agent_id}/versions"): {"kind": "house", "house_name": "caller"},
    ("POST", "/v1/agents/{agent_id}/versions/{version_id}/standing/suspend"): {"reason": "r"},
    ("POST", "/v1/tables"): {"name": "t"},
    ("PATCH", "/v1/tables/{table_id}"): {"name": "t"},
    ("PUT", "/v1/tables/{table_id}/seats/{seat_no}"): {
        "agent_id": id_text(IdKind.AGENT, new_id()),
        "version_id": id_text(IdKind.VERSION, new_id()),
    },
    ("POST", "/v1/tables/{table_id}/seats/{seat_no}/viewer-links"): {
        "name": "l",
        "expires_in_s": 60,
    },
    ("POST", "/v1/tables/{table_id}/runs"): {"hands": 1},
}


def with_unknown_ids(path: str) -> str:
    for name, kind in KINDS.items():
        path = path.replace(f"{{{name}}}", id_text(kind, new_id()))
    return path.replace("{seat_no}", "1")


async def test_every_route_declares_exactly_one_permission(arena: Arena) -> None:
    app = arena.anonymous.app
    declared = declared_permissions(app)
    served = {
        (method, route.path)
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
    }
    assert set(declared) == served
    assert len(served) > 30, "the enumeration sees the routes of every router"


def test_every_permission_has_a_rule_and_is_used_by_a_route(arena: Arena) -> None:
    assert set(RULES) == set(Permission)
    assert set(declared_permissions(arena.anonymous.app).values()) == set(Permission)


@pytest.mark.parametrize("declarations", [0, 2])
def test_an_application_with_an_undeclared_route_is_refused(declarations: int) -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    if declarations:

        @app.get("/twice")
        def twice(
            one: Annotated[Principal, needs(Permission.RUN_READ)],
            two: Annotated[Principal, needs(Permission.TABLE_READ)],
        ) -> None: ...
    else:

        @app.get("/open")
        def open_to_all() -> None: ...

    with pytest.raises(Undeclared, match=f"declares {declarations} permissions"):
        declared_permissions(app)


async def test_without_a_token_every_closed_route_answers_401_and_changes_nothing(
    arena: Arena,
) -> None:
    before = await arena.counts()
    closed = 0
    for (method, path), permission in declared_permissions(arena.anonymous.app).items():
        if RULES[permission].who is Who.ANYONE:
            continue
        closed += 1
        body = BODIES.get((method, path))
        more = {} if body is None else {"body": body}
        reply = await arena.anonymous.request(method, with_unknown_ids(path), **more)
        assert (reply.status, reply.code) == (401, "authentication_required"), (method, path, reply)
        assert reply.headers["www-authenticate"].startswith("Bearer"), (method, path)
    assert closed > 15
    assert await arena.counts() == before


async def test_what_is_unknown_is_404_on_every_route_with_an_id(arena: Arena) -> None:
    operator = await arena.user("operator", Role.OPERATOR)
    with_ids = 0
    for method, path in declared_permissions(arena.anonymous.app):
        if "{" not in path:
            continue
        with_ids += 1
        body = BODIES.get((method, path))
        more = {} if body is None else {"body": body}
        for target in (with_unknown_ids(path), path.replace("{seat_no}", "1")):
            reply = await operator.request(method, target, **more)
            assert (reply.status, reply.code) == (404, "not_found"), (method, target, reply)
    assert with_ids > 20


async def test_a_member_may_nothing_that_is_an_operators(arena: Arena) -> None:
    member = await arena.user("member")
    routes = [
        route
        for route, permission in declared_permissions(arena.anonymous.app).items()
        if RULES[permission].who is Who.OPERATOR
    ]
    assert routes
    for method, path in routes:
        body = BODIES.get((method, path))
        more = {} if body is None else {"body": body}
        reply = await member.request(method, with_unknown_ids(path), **more)
        assert (reply.status, reply.code) == (403, "operator_required"), (method, path, reply)


async def test_a_personal_token_does_what_its_scopes_say_and_no_more(arena: Arena) -> None:
    session = await arena.user("alice")
    for scope in Scope:
        if scope is Scope.OPERATOR:
            continue
        made = await session.post(
            "/v1/tokens", {"name": scope, "scopes": [scope], "expires_in_s": 60}
        )
        client = arena.anonymous.with_token(ok(made, 201)["token"])
        for (method, path), permission in declared_permissions(arena.anonymous.app).items():
            rule = RULES[permission]
            if rule.scope is None or path.endswith("/live"):
                continue
            body = BODIES.get((method, path))
            more = {} if body is None else {"body": body}
            reply = await client.request(method, with_unknown_ids(path), **more)
            if rule.who is Who.OPERATOR:
                assert reply.code == "operator_required", (method, path, reply)
            elif rule.scope is scope:
                assert reply.status in (200, 201, 404), (method, path, reply)
            else:
                assert reply.code == "scope_missing", (scope, method, path, reply)


@pytest.mark.parametrize("permission", list(Permission))
def test_authorize_lets_through_exactly_whom_the_rule_names(permission: Permission) -> None:
    rule = RULES[permission]

    def allowed(principal: Principal) -> bool:
        try:
            authorize(principal, permission)
        except (Unauthenticated, Forbidden):
            return False
        return True

    def user(role: Role, kind: TokenKind, scopes: frozenset[Scope]) -> Principal:
        return Principal(new_id(), "u", role, new_id(), kind, scopes)

    assert allowed(Principal.ANONYMOUS) == (rule.who is Who.ANYONE)
    linked = LinkedSeat(new_id(), 1, new_id(), new_id())
    by_link = Principal(token_id=new_id(), token_kind=TokenKind.LINK, seat=linked)
    assert allowed(by_link) == rule.by_link
    for role in Role:
        for kind in (TokenKind.SESSION, TokenKind.PERSONAL):
            everything = user(role, kind, role_scopes(role))
            nothing = user(role, kind, frozenset())
            may = (rule.who is not Who.OPERATOR or role is Role.OPERATOR) and (
                rule.who is not Who.SESSION or kind is TokenKind.SESSION
            )
            assert allowed(everything) == may
            assert allowed(nothing) == (may and rule.scope is None)


def test_the_guide_lists_every_route_with_what_it_needs(arena: Arena) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([A-Z]+) (\S+)` \|(.*)\|(.*)\|(.*)\|$", guide, re.MULTILINE))
    things = {Ownership.NONE: "", Ownership.OWNER: "own", Ownership.VISIBLE: "visible"}
    served = {
        (
            method,
            path,
            f" {RULES[permission].who} ",
            f" {RULES[permission].scope or ''} ".replace("  ", " "),
            f" {things[RULES[permission].ownership]} ".replace("  ", " "),
        )
        for (method, path), permission in declared_permissions(arena.anonymous.app).items()
    }
    assert listed == served


def test_every_body_is_read_strictly() -> None:
    app = create_app(settings_for("postgresql+psycopg://nobody@/nowhere"))
    with_bodies = 0
    for route in iter_route_contexts(app.routes):
        original = getattr(route, "original_route", route)
        if getattr(original, "body_field", None) is not None:
            with_bodies += 1
            assert isinstance(original, StrictRoute), route.path
    assert with_bodies > 10
