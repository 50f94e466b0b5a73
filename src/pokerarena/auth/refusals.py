"""Refusals, recorded within bounds: the first ones of each kind, and how many more there were.

Whoever is refused writes to the audit chain by it; without a bound that would be a way to fill the
database. Asking for what is not there has a bound of its own, far narrower, so that a scan over ids
neither floods the chain nor takes the place of other refusals. A refused request was rolled back, so
each record has a transaction of its own. This module must never turn a refusal into another answer,
nor do more for a thing that is hidden than for one that is not there: the time would tell.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from pokerarena.auth import audit
from pokerarena.auth.audit import Event
from pokerarena.auth.permissions import Principal
from pokerarena.db import Database
from pokerarena.errors import ArenaError, ErrorKind
from pokerarena.telemetry import get_logger

WINDOW_S: Final = 60.0
KINDS_REMEMBERED_MAX: Final = 10_000
# However many callers there are.
RECORDS_PER_WINDOW_MAX: Final = 600
# Of things that were asked for and not shown: one a caller, with how many more there were.
NOT_FOUND_EACH_MAX: Final = 1
NOT_FOUND_PER_WINDOW_MAX: Final = 60
# Recorded where they are decided, with what is known there.
RECORDED_ELSEWHERE: Final = frozenset({"login_failed", "second_factor_wrong"})
# Of somebody whom a provider sent, whatever kind of error it is.
OF_IDENTITIES: Final = frozenset(
    {
        "federated_login_failed",
        "federated_login_declined",
        "identity_not_linked",
        "identity_taken",
        "email_unverified",
    }
)
# Says nothing about anybody: a client that did not log in.
NO_CREDENTIALS: Final = "authentication_required"

log = get_logger("auth")


@dataclass(slots=True)
class _Window:
    ends_at_s: float
    taken: int = 0
    suppressed: int = 0


class Sampler:
    """Lets a few of each kind through in a minute, and counts the others."""

    def __init__(
        self,
        each_max: int,
        *,
        all_max: int = RECORDS_PER_WINDOW_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._each_max = each_max
        self._all_max = all_max
        self._monotonic = monotonic
        self._kinds: OrderedDict[Hashable, _Window] = OrderedDict()
        self._all = _Window(0.0)

    def take(self, kind: Hashable) -> int | None:
        """How many of this kind were left out since the last one; None to leave this one out."""
        now_s = self._monotonic()
        if now_s >= self._all.ends_at_s:
            self._all = _Window(now_s + WINDOW_S)
        window = self._kinds.get(kind)
        if window is None or now_s >= window.ends_at_s:
            missed = window.suppressed if window is not None else 0
            window = self._kinds[kind] = _Window(now_s + WINDOW_S, suppressed=missed)
            self._kinds.move_to_end(kind)
            if len(self._kinds) > KINDS_REMEMBERED_MAX:
                self._kinds.popitem(last=False)
        if window.taken >= self._each_max or self._all.taken >= self._all_max:
            window.suppressed += 1
            return None
        window.taken += 1
        self._all.taken += 1
        missed, window.suppressed = window.suppressed, 0
        return missed


class Refusals:
    """Records what one process refuses."""

    def __init__(self, database: Database, each_max: int) -> None:
        self._database = database
        self._sampler = Sampler(each_max)
        self._scans = Sampler(NOT_FOUND_EACH_MAX, all_max=NOT_FOUND_PER_WINDOW_MAX)

    async def note(
        self,
        error: ArenaError,
        principal: Principal,
        *,
        address: str,
        route: str,
        subject: str | None,
    ) -> None:
        """Record a refusal, where it is one and its kind was not recorded often just now."""
        event = _event_of(error, principal)
        if event is None:
            return
        who: Hashable = principal.user_id or principal.token_id or address
        sampler = self._scans if event is Event.ACCESS_NOT_FOUND else self._sampler
        suppressed = sampler.take((event, who))
        if suppressed is None:
            return
        try:
            async with self._database.unit_of_work() as session:
                audit.record(
                    session,
                    event,
                    principal=principal,
                    subject=subject,
                    code=error.code,
                    route=route,
                    address=address,
                    suppressed=suppressed,
                )
        except (SQLAlchemyError, OSError) as failure:
            log.error("audit_failed", event_name=event.value, why=type(failure).__name__)


def _event_of(error: ArenaError, principal: Principal) -> Event | None:
    if error.kind is ErrorKind.NOT_FOUND:
        # Of somebody who is nobody in particular it says nothing about anybody.
        known = principal.user_id is not None or principal.seat is not None
        return Event.ACCESS_NOT_FOUND if known else None
    if error.code in RECORDED_ELSEWHERE or error.code == NO_CREDENTIALS:
        return None
    if error.code in OF_IDENTITIES:
        return Event.IDENTITY_REFUSED
    return {
        ErrorKind.FORBIDDEN: Event.PERMISSION_REFUSED,
        ErrorKind.UNAUTHENTICATED: Event.TOKEN_REFUSED,
        ErrorKind.THROTTLED: Event.ATTEMPTS_THROTTLED,
    }.get(error.kind)
