"""Identities: which person at which provider is which user here.

An identity is an issuer and a subject, and belongs to one account. An account here has no address
of its own that anybody has verified, so an address never finds an account: whoever has an account
links an identity from inside it. This module must never leave an account without a way in.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth import accounts, audit, sessions
from pokerarena.auth.audit import Event
from pokerarena.auth.federation.provider import Person
from pokerarena.auth.models import Identity, Role, User
from pokerarena.auth.sessions import EndReason
from pokerarena.errors import Conflict, Forbidden, NotFound, QuotaExceeded
from pokerarena.ids import IdKind, id_text, new_id

# What one person may have; a bound for the list, and for what must be looked at to unlink one.
IDENTITIES_PER_USER_MAX: Final = 10
EMAIL_CHARACTERS_MAX: Final = 320
_NAME_CHARACTERS_MAX: Final = 30
_NAME_TRIES: Final = 5
_EMAIL: Final = re.compile(r"[^\s\x00-\x1f\x7f-\x9f@]+@[^\s\x00-\x1f\x7f-\x9f@]+")


async def find(session: AsyncSession, *, issuer: str, subject: str) -> tuple[Identity, User] | None:
    """The identity of a person, with its user."""
    row = (
        await session.execute(
            select(Identity, User)
            .join(User, User.id == Identity.user_id)
            .where(Identity.issuer == issuer, Identity.subject == subject)
        )
    ).one_or_none()
    return (row[0], row[1]) if row is not None else None


async def open_user(session: AsyncSession, identity_id: UUID) -> User | None:
    """The user of an identity; None for a closed account."""
    user: User | None = await session.scalar(
        select(User)
        .join(Identity, Identity.user_id == User.id)
        .where(Identity.id == identity_id, User.disabled_at.is_(None))
    )
    return user


async def note_login(session: AsyncSession, identity_id: UUID) -> None:
    """Remember when an identity was last used."""
    await session.execute(
        update(Identity).where(Identity.id == identity_id).values(last_login_at=func.now())
    )


async def create_account(session: AsyncSession, person: Person, *, provider_id: str) -> Identity:
    """A new account for somebody whom the provider vouches for. It has no password."""
    email = verified_email(person)
    user_id = await _new_user(session, person)
    # Not somebody who is known here: they made it themselves.
    audit.record(
        session,
        Event.USER_CREATED,
        actor_id=user_id,
        subject=id_text(IdKind.USER, user_id),
        role=Role.MEMBER.value,
        provider=provider_id,
    )
    return await _add(session, person, user_id, email, provider_id, session_id=None)


async def link(
    session: AsyncSession, person: Person, *, user_id: UUID, session_id: UUID, provider_id: str
) -> Identity:
    """Let a person at a provider log in to an account; to do it again changes nothing."""
    email = verified_email(person)
    await accounts.lock(session, user_id)
    found = await find(session, issuer=person.issuer, subject=person.subject)
    if found is not None:
        identity, user = found
        if user.id != user_id:
            raise taken()
        return identity
    count = await session.scalar(
        select(func.count()).select_from(Identity).where(Identity.user_id == user_id)
    )
    if (count or 0) >= IDENTITIES_PER_USER_MAX:
        raise QuotaExceeded(
            "too_many_identities",
            f"An account has at most {IDENTITIES_PER_USER_MAX} identities; unlink one first.",
        )
    return await _add(session, person, user_id, email, provider_id, session_id=session_id)


async def list_of(session: AsyncSession, user_id: UUID) -> list[Identity]:
    """The identities of a user, oldest first; a handful at most."""
    query = select(Identity).where(Identity.user_id == user_id).order_by(Identity.id)
    return list(await session.scalars(query))


async def unlink(
    session: AsyncSession,
    *,
    user_id: UUID,
    identity_id: UUID,
    issuers: Collection[str],
    keep_session: UUID | None,
) -> None:
    """Let an identity log in no more; every other session of the account ends with it.

    Not the last way in: a password counts, and identities at the providers that are configured now
    (`issuers`).
    """
    await accounts.lock(session, user_id)
    mine = await list_of(session, user_id)
    gone = next((one for one in mine if one.id == identity_id), None)
    if gone is None:
        raise NotFound("identity")
    user = await accounts.get(session, user_id)
    others = [one for one in mine if one is not gone and one.issuer in issuers]
    if user.password_hash is None and not others:
        raise Conflict(
            "last_way_in",
            "This is your only way to log in: set a password or link another identity first.",
        )
    await session.execute(delete(Identity).where(Identity.id == identity_id))
    audit.record(
        session,
        Event.IDENTITY_UNLINKED,
        subject=id_text(IdKind.IDENTITY, identity_id),
        issuer=gone.issuer,
    )
    await sessions.end_all(session, user_id, but=keep_session, reason=EndReason.IDENTITY_UNLINKED)


def verified_email(person: Person) -> str:
    """The address that the provider has verified. Raises `Forbidden` without one."""
    email = person.verified_email
    if email is None or len(email) > EMAIL_CHARACTERS_MAX or not _EMAIL.fullmatch(email):
        raise Forbidden(
            "email_unverified",
            "Your provider has not verified an e-mail address of yours: let it do so, then try "
            "again.",
        )
    return email


def taken() -> Conflict:
    """What is said of an identity that belongs to another account."""
    return Conflict(
        "identity_taken", "This identity belongs to another account here; log in with it instead."
    )


async def _add(
    session: AsyncSession,
    person: Person,
    user_id: UUID,
    email: str,
    provider_id: str,
    *,
    session_id: UUID | None,
) -> Identity:
    identity_id = await session.scalar(
        insert(Identity)
        .values(
            id=new_id(),
            user_id=user_id,
            issuer=person.issuer,
            subject=person.subject,
            email=email,
        )
        .on_conflict_do_nothing()
        .returning(Identity.id)
    )
    if identity_id is None:
        # Somebody came first with the same person, a moment ago.
        raise taken()
    audit.record(
        session,
        Event.IDENTITY_LINKED,
        actor_id=user_id,
        credential_id=session_id,
        subject=id_text(IdKind.IDENTITY, identity_id),
        provider=provider_id,
    )
    return await session.get_one(Identity, identity_id)


async def _new_user(session: AsyncSession, person: Person) -> UUID:
    """A user under the name that the provider gives, or as near to it as is free."""
    wanted = _username_like(person.wanted_name or "")
    for number in range(_NAME_TRIES):
        username = wanted if number == 0 and wanted else _with_chance(wanted or "player")
        user_id: UUID | None = await session.scalar(
            insert(User)
            .values(id=new_id(), username=username, role=Role.MEMBER.value)
            .on_conflict_do_nothing()
            .returning(User.id)
        )
        if user_id is not None:
            return user_id
    raise Conflict("username_taken", "No free name was found for a new account; try again.")


def _username_like(wanted: str) -> str:
    """What of a text can be a username; empty where that is too little."""
    # Of an address as a name only what is before the sign: the rest is nobody's business.
    kept = re.sub(r"[^A-Za-z0-9._-]", "", wanted.partition("@")[0])[:_NAME_CHARACTERS_MAX]
    kept = kept.strip("._-")
    return kept if len(kept) >= 3 else ""


def _with_chance(name: str) -> str:
    return f"{name}-{secrets.token_hex(4)}"
