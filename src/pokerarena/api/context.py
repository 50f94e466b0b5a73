"""What every request can reach: the process's parts, and one session in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.auth.callers import Callers
from pokerarena.auth.federation.flow import Federation
from pokerarena.auth.login import Door
from pokerarena.auth.passwords import PasswordHasher
from pokerarena.auth.refusals import Refusals
from pokerarena.auth.signing_keys import SigningKeys
from pokerarena.auth.tokens import TokenMac
from pokerarena.db import Database
from pokerarena.sealing import Sealer
from pokerarena.settings import Settings

if TYPE_CHECKING:
    from pokerarena.api.hub import LiveHub
    from pokerarena.api.rate_limits import RateLimits


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one API process, made once by `create_app`."""

    settings: Settings
    database: Database
    hasher: PasswordHasher
    token_mac: TokenMac
    sealer: Sealer
    hub: LiveHub
    signing_keys: SigningKeys
    callers: Callers
    refusals: Refusals
    rate_limits: RateLimits
    # Set once the process was asked to stop: it serves on for a moment, and says that it leaves.
    leaving: asyncio.Event
    federation: Federation

    def door(self) -> Door:
        """What a login is judged with."""
        return Door(self.settings, self.database, self.hasher, self.token_mac, self.sealer)


def _parts(request: Request) -> Parts:
    return cast("Parts", request.app.state.parts)


PartsOf = Annotated[Parts, Depends(_parts)]


async def _session(parts: PartsOf) -> AsyncIterator[AsyncSession]:
    async with parts.database.unit_of_work() as session:
        yield session


# Function scope: the transaction ends before the response begins, so that nobody is told of a
# change that was not committed, and no connection waits for a slow reader. A connection is taken
# at the first statement only.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
