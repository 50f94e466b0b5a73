"""Who may do what: principals, scopes, and the one list of permissions.

Every route declares exactly one `Permission`; `RULES` says what each needs. What depends on the
thing itself (whose it is, who may see it) is named by the rule's `Ownership` and decided by the
thing's own room. This module must never know HTTP or SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import ClassVar
from uuid import UUID

from pokerarena.auth.models import Role
from pokerarena.errors import Forbidden, Unauthenticated


class TokenKind(StrEnum):
    """``session``: the access token of a login; ``personal``: made by its user for a program;

    ``link``: a viewer link, which stands for a seat and not for a user.
    """

    SESSION = "session"
    PERSONAL = "personal"
    LINK = "link"


class Scope(StrEnum):
    """What a personal token may be used for. A session may do all that its user's role allows."""

    AGENTS_READ = "agents:read"
    AGENTS_WRITE = "agents:write"
    TABLES_READ = "tables:read"
    TABLES_WRITE = "tables:write"
    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    HISTORY_READ = "history:read"
    OPERATOR = "operator"


MEMBER_SCOPES = frozenset(scope for scope in Scope if scope is not Scope.OPERATOR)


def role_scopes(role: Role) -> frozenset[Scope]:
    """Every scope that a token of a user with this role can have."""
    return frozenset(Scope) if role is Role.OPERATOR else MEMBER_SCOPES


@dataclass(frozen=True, slots=True)
class LinkedSeat:
    """The one seat whose rights a viewer link carries, as it was when the link was made."""

    table_id: UUID
    seat_no: int
    agent_id: UUID
    owner_id: UUID


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever makes a request: a user through one token, a seat through a link, or nobody."""

    user_id: UUID | None = None
    username: str = ""
    role: Role | None = None
    token_id: UUID | None = None
    token_kind: TokenKind | None = None
    scopes: frozenset[Scope] = frozenset()
    session_id: UUID | None = None
    # An operator whose rights wait for a second factor.
    lacks_second_factor: bool = False
    # Of a viewer link alone, which is no user's request: it owns nothing and changes nothing.
    seat: LinkedSeat | None = None

    ANONYMOUS: ClassVar[Principal]

    @property
    def is_operator(self) -> bool:
        """Whether the role *and* this token's scopes make it an operator's request."""
        return self.role is Role.OPERATOR and Scope.OPERATOR in self.scopes

    def owns(self, owner_id: UUID) -> bool:
        """Whether the thing with this owner is the principal's own."""
        return self.user_id is not None and self.user_id == owner_id

    def known_id(self) -> UUID:
        """The user's id, where the permission already demanded a user."""
        if self.user_id is None:
            raise Unauthenticated("authentication_required", "Log in or send a token first.")
        return self.user_id


Principal.ANONYMOUS = Principal()


class Who(StrEnum):
    """Who may ask at all."""

    ANYONE = "anyone"
    USER = "user"
    # Only a login: a stolen personal token must not be able to make more tokens.
    SESSION = "session"
    OPERATOR = "operator"


