"""Agents and their versions, and the seam through which the arena asks a version to act."""
