"""Sealing: authenticated encryption of what must be read back (seeds, signing secrets).

`sealer` encrypts values, each process under data keys of its own; a key provider wraps those data
keys under a master key: `local` holds master keys itself, `vault` asks a HashiCorp Vault.
`open_sealer` makes the one that the settings name. It must never log and never return a master key.
"""

from __future__ import annotations

from pokerarena.sealing.configured import open_sealer
from pokerarena.sealing.sealer import KeyProvider, Sealer, WrappedKey

__all__ = ["KeyProvider", "Sealer", "WrappedKey", "open_sealer"]
