"""Production refuses secrets that protect nothing: unset, known, short, or open to everybody."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from pokerarena.errors import ConfigurationError
from pokerarena.key_material import (
    KEY_BYTES,
    SECRET_FILE_MAX_BYTES,
    development_key,
    weakness,
)
from pokerarena.settings import Settings, load_settings


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def key() -> str:
    return text(os.urandom(32))


def production(**changes: Any) -> Settings:
    return load_settings(
        **{
            "environment": "production",
            "database_url": "postgresql+psycopg://nobody@/none",
            "callback_schemes": ("https",),
            "master_key": key(),
            "token_pepper": key(),
            **changes,
        }
    )


def test_production_takes_random_keys() -> None:
    settings = production(master_keys_previous=f"{key()}, {key()}\n{key()}")
    assert len(settings.previous_master_keys()) == 3
    assert settings.previous_token_peppers() == ()
    assert len({settings.master_key_bytes(), settings.token_pepper_bytes()}) == 2


@pytest.mark.parametrize(
    "name", ["master_key", "master_keys_previous", "token_pepper", "token_peppers_previous"]
)
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (text(development_key("master_key")), "is the development key"),
        (text(development_key("token_pepper")), "is the development key"),
        (text(b"a passphrase that is long enough"), "is not random"),
        (text(b"correct horse battery staple ...".swapcase()), "is not random"),
        (text(bytes(32)), "is not random"),
        (text(bytes(range(200, 208)) * 4), "is not random"),
        (text(bytes(range(100, 116))), "must be 32 bytes"),
        (text(bytes(range(100, 133))), "must be 32 bytes"),
        ("hunter2", "must be 32 bytes"),
    ],
)
def test_production_refuses_a_key_that_protects_nothing_and_does_not_repeat_it(
    name: str, bad: str, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why) as told:
        production(**{name: bad})
    assert bad not in told.value.message


@pytest.mark.parametrize("other", ["token_pepper", "token_peppers_previous"])
def test_production_refuses_one_key_for_two_purposes(other: str) -> None:
    shared = key()
    with pytest.raises(ConfigurationError, match="must not share a key"):
        production(master_key=shared, **{other: shared})


def test_random_keys_are_never_called_weak() -> None:
    assert [weakness(os.urandom(KEY_BYTES)) for _ in range(2000)] == [None] * 2000


@pytest.mark.parametrize("asked", ["master_key_bytes", "token_pepper_bytes"])
def test_a_process_needs_only_the_secrets_that_it_uses(asked: str) -> None:
    settings = production(master_key="", token_pepper="")
    with pytest.raises(ConfigurationError, match="must be set in production"):
        getattr(settings, asked)()


def test_production_reaches_a_vault_over_tls_only() -> None:
    with pytest.raises(ConfigurationError, match="vault_address must be https"):
        production(key_provider="vault", vault_address="http://vault:8200", vault_token="t")
    assert production(key_provider="vault", vault_address="https://vault:8200/base")


@pytest.mark.parametrize("name", ["database_api_password", "database_worker_password"])
def test_production_refuses_a_short_password_of_a_database_role(name: str) -> None:
    with pytest.raises(ConfigurationError, match="at least 16 characters"):
        production(**{name: "fifteen letters"})


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [(0o400, True), (0o440, True), (0o600, True), (0o444, False), (0o604, False), (0o602, False)],
)
def test_production_reads_secrets_only_from_files_that_are_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, allowed: bool
) -> None:
    file = tmp_path / "master_key"
    file.write_text(key() + "\n")
    file.chmod(mode)
    monkeypatch.setenv("POKERARENA_MASTER_KEY_FILE", str(file))
    monkeypatch.setenv("pokerarena_environment", "production")
    values: dict[str, Any] = {
        "database_url": "postgresql+psycopg://nobody@/none",
        "callback_schemes": ("https",),
        "token_pepper": key(),
    }
    if allowed:
        assert load_settings(**values).master_key_bytes()
    else:
        with pytest.raises(ConfigurationError, match=r"MASTER_KEY_FILE.*0400 or 0440"):
            load_settings(**values)
        assert load_settings(**values, environment="development").master_key_bytes()


def test_a_file_that_holds_no_secret_may_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "port"
    file.write_text("9000")
    file.chmod(0o444)
    monkeypatch.setenv("POKERARENA_API_PORT_FILE", str(file))
    assert production().api_port == 9000


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "cannot be read"),
        (lambda path: path.mkdir(), "is no file"),
        (os.mkfifo, "is no file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is no text"),
        (lambda path: path.write_bytes(b"k" * (SECRET_FILE_MAX_BYTES + 1)), "too large"),
    ],
    ids=["missing", "directory", "pipe", "binary", "huge"],
)
def test_a_secret_file_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, why: str
) -> None:
    make(tmp_path / "key")
    monkeypatch.setenv("POKERARENA_MASTER_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ConfigurationError, match=rf"POKERARENA_MASTER_KEY_FILE.*{why}"):
        production()
