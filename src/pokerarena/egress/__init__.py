"""Where traffic may leave to: the operator's rules, approvals for hosted versions, and the proxy."""
