"""No secret can be read, or guessed, from what the arena writes down while everything goes wrong.

Every kind of secret is planted with a value of its own; a whole journey runs through real processes
that log all they can, with errors forced at each step. Then the logs of the API, the worker and the
database, every problem document, and a full dump of the database (with the audit, the queue's
arguments and the kept answers) are searched.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from joserfc.jwk import ECKey
from sqlalchemy.engine import make_url

from pokerarena.agents.registry import SIGNING_SECRET_PURPOSE
from pokerarena.auth import second_factor, signing_keys
from pokerarena.ops import postgres_programs
from pokerarena.ops.privileges import DatabaseRole
from pokerarena.runs.service import SEED_PURPOSE
from pokerarena.sealing import open_sealer
from pokerarena.settings import Settings
from tests.arena import arena_settings
from tests.auth.browsing import LOGIN_COOKIE
from tests.auth.hostile_provider import ACCESS_TOKEN, HostileProvider
from tests.database_server import as_role
from tests.journeys.canaries import Canary, text_canary, traces_of
from tests.worker.workers import ROOT, environment_of, worker

DEADLINE_S = 90.0


def unique(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(12)}"


class Journey:
    """A client that remembers every secret that it is given and every problem that it is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.canaries: list[Canary] = []
        self.problems: list[bytes] = []
        self.token: str | None = None
        self.cookies: dict[str, str] = {}

    def plant(self, kind: str, value: str) -> str:
        self.canaries.append(text_canary(kind, value))
        return value

    def ask(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        sent = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if sent is not None:
            headers.setdefault("Content-Type", "application/json")
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        try:
            connection.request(method, path, body=sent, headers=headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        for name, value in response.getheaders():
            if name.lower() == "set-cookie":
                self.cookies |= {key: one.value for key, one in SimpleCookie(value).items()}
        if response.status >= 400:
            self.problems.append(answer + str(response.getheaders()).encode())
        try:
            return response.status, json.loads(answer) if answer else None
        except ValueError:
            return response.status, answer

    def done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        status, answer = self.ask(method, path, body, **headers)
        assert status < 300, (method, path, status, answer)
        return answer

    def refused(self, method: str, path: str, body: Any = None, **more: Any) -> None:
        status, answer = self.ask(method, path, body, **more)
        assert status >= 400, (method, path, status, answer)


@contextmanager
def api_process(settings: Settings, log: Path) -> Iterator[int]:
    """The API as a process of its own, with the API's role."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = as_role(settings.database_url.get_secret_value(), DatabaseRole.API)
    inherited = {name: value for name, value in os.environ.items() if "POKERARENA" not in name}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pokerarena.ops.cli", "api", "--port", str(port)],
            env={
                **inherited,
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'sdk/src'}",
                **environment_of(settings),
                "POKERARENA_DATABASE_URL": address,
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        until("the API", lambda: _answers(port), process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        return Journey(port).ask("GET", "/readyz")[0] == 200
    except OSError:
        return False


def until(what: str, condition: Any, process: subprocess.Popen[bytes] | None = None) -> Any:
    give_up_s = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert process is None or process.poll() is None, f"{what} ended"
        assert time.monotonic() < give_up_s, f"waited in vain for {what}"
        time.sleep(0.1)
    return value


@contextmanager
def broken(owner: psycopg.Connection[Any], relation: str) -> Iterator[None]:
    """Whatever needs the relation fails in the middle, with a traceback."""
    owner.execute(f"ALTER TABLE {relation} RENAME TO {relation}_gone")
    try:
        yield
    finally:
        owner.execute(f"ALTER TABLE {relation}_gone RENAME TO {relation}")


def log_in_and_out(journey: Journey, owner: psycopg.Connection[Any]) -> str:
    """An account with each of its secrets, in right and in wrong hands; its password at the end."""
    password = journey.plant("password", unique("river-password"))
    login = {"username": "canary-keeper", "password": password}
    journey.done("POST", "/v1/auth/register", login)
    journey.refused("POST", "/v1/auth/register", login)
    wrong = journey.plant("wrong password", unique("wrong-password"))
    journey.refused("POST", "/v1/auth/login", login | {"password": wrong})
    in_name = journey.plant("password typed as the name", unique("typed-as-name"))
    journey.refused("POST", "/v1/auth/login", {"username": in_name, "password": wrong})
    journey.refused("POST", "/v1/auth/login", login | {"pass": in_name, "password": [password]})
    journey.refused("POST", "/v1/auth/login", raw=json.dumps(login).encode()[:-2])
    journey.refused("POST", f"/v1/auth/login?password={password}", {"username": "x"})
    for relation in ("users", "sessions", "login_attempts"):
        with broken(owner, relation):
            journey.refused("POST", "/v1/auth/login", login)
    first = journey.done("POST", "/v1/auth/login", login)
    journey.plant("access token", first["access_token"])
    used = journey.plant("refresh token", first["refresh_token"])
    with broken(owner, "users"):
        journey.refused("POST", "/v1/auth/refresh", {"refresh_token": used})
    second = journey.done("POST", "/v1/auth/refresh", {"refresh_token": used})
    third = journey.done("POST", "/v1/auth/refresh", {"refresh_token": second["refresh_token"]})
    for grant in (second, third):
        journey.plant("refresh token", grant["refresh_token"])
        journey.plant("access token", grant["access_token"])
    journey.refused("POST", "/v1/auth/refresh", {"refresh_token": used})
    journey.refused("GET", "/v1/me", Authorization=f"Bearer {third['access_token']}")
    journey.refused("GET", f"/v1/runs/{used}", Authorization=f"Basic {password}")
    journey.token = journey.done("POST", "/v1/auth/login", login)["access_token"]
    journey.plant("access token", str(journey.token))
    changed = journey.plant("new password", unique("turn-password"))
    order = {"current_password": password, "new_password": changed}
    with broken(owner, "users"):
        journey.refused("PUT", "/v1/me/password", order)
    journey.refused("PUT", "/v1/me/password", order | {"current_password": wrong})
    # A route that may be sent again keeps something of its request.
    journey.done("PUT", "/v1/me/password", order, **{"Idempotency-Key": unique("key")})
    return changed


def second_factor_and_tokens(
    journey: Journey, owner: psycopg.Connection[Any], password: str
) -> None:
    enrolment = journey.done("POST", "/v1/me/second-factor", {"current_password": password})
    seed = base64.b32decode(journey.plant("TOTP secret", enrolment["secret"]))
    journey.canaries.append(Canary("TOTP seed", seed))
    wrong = journey.plant("wrong code", unique("wrong-code")[:20])
    journey.refused("POST", "/v1/me/second-factor/confirm", {"code": wrong})
    code = second_factor.code_at(seed, int(time.time() // second_factor.STEP_S)).decode()
    with broken(owner, "recovery_codes"):
        journey.refused("POST", "/v1/me/second-factor/confirm", {"code": code})
    codes = journey.done("POST", "/v1/me/second-factor/confirm", {"code": code})["recovery_codes"]
    for one in codes:
        journey.plant("recovery code", one)
        journey.plant("recovery code", one.replace("-", ""))
    login = {"username": "canary-keeper", "password": password}
    journey.refused("POST", "/v1/auth/login", login | {"code": codes[0] + "x"})
    journey.done("POST", "/v1/auth/login", login | {"code": codes[0]})
    order = {"name": "ci", "scopes": ["agents:read"], "expires_in_s": 3600}
    with broken(owner, "api_tokens"):
        journey.refused("POST", "/v1/tokens", order)
    # The kept answer holds the token.
    made = journey.done("POST", "/v1/tokens", order, **{"Idempotency-Key": "the-same"})
    again = journey.done("POST", "/v1/tokens", order, **{"Idempotency-Key": "the-same"})
    token = journey.plant("personal token", made["token"])
    journey.plant("body of a personal token", token[4:34])
    assert again["token"] == token
    with_token = {"Authorization": f"Bearer {token}"}
    journey.refused("POST", "/v1/agents", {"name": "x"}, **with_token)
    journey.refused("GET", "/v1/me", Authorization=f"Bearer {token[:-1]}x")
    with broken(owner, "users"):
        journey.refused("GET", "/v1/me", **with_token)
    journey.done("DELETE", f"/v1/tokens/{made['id']}")
    journey.refused("GET", "/v1/me", **with_token)


def log_in_at_a_provider(
    journey: Journey, owner: psycopg.Connection[Any], provider: HostileProvider
) -> None:
    """A login that fails at each of its steps, and one that does not."""
    page = {"X-Pokerarena-Client": "browser"}
    begin = ("POST", "/v1/auth/providers/hostile/login", {})
    finish = ("POST", "/v1/auth/federated", {})

    def depart() -> tuple[str, dict[str, str]]:
        url = journey.done(*begin, **page)["authorization_url"]
        cookie = journey.plant("cookie of a login", journey.cookies[LOGIN_COOKIE])
        path = provider.authorize(url)
        for name in ("state", "code"):
            journey.plant(f"{name} of a login", parse_qs(urlsplit(path).query)[name][0])
        return path, {"Cookie": f"{LOGIN_COOKIE}={cookie}"}

    with broken(owner, "federated_logins"):
        journey.refused(*begin, **page)
    for relation in ("federated_logins", "identities"):
        path, cookie = depart()
        with broken(owner, relation):
            journey.refused("GET", path, **cookie)
    path, cookie = depart()
    journey.refused("GET", path + "x", **cookie)
    journey.refused("GET", path)
    for provider.token_answer in ((200, b"{"), (500, b""), (400, b"{}")):
        path, cookie = depart()
        journey.refused("GET", path, **cookie)
    provider.token_answer = None
    path, cookie = depart()
    assert journey.ask("GET", path, **cookie)[0] == 303
    journey.refused("GET", path, **cookie)
    with broken(owner, "sessions"):
        journey.refused(*finish, **page, **cookie)
    granted = journey.done(*finish, **page, **cookie)
    journey.plant("access token", granted["access_token"])
    journey.plant("refresh token", journey.cookies["__Host-pokerarena_refresh"])
    for form in provider.forms:
        journey.plant("code verifier", form["code_verifier"])
    for token in provider.tokens:
        journey.plant("ID token", token)
    journey.plant("a provider's access token", ACCESS_TOKEN)


def play(journey: Journey, owner: psycopg.Connection[Any], settings: Settings, logs: Path) -> None:
    """Two runs: one whose agent does not answer, one whose seed cannot be opened."""
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))  # bound and never listening: whoever connects is refused
    agent = journey.done("POST", "/v1/agents", {"name": "Canary"})["id"]
    order = {"kind": "http", "callback_url": f"http://127.0.0.1:{nobody.getsockname()[1]}/"}
    with broken(owner, "agent_versions"):
        journey.refused("POST", f"/v1/agents/{agent}/versions", order)
    version = journey.done("POST", f"/v1/agents/{agent}/versions", order)
    journey.plant("signing secret", version["signing_secret"])
    rival = journey.done("POST", "/v1/agents", {"name": "Rival"})["id"]
    house = journey.done(
        "POST", f"/v1/agents/{rival}/versions", {"kind": "house", "house_name": "tight"}
    )
    runs = []
    for name in ("Played", "Damaged"):
        table = journey.done("POST", "/v1/tables", {"name": name})["id"]
        for seat_no, (who, which) in enumerate(((agent, version), (rival, house)), start=1):
            journey.done(
                "PUT",
                f"/v1/tables/{table}/seats/{seat_no}",
                {"agent_id": who, "version_id": which["id"]},
            )
        with broken(owner, "run_seeds"):
            journey.refused("POST", f"/v1/tables/{table}/runs", {"hands": 3})
        runs.append(journey.done("POST", f"/v1/tables/{table}/runs", {"hands": 3})["id"])
    asyncio.run(open_what_is_sealed(journey, owner, settings))
    damaged = runs[1].removeprefix("run_")
    owner.execute("UPDATE run_seeds SET seed_sealed = seed_sealed || ''::bytea")
    owner.execute(
        "UPDATE run_seeds SET seed_sealed = set_byte(seed_sealed, length(seed_sealed) - 1,"
        " (get_byte(seed_sealed, length(seed_sealed) - 1) # 1)) WHERE run_id = %s",
        (damaged,),
    )
    with worker(settings, logs):
        ends = [
            until(
                "the runs",
                lambda run=run: ended(journey.done("GET", f"/v1/runs/{run}")["status"]),
            )
            for run in runs
        ]
    nobody.close()
    assert ends == ["completed", "failed"]
    journey.refused("GET", f"/v1/runs/{runs[0]}/seed")


def ended(status: str) -> str | None:
    return status if status in ("completed", "failed", "stopped") else None


async def open_what_is_sealed(
    journey: Journey, owner: psycopg.Connection[Any], settings: Settings
) -> None:
    """What no client is ever told: run seeds and the keys that sign access tokens."""
    sealer = open_sealer(settings)
    for run_id, sealed in owner.execute("SELECT run_id, seed_sealed FROM run_seeds").fetchall():
        seed = await sealer.open(sealed, purpose=SEED_PURPOSE, owner=run_id.bytes)
        journey.canaries.append(Canary("run seed", seed, sha256_is_public=True))
    for key_id, sealed in owner.execute("SELECT id, private_sealed FROM signing_keys").fetchall():
        pem = await sealer.open(sealed, purpose=signing_keys.SEAL_PURPOSE, owner=key_id.bytes)
        secret = ECKey.import_key(pem).as_dict(private=True)["d"]
        raw = base64.urlsafe_b64decode(str(secret) + "=")
        journey.canaries.append(Canary("signing key", raw))
        journey.plant("signing key in PEM", pem.decode().splitlines()[1])
    for version_id, sealed in owner.execute(
        "SELECT id, signing_secret_sealed FROM agent_versions WHERE kind = 'http'"
    ).fetchall():
        secret = await sealer.open(sealed, purpose=SIGNING_SECRET_PURPOSE, owner=version_id.bytes)
        assert any(secret == canary.value for canary in journey.canaries)
        raw = base64.b64decode(secret.decode().removeprefix("whsec_"))
        journey.canaries.append(Canary("signing secret, decoded", raw))


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


def test_no_secret_is_left_where_it_can_be_read_or_guessed(
    database_url: str, tmp_path: Path
) -> None:
    configured = {
        name: base64.b64encode(secrets.token_bytes(32)).decode()
        for name in ("master_key", "master_keys_previous", "token_pepper", "token_peppers_previous")
    }
    configured["vault_token"] = unique("hvs.token")
    database_password = unique("database-password")
    url = make_url(database_url).set(password=database_password).render_as_string(False)
    provider = HostileProvider()
    provider.client_secret = unique("client-secret")
    configured["oidc_providers"] = provider.configured()
    settings = arena_settings(
        url,
        log_level="DEBUG",
        registration="open",
        callback_schemes=("http",),
        oidc_allow_private=True,
        **configured,
    )
    provider.origin = settings.public_url
    api_log = tmp_path / "api.log"
    plain_url = make_url(database_url).set(drivername="postgresql").render_as_string(False)
    with (
        provider,
        psycopg.connect(plain_url, autocommit=True) as owner,
        api_process(settings, api_log) as port,
    ):
        journey = Journey(port)
        password = log_in_and_out(journey, owner)
        log_in_at_a_provider(journey, owner, provider)
        second_factor_and_tokens(journey, owner, password)
        play(journey, owner, settings, tmp_path)
        [(database_log,)] = owner.execute("SELECT pg_read_file(pg_current_logfile())").fetchall()
    journey.plant("client secret", provider.client_secret)
    del configured["oidc_providers"]
    for name, value in configured.items():
        journey.plant(name, value)
        if name != "vault_token":
            journey.canaries.append(Canary(f"{name}, decoded", base64.b64decode(value)))
    journey.plant("password of the database", database_password)
    worker_log = b"".join(path.read_bytes() for path in tmp_path.glob("worker-*.log"))
    places = {
        "the API's log": api_log.read_bytes(),
        "the worker's log": worker_log,
        "the database's log": database_log.encode(),
        "the problems": b"\n".join(journey.problems),
        "the dump": dump(database_url),
    }
    # Each place has what it must have: an empty one would prove nothing.
    for place, sign in {
        "the API's log": b"Traceback",
        "the worker's log": b"run_failed",
        "the database's log": b"does not exist",
        "the problems": b"internal_error",
        "the dump": b"login.failed",
    }.items():
        assert sign in places[place], place
    for sign in (b"COPY public.procrastinate_jobs", b"COPY public.idempotency_records"):
        assert sign in places["the dump"]
    kinds = {canary.kind for canary in journey.canaries}
    assert len(kinds) >= 28, kinds
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
