"""What `pokerarena doctor` looks at.

Owns: the questions whose answers explain most trouble, and the advice for each.
Must never: change anything, or show a secret.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
from sqlalchemy.engine import make_url

from pokerarena.errors import ArenaError, Unavailable
from pokerarena.history.partitions import KEY_OF_RELATION
from pokerarena.ops import migrate
from pokerarena.ops.data_directory import settings_of
from pokerarena.sandbox import local
from pokerarena.sandbox.runtime import Runtime, runtimes_here
from pokerarena.service_identity.keys import ServiceName, parse_key_set, parse_private_key
from pokerarena.settings import Environment, Settings

POSTGRES_VERSION_MIN: Final = 150_000
WAL_AGE_MAX_S: Final = 60.0
BASES_MISSED_MAX: Final = 2
DISK_LEFT_MIN_BYTES: Final = 1_000_000_000
CLOCK_SKEW_MAX_S: Final = 2.0
WAIT_FOR_WORKER_MAX_S: Final = 60
PARTITIONS_AHEAD_MIN: Final = timedelta(days=7)

Connection = psycopg.Connection[tuple[object, ...]]


class Finding(NamedTuple):
    """One answer: `text` says what is, and where it is not well, what to do."""

    subject: str
    well: bool
    text: str


def examine(data_dir: Path | None = None) -> list[Finding]:
    """Every finding, the well ones too; stops where the next question would make no sense."""
    findings = [_python(), _sandbox()]
    try:
        settings = settings_of(data_dir)
        settings.master_key_bytes()
        settings.token_pepper_bytes()
    except ArenaError as error:
        return [*findings, Finding("settings", False, str(error))]
    findings += [_settings(settings), _secrets(settings)]
    if places := _places(settings, data_dir):
        findings.append(_disks(places))
    if settings.agent_hosts:
        findings.append(_service_key(settings))
    if settings.backups_wanted:
        findings.append(_backups(settings))
    url = settings.database_url.get_secret_value()
    try:
        state = migrate.check(url)
    except ArenaError as error:
        return [*findings, Finding("database", False, str(error))]
    with _connect(url) as connection:
        findings += [_version(connection), _clock(connection), _connections(connection, settings)]
        if not state.up_to_date and not state.newer:
            text = (
                f"at {state.current or 'nothing'}, this program expects {state.head}: "
                "run 'pokerarena migrate up'"
            )
            return [*findings, Finding("schema", False, text)]
        later = ", of a later release" if state.newer else ""
        findings.append(Finding("schema", True, f"at {state.current}{later}"))
        checks: tuple[Callable[[Connection], Finding], ...] = (
            _waiting_runs,
            _lost_runs,
            _dead_letters,
            partitions,
        )
        findings += [check(connection) for check in checks]
    return findings


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", sys.version_info >= (3, 11), f"{version} (3.11 or later is needed)")


def _sandbox() -> Finding:
    """What is missing is no failure: everything but hosted agents works without it."""
    tree = Path(os.environ.get("POKERARENA_SANDBOX_ROOTFS") or local.DEFAULT_ROOTFS)
    if lacking := local.missing(tree=tree):
        return Finding("sandbox", True, f"hosted agents cannot run here. {' '.join(lacking)}")
    here = runtimes_here()
    usable = [name.value for name, found in here.items() if isinstance(found, Runtime)]
    others = [found.message for found in here.values() if isinstance(found, Unavailable)]
    text = f"hosted agents can run here, under {' or '.join(usable)}. {' '.join(others)}"
    return Finding("sandbox", True, text.strip())


def _settings(settings: Settings) -> Finding:
    return Finding("settings", True, f"complete, for {settings.environment.value}")


def _secrets(settings: Settings) -> Finding:
    missing = [
        f"POKERARENA_{name.upper()}"
        for name in ("master_key", "token_pepper")
        if not getattr(settings, name).get_secret_value()
    ]
    if missing and settings.environment is Environment.DEVELOPMENT:
        text = f"{' and '.join(missing)} not set: fine for development, anybody can guess them"
        return Finding("secrets", True, text)
    return Finding("secrets", True, "set")


def _places(settings: Settings, data_dir: Path | None) -> list[Path]:
    """What is written on this machine: the arena's data, backups, and WAL on its way there."""
    named = [data_dir, settings.backup_directory, settings.backup_spool_directory]
    return [path for name in named if name and (path := Path(name).expanduser()).is_dir()]


def _disks(places: list[Path]) -> Finding:
    left = {place: shutil.disk_usage(place).free for place in places}
    place = min(places, key=left.__getitem__)
    text = f"{left[place] / 1e9:.1f} GB left for {place}"
    if left[place] < DISK_LEFT_MIN_BYTES:
        return Finding("disk", False, f"{text}: make room (docs/runbooks/disk-full.md)")
    return Finding("disk", True, text)


