"""Which identity providers the arena trusts to say who somebody is: the form of that setting.

One setting is a JSON list, because a provider is several values that belong together; it holds
client secrets, so the whole of it is one. This module must never put a value of it into a message.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

PROVIDERS_MAX: Final = 20
CLIENT_SECRET_CHARACTERS_MIN: Final = 16


class IdTokenAlgorithm(StrEnum):
    """How a provider may sign ID tokens. Nothing symmetric, so no secret of ours can sign one."""

    RS256 = "RS256"
    PS256 = "PS256"
    ES256 = "ES256"


class IdentityProvider(BaseModel):
    """One provider, as it is registered there and here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    # Part of the redirect URI that is registered at the provider: a new id is a new registration.
    id: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")
    name: str = Field(pattern=r"^[^\s\x00-\x1f\x7f-\x9f](?:[^\x00-\x1f\x7f-\x9f]{0,58}\S)?$")
    # Compared letter by letter with what the provider says of itself.
    issuer: str = Field(
        pattern=r"^https?://[A-Za-z0-9.:\[\]-]{1,200}(?:/[A-Za-z0-9._~%/-]{0,80})?$"
    )
    client_id: str = Field(pattern=r"^[!-~]{1,200}$")
    client_secret: SecretStr = Field(min_length=CLIENT_SECRET_CHARACTERS_MIN, max_length=500)
    algorithm: IdTokenAlgorithm = IdTokenAlgorithm.RS256
    # Whether somebody with a verified address there gets an account here without asking anybody.
    creates_accounts: bool = False


_PROVIDERS: Final = TypeAdapter(
    Annotated[tuple[IdentityProvider, ...], Field(max_length=PROVIDERS_MAX)]
)


def parse_providers(text: str) -> tuple[IdentityProvider, ...]:
    """The providers of the setting's text. Raises `ValueError` with what is wrong, never with what
    was given."""
    if not text.strip():
        return ()
    try:
        providers = _PROVIDERS.validate_python(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the list"
        raise ValueError(f"oidc_providers: {where}: {first['msg'].lower()}") from None
    except (ValueError, RecursionError):
        raise ValueError("oidc_providers is not a JSON list of providers") from None
    for name in ("id", "issuer"):
        if len({getattr(one, name) for one in providers}) < len(providers):
            raise ValueError(f"oidc_providers: two providers have the same {name}")
    return providers
