"""Logging in through identity providers (OpenID Connect): authorization code with PKCE, and nothing else.

`flow` is the way of one login; the other modules each own one part of it.
"""
