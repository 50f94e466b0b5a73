"""Every route, every caller: what docs/security/authorization.md says is what happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from pokerarena.api.access import Requirement, Undeclared, declared_permissions
from pokerarena.api.app import create_app
from pokerarena.auth import permissions
from pokerarena.auth.permissions import RULES, Ownership, Permission, Rule, Who
from tests.api.arena import Arena, settings_for
from tests.api.asgi import Client
from tests.api.authorization_matrix import DOCUMENT, OUTCOMES, Route, read_cells, written
from tests.api.conftest import NewArena
from tests.api.rehearsal import CALLERS, RehearsalDatabase, World, make_world
from tests.auth.browsing import ORIGIN
from tests.auth.hostile_provider import HostileProvider

OPEN = Rule(Who.ANYONE)


@pytest.fixture
async def arena(new_arena: NewArena, provider: HostileProvider) -> Arena:
    return await new_arena(
        public_url=ORIGIN, oidc_allow_private=True, oidc_providers=provider.configured()
    )


@pytest.fixture
async def world(arena: Arena, provider: HostileProvider) -> AsyncIterator[World]:
    database = RehearsalDatabase(arena.settings, application_name="rehearsal")
    app = create_app(arena.settings, database)
    async with app.router.lifespan_context(app):
        yield await make_world(arena, Client(app), provider)
    await database.close()


def test_every_route_has_its_row_and_every_cell_is_decided() -> None:
    app = create_app(settings_for("postgresql+psycopg://nobody@/nowhere"))
    declared = declared_permissions(app)
    document = DOCUMENT.read_text(encoding="utf-8")
    cells = read_cells(document)
    assert set(cells) == set(declared), "run python -m tests.api.authorization_matrix"
    for route, row in cells.items():
        assert len(row) == len(CALLERS), route
        assert set(row) <= set(OUTCOMES), f"decide what {route} does for whom: {row}"
    assert document == written(document, declared), (
        "the document does not say what the code does: run python -m tests.api.authorization_matrix"
    )
    assert sum(len(row) for row in cells.values()) > 500


def test_a_route_without_a_row_gets_question_marks() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    new = {("GET", "/v1/new"): Permission.TABLES_LIST}
    row = read_cells(written(document, new))["GET", "/v1/new"]
    assert set(row) == {"?"}
    assert not set(row) <= set(OUTCOMES)


async def test_every_cell_is_what_happens(world: World) -> None:
    cells = read_cells(DOCUMENT.read_text(encoding="utf-8"))
    wrong = []
    before = await world.arena.counts()
    for (method, path), permission in declared_permissions(world.rehearsal.app).items():
        for caller, expected in zip(CALLERS, cells[method, path], strict=True):
            outcome = await world.outcome(caller, method, path, permission)
            if outcome != expected:
                wrong.append(f"{method} {path}, {caller}: {outcome}, not {expected}")
    assert wrong == []
    assert await world.arena.counts() == before


def weaker(rule: Rule) -> Iterator[Rule]:
    """The rule with nothing asked for, without its scope, and for tokens where it is for logins."""
    if rule != replace(OPEN, ownership=rule.ownership):
        yield replace(OPEN, ownership=rule.ownership)
    if rule.scope is not None:
        yield replace(rule, scope=None)
    if rule != OPEN and rule.who is Who.ANYONE:
        # Of all others a test of its own says that no link opens them.
        yield replace(rule, by_link=not rule.by_link)
    # Only operators have the scope `operator`: either of the two keeps everybody else out.
    if rule.who is Who.SESSION:
        yield replace(rule, who=Who.USER)


async def test_every_part_of_every_rule_is_held_by_a_cell_of_every_route(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = read_cells(DOCUMENT.read_text(encoding="utf-8"))
    unnoticed, tried = [], 0
    for (method, path), permission in declared_permissions(world.rehearsal.app).items():
        for mutant in weaker(RULES[permission]):
            tried += 1
            # Who needs the rule to be refused shows first that it is gone.
            order = (
                "wrong scope",
                "anonymous",
                "owner's token",
                "operator's token",
                "viewer link",
                *CALLERS,
            )
            clients = {caller: world.client(caller, permission) for caller in CALLERS}
            with monkeypatch.context() as patched:
                patched.setitem(permissions.RULES, permission, mutant)
                patched.setattr(world, "client", lambda caller, _: clients[caller])
                for caller in order:
                    expected = cells[method, path][CALLERS.index(caller)]
                    if await _differs(world, caller, method, path, permission, expected):
                        break
                else:
                    unnoticed.append(f"{method} {path} under {mutant}")
    assert unnoticed == [], "\n".join(unnoticed)
    assert tried > 80


def test_a_link_opens_nothing_but_reads_that_anyone_may_ask_for() -> None:
    app = create_app(settings_for("postgresql+psycopg://nobody@/nowhere"))
    opened = {permission for permission, rule in RULES.items() if rule.by_link}
    assert opened
    for (method, path), permission in declared_permissions(app).items():
        if permission in opened:
            rule = RULES[permission]
            assert (method, rule.who, rule.ownership) == ("GET", Who.ANYONE, Ownership.VISIBLE), (
                f"{path} may not be opened by a viewer link"
            )


async def _differs(
    world: World, caller: str, method: str, path: str, permission: Permission, expected: str
) -> bool:
    try:
        return await world.outcome(caller, method, path, permission) != expected
    except AssertionError:
        # Neither done nor refused: a route that was reached by whom it was not written for.
        return True


def test_no_declaration_can_be_taken_away_unnoticed() -> None:
    app = create_app(settings_for("postgresql+psycopg://nobody@/nowhere"))
    tried: set[Route] = set()
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        assert isinstance(dependant, Dependant)
        kept = list(dependant.dependencies)
        dependant.dependencies[:] = [one for one in kept if not isinstance(one.call, Requirement)]
        assert len(dependant.dependencies) == len(kept) - 1
        with pytest.raises(Undeclared, match="declares 0 permissions"):
            declared_permissions(app)
        dependant.dependencies[:] = kept
        tried |= {(method, str(route.path)) for method in route.methods or ()}
    assert tried == set(declared_permissions(app))
