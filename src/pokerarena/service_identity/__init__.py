"""How the processes of one arena know each other: keys of their own, and short-lived tokens.

`keys` owns the form of private keys and of the set of public ones, `tokens` what is signed with them
and what is believed, `rotation` how a key is published, used and retired. Standard library and
cryptography only: an agent-host, which knows no settings and no database, lives by it.
"""
