"""Keys of services and the set of public ones: one form each, and nothing else is taken."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pokerarena.errors import ConfigurationError
from pokerarena.service_identity.keys import (
    KEYS_PER_SERVICE_MAX,
    KeySet,
    ServiceName,
    new_private_key,
    parse_key_set,
    parse_private_key,
    thumbprint,
)
from pokerarena.service_identity.rotation import (
    publish,
    read_key_set,
    read_private_key,
    retire,
    use,
)


def test_a_kid_is_the_thumbprint_of_rfc_8037() -> None:
    """The example of appendix A.3."""
    x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"  # pragma: allowlist secret
    key = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(x + "="))
    assert thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_what_is_written_is_read_again_and_shows_no_private_key() -> None:
    worker, host = new_private_key(), new_private_key()
    keys = KeySet([worker.published(ServiceName.WORKER), host.published(ServiceName.AGENT_HOST)])
    again = parse_key_set(keys.json().encode())
    assert [(key.kid, key.service) for key in again.values()] == [
        (worker.kid, ServiceName.WORKER),
        (host.kid, ServiceName.AGENT_HOST),
    ]
    assert parse_private_key(worker.pem()).kid == worker.kid
    line = worker.pem().decode().splitlines()[1]
    for shown in (keys.json(), repr(worker), repr(keys[worker.kid])):
        assert line not in shown
        assert "Ed25519PrivateKey" not in shown


def member(**changes: Any) -> dict[str, Any]:
    key = new_private_key()
    [made] = json.loads(KeySet([key.published(ServiceName.WORKER)]).json())["keys"]
    return {**made, **changes}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no set"),
        (b"[]", "no set"),
        (b'{"keys": 1}', "no set"),
        (b"[" * 100_000, "no set"),
        (b'{"keys": [1]}', "no public key"),
        (json.dumps({"keys": [member(d="x")]}).encode(), "private key"),
        (json.dumps({"keys": [member(kty="EC")]}).encode(), "no public key"),
        (json.dumps({"keys": [member(alg="HS256")]}).encode(), "no public key"),
        (json.dumps({"keys": [member(service="root")]}).encode(), "no public key"),
        (json.dumps({"keys": [member(more=1)]}).encode(), "no public key"),
        (json.dumps({"keys": [member(x="AAAA")]}).encode(), "length"),
        (json.dumps({"keys": [member(x="ä")]}).encode(), "length"),
        (json.dumps({"keys": [member(kid="mine")]}).encode(), "thumbprint"),
        (json.dumps({"keys": [member()] * 2}).encode(), "twice"),
        (
            json.dumps({"keys": [member() for _ in range(KEYS_PER_SERVICE_MAX + 1)]}).encode(),
            "retire old ones",
        ),
    ],
)
def test_anything_else_is_no_set(text: bytes, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_key_set(text)


def test_only_an_ed25519_key_is_a_private_key() -> None:
    other = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    encrypted = (
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    for pem in (b"", b"key", other, encrypted):
        with pytest.raises(ConfigurationError, match="no Ed25519 private key"):
            parse_private_key(pem)


def test_no_key_is_overwritten_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    private, public = tmp_path / "worker.pem", tmp_path / "service-keys.json"
    first = publish(ServiceName.WORKER, private, public)
    assert private.stat().st_mode & 0o777 == 0o600
    assert public.stat().st_mode & 0o777 == 0o644
    with pytest.raises(ConfigurationError, match="no key is overwritten"):
        publish(ServiceName.WORKER, private, public)
    assert [*read_key_set(public)] == [first.kid], "a key without a file is not published"
    successor = tmp_path / "next.pem"
    second = publish(ServiceName.WORKER, successor, public)
    assert [*read_key_set(public)] == [first.kid, second.kid]
    use(successor, private)
    assert parse_private_key(private.read_bytes()).kid == second.kid
    retire(first.kid, public)
    assert [*read_key_set(public)] == [second.kid]
    with pytest.raises(ConfigurationError, match="has no key"):
        retire(first.kid, public)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        publish(ServiceName.WORKER, tmp_path / "x", tmp_path / "nowhere" / "keys.json")


def test_a_successor_belongs_to_whom_the_key_before_it_belonged(tmp_path: Path) -> None:
    """As where root rotates the key of an agent-host, which is a user of its own."""
    private, successor, public = (tmp_path / name for name in ("key", "next", "keys.json"))
    publish(ServiceName.AGENT_HOST, private, public)
    os.chown(private, 65534, 65534)
    private.chmod(0o440)
    key = publish(ServiceName.AGENT_HOST, successor, public)
    use(successor, private)
    held = private.stat()
    assert (held.st_uid, held.st_gid, held.st_mode & 0o777) == (65534, 65534, 0o440)
    assert read_private_key(private).kid == key.kid
