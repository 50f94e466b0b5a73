"""Master keys in a Vault: sealing without ever holding one, and Vault's refusals in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pokerarena.errors import ConfigurationError, Unavailable
from pokerarena.sealing import Sealer, open_sealer, vault
from pokerarena.settings import Settings, load_settings
from pokerarena.watched_file import Fixed
from tests.sealing.transit import TOKEN, Transit, transit_server

OWNER = b"o" * 16


@pytest.fixture
def transit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Transit]:
    monkeypatch.setattr(vault, "RETRY_PAUSE_S", 0.001)
    with transit_server() as server:
        yield server


def settings(transit: Transit, **changes: str) -> Settings:
    return load_settings(
        **{
            "database_url": "postgresql+psycopg://nobody@/none",
            "key_provider": "vault",
            "vault_address": transit.url,
            "vault_token": TOKEN,
            **changes,
        }
    )


def sealer(transit: Transit, **changes: str) -> Sealer:
    return open_sealer(settings(transit, **changes))


async def test_values_are_sealed_and_opened_with_one_question_each(transit: Transit) -> None:
    writer, reader = sealer(transit), sealer(transit)
    sealed = [await writer.seal(b"seed", purpose="p", owner=OWNER) for _ in range(3)]
    for value in sealed:
        assert await reader.open(value, purpose="p", owner=OWNER) == b"seed"
        assert value.startswith(await reader.current_prefix())
    assert [path.split("/")[3] for path in transit.requests[:2]] == ["encrypt", "decrypt"]
    assert len([path for path in transit.requests if "/keys/" not in path]) == 2


async def test_a_key_that_was_rotated_in_vault_still_opens_until_its_version_is_cut_off(
    transit: Transit,
) -> None:
    sealed = await sealer(transit).seal(b"seed", purpose="p", owner=OWNER)
    transit.rotate()
    assert await sealer(transit).open(sealed, purpose="p", owner=OWNER) == b"seed"
    prefix = await sealer(transit).current_prefix()
    assert not sealed.startswith(prefix)
    assert (await sealer(transit).seal(b"", purpose="p", owner=OWNER)).startswith(prefix)
    transit.min_decryption_version = 2
    with pytest.raises(ConfigurationError, match="still allowed to decrypt"):
        await sealer(transit).open(sealed, purpose="p", owner=OWNER)


async def test_a_token_that_is_replaced_in_its_file_is_used_without_a_restart(
    transit: Transit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    monkeypatch.setenv("POKERARENA_VAULT_TOKEN_FILE", str(file))
    overrides = settings(transit).model_dump(include={"database_url", "key_provider"})
    running = open_sealer(load_settings(vault_address=transit.url, **overrides))
    sealed = await running.seal(b"seed", purpose="p", owner=OWNER)
    transit.token = "hvs.the-next-one"
    # The old one has ended, and the file has not been looked at since: it is, before giving up.
    file.write_text("hvs.the-next-one\n")
    prefix = await running.current_prefix()
    assert sealed.startswith(prefix)
    # Neither is to be read in what it says where none is any good.
    file.write_text("hvs.a-third")
    transit.token = "hvs.a-fourth"
    with pytest.raises(ConfigurationError, match="may the token use it") as refused:
        await running.current_prefix()
    assert "hvs" not in refused.value.message


async def test_a_vault_that_is_away_for_a_moment_is_asked_again(transit: Transit) -> None:
    transit.failures = [503, 429]
    assert await sealer(transit).seal(b"seed", purpose="p", owner=OWNER)
    assert len(transit.requests) == 3


async def test_a_vault_that_stays_away_is_a_passing_trouble(transit: Transit) -> None:
    transit.failures = [503] * vault.TRIES
    with pytest.raises(Unavailable, match="does not answer now"):
        await sealer(transit).seal(b"seed", purpose="p", owner=OWNER)
    assert len(transit.requests) == vault.TRIES


async def test_nobody_at_the_address_is_a_passing_trouble(transit: Transit) -> None:
    with pytest.raises(Unavailable, match="ConnectionRefusedError"):
        await sealer(transit, vault_address="http://127.0.0.1:9").seal(
            b"seed", purpose="p", owner=OWNER
        )


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"vault_token": "hvs.another"}, "403"), ({"vault_transit_key": "unknown"}, "404")],
)
async def test_a_refusal_is_told_once_and_shows_no_token(
    transit: Transit, changes: dict[str, str], status: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"status {status}") as told:
        await sealer(transit, **changes).seal(b"seed", purpose="p", owner=OWNER)
    assert "hvs." not in told.value.message
    assert len(transit.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"<html>", b'{"data": 1}', b'{"data": {}}', b'{"data": {"ciphertext": 7}}'],
)
async def test_something_else_at_the_address_is_called_that(
    transit: Transit, answer: bytes
) -> None:
    transit.raw_answer = answer
    with pytest.raises(ConfigurationError, match="does not speak Vault's transit API"):
        await sealer(transit).seal(b"seed", purpose="p", owner=OWNER)


async def test_a_value_of_another_provider_names_the_key_that_it_needs(transit: Transit) -> None:
    local = load_settings(database_url="postgresql+psycopg://nobody@/none")
    by_vault = await sealer(transit).seal(b"seed", purpose="p", owner=OWNER)
    locally = await open_sealer(local).seal(b"seed", purpose="p", owner=OWNER)
    with pytest.raises(ConfigurationError, match="vault:transit/pokerarena:v1"):
        await open_sealer(local).open(by_vault, purpose="p", owner=OWNER)
    with pytest.raises(ConfigurationError, match="local:"):
        await sealer(transit).open(locally, purpose="p", owner=OWNER)


def test_the_token_is_demanded_at_the_start_and_never_shown(transit: Transit) -> None:
    with pytest.raises(ConfigurationError, match="POKERARENA_VAULT_TOKEN is not set"):
        sealer(transit, vault_token="")
    address = vault.VaultAddress(transit.url, "transit", "pokerarena", Fixed(TOKEN), None, 1.0)
    assert TOKEN not in repr(address)
    assert TOKEN not in repr(settings(transit))
