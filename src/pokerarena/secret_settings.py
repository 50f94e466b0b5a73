"""The settings that are secrets, or say who keeps them; a part of `settings.Settings`.

What is set is judged in production before anything uses it; what a role needs and lacks is found
when it asks, so that no process has to hold a secret that it does not use. This module must never
put a secret's value into a message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from pokerarena.errors import ConfigurationError
from pokerarena.key_material import decode_key, decode_keys, development_key, weakness

ENV_PREFIX: Final = "POKERARENA_"
PASSWORD_CHARACTERS_MIN: Final = 16


class Environment(StrEnum):
    """Where the program runs. ``production`` refuses development defaults."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class KeyProviderName(StrEnum):
    """Who holds the master keys: this process, or a HashiCorp Vault."""

    LOCAL = "local"
    VAULT = "vault"


class SecretSettings(BaseSettings):
    """Keys, peppers, passwords of the database's roles, and the Vault."""

    environment: Environment = Field(
        default=Environment.DEVELOPMENT,
        description="`production` refuses every development default",
    )

    # Set for `pokerarena migrate` only, which gives these passwords to the roles it creates.
    database_api_password: SecretStr = Field(
        default=SecretStr(""),
        description="password of the database role `pokerarena_api`; empty: none is set",
    )
    database_worker_password: SecretStr = Field(
        default=SecretStr(""),
        description="password of the database role `pokerarena_worker`; empty: none is set",
    )

    # Secrets. Every key is 32 random bytes in base64.
    key_provider: KeyProviderName = Field(
        default=KeyProviderName.LOCAL,
        description="who holds the master keys that seal what must be read back: seeds, secrets",
    )
    master_key: SecretStr = Field(
        default=SecretStr(""), description="the master key that seals, with the provider `local`"
    )
    master_keys_previous: SecretStr = Field(
        default=SecretStr(""), description="master keys that only open, separated by commas"
    )
    vault_address: str = Field(
        default="https://127.0.0.1:8200",
        pattern=r"^https?://[A-Za-z0-9.:\[\]_-]{1,200}(/[A-Za-z0-9._~/-]{0,200})?$",
        description="the Vault, with the provider `vault`",
    )
    vault_token: SecretStr = Field(
        default=SecretStr(""),
        description="a Vault token that may encrypt, decrypt and read one key",
    )
    vault_transit_mount: str = Field(
        default="transit",
        pattern=r"^[A-Za-z0-9_-]{1,60}(/[A-Za-z0-9_-]{1,60})*$",
        description="where Vault's transit engine is mounted",
    )
    vault_transit_key: str = Field(
        default="pokerarena",
        pattern=r"^[A-Za-z0-9_-]{1,60}$",
        description="the name of the key in it, of a type that encrypts",
    )
    vault_ca_file: str = Field(
        default="", description="certificates that sign Vault's; empty: those of the system"
    )
    vault_timeout_s: float = Field(
        default=2.0, gt=0, le=30, description="how long one question to Vault may take"
    )
    token_pepper: SecretStr = Field(
        default=SecretStr(""), description="key of the MAC under which tokens are stored"
    )
    token_peppers_previous: SecretStr = Field(
        default=SecretStr(""),
        description="peppers under which older tokens still work, separated by commas",
    )

    # Read again when their files change, so that a key can be rotated while the program runs.
    service_key: SecretStr = Field(
        default=SecretStr(""),
        description="this service's own private key, in PEM, with which it signs tokens for other "
        "services; a worker with agent-hosts needs one",
    )
    service_public_keys: str = Field(
        default="",
        description="the public keys of all services, as `admin service-key` writes them; best "
        "given as a file",
    )

    backup_key: SecretStr = Field(
        default=SecretStr(""),
        description="seals backups; keep a copy elsewhere, nothing opens without",
    )
    backup_s3_access_key_id: SecretStr = Field(
        default=SecretStr(""), description="who puts backups into object storage"
    )
    backup_s3_secret_access_key: SecretStr = Field(
        default=SecretStr(""), description="the secret that goes with it"
    )
    backup_database_url: SecretStr = Field(
        default=SecretStr(""),
        description="the database for a role that may replicate; empty: `database_url`",
    )

    def refuse_weak_secrets(self) -> None:
        """What is set must be good; what a role needs and lacks is found when it asks for it."""
        if self.key_provider is KeyProviderName.VAULT and not self.vault_address.startswith(
            "https://"
        ):
            raise ValueError("vault_address must be https in production")
        for name in ("database_api_password", "database_worker_password"):
            if 0 < len(getattr(self, name).get_secret_value()) < PASSWORD_CHARACTERS_MIN:
                raise ValueError(f"{name} needs at least {PASSWORD_CHARACTERS_MIN} characters")
        seen: dict[bytes, str] = {}
        for name in (
            "master_key",
            "master_keys_previous",
            "token_pepper",
            "token_peppers_previous",
            "backup_key",
        ):
            variable = ENV_PREFIX + name.upper()
            try:
                keys = decode_keys(variable, getattr(self, name).get_secret_value())
            except ConfigurationError as error:
                raise ValueError(error.message) from None
            for key in keys:
                if why := weakness(key):
                    raise ValueError(f"{name} {why}")
                if key in seen and seen[key] != name:
                    raise ValueError(f"{name} and {seen[key]} must not share a key")
                seen[key] = name

    def master_key_bytes(self) -> bytes:
        """The 32 bytes of the master key that seals."""
        return self._key_bytes("master_key")

    def previous_master_keys(self) -> tuple[bytes, ...]:
        """The master keys that only open."""
        return self._previous("master_keys_previous")

    def token_pepper_bytes(self) -> bytes:
        """The 32 bytes of the token pepper."""
        return self._key_bytes("token_pepper")

    def previous_token_peppers(self) -> tuple[bytes, ...]:
        """The peppers under which older tokens still work."""
        return self._previous("token_peppers_previous")

    def backup_key_bytes(self) -> bytes:
        """The 32 bytes that backups are sealed under."""
        return self._key_bytes("backup_key")

    def _key_bytes(self, name: str) -> bytes:
        variable = ENV_PREFIX + name.upper()
        text = getattr(self, name).get_secret_value()
        if text:
            return decode_key(variable, text)
        if self.environment is Environment.PRODUCTION:
            raise ConfigurationError(f"{variable} must be set in production")
        return development_key(name)

    def _previous(self, name: str) -> tuple[bytes, ...]:
        return decode_keys(ENV_PREFIX + name.upper(), getattr(self, name).get_secret_value())
