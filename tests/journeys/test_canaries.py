"""No secret can be read, or guessed, from what the arena writes down while everything goes wrong.

Every kind of secret is planted with a value of its own; a whole journey runs through real processes
that log all they can and trace everything, with errors forced at each step. Then the logs of the API,
the worker and the database, their traces and metrics, every problem document, and a full dump of the
database (with the audit, the queue's arguments and the kept answers) are searched.

Every secret that is a setting is planted in `configured_secrets`; a new one fails the test until it is.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from pokerarena.ops import postgres_programs
from pokerarena.service_identity.keys import (
    KeySet,
    ServiceName,
    new_private_key,
    parse_private_key,
)
from pokerarena.settings import Settings
from tests.arena import arena_settings
from tests.auth.hostile_provider import HostileProvider
from tests.journeys.canaries import Canary, text_canary, traces_of
from tests.journeys.canary_steps import (
    Journey,
    api_process,
    log_in_and_out,
    log_in_at_a_provider,
    play,
    second_factor_and_tokens,
    unique,
)
from tests.journeys.eavesdroppers import collector, metrics_of


def dump(url: str) -> bytes:
    """The whole database as text; binary columns are in hexadecimal digits."""
    address = make_url(url)
    host = address.query["host"]
    done = subprocess.run(
        [
            str(postgres_programs.directory(user=None, copy_to=Path("/nonexistent")) / "pg_dump"),
            *("--host", str(host), "--username", "postgres", str(address.database)),
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def configured_secrets(sockets: Path) -> dict[str, Any]:
    """A value of its own for every secret that a process can be given by a setting."""
    keys = {
        name: base64.b64encode(secrets.token_bytes(32)).decode()
        for name in (
            "master_key",
            "master_keys_previous",
            "token_pepper",
            "token_peppers_previous",
            "backup_key",
        )
    }
    own, host = new_private_key(), new_private_key()
    known = KeySet([own.published(ServiceName.WORKER), host.published(ServiceName.AGENT_HOST)])
    return {
        **keys,
        "service_key": own.pem().decode(),
        "service_public_keys": known.json(),
        "agent_hosts": (f"nobody={sockets / 'host.sock'}",),
        "vault_token": unique("hvs.token"),
        "backup_s3_access_key_id": unique("access-key-id"),
        "backup_s3_secret_access_key": unique("secret-access-key"),
        "database_api_password": unique("api-password"),
        "database_worker_password": unique("worker-password"),
        "backup_database_url": f"postgresql+psycopg://backup:{unique('backup-password')}@/x",
        # Nobody listens there: each request is let through, and the log says what is wrong.
        "rate_limit_store": f"redis://:{unique('store-password')}@127.0.0.1:9/0",
    }


def plant_configured(journey: Journey, configured: dict[str, Any]) -> None:
    of_settings = {
        name for name, field in Settings.model_fields.items() if field.annotation is SecretStr
    }
    assert of_settings - configured.keys() == {"database_url"}, "plant every secret setting"
    for name in sorted(of_settings & configured.keys()):
        value = configured[name]
        if name == "oidc_providers":
            # What is secret in it is the client secret, which the provider's canary is.
            continue
        if name == "service_key":
            journey.plant(name, value.splitlines()[1])
            raw = parse_private_key(value.encode()).key.private_bytes_raw()
            journey.canaries.append(Canary(f"{name}, decoded", raw))
            continue
        journey.plant(name, value)
        if "://" in value:
            journey.plant(f"password in {name}", str(make_url(value).password))
        elif "_s3_" not in name and name.rpartition("_")[2] in ("key", "pepper", "previous"):
            journey.canaries.append(Canary(f"{name}, decoded", base64.b64decode(value)))


def test_no_secret_is_left_where_it_can_be_read_or_guessed(
    database_url: str, tmp_path: Path
) -> None:
    configured = configured_secrets(tmp_path)
    provider = HostileProvider()
    provider.client_secret = unique("client-secret")
    configured["oidc_providers"] = provider.configured()
    database_password = unique("database-password")
    url = make_url(database_url).set(password=database_password).render_as_string(False)
    api_log = tmp_path / "api.log"
    plain_url = make_url(database_url).set(drivername="postgresql").render_as_string(False)
    with (
        provider,
        collector() as traces,
        psycopg.connect(plain_url, autocommit=True) as owner,
    ):
        settings = arena_settings(
            url,
            log_level="DEBUG",
            registration="open",
            callback_schemes=("http",),
            otlp_endpoint=traces.url,
            trace_hand_every=1,
            api_metrics_port=0,
            worker_metrics_port=0,
            oidc_allow_private=True,
            **configured,
        )
        provider.origin = settings.public_url
        with api_process(settings, api_log) as port:
            journey = Journey(port)
            password = log_in_and_out(journey, owner)
            log_in_at_a_provider(journey, owner, provider)
            second_factor_and_tokens(journey, owner, password)
            metrics = play(journey, owner, settings, tmp_path, traces)
            metrics += metrics_of(api_log)
        # What an ending process still had to tell has been told by now.
        [(database_log,)] = owner.execute("SELECT pg_read_file(pg_current_logfile())").fetchall()
    journey.plant("client secret", provider.client_secret)
    plant_configured(journey, configured)
    journey.plant("password of the database", database_password)
    worker_log = b"".join(path.read_bytes() for path in tmp_path.glob("worker-*.log"))
    places = {
        "the API's log": api_log.read_bytes(),
        "the worker's log": worker_log,
        "the database's log": database_log.encode(),
        "the traces": traces.all(),
        "the metrics": metrics,
        "the problems": b"\n".join(journey.problems),
        "the dump": dump(database_url),
    }
    # Each place has what it must have: an empty one would prove nothing.
    for place, signs in {
        "the API's log": (b"Traceback", b"rate_limit_store_lost"),
        "the worker's log": (b"run_failed", b"agent_host_unreachable"),
        "the database's log": (b"does not exist",),
        "the traces": (b"pokerarena-api", b"pokerarena-worker", b"/v1/auth/login", b"callback"),
        "the metrics": (b"pokerarena_api_", b"pokerarena_runs"),
        "the problems": (b"internal_error",),
        "the dump": (b"login.failed", b"viewer_link.revoked", b"access.not_found"),
    }.items():
        for sign in signs:
            assert sign in places[place], (place, sign)
    for sign in (b"COPY public.procrastinate_jobs", b"COPY public.idempotency_records"):
        assert sign in places["the dump"]
    kinds = {canary.kind for canary in journey.canaries}
    assert len(kinds) >= 45, kinds
    found = [
        f"{canary.kind} is {how} in {place}"
        for canary in journey.canaries
        for place, content in places.items()
        for how in traces_of(canary, content)
    ]
    assert not found


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_the_search_finds_a_secret_however_it_is_written(before: str) -> None:
    import hashlib

    canary = text_canary("password", "corr\u00e9ct horse+battery/staple")
    value = canary.value
    written = {
        "in the clear": value,
        "hex": value.hex().upper().encode(),
        "base64": base64.b64encode(before.encode() + value + b"zz"),
        "base64url": base64.urlsafe_b64encode(before.encode() + value + b"z"),
        "sha256 hex": hashlib.sha256(value).hexdigest().encode(),
        "md5 base64": base64.b64encode(hashlib.md5(value).digest()),
        "sha1 hex": hashlib.sha1(value).hexdigest().upper().encode(),
        "sha512 base64": base64.b64encode(hashlib.sha512(value).digest()),
        "quoted": b"?password=corr%C3%A9ct%20horse%2Bbattery%2Fstaple",
        "json": json.dumps(value.decode()).encode(),
    }
    for how, place in written.items():
        assert traces_of(canary, b"{" + before.encode() + place + b"}"), how
    assert traces_of(canary, b"another battery, another staple") == []
