"""Typed configuration, read once at start from the environment (prefix ``POKERARENA_``).

Every bound of the program is a named setting here, with its unit in its name and a safe default.
This module must never read anything but the environment and the secret files that it names, and
must never put a secret's value into a message.
"""

from __future__ import annotations

import os
from base64 import b64decode
from binascii import Error as Base64Error
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from pokerarena.errors import ConfigurationError
from pokerarena.settings_operations import OperationsSettings

ENV_PREFIX = "POKERARENA_"
DEVELOPMENT_SECRET_MARK = "development-only"  # noqa: S105 - it marks secrets that are none


class Environment(StrEnum):
    """Where the program runs. ``production`` refuses development defaults."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Registration(StrEnum):
    """Whether anybody may create an account, or only an operator."""

    OPEN = "open"
    CLOSED = "closed"


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
CommaSeparatedPorts = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split_commas)]


class Settings(OperationsSettings):
    """All settings of all roles; each role reads the part that it needs."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True)

    environment: Environment = Field(
        default=Environment.DEVELOPMENT,
        description="`production` refuses every development default",
    )

    # Database.
    database_url: SecretStr = Field(
        description="SQLAlchemy URL of PostgreSQL, e.g. postgresql+psycopg://user@host/pokerarena"
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=200, description="connections of one process"
    )
    database_pool_wait_s: float = Field(
        default=5.0, gt=0, le=60, description="how long a request waits for a free connection"
    )
    database_statement_timeout_ms: int = Field(
        default=15_000, ge=100, le=600_000, description="the longest that one statement may take"
    )
    database_slow_statement_ms: int = Field(
        default=500, ge=0, description="statements that take so long are logged, without values"
    )

    # Secrets. Both are 32 random bytes in base64.
    master_key: SecretStr = Field(
        default=SecretStr(""), description="seals what must be read back: seeds, signing secrets"
    )
    token_pepper: SecretStr = Field(
        default=SecretStr(""), description="key of the MAC under which tokens are stored"
    )

    # Identity.
    registration: Registration = Field(
        default=Registration.CLOSED,
        description="whether anybody may create an account, or only an operator",
    )
    session_ttl_s: int = Field(
        default=12 * 3600, ge=60, le=30 * 86_400, description="how long a login lasts"
    )
    token_max_ttl_s: int = Field(
        default=366 * 86_400,
        ge=60,
        le=5 * 366 * 86_400,
        description="the longest life of a personal token",
    )
    password_min_length: int = Field(
        default=15, ge=8, le=64, description="characters of a new password, at least"
    )
    argon2_memory_kib: int = Field(
        default=19 * 1024,
        ge=8 * 1024,
        le=1024 * 1024,
        description="memory of one password hash; stored hashes follow at the next login",
    )
    argon2_parallel_hashes: int = Field(
        default=2, ge=1, le=32, description="password hashes at once in one process"
    )

    # API.
    api_host: str = Field(default="127.0.0.1", description="address that the API listens on")
    api_port: int = Field(
        default=8080,
        ge=0,
        le=65_535,
        description="port that the API listens on; 0 takes a free one",
    )
    api_trusted_proxies: CommaSeparated = Field(
        default=(),
        description="networks of proxies whose X-Forwarded-For is believed, e.g. 10.0.0.0/8",
    )
    api_max_body_bytes: int = Field(
        default=256 * 1024, ge=1024, le=64 * 1024 * 1024, description="the largest request body"
    )
    api_body_timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="how long a request body may take to arrive"
    )
    api_json_depth_max: int = Field(
        default=32, ge=4, le=500, description="how deep a request body may nest"
    )
    api_url_max_bytes: int = Field(
        default=4096, ge=256, le=32_768, description="the longest path with its query"
    )
    api_headers_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="how long the head of a request may take to arrive"
    )
    api_send_timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="how long a client may leave a response unread"
    )
    api_requests_max: int = Field(
        default=1000, ge=1, le=100_000, description="requests in progress in one process"
    )
    api_page_max: int = Field(default=200, ge=1, le=1000, description="the largest page of a list")
    api_page_default: int = Field(
        default=50, ge=1, le=1000, description="the page of a list when the caller names no limit"
    )
    idempotency_ttl_s: int = Field(
        default=86_400,
        ge=1,
        le=30 * 86_400,
        description="how long the answer to a request with an Idempotency-Key is kept",
    )
    idempotency_answer_max_bytes: int = Field(
        default=64 * 1024, ge=256, le=1024 * 1024, description="the largest answer that is kept"
    )
    idempotency_sweep_s: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="how often kept answers that expired are deleted",
    )
    stream_max_per_process: int = Field(
        default=500, ge=1, le=100_000, description="live streams at once in one process"
    )
    stream_max_s: int = Field(
        default=3600,
        ge=1,
        le=86_400,
        description="how long a live stream lasts before its client connects again",
    )
    stream_send_timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="how long a client may leave an event unread"
    )
    stream_recheck_s: float = Field(
        default=15.0, gt=0, le=600, description="how often an open stream's rights are looked up"
    )
    stream_keepalive_s: float = Field(
        default=10.0,
        gt=0,
        le=120,
        description="a silent live stream says this often that it is alive",
    )

    # Per-user quotas.
    agents_per_user_max: int = Field(default=100, ge=1, description="agents of one user")
    versions_per_agent_max: int = Field(default=1000, ge=1, description="versions of one agent")
    tables_per_user_max: int = Field(default=100, ge=1, description="tables of one user")
    tokens_per_user_max: int = Field(default=50, ge=1, description="personal tokens of one user")
    run_hands_max: int = Field(default=1_000_000, ge=1, description="hands of one run")
    runs_active_per_user_max: int = Field(
        default=20, ge=1, description="queued and running runs of one user"
    )

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

    # Worker.
    worker_processes: int = Field(
        default=1, ge=1, le=256, description="player processes of one worker; about one a core"
    )
    worker_runs_per_process: int = Field(
        default=1000, ge=1, le=10_000, description="runs at once in one player process"
    )
    worker_drain_s: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="how long a worker that was asked to stop may finish hands",
    )
    run_lease_s: float = Field(
        default=20.0,
        ge=1,
        le=600,
        description="how long a run belongs to a worker that has fallen silent",
    )
    run_lease_renew_s: float = Field(
        default=5.0,
        gt=0,
        le=300,
        description="how often a lease is renewed; at most half of the lease",
    )
    reaper_interval_s: float = Field(
        default=5.0,
        gt=0,
        le=300,
        description="how often a worker looks for runs that another one left",
    )
    queue_keep_s: int = Field(
        default=7 * 86_400, ge=60, le=366 * 86_400, description="how long ended jobs are kept"
    )
    dead_letters_keep_s: int = Field(
        default=90 * 86_400,
        ge=60,
        le=10 * 366 * 86_400,
        description="how long closed dead letters are kept; open ones stay",
    )
    run_recoveries_max: int = Field(
        default=5, ge=1, le=100, description="recoveries in a row without one completed hand"
    )
    group_commit_hands: int = Field(
        default=64,
        ge=1,
        le=5000,
        description="a group of finished hands is committed when it has so many,",
    )
    group_commit_ms: int = Field(default=20, ge=0, le=1000, description="or is so old")
    hands_ahead_max: int = Field(
        default=256, ge=1, le=10_000, description="hands of one run played but not yet committed"
    )
    commit_retry_s: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="how long a commit is tried again before its runs are given back",
    )
    live_updates_per_s: float = Field(
        default=8.0, gt=0, le=50, description="pictures a second of a watched table"
    )

    @model_validator(mode="after")
    def _refuse_development_defaults(self) -> Settings:
        if self.run_lease_renew_s * 2 > self.run_lease_s:
            raise ValueError("run_lease_renew_s must be at most half of run_lease_s")
        for network in self.api_trusted_proxies:
            ip_network(network)
        if self.environment is Environment.PRODUCTION:
            for name in ("master_key", "token_pepper"):
                if not getattr(self, name).get_secret_value():
                    raise ValueError(f"{name} must be set in production")
            if self.callback_schemes != ("https",) and not self.callback_allow_private:
                raise ValueError("callback_schemes must be https in production")
        return self

    def master_key_bytes(self) -> bytes:
        """The 32 bytes of the sealing key."""
        return _key_bytes("master_key", self.master_key, self.environment)

    def backup_key_bytes(self) -> bytes:
        """The 32 bytes that backups are sealed under."""
        return _key_bytes("backup_key", self.backup_key, self.environment)

    def token_pepper_bytes(self) -> bytes:
        """The 32 bytes of the token pepper."""
        return _key_bytes("token_pepper", self.token_pepper, self.environment)


