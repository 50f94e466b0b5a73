"""What it costs to know who asks: verifying an access token, a service's token, and a login.

Verification is processor time of one process, best of several rounds: what a busy machine adds is
not ours. Logins go through the whole application in this process, on a PostgreSQL of their own; those
of an existing and of an unknown account take turns, and their medians are compared as a ratio, which
must tell nobody which accounts there are.

Run it with `python -m bench.identity`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog

from pokerarena.api.app import create_app
from pokerarena.api.context import Parts
from pokerarena.auth import access_tokens, accounts
from pokerarena.auth.models import Role
from pokerarena.ids import new_id
from pokerarena.ops import migrate
from pokerarena.ops.embedded import EmbeddedPostgres
from pokerarena.service_identity.keys import KeySet, ServiceName, new_private_key
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.settings import Settings, load_settings
from pokerarena.watched_file import Fixed
from tests.api.asgi import Client

VERIFY_AT_MOST_US = 100.0
ROUNDS, VERIFICATIONS = 10, 300
LOGINS = 200
# Medians of 200 on a machine that does other things, too.
RATIO_AT_MOST = 1.15
PASSWORD = "the river card was a seven"  # pragma: allowlist secret


async def verification_us(parts: Parts) -> float:
    """Processor time of one verification, the signing key being known."""
    now = datetime.now(UTC)
    token = access_tokens.issue(
        await parts.signing_keys.to_sign(now),
        issuer=parts.settings.public_url,
        user_id=new_id(),
        session_id=new_id(),
        client="program",
        ttl_s=600,
        now=now,
    ).text
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(VERIFICATIONS):
            await access_tokens.verify(
                parts.signing_keys, token, issuer=parts.settings.public_url, now=now
            )
        took.append((time.process_time() - began) / VERIFICATIONS)
    return min(took) * 1e6


def service_token_us() -> tuple[float, float]:
    """Processor time of making and of judging one token of a worker's for an agent-host."""
    keys = {service: new_private_key() for service in (ServiceName.WORKER, ServiceName.AGENT_HOST)}
    known = Fixed(KeySet(key.published(service) for service, key in keys.items()))
    worker, host = (
        ServiceIdentity(service, "bench", key=Fixed(key), keys=known, believes=keys)
        for service, key in keys.items()
    )
    making, judging = [], []
    for _ in range(ROUNDS):
        began = time.process_time()
        tokens = [
            worker.token_for(ServiceName.AGENT_HOST, "bench").text for _ in range(VERIFICATIONS)
        ]
        made = time.process_time()
        for token in tokens:
            host.judge(token)
        making.append((made - began) / VERIFICATIONS)
        judging.append((time.process_time() - made) / VERIFICATIONS)
    return min(making) * 1e6, min(judging) * 1e6


async def login_ms(client: Client) -> tuple[float, float]:
    """Median time of a refused login, of an existing and of an unknown account."""
    took: dict[str, list[float]] = {"alice": [], "nobody": []}
    for _ in range(LOGINS):
        for name, times in took.items():
            began = time.perf_counter()
            body = {"username": name, "password": PASSWORD.upper()}
            reply = await client.post("/v1/auth/login", body)
            assert reply.code == "login_failed", reply
            times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took["alice"]), statistics.median(took["nobody"])


async def measure(settings: Settings) -> int:
    app = create_app(settings)
    parts: Parts = app.state.parts
    async with app.router.lifespan_context(app):
        async with parts.database.unit_of_work() as session:
            await accounts.create(
                session, parts.hasher, username="alice", password=PASSWORD, role=Role.MEMBER,
                settings=settings,
            )  # fmt: skip
        verify_us = await verification_us(parts)
        existing_ms, unknown_ms = await login_ms(Client(app))
    ratio = max(existing_ms, unknown_ms) / min(existing_ms, unknown_ms)
    print(f"access token verified in {verify_us:6.1f} us (at most {VERIFY_AT_MOST_US:.0f})")
    making_us, judging_us = service_token_us()
    print(f"service token, made in   {making_us:6.1f} us and judged in {judging_us:.1f} us")
    print(f"login, existing account  {existing_ms:6.1f} ms")
    print(f"login, unknown account   {unknown_ms:6.1f} ms")
    print(f"one as to the other      {ratio:6.3f}    (at most {RATIO_AT_MOST})")
    memory_mib = settings.argon2_memory_kib / 1024
    at_once = settings.argon2_parallel_hashes
    print(f"memory of logins         {memory_mib:.0f} MiB each, {at_once} at once in a process")
    return 0 if verify_us <= VERIFY_AT_MOST_US and ratio <= RATIO_AT_MOST else 1


def main() -> int:
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    with tempfile.TemporaryDirectory(prefix="pokerarena-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with EmbeddedPostgres(directory / "pg") as postgres:
            postgres.ensure_database("bench")
            migrate.upgrade(postgres.url("bench"))
            settings = load_settings(
                database_url=postgres.url("bench"),
                login_attempts_per_pair_max=1000,
                login_attempts_per_account_max=10_000,
                login_attempts_per_address_max=100_000,
                rate_auth_per_min=0,
            )
            return asyncio.run(measure(settings))


if __name__ == "__main__":
    sys.exit(main())
