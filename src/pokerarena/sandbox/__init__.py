"""Hosted agents: strangers' code that can do nothing but play.

Owns intake of uploads, the root file system, OCI bundles, quotas, the player on top of them and the
agent-host that runs it all apart from the control plane. It must never give a sandbox a secret, a
network, or a file that another agent or the host can be told by, and it never runs an upload
outside a sandbox.
"""
