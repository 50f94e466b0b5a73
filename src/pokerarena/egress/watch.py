"""What a worker knows of the operators' lists and approvals, and how soon it learns of a change.

Owns the copy in a player process. It is read before a run begins and whenever the revision in the
database has risen, which is asked every `egress_refresh_s`: a change holds everywhere within that
time and the time of one query. While the database is away the copy stays as it is and no grant for a
proxy is renewed, so that hosted agents reach nothing after a minute.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Collection
from typing import Final
from uuid import UUID

from sqlalchemy.exc import TimeoutError as PoolBusy
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.db import Database
from pokerarena.egress import approvals, rules
from pokerarena.egress.approvals import Destination
from pokerarena.egress.grants import LIFETIME_S, EgressGrant, allowed_hosts
from pokerarena.egress.policy import EgressPolicy
from pokerarena.ids import IdKind, id_text
from pokerarena.settings import Settings
from pokerarena.telemetry import get_logger

log = get_logger("egress")

RENEW_S: Final = LIFETIME_S / 3


class EgressPass:
    """What one version may reach in one run. Implements `egress.grants.GrantSource`."""

    def __init__(self, watch: EgressWatch, version_id: UUID, run_id: UUID) -> None:
        self._watch = watch
        self.version_id = version_id
        self._run_text = id_text(IdKind.RUN, run_id)

    def grant(self) -> EgressGrant | None:
        """What operators let it reach as of now; None for nothing."""
        policy = self._watch.policy
        hosts = allowed_hosts(policy, self._watch.approved(self.version_id))
        if not hosts:
            return None
        return EgressGrant(
            id_text(IdKind.VERSION, self.version_id),
            self._run_text,
            hosts,
            plain=policy.allows_scheme("http"),
            denied_networks=tuple(map(str, policy.lists.denied_networks)),
        )


class EgressWatch:
    """The lists and approvals as this process last read them."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self.policy: EgressPolicy = rules.frame(settings)
        self._revision = -1
        self._approved: dict[UUID, frozenset[Destination]] = {}
        self._passes: weakref.WeakSet[EgressPass] = weakref.WeakSet()
        # Called with the policy when it has changed, and to renew what was granted.
        self.on_policy: Callable[[EgressPolicy], None] = lambda _: None
        self.on_renewal: Callable[[], None] = lambda: None

    def approved(self, version_id: UUID) -> frozenset[Destination]:
        """The approved hosts of a version that has been learned."""
        return self._approved.get(version_id, frozenset())

    def pass_for(self, version_id: UUID, run_id: UUID) -> EgressPass:
        """The pass of a version that has been learned; approvals are followed while it is held."""
        made = EgressPass(self, version_id, run_id)
        self._passes.add(made)
        return made

    async def learn(self, session: AsyncSession, version_ids: Collection[UUID]) -> None:
        """Read what is new, and what these versions may reach: before anything is dialled for them."""
        await self._read(session)
        self._approved |= await approvals.approved(session, version_ids)

    async def refresh(self) -> bool:
        """Look whether something has changed; whether it had."""
        async with self._database.session() as session:
            return await self._read(session)

    async def serve(self) -> None:
        """Follow changes until cancelled; a lost database ends it, to be started again."""
        loop = asyncio.get_running_loop()
        renewed_s = loop.time()
        while True:
            await asyncio.sleep(self._settings.egress_refresh_s)
            try:
                changed = await self.refresh()
            except PoolBusy:
                log.warning("egress_lists_unread", revision=self._revision)
                continue
            if changed or loop.time() - renewed_s >= RENEW_S:
                renewed_s = loop.time()
                self.on_renewal()

    async def _read(self, session: AsyncSession) -> bool:
        # The revision first: what changes between the two reads is read again at the next.
        revision = await rules.current_revision(session)
        if revision == self._revision:
            return False
        policy = await rules.current_policy(session, self._settings)
        # Also those that were learned and have no pass yet.
        held = {one.version_id for one in self._passes} | self._approved.keys()
        self._approved = await approvals.approved(session, held)
        self._revision = revision
        if policy != self.policy:
            self.policy = policy
            self.on_policy(policy)
            log.info("egress_lists_changed", revision=revision)
        return True
