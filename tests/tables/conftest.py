"""Tables and seats are tested where they are used: in the whole application."""

from tests.api.conftest import arena, new_arena

__all__ = ["arena", "new_arena"]
