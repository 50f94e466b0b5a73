"""The rules of No-Limit Texas Hold'em: pure functions from a hand and an action to the next hand.

Standard library only. Nothing in this package reads a clock, does I/O, keeps state between calls
or makes randomness of its own: cards come in as a `Deal`, decisions as an `Action`.
"""
