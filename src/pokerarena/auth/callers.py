"""From a bearer text to the principal that it stands for: the one door of authentication.

What a session may do is read from the database, never from the token, and kept for
`session_staleness_s` at most: that is how long another process may serve a session that was ended,
a password that was changed or an account that was closed. What matters most asks afresh.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol
from uuid import UUID

from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import access_tokens, tokens
from pokerarena.auth.models import LoginSession, Role, User
from pokerarena.auth.permissions import Principal, TokenKind
from pokerarena.auth.signing_keys import SigningKeys
from pokerarena.auth.tokens import TokenMac
from pokerarena.settings import Settings

REMEMBERED_MAX: Final = 10_000


class SeatLinks(Protocol):
    """Whoever knows viewer links: the room of tables, for a link ends with its seat."""

    def looks_like_one(self, bearer_text: str) -> bool:
        """Whether a bearer text has the form of a viewer link."""

    async def principal(self, session: AsyncSession, bearer_text: str) -> Principal:
        """The seat that the link stands for; `Unauthenticated` for any other text."""

    async def again(self, session: AsyncSession, link_id: UUID) -> Principal:
        """The same as of now, for what outlives a request."""


class Callers:
    """Authenticates for one process, and remembers sessions for a moment."""

    def __init__(
        self,
        settings: Settings,
        token_mac: TokenMac,
        signing_keys: SigningKeys,
        links: SeatLinks,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = settings.public_url
        self._staleness_s = settings.session_staleness_s
        self._second_factor = settings.operators_need_second_factor()
        self._token_mac = token_mac
        self._signing_keys = signing_keys
        self._links = links
        self._monotonic = monotonic
        self._forgotten_at = float("-inf")
        self._remembered: OrderedDict[UUID, tuple[float, Principal]] = OrderedDict()

    async def principal(self, session: AsyncSession, bearer_text: str, *, fresh: bool) -> Principal:
        """Whom a bearer text stands for; `Unauthenticated` for any text that stands for nobody."""
        if self._links.looks_like_one(bearer_text):
            return await self._links.principal(session, bearer_text)
        if not access_tokens.looks_like_one(bearer_text):
            return await tokens.authenticate(
                session,
                self._token_mac,
                bearer_text,
                operators_need_second_factor=self._second_factor,
            )
        access = await access_tokens.verify(
            self._signing_keys, bearer_text, issuer=self._issuer, now=datetime.now(UTC)
        )
        principal = None if fresh else self._recall(access.session_id)
        if principal is None:
            principal = await self._look_up(session, access.session_id)
        if principal.user_id != access.user_id:
            raise tokens.invalid()
        return principal

    async def again(self, session: AsyncSession, principal: Principal) -> Principal:
        """The same principal as of now, for what outlives a request; raises when it is none."""
        if principal.session_id is not None:
            return await self._look_up(session, principal.session_id)
        if principal.seat is not None and principal.token_id is not None:
            return await self._links.again(session, principal.token_id)
        if principal.token_id is not None:
            return await tokens.again(
                session, principal.token_id, operators_need_second_factor=self._second_factor
            )
        return principal

    def forget(self) -> None:
        """Ask afresh for every session: called where one of them was ended."""
        self._forgotten_at = self._monotonic()
        self._remembered.clear()

    def forget_once_committed(self, session: AsyncSession) -> None:
        """The same, at the moment from which others can see it: earlier, they would remember anew."""
        event.listen(session.sync_session, "after_commit", lambda _: self.forget(), once=True)

    def _recall(self, session_id: UUID) -> Principal | None:
        found = self._remembered.get(session_id)
        if found is None or self._monotonic() - found[0] >= self._staleness_s:
            return None
        return found[1]

    async def _look_up(self, session: AsyncSession, session_id: UUID) -> Principal:
        asked_at = self._monotonic()
        found = (
            await session.execute(
                select(LoginSession.second_factor, User)
                .join(User, User.id == LoginSession.user_id)
                .where(
                    LoginSession.id == session_id,
                    LoginSession.ended_at.is_(None),
                    LoginSession.expires_at > func.now(),
                    User.disabled_at.is_(None),
                )
            )
        ).one_or_none()
        if found is None:
            self._remembered.pop(session_id, None)
            raise tokens.invalid()
        second_factor, user = found
        role = Role(user.role)
        lacks = self._second_factor and role is Role.OPERATOR and not second_factor
        principal = Principal(
            user_id=user.id,
            username=user.username,
            role=role,
            token_kind=TokenKind.SESSION,
            scopes=tokens.usable_scopes(role, lacks_second_factor=lacks),
            session_id=session_id,
            lacks_second_factor=lacks,
        )
        if asked_at <= self._forgotten_at:
            # A session ended while we asked; perhaps this one, and the answer is from before.
            return principal
        self._remembered[session_id] = (asked_at, principal)
        self._remembered.move_to_end(session_id)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return principal
