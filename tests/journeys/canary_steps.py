"""The journey on which secrets are planted: each of them used, misused, and in the way of errors."""

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
from joserfc.jwk import ECKey

from pokerarena.agents.registry import SIGNING_SECRET_PURPOSE
from pokerarena.auth import second_factor, signing_keys
from pokerarena.ops.privileges import DatabaseRole
from pokerarena.runs.service import SEED_PURPOSE
from pokerarena.sealing import open_sealer
from pokerarena.settings import Settings
from tests.auth.browsing import LOGIN_COOKIE
from tests.auth.hostile_provider import ACCESS_TOKEN, HostileProvider
from tests.database_server import as_role
from tests.journeys.canaries import Canary, text_canary
from tests.journeys.eavesdroppers import Overheard, false_agent_host, metrics_of
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


def show_a_seat(journey: Journey, owner: psycopg.Connection[Any], table: str, run: str) -> None:
    """A viewer link in its place, and in all those where it must not be."""
    path = f"/v1/tables/{table}/seats/1/viewer-links"
    order = {"name": "a friend", "expires_in_s": 600}
    with broken(owner, "viewer_links"):
        journey.refused("POST", path, order)
    made = journey.done("POST", path, order, **{"Idempotency-Key": "link"})
    again = journey.done("POST", path, order, **{"Idempotency-Key": "link"})
    link = journey.plant("viewer link", made["token"])
    assert again["token"] == link
    journey.plant("body of a viewer link", link[4:34])
    by_link = {"Authorization": f"Bearer {link}"}
    journey.done("GET", f"/v1/tables/{table}/state", **by_link)
    journey.done("GET", f"/v1/runs/{run}", **by_link)
    with broken(owner, "viewer_links"):
        journey.refused("GET", f"/v1/tables/{table}", **by_link)
    journey.refused("GET", "/v1/me", **by_link)
    journey.refused("GET", "/v1/runs/run_" + "0" * 32, **by_link)
    journey.refused("GET", f"/v1/tables/{table}", Authorization=f"Bearer {link[:-1]}x")
    journey.refused("GET", f"/v1/tables/{link}")
    journey.refused("GET", f"/v1/hands/{link}?link={link}")
    journey.refused("DELETE", f"/v1/viewer-links/{link}")
    journey.done("DELETE", f"/v1/viewer-links/{made['id']}")
    journey.refused("GET", f"/v1/tables/{table}", **by_link)


def upload(journey: Journey) -> None:
    """A hosted agent, whose check makes the worker show its token to an agent-host."""
    agent = journey.done("POST", "/v1/agents", {"name": "Boxed"})["id"]
    journey.done(
        "POST",
        f"/v1/agents/{agent}/versions?file_name=bot.py",
        raw=b"def act(view): return view.check_or_call()\n",
        **{"Content-Type": "application/octet-stream"},
    )


def play(
    journey: Journey,
    owner: psycopg.Connection[Any],
    settings: Settings,
    logs: Path,
    traces: Overheard,
) -> bytes:
    """Two runs, one whose agent does not answer, one whose seed cannot be opened; the metrics."""
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
    show_a_seat(journey, owner, table, runs[-1])
    upload(journey)
    asyncio.run(open_what_is_sealed(journey, owner, settings))
    damaged = runs[1].removeprefix("run_")
    owner.execute("UPDATE run_seeds SET seed_sealed = seed_sealed || ''::bytea")
    owner.execute(
        "UPDATE run_seeds SET seed_sealed = set_byte(seed_sealed, length(seed_sealed) - 1,"
        " (get_byte(seed_sealed, length(seed_sealed) - 1) # 1)) WHERE run_id = %s",
        (damaged,),
    )
    with false_agent_host(logs / "host.sock") as shown, worker(settings, logs) as process:
        ends = [
            until(
                "the runs",
                lambda run=run: ended(journey.done("GET", f"/v1/runs/{run}")["status"]),
            )
            for run in runs
        ]
        until("a token of the worker's", lambda: shown)
        until("the loss of the host", lambda: process.events("agent_host_unreachable"))
        # Spans are sent once a second, and whoever ends here ends at once.
        until("the worker's traces", lambda: b"pokerarena-worker" in traces.all())
        metrics = metrics_of(process.log_path)
    nobody.close()
    for token in shown:
        journey.plant("service token", token.decode())
    assert ends == ["completed", "failed"]
    journey.refused("GET", f"/v1/runs/{runs[0]}/seed")
    return metrics


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
