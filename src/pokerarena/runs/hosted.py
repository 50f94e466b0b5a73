"""Hosted agents in their seats: the agent-hosts of a worker, and patience with them.

Owns the way from settings to a pool of agent-hosts, and what a run does while none has room or is
there: it waits. A run has one booking for all its hosted seats. Packages are fetched here, from the
database, only when a host lacks them.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import exists, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena import metrics
from pokerarena.agents.models import AgentVersion
from pokerarena.agents.packages import read_package
from pokerarena.agents.player import Reply
from pokerarena.auth.permissions import Principal
from pokerarena.db import Database
from pokerarena.egress.grants import GrantSource
from pokerarena.errors import ArenaError, ConfigurationError, NotFound, Unavailable
from pokerarena.protocol.messages import Callback, HandEnd, RunEnd, RunStart
from pokerarena.runs.models import Run, RunSeat
from pokerarena.runs.seams import Crowded, RunFault
from pokerarena.runs.viewers import see_run
from pokerarena.sandbox.booking import Booking
from pokerarena.sandbox.host_client import HostAddress, HostPool
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.remote_player import RemotePlayer
from pokerarena.service_identity.keys import ServiceName, parse_key_set, parse_private_key
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.settings import ENV_PREFIX, Environment, Settings
from pokerarena.telemetry import get_logger
from pokerarena.watched_file import source_of
from pokerarena_sdk import manifest as manifests

log = get_logger("runs.hosted")

# A host with room on which nothing starts is left for another after this long.
MOVE_AFTER_S: Final = 10.0
STDERR_KEPT_CHARS: Final = 16_000
ENDS_KEPT: Final = 5
_HOPELESS: Final = ("package_gone",)


def host_pool(settings: Settings, database: Database, subject: str) -> HostPool | None:
    """The agent-hosts that the settings name; None without any. Raises `ConfigurationError`."""
    if not settings.agent_hosts:
        return None
    identity = _identity(settings, subject)

    async def load(digest: str) -> bytes:
        async with database.session() as session:
            packed = await read_package(session, digest)
        if packed is None:
            raise Unavailable("package_gone", "The version's package is gone: it was retired.")
        return packed

    addresses = [_address(text, settings) for text in settings.agent_hosts]
    return HostPool(addresses, identity, load)


def _identity(settings: Settings, subject: str) -> ServiceIdentity:
    """This process as a worker; its files are read again when they change."""
    pem = settings.service_key.get_secret_value()
    if not (pem and settings.service_public_keys):
        raise ConfigurationError(
            f"{ENV_PREFIX}AGENT_HOSTS is set, so {ENV_PREFIX}SERVICE_KEY_FILE must name this "
            f"worker's key and {ENV_PREFIX}SERVICE_PUBLIC_KEYS_FILE the public keys of all services"
        )
    return ServiceIdentity(
        ServiceName.WORKER,
        subject,
        key=source_of(
            settings.file_of("service_key"),
            pem,
            parse_private_key,
            private=settings.environment is Environment.PRODUCTION,
        ),
        keys=source_of(
            settings.file_of("service_public_keys"), settings.service_public_keys, parse_key_set
        ),
        believes={ServiceName.AGENT_HOST},
    )


def _address(text: str, settings: Settings) -> HostAddress:
    name, _, where = text.partition("=")
    host, _, port = where.rpartition(":")
    if name and where.startswith("/"):
        return HostAddress(name, Path(where))
    if name and host and port.isdecimal():
        tls = ssl.create_default_context(cafile=settings.agent_host_ca or None)
        return HostAddress(name, host=host.strip("[]"), port=int(port), tls=tls)
    raise ConfigurationError(
        f"{ENV_PREFIX}AGENT_HOSTS: {text!r} is neither NAME=/PATH/OF.sock nor NAME=HOST:PORT"
    )


class HostedSeat:
    """Implements `agents.player.Player`: a hosted player that outlives the loss of its host."""

    def __init__(self, player: HostedPlayer | RemotePlayer) -> None:
        self._player = player
        self._opened = False

    @property
    def max_in_flight(self) -> int:
        return self._player.max_in_flight

    @property
    def at_play(self) -> bool:
        """Whether there is nothing of ours to wait for before it is asked."""
        return not self._opened or not self._player.hindered

    async def open(self, run_start: RunStart) -> None:
        """Start the agent. A fault of ours that may pass is `recovered` from before the first hand."""
        self._opened = True
        try:
            await self._player.open(run_start)
        except ArenaError as error:
            if error.code in _HOPELESS:
                raise RunFault(error.code, error.message) from None
            log.warning("agent_not_started", code=error.code, reason=error.message)

    async def recovered(self, within_s: float) -> bool:
        """Whether no fault of ours keeps it from playing, now or within this time."""
        return not self._opened or await self._player.recovered(within_s)

    async def decide(self, callback: Callback, deadline_ms: int) -> Reply:
        return await self._player.decide(callback, deadline_ms)

    async def tell(self, message: HandEnd | RunEnd) -> None:
        await self._player.tell(message)

    async def close(self) -> None:
        await self._player.close()

    def report(self) -> dict[str, Any]:
        """What its sandboxes used and said, bounded, for the agent's owner."""
        return usage_report(self._player)


