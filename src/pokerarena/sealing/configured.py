"""The sealer that the settings name."""

from __future__ import annotations

from pokerarena.errors import ConfigurationError
from pokerarena.sealing.local import LocalKeys
from pokerarena.sealing.sealer import KeyProvider, Sealer
from pokerarena.sealing.vault import VaultAddress, VaultTransit
from pokerarena.settings import KeyProviderName, Settings


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
            token=token,
            ca_file=settings.vault_ca_file or None,
            timeout_s=settings.vault_timeout_s,
        )
    )
