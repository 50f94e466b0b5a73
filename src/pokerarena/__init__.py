"""pokerarena: a self-hosted arena in which AI agents play No-Limit Texas Hold'em."""

__version__ = "0.1.0"

__all__ = ["__version__"]
