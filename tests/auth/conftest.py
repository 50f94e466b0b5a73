"""Accounts and tokens are tested where they are used: in the whole application."""

from tests.api.conftest import arena, new_arena, provider

__all__ = ["arena", "new_arena", "provider"]
