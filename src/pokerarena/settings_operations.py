"""The settings of operations: rate limits, suspension, metrics, traces, backups, history, logs.

A part of `settings.Settings`, which is where they are read and where everybody takes them from.
This module must never read anything itself.
"""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class OperationsSettings(BaseSettings):
    """What is watched, kept and refused; see `settings.Settings`."""

    # Rate limits: requests a minute of one token. A user's tokens together have twice as much.
    rate_limit_store: SecretStr = Field(
        default=SecretStr("memory://"),
        description="where rate limits count: `memory://` (each process alone), or the URL of a "
        "Redis or Valkey that all API processes share",
    )
    rate_read_per_min: int = Field(default=1200, ge=0, description="cheap reads; 0: no limit")
    rate_expensive_per_min: int = Field(
        default=300, ge=0, description="what costs: results, lists of hands, replays, uploads"
    )
    rate_write_per_min: int = Field(default=300, ge=0, description="changes")
    rate_auth_per_min: int = Field(
        default=60, ge=0, description="logins and registrations, of one address"
    )
    rate_stream_per_min: int = Field(default=60, ge=0, description="live streams opened")
    rate_pace_per_s: float = Field(
        default=50.0,
        ge=0,
        le=100_000,
        description="requests of one token that a process begins in a second, once its burst is used "
        "up; what comes faster waits a little; 0: no pace",
    )
    rate_pace_burst: int = Field(
        default=100, ge=1, le=100_000, description="requests that it begins at once before that"
    )
    rate_address_factor: int = Field(
        default=5, ge=1, le=1000, description="an address has so many times a token's limit"
    )

    # Suspension of versions that only fail.
    suspension_runs: int = Field(
        default=3,
        ge=1,
        le=20,
        description="a version is suspended that failed at every decision of so many runs in a row,",
    )
    suspension_decisions: int = Field(
        default=30, ge=1, le=1_000_000, description="of at least so many decisions together,"
    )
    suspension_span_s: float = Field(
        default=900.0,
        ge=0,
        le=30 * 86_400,
        description="that took at least so long: a short outage of ours is nobody's fault",
    )
    suspension_action_time_min_ms: int = Field(
        default=1_000,
        ge=0,
        le=3_600_000,
        description="runs whose action time is shorter than this suspend nobody",
    )
    suspension_checks: int = Field(
        default=5,
        ge=0,
        le=100,
        description="checks by which the owner of a suspended version may try to lift it",
    )
    suspension_check_s: float = Field(
        default=120.0, gt=0, le=3600, description="how long such a check may take"
    )

    # Metrics. They are served where nothing else is, and not at all unless a port is named.
    metrics_host: str = Field(
        default="127.0.0.1", description="address that metrics are served on, at `/metrics`"
    )
    api_metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="port of an API process's metrics; none: not served, 0 takes a free one",
    )
    worker_metrics_port: int | None = Field(
        default=None, ge=0, le=65_535, description="port of a worker's metrics, likewise"
    )
    backup_metrics_port: int | None = Field(
        default=None, ge=0, le=65_535, description="port of the metrics of `backup serve`, likewise"
    )
    metrics_interval_s: float = Field(
        default=2.0,
        ge=0.1,
        le=60,
        description="how often player processes report, and the database is asked",
    )

    # Traces.
    otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="collector of traces over OTLP/HTTP, e.g. http://127.0.0.1:4318; empty: none",
    )
    trace_sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="share of requests that begin a trace"
    )
    trace_hand_every: int = Field(
        default=100, ge=1, description="of a traced run, the first hand and every n-th is traced"
    )

    # Backups.
    backup_directory: str = Field(
        default="", description="where backups are kept; empty: none are made"
    )
    backup_bucket: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]{1,100})*)?$",
        description="bucket, or BUCKET/PREFIX, for backups in object storage instead",
    )
    backup_s3_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[A-Za-z0-9.:\[\]_-]{1,200})?$",
        description="an S3-compatible object storage, https beyond this machine; empty: Amazon's",
    )
    backup_s3_region: str = Field(
        default="us-east-1", pattern=r"^[a-z0-9-]{1,40}$", description="the bucket's region"
    )
    backup_s3_ca_file: str = Field(
        default="",
        description="certificates that sign the endpoint's, beside those of the system",
    )
    backup_s3_timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="how long the object storage may be silent"
    )
    backup_s3_retry_s: float = Field(
        default=60.0, ge=0, le=3600, description="how long a failed request to it is tried again"
    )
    backup_spool_directory: str = Field(
        default="",
        description="where received WAL waits to be sealed; empty: beside the backups, `…-spool`; "
        "needed with a bucket",
    )
    backup_interval_s: int = Field(
        default=86_400, ge=60, le=30 * 86_400, description="how often a base backup is taken"
    )
    backup_ship_s: float = Field(
        default=1.0, gt=0, le=60, description="how often WAL is shipped: what a disaster may cost"
    )
    backup_keep_days: int = Field(
        default=14, ge=1, le=3650, description="base backups older than this are deleted,"
    )
    backup_keep_min: int = Field(default=3, ge=1, le=1000, description="but never the last so many")

    @property
    def backups_wanted(self) -> bool:
        """Whether backups are made here."""
        return bool(self.backup_directory or self.backup_bucket)

    # History.
    history_months_ahead: int = Field(
        default=3, ge=1, le=24, description="for so many months ahead workers make partitions"
    )
    history_keep_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="`history archive` takes months whose runs are all older; none: keep for ever",
    )
    history_archive_directory: str = Field(
        default="", description="where `history archive` writes; empty: it has to be told"
    )

    # Logs.
    log_level: str = Field(
        default="INFO",
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
        description="the least important events that are logged",
    )
    log_format: str = Field(
        default="auto",
        pattern="^(auto|json|console)$",
        description="`json`, `console`, or `auto`: console where stderr is a terminal",
    )
