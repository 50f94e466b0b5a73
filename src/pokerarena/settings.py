"""Typed configuration, read once at start from the environment (prefix ``POKERARENA_``).

Every bound of the program is a named setting here, with its unit in its name and a safe default.
This module must never read anything but the environment and the secret files that it names, and
must never put a secret's value into a message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from pokerarena.errors import ConfigurationError
from pokerarena.identity_settings import IdentitySettings, SecondFactorRule
from pokerarena.key_material import read_secret_file
from pokerarena.secret_settings import ENV_PREFIX, Environment, KeyProviderName, SecretSettings
from pokerarena.settings_agents import AgentSettings, CommaSeparated
from pokerarena.settings_bounds import BoundsSettings
from pokerarena.settings_operations import OperationsSettings

__all__ = [
    "ENV_PREFIX",
    "Environment",
    "KeyProviderName",
    "Settings",
    "current_settings",
    "load_settings",
]


class Settings(SecretSettings, IdentitySettings, BoundsSettings, AgentSettings, OperationsSettings):
    """All settings of all roles; each role reads the part that it needs."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="ignore", frozen=True)

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

    database_silence_s: int = Field(
        default=20,
        ge=2,
        le=600,
        description="a TCP connection whose other end says nothing for so long is given up",
    )
    database_start_wait_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="how long a worker that starts waits for a database that is away",
    )

    # Audit.
    audit_refusals_per_minute: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="refusals of one caller and kind that are recorded; the others are counted",
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

    runs_active_total_max: int = Field(
        default=5_000, ge=1, description="queued and running runs of all users"
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

    # Which of the values were read from which file, so that who can may read them again.
    _files: dict[str, Path] = PrivateAttr(default_factory=dict)

    def read_from(self, files: Mapping[str, Path]) -> Settings:
        """Remember which settings were read from which files."""
        self._files = dict(files)
        return self

    def files(self) -> Mapping[str, Path]:
        """The files from which settings were read, by the setting's name."""
        return self._files

    def file_of(self, name: str) -> Path | None:
        """The file from which this setting was read; None where it was given otherwise."""
        return self._files.get(name)

    @model_validator(mode="after")
    def _refuse_development_defaults(self) -> Settings:
        if self.run_lease_renew_s * 2 > self.run_lease_s:
            raise ValueError("run_lease_renew_s must be at most half of run_lease_s")
        if self.session_idle_s > self.session_max_s:
            raise ValueError("session_idle_s must be at most session_max_s")
        if self.signing_key_publish_s < 2 * self.signing_keys_refresh_s:
            raise ValueError("signing_key_publish_s must be at least twice signing_keys_refresh_s")
        loopback = is_loopback_url(self.public_url)
        if not self.cookie_secure and not loopback:
            raise ValueError("cookie_secure may be false only where public_url is on loopback")
        for network in self.api_trusted_proxies:
            ip_network(network)
        if self.environment is Environment.PRODUCTION:
            if not self.public_url.startswith("https://") and not loopback:
                raise ValueError("public_url must be https in production")
            if self.callback_schemes != ("https",) and not self.callback_allow_private:
                raise ValueError("callback_schemes must be https in production")
            self.refuse_weak_secrets()
        for provider in self.identity_providers():
            self._check_issuer(provider.issuer)
        return self

    def _check_issuer(self, issuer: str) -> None:
        if issuer.startswith("https://"):
            return
        if self.environment is Environment.PRODUCTION:
            raise ValueError("oidc_providers: an issuer must be https in production")
        if not (self.oidc_allow_private and is_loopback_url(issuer)):
            raise ValueError(
                "oidc_providers: an issuer may be http only on loopback, with oidc_allow_private"
            )

    def operators_need_second_factor(self) -> bool:
        """Whether an operator's rights need a second factor here."""
        if self.second_factor_for_operators is SecondFactorRule.AUTO:
            return self.environment is Environment.PRODUCTION
        return self.second_factor_for_operators is SecondFactorRule.ALWAYS


def is_loopback_url(url: str) -> bool:
    """Whether what is sent there stays on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _read_secret_files(
    environ: dict[str, str],
) -> tuple[dict[str, str], dict[str, Path], str | None]:
    """Every ``POKERARENA_X_FILE`` as a value for ``X``, and one that everybody can use, if any."""
    values: dict[str, str] = {}
    files: dict[str, Path] = {}
    exposed: str | None = None
    for variable, path in environ.items():
        if not (variable.startswith(ENV_PREFIX) and variable.endswith("_FILE")):
            continue
        name = variable.removeprefix(ENV_PREFIX).removesuffix("_FILE").lower()
        field = Settings.model_fields.get(name)
        if field is None:
            continue
        values[name], open_to_all = read_secret_file(variable, Path(path))
        files[name] = Path(path)
        if open_to_all and field.annotation is SecretStr:
            exposed = variable
    return values, files, exposed


def load_settings(**overrides: Any) -> Settings:
    """Read and validate the settings.

    Raises `ConfigurationError` with one line that names the first setting that is missing or wrong.
    """
    values, files, exposed = _read_secret_files(dict(os.environ))
    try:
        settings = Settings(**(values | overrides))
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
    if exposed is not None and settings.environment is Environment.PRODUCTION:
        raise ConfigurationError(
            f"{exposed} names a file that everybody on the machine may use: "
            "give it mode 0400 or 0440"
        )
    return settings.read_from({name: files[name] for name in files.keys() - overrides.keys()})


@lru_cache(maxsize=1)
def current_settings() -> Settings:
    """The process's settings, read at first use."""
    return load_settings()
