"""A player process has the settings of its worker, down to the files that are read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokerarena.runs.hosted import host_pool
from pokerarena.sealing.configured import key_provider
from pokerarena.service_identity.keys import ServiceName
from pokerarena.service_identity.rotation import publish, use
from pokerarena.settings import load_settings
from pokerarena.worker.player import settings_of
from pokerarena.worker.processes import plain


async def test_a_key_that_is_replaced_reaches_player_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "service_key": tmp_path / "worker.pem",
        "service_public_keys": tmp_path / "service-keys.json",
        "vault_token": tmp_path / "vault-token",
    }
    publish(ServiceName.WORKER, files["service_key"], files["service_public_keys"])
    files["vault_token"].write_text("hvs.first")
    for name, path in files.items():
        monkeypatch.setenv(f"POKERARENA_{name.upper()}_FILE", str(path))
    parent = load_settings(
        database_url="postgresql+psycopg://nobody@/none",
        key_provider="vault",
        vault_address="http://127.0.0.1:9",
        agent_hosts=(f"one={tmp_path / 'host.sock'}",),
    )
    assert {name: parent.file_of(name) for name in files} == files
    child = settings_of(json.loads(json.dumps(plain(parent))))
    assert child == parent
    assert child.files() == parent.files()
    # What is made of them follows the files.
    pool = host_pool(child, database=None, subject="player 1")  # type: ignore[arg-type]
    assert pool is not None
    second = publish(ServiceName.WORKER, tmp_path / "next.pem", files["service_public_keys"])
    use(tmp_path / "next.pem", files["service_key"])
    assert pool._identity._key.fresh().kid == second.kid
    provider = key_provider(child)
    files["vault_token"].write_text("hvs.the second")
    assert provider._address.token.fresh() == "hvs.the second"  # type: ignore[attr-defined]


def test_what_was_given_directly_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("hvs.from-a-file")
    monkeypatch.setenv("POKERARENA_VAULT_TOKEN_FILE", str(tmp_path / "token"))
    settings = load_settings(database_url="x", vault_token="hvs.given")
    assert settings.vault_token.get_secret_value() == "hvs.given"
    assert settings.file_of("vault_token") is None
