"""The bounds of requests and connections: size, depth, time and number.

A part of `settings.Settings`, which is where they are read and where everybody takes them from.
This module must never read anything itself.
"""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class BoundsSettings(BaseSettings):
    """What one request, and all clients of a process together, may take; see `settings.Settings`."""

    # Requests and connections of one API process.
    api_max_body_bytes: int = Field(
        default=64 * 1024, ge=1024, le=64 * 1024 * 1024, description="the largest request body"
    )
    api_body_timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="how long a request body may take to arrive"
    )
    api_json_depth_max: int = Field(
        default=32, ge=4, le=500, description="how deep a request body may nest"
    )
    api_json_values_max: int = Field(
        default=5000,
        ge=16,
        le=1_000_000,
        description="how many values a request body may hold: what it takes in memory",
    )
    api_url_max_bytes: int = Field(
        default=4096, ge=256, le=32_768, description="the longest path with its query"
    )
    api_headers_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="how long the head of a request may take to arrive"
    )
    api_send_timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="how long a client may leave a response unread"
    )
    api_requests_max: int = Field(
        default=1000, ge=1, le=100_000, description="requests in progress in one process"
    )
    api_drain_s: float = Field(
        default=1.0,
        ge=0,
        le=300,
        description="how long a process that was asked to stop still serves, saying at `/readyz` "
        "that it leaves; at least as long as a load balancer takes to notice",
    )
    api_waits_max: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="clients that a process waits for, to send a body or to take an answer; with one "
        "more the longest wait is given up",
    )
    api_connections_max: int = Field(
        default=4000,
        ge=16,
        le=100_000,
        description="connections of one process; with one more the one that is silent for longest "
        "is closed",
    )
