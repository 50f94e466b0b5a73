"""One module for each command: its options, and a call. What it does is written elsewhere.

Modules here import nothing heavy at the top: `pokerarena --help` reads all of them.
"""
