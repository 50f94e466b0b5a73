"""Backups of the embedded database: base backups and continuous WAL, encrypted, and the way back."""
