"""The schema's history. Revisions expand first and contract one release later."""
