"""From a run's lineup to players in their seats.

Owns which kind of version becomes which kind of player, and the limits it plays under. Secrets are
opened here, at the last moment, and kept nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.conformance import Finding, Summary, check_agent
from pokerarena.agents.dial import Dialer, DialLimits
from pokerarena.agents.house import HousePlayer, UnknownHouseAgent
from pokerarena.agents.http import HttpLimits, HttpPlayer
from pokerarena.agents.models import AgentVersion, VersionKind
from pokerarena.agents.player import Player
from pokerarena.agents.registry import open_signing_secret
from pokerarena.agents.seat import SeatedPlayer, SeatSettings
from pokerarena.egress.watch import EgressWatch
from pokerarena.ids import IdKind, id_text
from pokerarena.runs.formats import RunRules
from pokerarena.runs.hosted import RunLodging, WaitingRuns
from pokerarena.runs.models import RunSeat
from pokerarena.runs.seams import RunFault, Seating
from pokerarena.sandbox.host_client import HostPool
from pokerarena.sandbox.runtime import RuntimeName
from pokerarena.sealing import Sealer
from pokerarena.settings import Settings


async def load_versions(
    session: AsyncSession, seats: Sequence[RunSeat]
) -> dict[UUID, AgentVersion]:
    """The versions of a lineup, by id."""
    wanted = {seat.version_id for seat in seats}
    found = await session.scalars(select(AgentVersion).where(AgentVersion.id.in_(wanted)))
    return {version.id: version for version in found}


class Lineup(NamedTuple):
    """Players in all seats, and the place where the hosted ones are kept."""

    seating: dict[int, Seating]
    lodging: RunLodging | None


class SeatBuilder:
    """Builds players; one per process, because all its HTTP players share their connections."""

    def __init__(
        self,
        settings: Settings,
        sealer: Sealer,
        egress: EgressWatch,
        hosts: HostPool | None = None,
    ) -> None:
        self._settings = settings
        self._egress = egress
        self._hosts = hosts
        self._waiting = WaitingRuns(settings.agent_host_waiting_max)
        self._sealer = sealer
        self._dialer = Dialer(egress.policy, dial_limits(settings))
        egress.on_policy = self._dialer.use
        if hosts is not None:
            egress.on_renewal = hosts.renew_egress

    async def seat(
        self,
        run_id: UUID,
        seats: Sequence[RunSeat],
        versions: Mapping[UUID, AgentVersion],
        rules: RunRules,
        seed: bytes,
        runtime: str | None = None,
    ) -> Lineup:
        """A player in every seat. Raises `RunFault` when one cannot be seated."""
        seating = {}
        lodging = self._lodging(seats, versions, RuntimeName(runtime or RuntimeName.RUNC))
        for seat in seats:
            version = versions[seat.version_id]
            player = await self._player(run_id, seat.seat_no, version, seed, lodging)
            limits = SeatSettings(
                time_limit_ms=rules.action_time_ms,
                time_bank_ms=seat.time_bank_ms,
                circuit_failure_limit=self._settings.circuit_failures,
                circuit_cooldown_s=self._settings.circuit_cooldown_s,
            )
            seating[seat.seat_no] = Seating(
                f"{seat.agent_name}",
                SeatedPlayer(player, limits, kind=version.kind),
                version.wants_events,
                id_text(IdKind.VERSION, version.id),
            )
        return Lineup(seating, lodging)

    def _lodging(
        self,
        seats: Sequence[RunSeat],
        versions: Mapping[UUID, AgentVersion],
        runtime: RuntimeName,
    ) -> RunLodging | None:
        """One booking for all hosted seats: none of them may hold room that another waits for."""
        hosted = [
            seat for seat in seats if versions[seat.version_id].kind == VersionKind.HOSTED.value
        ]
        if not hosted:
            return None
        if self._hosts is None:
            raise RunFault(
                "hosted_unavailable",
                f"Seat {hosted[0].seat_no} has a hosted version, and this worker knows no "
                "agent-host; start one and name it in POKERARENA_AGENT_HOSTS, or seat an http or "
                "house version.",
            )
        booking = self._hosts.book(len(hosted), runtime=runtime)
        return RunLodging(booking, self._waiting, self._settings.agent_host_wait_s)

    async def _player(
        self,
        run_id: UUID,
        seat_no: int,
        version: AgentVersion,
        seed: bytes,
        lodging: RunLodging | None,
    ) -> Player:
        if version.kind == VersionKind.HOUSE.value:
            assert version.house_name is not None, "the schema says so"
            return house_player(version.house_name, seed, run_id, seat_no)
        if version.kind == VersionKind.HTTP.value:
            return await self._http_player(version)
        assert lodging is not None, "there is one for every lineup with a hosted version"
        return lodging.seat(version, self._egress.pass_for(version.id, run_id))

    async def _http_player(self, version: AgentVersion) -> HttpPlayer:
        assert version.callback_url is not None, "the schema says so"
        return HttpPlayer(
            version.callback_url,
            self._dialer,
            secret=await open_signing_secret(version, self._sealer),
            max_batch=version.max_batch,
            wants_events=version.wants_events,
            limits=HttpLimits(
                max_answer_bytes=self._settings.callback_max_response_bytes,
                max_in_flight=version.max_in_flight,
            ),
        )

    async def examination(
        self, version: AgentVersion, time_limit_ms: int
    ) -> AsyncGenerator[Finding | Summary, None]:
        """A check of an ``http`` version, over the connections that its runs would use."""
        assert version.callback_url is not None, "the schema says so"
        return check_agent(
            version.callback_url,
            self._dialer,
            secret=await open_signing_secret(version, self._sealer),
            time_limit_ms=time_limit_ms,
            max_batch=version.max_batch,
        )

    async def close(self) -> None:
        """Close the connections of all players."""
        await self._dialer.close()


def house_player(name: str, seed: bytes, run_id: UUID, seat_no: int) -> Player:
    """A house player with its own randomness, which says nothing about the cards."""
    own_seed = hashlib.sha256(b"house" + run_id.bytes + bytes((seat_no,)) + seed).digest()
    try:
        return HousePlayer(name, own_seed)
    except UnknownHouseAgent as error:
        raise RunFault("house_agent_unknown", f"Seat {seat_no}: {error}.") from None


def dial_limits(settings: Settings) -> DialLimits:
    """How long a dialer waits, as the operator has configured it."""
    return DialLimits(
        connect_timeout_ms=settings.callback_connect_timeout_ms,
        resolve_timeout_ms=settings.callback_resolve_timeout_ms,
        pin_lifetime_s=settings.callback_resolve_ttl_s,
    )
