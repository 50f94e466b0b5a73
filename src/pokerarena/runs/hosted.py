"""Hosted agents in their seats: the agent-hosts of a worker, and patience with them.

Owns the way from settings to a pool of agent-hosts, and what a run does while none has room or is
there: it waits. Packages are fetched here, from the database, only when a host lacks them.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import exists, update
from sqlalchemy.ext.asyncio import AsyncSession

from pokerarena.agents.models import AgentVersion
from pokerarena.agents.packages import read_package
from pokerarena.agents.player import Failure, FallbackReason, Reply
from pokerarena.auth.permissions import Principal
from pokerarena.db import Database
from pokerarena.errors import ArenaError, ConfigurationError, NotFound, Unavailable
from pokerarena.protocol.messages import Callback, HandEnd, RunEnd, RunStart
from pokerarena.runs.models import Run, RunSeat
from pokerarena.runs.seams import RunFault
from pokerarena.runs.viewers import see_run
from pokerarena.sandbox.host_client import HostAddress, HostPool
from pokerarena.sandbox.player import HostedPlayer
from pokerarena.sandbox.remote_player import RemotePlayer
from pokerarena.service_identity.keys import ServiceName, parse_key_set, parse_private_key
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.settings import ENV_PREFIX, Environment, Settings
from pokerarena.watched_file import source_of
from pokerarena_sdk import manifest as manifests

RETRY_PAUSE_S: Final = (0.2, 0.6)
# Less than a seat grants a player of ours beyond its deadline.
RECOVERY_WAIT_S: Final = 4.0
STDERR_KEPT_CHARS: Final = 16_000
ENDS_KEPT: Final = 5


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


def lodge(hosts: HostPool, version: AgentVersion) -> HostedPlayer | RemotePlayer:
    """A player for a hosted version, not opened yet."""
    assert version.package_digest is not None, "the schema says so"
    return hosts.player(version.package_digest.hex(), manifests.parse(version.manifest))


class HostedSeat:
    """Implements `agents.player.Player`: a hosted player that outlives the loss of its host."""

    def __init__(self, player: HostedPlayer | RemotePlayer, wait_s: float) -> None:
        self._player = player
        self._wait_s = wait_s

    @property
    def max_in_flight(self) -> int:
        return self._player.max_in_flight

    async def open(self, run_start: RunStart) -> None:
        """Wait for a host with room; `RunFault` when there is none for too long."""
        give_up_s = time.monotonic() + self._wait_s
        while True:
            try:
                await self._player.open(run_start)
            except ArenaError as error:
                if error.code == "package_gone" or time.monotonic() > give_up_s:
                    raise RunFault(error.code, error.message) from None
            else:
                return
            # Runs that wait together must not ask together.
            await asyncio.sleep(random.uniform(*RETRY_PAUSE_S))  # noqa: S311 - jitter

    async def decide(self, callback: Callback, deadline_ms: int) -> Reply:
        reply = await self._player.decide(callback, deadline_ms)
        if isinstance(reply, Failure) and reply.reason is FallbackReason.INFRASTRUCTURE:
            # This hand is void in any case; the next one shall find the agent running again.
            await self._player.recovered(RECOVERY_WAIT_S)
        return reply

    async def tell(self, message: HandEnd | RunEnd) -> None:
        await self._player.tell(message)

    async def close(self) -> None:
        await self._player.close()

    def report(self) -> dict[str, Any]:
        """What its sandboxes used and said, bounded, for the agent's owner."""
        return usage_report(self._player)


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
