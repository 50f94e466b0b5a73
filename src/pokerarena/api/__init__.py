"""The HTTP API: an edge. It maps requests to services and their errors to problems.

It owns what is said over HTTP, and never decides what a caller may see or do: permissions come
from `auth`, visibility from the rooms, cards from `engine.view`.
"""