class Ownership(StrEnum):
    """What the thing itself must be to the principal; decided by the thing's room."""

    NONE = "none"
    # Its own: otherwise 403 when the principal may see the thing, else 404.
    OWNER = "owner"
    # Visible: otherwise 404.
    VISIBLE = "visible"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one permission needs."""

    who: Who
    scope: Scope | None = None
    ownership: Ownership = Ownership.NONE
    # Whether a viewer link opens it, for its own seat at its own table.
    by_link: bool = False


class Permission(Enum):
    """Everything that can be done through the API; the value is what it means."""

    PROGRAM_READ = "read what describes the program itself: health, documents, schemas"
    ACCOUNT_REGISTER = "create an account for oneself, where registration is open"
    ACCOUNT_LOGIN = "exchange a password, or a refresh token, for an access token"
    FEDERATED_LOGIN = "log in through an identity provider"
    ACCOUNT_LOGOUT = "end the session, or revoke the token, that made the request"
    ACCOUNT_READ = "read one's own account"
    PASSWORD_CHANGE = "change one's own password"  # noqa: S105 - a description
    SECOND_FACTOR_MANAGE = "set up, renew and remove one's own second factor"
    IDENTITIES_MANAGE = "list, link and unlink one's own identities at providers"
    SESSIONS_MANAGE = "list and end one's own sessions"
    TOKENS_MANAGE = "list, create, rotate and revoke one's own personal tokens"
    USERS_MANAGE = "list, create and disable accounts"
    AUDIT_READ = "search the security events"
    AGENTS_LIST = "list one's own agents"
    AGENT_CREATE = "create an agent of one's own"
    AGENT_READ = "read an agent and its versions"
    AGENT_CHANGE = "change or archive one's own agent, add and retire its versions"
    STANDING_READ = "read why a version of one's own agent is suspended"
    VERSIONS_SUSPEND = "suspend any version, and lift any suspension"
    TABLES_LIST = "list public tables, or one's own"
    TABLE_CREATE = "create a table of one's own"
    TABLE_READ = "read a table, its seats, its state and its live stream"
    TABLE_CHANGE = "change or archive one's own table"
    SEAT_TAKE = "seat one's own agent at a table that one may see"
    SEAT_LEAVE = "take one's own agent, or anyone at one's own table, from its seat"
    VIEWER_LINKS_MANAGE = "make, list and revoke viewer links of one's own agents' seats"
    RUN_CREATE = "start a run at one's own table"
    RUN_READ = "read a run and its results"
    HISTORY_READ = "read a run's hands, their replays and its seed as far as one may see them"
    SANDBOX_READ = "read what the sandboxes of one's own hosted agent did in a run"
    RUN_CONTROL = "stop or resume a run of one's own table"
    DEAD_LETTERS_MANAGE = "list, read, retry and discard dead letters"
    EGRESS_MANAGE = "keep the egress lists, and decide which hosts hosted versions may reach"
    EGRESS_READ = "read which hosts one's own hosted version may reach"


RULES: dict[Permission, Rule] = {
    Permission.PROGRAM_READ: Rule(Who.ANYONE),
    Permission.ACCOUNT_REGISTER: Rule(Who.ANYONE),
    Permission.ACCOUNT_LOGIN: Rule(Who.ANYONE),
    Permission.FEDERATED_LOGIN: Rule(Who.ANYONE),
    Permission.ACCOUNT_LOGOUT: Rule(Who.USER),
    Permission.ACCOUNT_READ: Rule(Who.USER),
    Permission.PASSWORD_CHANGE: Rule(Who.SESSION),
    Permission.SECOND_FACTOR_MANAGE: Rule(Who.SESSION),
    Permission.IDENTITIES_MANAGE: Rule(Who.SESSION, None, Ownership.OWNER),
    Permission.SESSIONS_MANAGE: Rule(Who.SESSION, None, Ownership.OWNER),
    Permission.TOKENS_MANAGE: Rule(Who.SESSION, None, Ownership.OWNER),
    Permission.USERS_MANAGE: Rule(Who.OPERATOR, Scope.OPERATOR),
    Permission.AUDIT_READ: Rule(Who.OPERATOR, Scope.OPERATOR),
    Permission.AGENTS_LIST: Rule(Who.USER, Scope.AGENTS_READ),
    Permission.AGENT_CREATE: Rule(Who.USER, Scope.AGENTS_WRITE),
    Permission.AGENT_READ: Rule(Who.ANYONE, Scope.AGENTS_READ, Ownership.VISIBLE),
    Permission.AGENT_CHANGE: Rule(Who.USER, Scope.AGENTS_WRITE, Ownership.OWNER),
    Permission.STANDING_READ: Rule(Who.USER, Scope.AGENTS_READ, Ownership.VISIBLE),
    Permission.VERSIONS_SUSPEND: Rule(Who.OPERATOR, Scope.OPERATOR),
    Permission.TABLES_LIST: Rule(Who.ANYONE, Scope.TABLES_READ),
    Permission.TABLE_CREATE: Rule(Who.USER, Scope.TABLES_WRITE),
    Permission.TABLE_READ: Rule(Who.ANYONE, Scope.TABLES_READ, Ownership.VISIBLE, by_link=True),
    Permission.TABLE_CHANGE: Rule(Who.USER, Scope.TABLES_WRITE, Ownership.OWNER),
    Permission.SEAT_TAKE: Rule(Who.USER, Scope.TABLES_WRITE, Ownership.VISIBLE),
    Permission.SEAT_LEAVE: Rule(Who.USER, Scope.TABLES_WRITE, Ownership.OWNER),
    Permission.VIEWER_LINKS_MANAGE: Rule(Who.SESSION, None, Ownership.OWNER),
    Permission.RUN_CREATE: Rule(Who.USER, Scope.RUNS_WRITE, Ownership.OWNER),
    Permission.RUN_READ: Rule(Who.ANYONE, Scope.RUNS_READ, Ownership.VISIBLE, by_link=True),
    Permission.HISTORY_READ: Rule(Who.ANYONE, Scope.HISTORY_READ, Ownership.VISIBLE, by_link=True),
    Permission.SANDBOX_READ: Rule(Who.USER, Scope.RUNS_READ, Ownership.VISIBLE),
    Permission.RUN_CONTROL: Rule(Who.USER, Scope.RUNS_WRITE, Ownership.OWNER),
    Permission.DEAD_LETTERS_MANAGE: Rule(Who.OPERATOR, Scope.OPERATOR),
    Permission.EGRESS_MANAGE: Rule(Who.OPERATOR, Scope.OPERATOR),
    Permission.EGRESS_READ: Rule(Who.USER, Scope.AGENTS_READ, Ownership.VISIBLE),
}


def authorize(principal: Principal, permission: Permission) -> None:
    """Raise unless the principal meets the rule, as far as the rule is not about the thing.

    A principal that presented a token is held to the token's scopes even where anyone may ask: a
    token is never more than what it was made for.
    """
    rule = RULES[permission]
    if principal.seat is not None:
        if rule.by_link:
            return
        raise Forbidden(
            "viewer_link_insufficient",
            "A viewer link shows one seat's table, runs and hands, and nothing else.",
        )
    if principal.user_id is None:
        if rule.who is Who.ANYONE:
            return
        raise Unauthenticated(
            "authentication_required", "Send a token: 'Authorization: Bearer pka_…'."
        )
    if rule.who is Who.OPERATOR and principal.role is not Role.OPERATOR:
        raise Forbidden("operator_required", "Only an operator may do this.")
    if rule.scope is Scope.OPERATOR and principal.lacks_second_factor:
        raise Forbidden(
            "second_factor_required",
            "Operators need a second factor here: set one up at /v1/me/second-factor, "
            "or log in with its code.",
        )
    if rule.who is Who.SESSION and principal.token_kind is not TokenKind.SESSION:
        raise Forbidden("session_required", "Log in for this; a personal token cannot do it.")
    if rule.scope is not None and rule.scope not in principal.scopes:
        raise Forbidden(
            "scope_missing",
            f"This token lacks the scope '{rule.scope.value}'; make one that has it.",
            scope=rule.scope.value,
        )
