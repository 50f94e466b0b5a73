"""The settings of agents: where callbacks may go, and what hosted agents may take.

A part of `settings.Settings`, which is where they are read and where everybody takes them from.
This module must never read anything itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
SandboxRuntime = Literal["runc", "runsc", "crun"]
CommaSeparatedRuntimes = Annotated[
    tuple[SandboxRuntime, ...], NoDecode, BeforeValidator(_split_commas)
]
CommaSeparatedPorts = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split_commas)]


class AgentSettings(BaseSettings):
    """What agents may reach and use; see `settings.Settings`."""

    # Callbacks to HTTP agents.
    callback_schemes: CommaSeparated = Field(
        default=("https", "http"), description="schemes that a callback URL may have"
    )
    callback_ports: CommaSeparatedPorts = Field(
        default=(),
        description="ports that a callback URL may have; empty: 80, 443 and all from 1024",
    )
    callback_domains_allowed: CommaSeparated = Field(
        default=(),
        description="the only domains (and all below) that callbacks may go to; empty: any",
    )
    callback_domains_denied: CommaSeparated = Field(
        default=(), description="domains (and all below) that callbacks never go to"
    )
    callback_allow_private: bool = Field(
        default=False, description="whether callbacks may go to private and loopback addresses"
    )
    callback_connect_timeout_ms: int = Field(
        default=1_000, ge=10, le=60_000, description="how long connecting to an agent may take"
    )
    callback_max_response_bytes: int = Field(
        default=16 * 1024, ge=256, le=1024 * 1024, description="the largest answer of an agent"
    )
    callback_resolve_timeout_ms: int = Field(
        default=1_000, ge=10, le=60_000, description="how long resolving an agent's name may take"
    )
    callback_resolve_ttl_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="how long a resolved address is used before it is looked up again",
    )
    egress_rules_max: int = Field(
        default=1_000,
        ge=1,
        le=10_000,
        description="entries of the egress lists that operators keep",
    )
    egress_refresh_s: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="how often a worker looks for changes of the egress lists and approvals",
    )
    action_time_max_ms: int = Field(
        default=120_000,
        ge=100,
        le=3_600_000,
        description="the longest time limit that a table may have",
    )
    circuit_failures: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="failures in a row after which a seat is not asked for a while",
    )
    circuit_cooldown_s: float = Field(
        default=5.0, gt=0, le=3600, description="how long it is not asked"
    )

    # Hosted agents.
    agent_hosts: CommaSeparated = Field(
        default=(),
        description="agent-hosts that a worker uses, each NAME=/PATH/OF.sock or NAME=HOST:PORT; "
        "without any it plays and checks no hosted agents",
    )
    agent_host_ca: str = Field(
        default="",
        description="file with the certificates of those who sign for agent-hosts over TLS; "
        "empty: the system's",
    )
    sandbox_runtimes: CommaSeparatedRuntimes = Field(
        default=("runc",),
        min_length=1,
        description="the runtimes that the agent-hosts offer: `runc`, `runsc` (gVisor), `crun`; a "
        "table may name one of them, the first is for all others",
    )
    agent_host_wait_s: float = Field(
        default=120.0,
        gt=0,
        le=3600,
        description="how long a run waits for its agents to start on an agent-host that has room "
        "before it fails; for room it waits as long as it takes",
    )
    agent_host_waiting_max: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="runs of one player process that wait for room on an agent-host; further ones "
        "wait in the queue",
    )
    upload_max_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="the largest upload of a hosted agent, as it is sent",
    )
    uploads_max: int = Field(
        default=4, ge=1, le=1000, description="uploads in progress in one process"
    )
    package_bytes_per_user_max: int = Field(
        default=256 * 1024 * 1024,
        ge=1024,
        description="unpacked bytes of one user's hosted versions that are not retired",
    )
