"""The part of the settings that says how callers are known, and for how long.

A part of `settings.Settings`, apart for the reader's sake; what depends on other settings is checked
there. This module must never read anything by itself.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from pokerarena.federation_settings import IdentityProvider, parse_providers


class Registration(StrEnum):
    """Whether anybody may create an account, or only an operator."""

    OPEN = "open"
    CLOSED = "closed"


class SecondFactorRule(StrEnum):
    """When an operator's session needs a second factor. ``auto``: in production."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class IdentitySettings(BaseSettings):
    """Accounts, sessions, tokens, and guessing."""

    registration: Registration = Field(
        default=Registration.CLOSED,
        description="whether anybody may create an account, or only an operator",
    )
    public_url: str = Field(
        default="http://127.0.0.1:8080",
        pattern=r"^https?://[A-Za-z0-9.:\[\]-]{1,200}$",
        description="the address by which clients know the API; access tokens name it as issuer",
    )
    access_token_ttl_s: int = Field(
        default=600, ge=60, le=900, description="how long an access token is valid"
    )
    session_idle_s: int = Field(
        default=14 * 86_400,
        ge=300,
        le=90 * 86_400,
        description="a session that is not refreshed for so long ends",
    )
    session_max_s: int = Field(
        default=90 * 86_400,
        ge=300,
        le=366 * 86_400,
        description="a session ends after so long, however often it is refreshed",
    )
    refresh_grace_s: float = Field(
        default=5.0,
        ge=0,
        le=60,
        description="a refresh token that comes again so soon is refused as a race, not as a theft",
    )
    session_staleness_s: float = Field(
        default=2.0,
        ge=0,
        le=60,
        description="how long another process may still serve an ended session; 0 asks each time",
    )
    signing_key_publish_s: int = Field(
        default=900,
        ge=0,
        le=7 * 86_400,
        description="how long a new signing key is published before it signs",
    )
    signing_keys_refresh_s: float = Field(
        default=30.0, gt=0, le=600, description="how often a process reads the signing keys"
    )
    cookie_secure: bool = Field(
        default=True,
        description="whether the browser's cookie needs HTTPS; false only on a loopback address",
    )
    login_window_s: int = Field(
        default=900, ge=1, le=86_400, description="the window in which attempts to log in count"
    )
    login_attempts_per_pair_max: int = Field(
        default=10, ge=1, le=1000, description="attempts for one account from one address"
    )
    login_attempts_per_account_max: int = Field(
        default=50, ge=1, le=10_000, description="attempts for one account from anywhere"
    )
    login_attempts_per_address_max: int = Field(
        default=100, ge=1, le=100_000, description="attempts from one address for any account"
    )
    second_factor_for_operators: SecondFactorRule = Field(
        default=SecondFactorRule.AUTO,
        description="when operators need a second factor: `auto` (in production), `always`, `never`",
    )
    token_rotation_grace_max_s: int = Field(
        default=7 * 86_400,
        ge=0,
        le=30 * 86_400,
        description="how long, at most, a replaced personal token works on",
    )
    token_max_ttl_s: int = Field(
        default=366 * 86_400,
        ge=60,
        le=5 * 366 * 86_400,
        description="the longest life of a personal token",
    )
    viewer_link_max_ttl_s: int = Field(
        default=30 * 86_400,
        ge=60,
        le=366 * 86_400,
        description="the longest life of a viewer link",
    )
    viewer_links_per_user_max: int = Field(
        default=100, ge=1, description="viewer links of one user that work"
    )
    password_min_length: int = Field(
        default=15, ge=8, le=64, description="characters of a new password, at least"
    )
    argon2_memory_kib: int = Field(
        default=19 * 1024,
        ge=8 * 1024,
        le=1024 * 1024,
        description="memory of one password hash; stored hashes follow at the next login",
    )
    argon2_parallel_hashes: int = Field(
        default=2, ge=1, le=32, description="password hashes at once in one process"
    )

    # Logging in through identity providers (OpenID Connect).
    oidc_providers: SecretStr = Field(
        default=SecretStr(""),
        description="identity providers through which users may log in, as a JSON list "
        "(docs/security/identity.md); holds client secrets: use the `_FILE` form",
    )
    oidc_allow_private: bool = Field(
        default=False,
        description="whether identity providers may have private and loopback addresses",
    )
    oidc_timeout_s: float = Field(
        default=5.0,
        gt=0,
        le=30,
        description="how long one question to an identity provider may take",
    )
    oidc_answer_max_bytes: int = Field(
        default=64 * 1024,
        ge=4096,
        le=1024 * 1024,
        description="the largest answer of an identity provider",
    )
    oidc_metadata_ttl_s: int = Field(
        default=3600,
        ge=1,
        le=86_400,
        description="how long a provider's own description and keys are used before they are read "
        "again",
    )
    oidc_keys_refetch_s: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="how often, at most, an unknown key makes us read a provider's keys again",
    )
    oidc_clock_leeway_s: int = Field(
        default=60, ge=0, le=300, description="by how much a provider's clock may differ from ours"
    )
    oidc_login_ttl_s: int = Field(
        default=600,
        ge=30,
        le=3600,
        description="how long a login may take at a provider, and how long its end may wait for us",
    )
    oidc_logins_pending_max: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="logins at providers that are under way; beyond, the oldest are given up",
    )
    login_fresh_s: int = Field(
        default=600,
        ge=30,
        le=86_400,
        description="how long after its login a session of an account without a password may do "
        "what needs the password elsewhere",
    )

    def identity_providers(self) -> tuple[IdentityProvider, ...]:
        """The identity providers that are configured. Raises `ValueError`."""
        return parse_providers(self.oidc_providers.get_secret_value())
