"""Real sandboxes for a real Prometheus: the root file system that all tests of them share."""

from tests.sandbox.conftest import root_tree, runc

__all__ = ["root_tree", "runc"]
