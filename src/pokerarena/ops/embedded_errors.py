"""What can go wrong with the embedded database, for a person to read."""

from __future__ import annotations


class EmbeddedPostgresError(Exception):
    """The embedded database cannot do what was asked. The text is a sentence for a person."""


class AlreadyRunning(EmbeddedPostgresError):
    """Another living process owns this data directory."""
