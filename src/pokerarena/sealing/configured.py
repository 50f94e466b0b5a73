"""The sealer that the settings name."""

from __future__ import annotations

from pokerarena.errors import ConfigurationError
from pokerarena.sealing.local import LocalKeys
from pokerarena.sealing.sealer import KeyProvider, Sealer
from pokerarena.sealing.vault import VaultAddress, VaultTransit
from pokerarena.settings import Environment, KeyProviderName, Settings
from pokerarena.watched_file import source_of


def open_sealer(settings: Settings) -> Sealer:
    """A sealer under the configured master keys. Raises `ConfigurationError` without them."""
    return Sealer(key_provider(settings))


def key_provider(settings: Settings) -> KeyProvider:
    """Whoever holds the master keys here."""
    if settings.key_provider is KeyProviderName.LOCAL:
        return LocalKeys(settings.master_key_bytes(), settings.previous_master_keys())
    token = settings.vault_token.get_secret_value()
    if not token:
        raise ConfigurationError("POKERARENA_VAULT_TOKEN is not set, and the key provider is vault")
    return VaultTransit(
        VaultAddress(
            url=settings.vault_address,
            mount=settings.vault_transit_mount,
            key=settings.vault_transit_key,
            token=source_of(
                settings.file_of("vault_token"),
                token,
                _token,
                private=settings.environment is Environment.PRODUCTION,
            ),
            ca_file=settings.vault_ca_file or None,
            timeout_s=settings.vault_timeout_s,
        )
    )


def _token(raw: bytes) -> str:
    """A token as it goes into a header. Raises `ConfigurationError`, without the text."""
    text = raw.decode("ascii", "replace").strip()
    if not (text.isascii() and text.isprintable() and text):
        raise ConfigurationError("it holds no Vault token")
    return text
