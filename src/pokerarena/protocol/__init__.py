"""The agent protocol: what the arena says to an agent, and what it accepts as an answer.

Owns the wire: messages, their JSON, their JSON Schema and their signatures. It never opens a
connection, never keeps time and never judges whether an answer is legal poker.
"""
