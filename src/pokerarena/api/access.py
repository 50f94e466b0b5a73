"""The one mechanism by which routes declare what they need.

A route names exactly one permission: ``caller: Annotated[Principal, needs(Permission.X)]``.
`declared_permissions` finds them all and refuses an application with a route that names none or
several, so that nothing is served undeclared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from pokerarena.api import idempotency
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.problems import route_template
from pokerarena.auth import audit
from pokerarena.auth.permissions import RULES, Permission, Principal, Who, authorize
from pokerarena.errors import Unauthenticated
from pokerarena.ids import IdKind, id_text, is_id_text
from pokerarena.telemetry import bind_contextvars

_LOGGED_PATH_PARAMETERS = ("agent_id", "table_id", "run_id", "hand_id")


class Requirement:
    """A route's permission, checked before anything else of the route happens."""

    __slots__ = ("permission",)

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request, parts: PartsOf, session: Session) -> Principal:
        bind_contextvars(
            **{
                name: request.path_params[name]
                for name in _LOGGED_PATH_PARAMETERS
                # Anything else in the place of an id may be a secret, put there by mistake.
                if is_id_text(request.path_params.get(name, ""))
            }
        )
        path = route_template(request.scope)
        await parts.rate_limits.admit_address(request, path)
        rule = RULES[self.permission]
        audit.act_as(Principal.ANONYMOUS)
        if rule.who is Who.ANYONE and rule.scope is None:
            # Nothing here depends on the caller, so a stale token must not be in the way.
            return Principal.ANONYMOUS
        principal = Principal.ANONYMOUS
        if (text := bearer_text(request)) is not None:
            principal = await _authenticate(parts, session, text, rule.who)
            audit.act_as(principal)
            if principal.seat is None:
                bind_contextvars(user_id=id_text(IdKind.USER, principal.known_id()))
            elif principal.token_id is not None:
                bind_contextvars(viewer_link_id=id_text(IdKind.VIEWER_LINK, principal.token_id))
        await parts.rate_limits.admit_caller(request, path, principal)
        authorize(principal, self.permission)
        request.state.idempotency = await idempotency.begin(request, parts, session, principal)
        return principal


async def _authenticate(parts: PartsOf, session: Session, text: str, who: Who) -> Principal:
    if who not in (Who.SESSION, Who.OPERATOR):
        return await parts.callers.principal(session, text, fresh=False)
    # What would let a thief stay, or reaches other people's things, asks afresh. In a transaction of
    # its own: some of these routes hash passwords, and no connection may wait for that.
    async with parts.database.unit_of_work() as short:
        return await parts.callers.principal(short, text, fresh=True)


def bearer_text(request: Request) -> str | None:
    """The bearer token of a request, ``None`` without an Authorization header."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated(
            "token_invalid", "Authorization must be 'Bearer' and a token: 'Bearer pka_…'."
        )
    return text.strip()


def needs(permission: Permission) -> Any:
    """The dependency that declares a route's permission."""
    return Depends(Requirement(permission), scope="function")


class Undeclared(RuntimeError):
    """A route does not declare exactly one permission. A bug, found when the program starts."""


def declared_permissions(app: FastAPI) -> dict[tuple[str, str], Permission]:
    """The permission of every (method, path); raises `Undeclared` unless each has exactly one."""
    declared: dict[tuple[str, str], Permission] = {}
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        found = list(_requirements(dependant)) if isinstance(dependant, Dependant) else []
        if len(found) != 1:
            raise Undeclared(
                f"{route.path} declares {len(found)} permissions; every route declares exactly one"
            )
        for method in route.methods or ():
            declared[method, str(route.path)] = found[0].permission
    return declared


def _requirements(dependant: Dependant) -> Iterator[Requirement]:
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, Requirement):
            yield dependency.call
        yield from _requirements(dependency)