class WaitingRuns:
    """The runs of one process that wait for room on an agent-host, bounded in number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._since_s: dict[RunLodging, float] = {}

    def begin(self, lodging: RunLodging) -> None:
        """It waits from now on. Raises `Crowded` for a run that has not begun, beyond the bound."""
        if lodging in self._since_s:
            return
        if len(self._since_s) >= self._most and not lodging.begun:
            raise Crowded
        self._since_s[lodging] = time.monotonic()
        metrics.RUNS_WITHOUT_ROOM.number().set(len(self._since_s))

    def end(self, lodging: RunLodging) -> None:
        """It waits no longer."""
        since_s = self._since_s.pop(lodging, None)
        if since_s is not None:
            metrics.RUNS_WITHOUT_ROOM.number().set(len(self._since_s))
            metrics.ROOM_SECONDS.distribution().observe(time.monotonic() - since_s)


class RunLodging:
    """Implements `runs.seams.Lodging`: one booking for all hosted seats of a run, and patience.

    For room it waits as long as it takes, in the order of arrival. Where there is room and an agent
    cannot be started all the same, something of ours is broken, and the run fails after a while.
    """

    def __init__(self, booking: Booking, waiting: WaitingRuns, start_wait_s: float) -> None:
        self._booking = booking
        self._waiting = waiting
        self._start_wait_s = start_wait_s
        self._stuck_since_s: float | None = None
        self._move_at_s = 0.0
        self._seats: list[HostedSeat] = []
        self.begun = False

    def seat(self, version: AgentVersion, egress: GrantSource) -> HostedSeat:
        """A seat for a hosted version, within the booking; not opened yet."""
        seat = HostedSeat(lodge(self._booking, version, egress))
        self._seats.append(seat)
        return seat

    async def ready(self, within_s: float) -> bool:
        """Whether all of them can play, now or within this time."""
        if self._booking.connection is not None and all(seat.at_play for seat in self._seats):
            self._arrived()
            return True
        self._waiting.begin(self)
        if not await self._booking.held(within_s):
            self._stuck_since_s = None
            return False
        recovered = await asyncio.gather(*[seat.recovered(within_s) for seat in self._seats])
        if self._booking.connection is None:
            return False
        if all(recovered):
            self._arrived()
            return True
        now_s = time.monotonic()
        if self._stuck_since_s is None:
            self._stuck_since_s = now_s
            self._move_at_s = now_s + MOVE_AFTER_S
        if now_s > self._move_at_s:
            self._move_at_s = now_s + MOVE_AFTER_S
            self._booking.move()
        if now_s - self._stuck_since_s > self._start_wait_s:
            raise RunFault(
                "infrastructure",
                f"An agent could not be started within {self._start_wait_s:g} s although its "
                "agent-host has room; look into that agent-host's log before you resume the run.",
            )
        return False

    def close(self) -> None:
        """Give the room back."""
        self._waiting.end(self)
        self._booking.release()

    def _arrived(self) -> None:
        self._stuck_since_s = None
        self.begun = True
        self._waiting.end(self)


def lodge(
    booking: Booking, version: AgentVersion, egress: GrantSource | None = None
) -> HostedPlayer | RemotePlayer:
    """A player within a booking, not opened yet; without `egress` it can reach nothing."""
    assert version.package_digest is not None, "the schema says so"
    manifest = manifests.parse(version.manifest)
    return booking.player(
        version.package_digest.hex(), manifest, egress=egress if manifest.egress else None
    )


def usage_report(player: HostedPlayer | RemotePlayer) -> dict[str, Any]:
    """What a player's sandboxes used and said; complete once it is closed."""
    usage = player.usage()
    return {
        "starts": usage.starts,
        "cpu_ms": usage.cpu_ns // 1_000_000,
        "memory_peak_bytes": usage.memory_peak_bytes,
        "stray_lines": usage.stray_lines,
        "ends": [
            {"reason": end.reason.value, "detail": _storable(end.detail)[:300]}
            for end in usage.ends[-ENDS_KEPT:]
        ],
        "stderr": _storable(usage.stderr)[-STDERR_KEPT_CHARS:],
    }


async def keep_reports(
    session: AsyncSession, run_id: UUID, epoch: int, reports: Mapping[int, dict[str, Any]]
) -> None:
    """Store what the sandboxes of a run said, unless somebody else plays it by now."""
    mine = exists().where(Run.id == run_id, Run.epoch == epoch)
    for seat_no, report in sorted(reports.items()):
        await session.execute(
            update(RunSeat)
            .where(RunSeat.run_id == run_id, RunSeat.seat_no == seat_no, mine)
            .values(sandbox=report)
        )


async def read_report(
    session: AsyncSession, principal: Principal, run_id: UUID, seat_no: int
) -> dict[str, Any]:
    """What the principal's own agent left behind in a run; `NotFound` for everybody else."""
    # Also for the record of what operators look at.
    seen = await see_run(session, principal, run_id)
    seat = next((seat for seat in seen.lineup if seat.seat_no == seat_no), None)
    if seat is None or not (principal.owns(seat.owner_id) or principal.is_operator):
        raise NotFound("seat")
    if seat.sandbox is None:
        raise NotFound("sandbox report")
    return seat.sandbox


def _storable(text: str) -> str:
    """PostgreSQL keeps any text but one with a zero in it, or half a character."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
