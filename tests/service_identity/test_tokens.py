"""Tokens between services: believed once, by one process, of the services that it believes."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pokerarena.errors import Unauthenticated
from pokerarena.service_identity import tokens
from pokerarena.service_identity.keys import (
    KeySet,
    PrivateKey,
    ServiceName,
    new_private_key,
    parse_key_set,
    parse_private_key,
)
from pokerarena.service_identity.rotation import publish, read_private_key, rotate
from pokerarena.service_identity.tokens import ServiceIdentity
from pokerarena.watched_file import Fixed, WatchedFile

API, WORKER, HOST = ServiceName.API, ServiceName.WORKER, ServiceName.AGENT_HOST


class World:
    """A key of each service, known to all, and a clock."""

    def __init__(self) -> None:
        self.now_s = time.time()
        self.keys = {service: new_private_key() for service in ServiceName}
        self.known = KeySet(key.published(service) for service, key in self.keys.items())

    def identity(
        self, service: ServiceName, name: str, *believes: ServiceName, key: PrivateKey | None = None
    ) -> ServiceIdentity:
        return ServiceIdentity(
            service,
            name,
            key=Fixed(key or self.keys[service]),
            keys=Fixed(self.known),
            believes=believes,
            clock=lambda: self.now_s,
        )


@pytest.fixture
def world() -> World:
    return World()


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def signed(key: PrivateKey, header: Any, claims: Any) -> str:
    text = f"{encoded(header)}.{encoded(claims)}"
    return f"{text}.{base64.urlsafe_b64encode(key.key.sign(text.encode())).rstrip(b'=').decode()}"


def test_a_token_names_its_service_its_process_its_audience_and_its_key(world: World) -> None:
    worker, host = world.identity(WORKER, "w1", HOST), world.identity(HOST, "h1", WORKER)
    made = worker.token_for(HOST, "h1")
    header, claims = (
        json.loads(base64.urlsafe_b64decode(part + "==")) for part in made.text.split(".")[:2]
    )
    assert header == {"alg": "EdDSA", "typ": tokens.TYPE, "kid": world.keys[WORKER].kid}
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("worker", "w1", "agent-host/h1")
    assert claims["exp"] - claims["iat"] == tokens.LIFETIME_S
    grant = host.judge(made.text)
    assert (grant.service, grant.subject, grant.token_id) == (WORKER, "w1", made.token_id)


def test_a_token_is_good_once_for_a_minute_and_one_audience(world: World) -> None:
    worker, host = world.identity(WORKER, "w1", HOST), world.identity(HOST, "h1", WORKER)
    good = worker.token_for(HOST, "h1").text
    host.judge(good)
    with pytest.raises(Unauthenticated, match="shown before"):
        host.judge(good)
    for wrong in (
        worker.token_for(HOST, "h2"),
        worker.token_for(WORKER, "h1"),
        worker.token_for(API, "h1"),
    ):
        with pytest.raises(Unauthenticated, match="another process"):
            host.judge(wrong.text)
    with pytest.raises(Unauthenticated, match="too long"):
        host.judge(worker.token_for(HOST, "h1", lifetime_s=3600).text)
    late, early = worker.token_for(HOST, "h1").text, worker.token_for(HOST, "h1").text
    world.now_s -= 60
    with pytest.raises(Unauthenticated, match="not valid at this time"):
        host.judge(early)
    world.now_s += 60 + tokens.LIFETIME_S + tokens.CLOCK_SKEW_S + 1
    with pytest.raises(Unauthenticated, match="not valid at this time"):
        host.judge(late)


@pytest.mark.parametrize("service", list(ServiceName))
def test_each_service_is_believed_only_where_it_is_meant_to_be(
    world: World, service: ServiceName
) -> None:
    caller = world.identity(service, "x")
    for judging in ServiceName:
        for believed in ServiceName:
            judge = world.identity(judging, "me", believed)
            token = caller.token_for(judging, "me").text
            if believed is service:
                assert judge.judge(token).service is service
            else:
                with pytest.raises(Unauthenticated, match="not believed"):
                    judge.judge(token)


def test_an_answer_answers_one_token_and_is_good_for_nothing_else(world: World) -> None:
    worker, host = world.identity(WORKER, "w1", HOST), world.identity(HOST, "h1", WORKER)
    asked = worker.token_for(HOST, "h1")
    answer = host.token_for(WORKER, "w1", answers=host.judge(asked.text).token_id).text
    for other in (None, "another"):
        with pytest.raises(Unauthenticated, match="answers something else"):
            worker.judge(answer, answers=other)
    assert worker.judge(answer, answers=asked.token_id).subject == "h1"
    # Nor does a token that answers nothing pass as an answer.
    with pytest.raises(Unauthenticated, match="answers something else"):
        worker.judge(host.token_for(WORKER, "w1").text, answers=asked.token_id)


def test_no_forged_token_is_believed(world: World) -> None:
    worker, host = world.identity(WORKER, "w1", HOST), world.identity(HOST, "h1", WORKER)
    stranger = world.identity(WORKER, "w1", HOST, key=new_private_key())
    good = worker.token_for(HOST, "h1").text
    head, body, signature = good.split(".")
    header, claims = (json.loads(base64.urlsafe_b64decode(p + "==")) for p in (head, body))
    key, host_key = world.keys[WORKER], world.keys[HOST]
    forged = {
        "a foreign key": stranger.token_for(HOST, "h1").text,
        "a foreign key under a known kid": signed(new_private_key(), header, claims),
        "another service's key under its own kid": signed(
            host_key, header | {"kid": host_key.kid}, claims
        ),
        "another service's key and name": signed(
            host_key, header | {"kid": host_key.kid}, claims | {"iss": "agent-host"}
        ),
        "no algorithm": f"{encoded(header | {'alg': 'none'})}.{body}.",
        "another algorithm": signed(key, header | {"alg": "HS256"}, claims),
        "another type": signed(key, header | {"typ": "JWT"}, claims),
        "no kid": signed(key, {"alg": "EdDSA", "typ": tokens.TYPE}, claims),
        "a kid that is no text": signed(key, header | {"kid": [1]}, claims),
        "a jku": signed(key, header | {"jku": "https://example.com/"}, claims),
        "a jwk": signed(key, header | {"jwk": {}}, claims),
        "another issuer": signed(key, header, claims | {"iss": "api"}),
        "no expiry": signed(key, header, {k: v for k, v in claims.items() if k != "exp"}),
        "no id": signed(key, header, {k: v for k, v in claims.items() if k != "jti"}),
        "claims that are a list": signed(key, header, [1]),
        "a damaged signature": f"{head}.{body}.{signature[:-4]}AAAA",
        "no signature": f"{head}.{body}.",
        "the same in another spelling": f"{good}=",
        "nothing": "",
        "no token": "a.b.c",
        "too much": "x" * 5_000,
        "no ASCII": "ä.b.c",
    }
    for what, token in forged.items():
        with pytest.raises(Unauthenticated) as refused:
            host.judge(token)
        assert refused.value.code == "service_token_refused", what
    host.judge(good)


def test_what_is_remembered_of_tokens_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_MAX", 20)
    worker, host = world.identity(WORKER, "w1", HOST), world.identity(HOST, "h1", WORKER)
    for _ in range(50):
        host.judge(worker.token_for(HOST, "h1").text)
    assert len(host._judge._seen) == 20
    world.now_s += 2 * tokens.LIFETIME_S
    host.judge(worker.token_for(HOST, "h1").text)
    assert len(host._judge._seen) == 1


def test_rotation_under_load_refuses_no_valid_token(tmp_path: Path) -> None:
    """Both sides read their files themselves, as in production, and nobody is started again."""
    private, public = tmp_path / "worker.pem", tmp_path / "service-keys.json"
    publish(HOST, tmp_path / "host.pem", public)
    publish(WORKER, private, public)

    def identity(service: ServiceName, name: str, key: Path, *believes: ServiceName) -> Any:
        return ServiceIdentity(
            service,
            name,
            key=WatchedFile(key, parse_private_key, private=True),
            keys=WatchedFile(public, parse_key_set),
            believes=believes,
        )

    refused: list[str] = []
    subjects: set[str] = set()
    kids: set[str] = set()
    judged = [0]
    done = threading.Event()

    def load(name: str) -> None:
        worker = identity(WORKER, name, private, HOST)
        host = identity(HOST, "h1", tmp_path / "host.pem", WORKER)
        while not done.is_set():
            made = worker.token_for(HOST, "h1")
            try:
                subjects.add(host.judge(made.text).subject)
            except Unauthenticated as error:
                refused.append(error.message)
            header = made.text.partition(".")[0]
            kids.add(json.loads(base64.urlsafe_b64decode(header + "=="))["kid"])
            judged[0] += 1
            done.wait(0.002)

    threads = [threading.Thread(target=load, args=(f"w{number}",)) for number in range(3)]
    old = read_private_key(private)
    for thread in threads:
        thread.start()
    try:
        # Everything at once: what was seen a moment ago must do until the change is noticed. The
        # waits are far shorter than in production, where tokens may be shown late.
        new = rotate(WORKER, private, public, noticed_after_s=1.5, lapses_after_s=0.5)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert refused == []
    assert judged[0] > 50
    assert subjects == {"w0", "w1", "w2"}
    assert kids == {old.kid, new.kid}, "each key was in use for a while"
    host = identity(HOST, "h1", tmp_path / "host.pem", WORKER)
    robbed = ServiceIdentity(WORKER, "w1", key=Fixed(old), keys=Fixed(KeySet()), believes=[])
    with pytest.raises(Unauthenticated, match="not known"):
        host.judge(robbed.token_for(HOST, "h1").text)