def _service_key(settings: Settings) -> Finding:
    """A worker whose key nobody knows is refused by every agent-host."""
    try:
        key = parse_private_key(settings.service_key.get_secret_value().encode())
        known = parse_key_set(settings.service_public_keys.encode())
    except ArenaError as error:
        return Finding("service key", False, f"a key or the set of public ones: {error}")
    published = known.get(key.kid)
    if published is None or published.service is not ServiceName.WORKER:
        text = f"{key.kid} is not among the public keys of workers: see runbooks/service-keys.md"
        return Finding("service key", False, text)
    if not known.of(ServiceName.AGENT_HOST):
        text = "no public key of an agent-host is known: make one with 'admin service-key new'"
        return Finding("service key", False, text)
    return Finding("service key", True, f"{key.kid} is published")


def _backups(settings: Settings) -> Finding:
    """A backup that was missed or fails shows as one that is old."""
    from pokerarena.ops.backup.repository import Repository

    now = datetime.now(UTC)
    try:
        repository = Repository.of(settings)
        bases, reach = repository.bases(), repository.reach()
    except ArenaError as error:
        return Finding("backups", False, error.message)
    if not bases or reach is None:
        return Finding("backups", False, "none yet: is 'pokerarena backup serve' running?")
    base_age_s = (now - bases[-1].finished_at).total_seconds()
    wal_age_s = (now - reach.at).total_seconds()
    text = f"last base {base_age_s / 3600:.1f} h ago, WAL {wal_age_s:.0f} s ago"
    if wal_age_s > WAL_AGE_MAX_S + settings.backup_ship_s:
        return Finding("backups", False, f"{text}: is 'pokerarena backup serve' running?")
    if base_age_s > BASES_MISSED_MAX * settings.backup_interval_s:
        return Finding("backups", False, f"{text}: base backups fail, its log says why")
    return Finding("backups", True, text)


def _version(connection: Connection) -> Finding:
    server = connection.info.server_version
    text = f"PostgreSQL {server // 10_000}.{server % 10_000}"
    if server < POSTGRES_VERSION_MIN:
        return Finding("database", False, f"{text}: version 15 or later is needed")
    return Finding("database", True, text)


def _clock(connection: Connection) -> Finding:
    before = datetime.now(UTC)
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    after = datetime.now(UTC)
    if row is None or not isinstance(row[0], datetime):
        return Finding("clock", False, "the database tells no time")
    skew_s = max((before - row[0]).total_seconds(), (row[0] - after).total_seconds(), 0.0)
    text = f"{skew_s:.1f} s apart from the database's"
    if skew_s > CLOCK_SKEW_MAX_S:
        return Finding("clock", False, f"{text}: set both by NTP, leases and tokens rely on it")
    return Finding("clock", True, text)


def _connections(connection: Connection, settings: Settings) -> Finding:
    row = connection.execute(
        "SELECT current_setting('max_connections')::int,"
        " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
    ).fetchone()
    most, used = (int(str(value)) for value in row or (0, 0))
    wanted = settings.database_pool_size * (1 + settings.worker_processes)
    text = f"{used} of {most} in use; one API and one worker take up to about {wanted}"
    if wanted > most:
        return Finding(
            "connections",
            False,
            f"{text}: lower POKERARENA_DATABASE_POOL_SIZE or raise max_connections",
        )
    return Finding("connections", True, text)


def _waiting_runs(connection: Connection) -> Finding:
    row = connection.execute(
        "SELECT count(*) FROM runs WHERE status = 'queued'"
        " AND created_at < now() - make_interval(secs => %s)",
        (WAIT_FOR_WORKER_MAX_S,),
    ).fetchone()
    count = int(str(row[0])) if row else 0
    if count:
        text = f"{count} queued for more than {WAIT_FOR_WORKER_MAX_S} s: is a worker running?"
        return Finding("queue", False, text)
    return Finding("queue", True, "no run waits for a worker")


def _lost_runs(connection: Connection) -> Finding:
    row = connection.execute(
        "SELECT count(*) FROM runs WHERE status = 'running'"
        " AND lease_expires_at < now() - make_interval(secs => %s)",
        (WAIT_FOR_WORKER_MAX_S,),
    ).fetchone()
    count = int(str(row[0])) if row else 0
    if count:
        text = f"{count} left by a worker that died: any running worker takes them up"
        return Finding("leases", False, text)
    return Finding("leases", True, "every running run has its worker")


def _dead_letters(connection: Connection) -> Finding:
    row = connection.execute("SELECT count(*) FROM dead_letters WHERE state = 'open'").fetchone()
    count = int(str(row[0])) if row else 0
    if count:
        text = f"{count} open: look at them with 'pokerarena dead-letters list'"
        return Finding("dead letters", False, text)
    return Finding("dead letters", True, "none")


def partitions(connection: Connection) -> Finding:
    """How far ahead hands have somewhere to go."""
    row = connection.execute(
        "SELECT min(history_covered_until(name::regclass)) AT TIME ZONE 'UTC'"
        " FROM unnest(%s::text[]) AS name",
        (list(KEY_OF_RELATION),),
    ).fetchone()
    until = row[0] if row else None
    if not isinstance(until, datetime) or until < datetime.now(UTC) + PARTITIONS_AHEAD_MIN:
        text = "none for the days to come: is a worker running? Else 'pokerarena history prepare'"
        return Finding("partitions", False, text)
    return Finding("partitions", True, f"for hands until {until:%Y-%m-%d}")


def _connect(url: str) -> Connection:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True, connect_timeout=10)
