"""One's own second factor: set up, confirmed, renewed, removed."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Request, Response

from pokerarena.api.access import needs
from pokerarena.api.addresses import client_address
from pokerarena.api.context import PartsOf, Session
from pokerarena.api.idempotency import IdempotentRoute
from pokerarena.api.shapes import CodeText, PasswordText, RequestShape, Shown
from pokerarena.auth import login, second_factor, sessions
from pokerarena.auth.permissions import Permission, Principal

router = APIRouter(prefix="/me/second-factor", tags=["me"], route_class=IdempotentRoute)

Caller = Annotated[Principal, needs(Permission.SECOND_FACTOR_MANAGE)]


class SecondFactorShown(Shown):
    """Whether the account has a second factor."""

    enabled: bool
    recovery_codes_left: int


class Enrolment(RequestShape):
    """One's present password: a session alone cannot bind an account to a new device.

    An account without a password shows instead that its login was just now.
    """

    current_password: PasswordText | None = None


class Code(RequestShape):
    """A code that the authenticator shows, or a recovery code where one is taken."""

    code: CodeText


class Removal(Enrolment, Code):
    """One's password and a code: what a login takes."""


class EnrolmentShown(Shown):
    """The seed for the authenticator, shown this once."""

    secret: str
    otpauth_uri: str


class RecoveryCodes(Shown):
    """Codes for when the authenticator is lost, shown this once; each works once."""

    recovery_codes: list[str]


@router.get("")
async def read_second_factor(caller: Caller, session: Session) -> SecondFactorShown:
    """Whether one has a second factor, and how many recovery codes are left."""
    has = await second_factor.standing(session, caller.known_id())
    return SecondFactorShown(enabled=has.enabled, recovery_codes_left=has.recovery_codes_left)


@router.post("", status_code=201)
async def enrol(
    caller: Caller, body: Enrolment, request: Request, parts: PartsOf, session: Session
) -> EnrolmentShown:
    """Begin to set one up. It counts once a code of it was sent to `confirm`."""
    await login.check_own_password(
        parts.door(),
        user_id=caller.known_id(),
        session_id=caller.session_id,
        password=body.current_password,
        address=client_address(request, parts.settings),
    )
    made = await second_factor.enrol(
        session, parts.sealer, user_id=caller.known_id(), username=caller.username
    )
    return EnrolmentShown(secret=made.secret, otpauth_uri=made.uri)


@router.post("/confirm")
async def confirm(caller: Caller, body: Code, parts: PartsOf, session: Session) -> RecoveryCodes:
    """Let the second factor count from now on. This session has shown it, too."""
    codes = await second_factor.confirm(
        session,
        parts.sealer,
        parts.token_mac,
        user_id=caller.known_id(),
        code=body.code,
        moment=time.time(),
    )
    if caller.session_id is not None:
        await sessions.prove_second_factor(session, caller.session_id)
    parts.callers.forget_once_committed(session)
    return RecoveryCodes(recovery_codes=codes)


@router.post("/recovery-codes")
async def renew_recovery_codes(
    caller: Caller, body: Code, request: Request, parts: PartsOf, session: Session
) -> RecoveryCodes:
    """New recovery codes for a code; those of before count no more."""
    await login.check_own_code(
        parts.door(),
        user_id=caller.known_id(),
        code=body.code,
        address=client_address(request, parts.settings),
    )
    codes = await second_factor.renew_recovery_codes(session, parts.token_mac, caller.known_id())
    return RecoveryCodes(recovery_codes=codes)


@router.post("/remove", status_code=204)
async def remove(
    caller: Caller, body: Removal, request: Request, parts: PartsOf, session: Session
) -> Response:
    """Take the second factor away."""
    address = client_address(request, parts.settings)
    await login.check_own_password(
        parts.door(),
        user_id=caller.known_id(),
        session_id=caller.session_id,
        password=body.current_password,
        address=address,
    )
    await login.check_own_code(
        parts.door(), user_id=caller.known_id(), code=body.code, address=address
    )
    await second_factor.remove(session, caller.known_id())
    parts.callers.forget_once_committed(session)
    return Response(status_code=204)