def _key_bytes(name: str, secret: SecretStr, environment: Environment) -> bytes:
    text = secret.get_secret_value()
    if not text:
        if environment is Environment.PRODUCTION:
            raise ConfigurationError(f"{ENV_PREFIX}{name.upper()} is not set")
        return f"{DEVELOPMENT_SECRET_MARK}:{name}".encode().ljust(32, b".")[:32]
    try:
        key = b64decode(text, validate=True)
    except Base64Error:
        key = b""
    if len(key) != 32:
        raise ConfigurationError(
            f"{ENV_PREFIX}{name.upper()} must be 32 bytes in base64; "
            "make one with: head -c 32 /dev/urandom | base64"
        )
    return key


def _read_secret_files(environ: dict[str, str]) -> dict[str, str]:
    """Replace every ``POKERARENA_X_FILE`` by ``POKERARENA_X`` with the file's content."""
    values: dict[str, str] = {}
    for variable, path in environ.items():
        if not (variable.startswith(ENV_PREFIX) and variable.endswith("_FILE")):
            continue
        name = variable.removeprefix(ENV_PREFIX).removesuffix("_FILE").lower()
        if name not in Settings.model_fields:
            continue
        try:
            values[name] = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(
                f"{variable} names a file that cannot be read ({error.strerror}); "
                "correct the path or its permissions"
            ) from None
    return values


def load_settings(**overrides: Any) -> Settings:
    """Read and validate the settings.

    Raises `ConfigurationError` with one line that names the first setting that is missing or wrong.
    """
    values = _read_secret_files(dict(os.environ)) | overrides
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        what = first["msg"].removeprefix("Value error, ")
        if where == "configuration":
            raise ConfigurationError(f"configuration: {what}") from None
        raise ConfigurationError(
            f"{ENV_PREFIX}{where.upper()}: {what.lower()}; set it in the environment "
            f"(docs/operations.md lists every setting)"
        ) from None


@lru_cache(maxsize=1)
def current_settings() -> Settings:
    """The process's settings, read at first use."""
    return load_settings()
